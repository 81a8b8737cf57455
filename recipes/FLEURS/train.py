"""PETL on FLEURS: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from fleurs_prepare import prepare_fleurs

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_fleurs)
