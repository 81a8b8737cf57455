"""Speech synthesis on L2ARCTIC: `python train.py HPARAMS --data_folder=FOLDER`."""

from l2arctic_prepare import prepare_speech

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_speech)
