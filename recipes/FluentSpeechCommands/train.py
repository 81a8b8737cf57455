"""PETL on Fluent Speech Commands: `python train.py HPARAMS --data_folder=FOLDER`."""

from fluentspeechcommands_prepare import prepare_fluentspeechcommands

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_fluentspeechcommands)
