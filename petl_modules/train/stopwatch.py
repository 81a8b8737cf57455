"""How long a run took, over all its parts."""

import time
from pathlib import Path

from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)


@register_checkpoint_hooks
class Stopwatch:
    """Seconds since it was made, and before that in a run that was interrupted."""

    def __init__(self) -> None:
        self.before, self.began = 0.0, time.monotonic()
        self.taken_up = False

    @property
    def total(self) -> float:
        """Seconds so far."""
        return self.before + time.monotonic() - self.began

    @mark_as_saver
    def _save(self, path: str | Path) -> None:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(repr(self.total))

    @mark_as_loader
    def _load(self, path: str | Path, end_of_epoch: bool) -> None:
        del end_of_epoch
        if not self.taken_up:  # not when the best epoch is loaded at the end
            with open(path, encoding="utf-8") as stream:
                self.before = float(stream.read())
