"""PETL on ESC-50: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from esc50_prepare import prepare_esc50

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_esc50)
