"""Speech synthesis on LJSpeech: `python train.py HPARAMS --data_folder=FOLDER`."""

from ljspeech_prepare import prepare_speech

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_speech)
