"""PETL of Whisper on LibriSpeech: `python train.py HPARAMS --data_folder=FOLDER`."""

from librispeech_prepare import prepare_sentences

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_sentences)
