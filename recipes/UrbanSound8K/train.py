"""PETL on UrbanSound8K: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from urbansound8k_prepare import prepare_urbansound8k

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_urbansound8k)
