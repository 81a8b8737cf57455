"""PETL on LibriSpeech's phones: `python train.py HPARAMS --data_folder=FOLDER`."""

from librispeech_prepare import prepare_phonemes

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_phonemes)
