"""PETL on FSD50K: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from fsd50k_prepare import prepare_fsd50k

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_fsd50k)
