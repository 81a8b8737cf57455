"""PETL on VoxCeleb: `python train.py hparams/adapter.yaml --data_folder=FOLDER`."""

from voxceleb_prepare import prepare_voxceleb

from petl_modules.train import run_recipe

if __name__ == "__main__":
    run_recipe(prepare_voxceleb)
