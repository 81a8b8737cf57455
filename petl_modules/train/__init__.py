"""The command line, config, folds, head start, Brain and checkpoints of a recipe."""

from petl_modules.train.experiment import run_recipe

__all__ = ["run_recipe"]
