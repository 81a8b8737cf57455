"""PETL on VCTK: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from vctk_prepare import prepare_vctk

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_vctk)
