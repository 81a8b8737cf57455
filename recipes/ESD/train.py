"""PETL on ESD: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from esd_prepare import prepare_esd

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_esd)
