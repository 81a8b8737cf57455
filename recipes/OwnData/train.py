"""PETL on one's own recordings: `python train.py hparams/adapter.yaml --data=TABLE`."""

from owndata_prepare import prepare_owndata

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_owndata)
