"""PETL on Audio SNIPS: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from snips_prepare import prepare_snips

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_snips)
