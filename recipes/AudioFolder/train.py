"""PETL on one's own recordings: `python train.py hparams/adapter.yaml`."""

from audiofolder_prepare import prepare_audiofolder

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_audiofolder)
