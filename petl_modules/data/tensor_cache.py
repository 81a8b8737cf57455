"""Tensors that are computed once: a folder that several processes may add to."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from petl_modules.files import digest, write_tensors

logger = logging.getLogger(__name__)


class TensorCache:
    """What is known of a folder's tensors, in parts: a killed run goes on with what it
    had, and no process rewrites what another wrote.

    Arguments
    ---------
    folder : str or Path
        One for all that is computed in the same way; damaged files in it count for
        nothing.

    Attributes
    ----------
    known : dict
        Tensors by name.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.known: dict[str, torch.Tensor] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                self.known |= load_file(path)
            except (OSError, SafetensorError):
                logger.warning("%s is damaged: it is computed again.", path)

    def __contains__(self, name: str) -> bool:
        return name in self.known

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.known[name]

    def add(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep some more, here and on disk."""
        if tensors:
            part = f"{digest(sorted(tensors))[:20]}.safetensors"
            write_tensors(self.folder / part, tensors)
            self.known |= tensors
