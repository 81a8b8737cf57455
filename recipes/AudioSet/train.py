"""PETL on AudioSet: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from audioset_prepare import prepare_audioset

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_audioset)
