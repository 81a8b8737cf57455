"""PETL on MELD's lines: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from meld_prepare import prepare_text

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_text)
