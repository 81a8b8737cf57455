"""Plots stood here before `petl_modules.grid`; what imports them goes on."""

from petl_modules.grid.plots import confusions, few_shot_curves, trade_off
from petl_modules.tasks.pictures import confusion_matrix

__all__ = ["confusion_matrix", "confusions", "few_shot_curves", "trade_off"]
