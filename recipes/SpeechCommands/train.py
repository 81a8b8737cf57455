"""PETL on Speech Commands: `python train.py HPARAMS --data_folder=FOLDER`."""

from speechcommands_prepare import prepare_speechcommands

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_speechcommands)
