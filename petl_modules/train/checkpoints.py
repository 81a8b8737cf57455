"""Checkpoints that are there whole or not at all, and belong to one run."""

import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import (
    Checkpoint,
    Checkpointer,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import (
    ddp_barrier,
    ddp_broadcast,
    if_main_process,
)
from speechbrain.utils.epoch_loop import EpochCounterWithStopper

from petl_modules.errors import UserError
from petl_modules.files import checksum, digest, write_json

logger = logging.getLogger(__name__)

WHOLE = "WHOLE"
# Knobs whose defaults earlier versions did not write down
DEFAULTS_OF_OLD = ("reduction_rate", "kernel_size", "dropout")
KEPT = ("current", "best_limit", "best_score", "should_stop")  # of the counter


@dataclass(frozen=True)
class Belongs:
    """What a checkpoint was made with: it fits nothing else.

    Attributes
    ----------
    settings : dict
        Those that change what a run computes.
    manifests : dict
        A digest of each split's clips and labels.
    backbone : str
        The fingerprint of its weights.
    """

    settings: dict[str, Any]
    manifests: dict[str, str]
    backbone: str

    def difference(self, theirs: dict[str, Any], where: Path) -> str | None:
        """What differs in a checkpoint, in a sentence, or None."""
        settings = plain(self.settings)
        # of a head start, number_of_epochs and lr are other names for these
        for key in sorted(settings, key=lambda key: not key.startswith("head_start")):
            value = settings[key]
            old = theirs["settings"].get(key, value)
            if old is None and key in DEFAULTS_OF_OLD:
                old = value
            if old != value:
                return f"{where} holds a run with {key}={old}, now it is {value}"
        for split, value in self.manifests.items():
            if theirs["manifests"].get(split) != value:
                return (
                    f"The {split} data have changed since the run in {where} was "
                    "interrupted"
                )
        if theirs["backbone"] != self.backbone:
            return (
                f"The backbone's weights have changed since the run in {where} was "
                "interrupted"
            )
        return None


class WholeCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer for processes that may be killed at any moment, on
    disks that may lie.

    A process that dies while it saves leaves a folder with some of the files, which
    SpeechBrain would take for the latest checkpoint and fail on. Here a file that is
    written last marks a checkpoint: it holds the checksums of all others, and what the
    checkpoint belongs to. A folder without it, or that is not as it says, counts for
    nothing.

    Arguments
    ---------
    folder : str or Path
    belongs : Belongs or None
        What is refused where it differs.
    **kwargs
        For `speechbrain.utils.checkpoints.Checkpointer`.
    """

    def __init__(
        self,
        checkpoints_dir: str | Path,
        *args: Any,
        belongs: Belongs | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(checkpoints_dir, *args, **kwargs)
        self.belongs = belongs
        self._known: dict[Path, Checkpoint] = {}  # what was read, which takes time

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> Checkpoint:
        """As SpeechBrain's; the mark comes last, and all processes wait for it: which
        checkpoints each of them finds decides how often they meet."""
        checkpoint = super().save_checkpoint(*args, **kwargs)
        if if_main_process():
            mark(checkpoint.path, self.belongs)
            self._known[checkpoint.path] = checkpoint
        ddp_barrier()
        return checkpoint

    def save_and_keep_only(
        self, *args: Any, num_to_keep: int = 1, **kwargs: Any
    ) -> None:
        """As SpeechBrain's, but always two of a kind, for when one is damaged."""
        # by SpeechBrain's default all calls add to one list, and each goes through it
        kwargs = {"importance_keys": [], **kwargs}
        super().save_and_keep_only(*args, num_to_keep=max(2, num_to_keep), **kwargs)

    def list_checkpoints(self) -> list[Checkpoint]:
        """The checkpoints that are whole. All processes find what the main one does:
        they meet for each that is deleted, and one that found another number would wait
        for ever."""
        found = None
        if if_main_process():
            folders = filter(self.is_whole, self._list_checkpoint_dirs())
            found = [self._known[folder] for folder in folders]
        return ddp_broadcast(found, src=0)

    def is_whole(self, folder: Path) -> bool:
        """Whether a checkpoint is as it was saved. One that is not whole is looked at
        again: another process may be saving it just now."""
        if folder not in self._known and read_mark(folder) is not None:
            (self._known[folder],) = self._construct_checkpoint_objects([folder])
        return folder in self._known

    def make_ready(self) -> None:
        """Take what is damaged away, and refuse what belongs to another run.

        Where one was lost all later ones go too: training goes on from the one before
        it, and comes to what it would have been.

        Raises
        ------
        UserError
            Naming what differs.
        """
        if if_main_process():
            folders = sorted(self._list_checkpoint_dirs(), key=age)
            lost = next(
                (i for i, f in enumerate(folders) if not self.is_whole(f)), None
            )
            if lost is not None:
                if any((f / WHOLE).exists() for f in folders[lost:]):
                    logger.warning(
                        "%s is damaged: training goes on from what was before it.",
                        folders[lost],
                    )
                for folder in folders[lost:]:
                    shutil.rmtree(folder)
        ddp_barrier()
        self._known.clear()
        for checkpoint in self.list_checkpoints():
            theirs = (read_mark(checkpoint.path) or {}).get("belongs")
            if self.belongs is None or theirs is None:
                continue
            where = Path(self.checkpoints_dir).parent
            if found := self.belongs.difference(theirs, where):
                raise UserError(
                    f"{found}: choose another --output_folder, or delete that folder."
                )


@register_checkpoint_hooks
class Counter(EpochCounterWithStopper):
    """SpeechBrain's counter of epochs; its patience is saved with its number.

    Arguments
    ---------
    epochs : int
    patience : int or None
        Epochs without a smaller error after which it stops; None: never.
    """

    def __init__(self, epochs: int, patience: int | None = None) -> None:
        never = epochs + 1
        super().__init__(epochs, patience or never, limit_warmup=0, direction="min")

    @mark_as_saver
    def _save(self, path: str | Path) -> None:
        state = {key: getattr(self, key) for key in KEPT}
        Path(path).write_text(json.dumps(state), encoding="utf-8")

    @mark_as_loader
    def _load(self, path: str | Path, end_of_epoch: bool) -> None:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
        for key in KEPT:
            setattr(self, key, state[key])
        self.current -= not end_of_epoch


def mark(folder: Path, belongs: Belongs | None) -> None:
    """Mark a checkpoint as whole."""
    content = {
        "files": {path.name: checksum(path) for path in sorted(folder.iterdir())},
        "belongs": None if belongs is None else plain(asdict(belongs)),
    }
    write_json(folder / WHOLE, {**content, "checksum": digest(content)})


def read_mark(folder: Path) -> dict[str, Any] | None:
    """What the mark of a checkpoint says, or None where the checkpoint is not whole."""
    try:
        said = json.loads((folder / WHOLE).read_text(encoding="utf-8"))
        content = {key: said[key] for key in ("files", "belongs")}
        if said["checksum"] != digest(content):
            return None
        fine = all(checksum(folder / name) == s for name, s in said["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return content if fine else None


# Helpers


def plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))


def age(folder: Path) -> tuple[str, int]:
    """When a checkpoint was begun: the second, which its name tells, and when it was
    last written to."""
    second, _, _ = folder.name.rpartition("+")
    return second, folder.stat().st_mtime_ns
