"""PETL on Common Voice: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from commonvoice_prepare import prepare_units

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_units)
