"""Data sets: how layouts are read, clips checked, split, decoded and batched."""

from petl_modules.data.folders import (
    clip_id,
    clips_in,
    data_folder_of,
    files_below,
    folders_in,
    inside,
)
from petl_modules.data.manifests import SPLITS, Prepared, Splits, make_manifests
from petl_modules.data.reading import is_audio, read_clip
from petl_modules.data.tables import read_lines, read_table, whole_number

__all__ = [
    "SPLITS",
    "Prepared",
    "Splits",
    "clip_id",
    "clips_in",
    "data_folder_of",
    "files_below",
    "folders_in",
    "inside",
    "is_audio",
    "make_manifests",
    "read_clip",
    "read_lines",
    "read_table",
    "whole_number",
]
