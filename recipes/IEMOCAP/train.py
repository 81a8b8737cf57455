"""PETL on IEMOCAP: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from iemocap_prepare import prepare_iemocap

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_iemocap)
