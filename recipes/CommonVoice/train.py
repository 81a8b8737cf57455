"""PETL of Whisper on Common Voice: `python train.py HPARAMS --data_folder=FOLDER`."""

from commonvoice_prepare import prepare_sentences

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_sentences)
