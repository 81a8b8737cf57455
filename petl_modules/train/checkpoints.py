"""Checkpoints that are there whole or not at all."""

from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process

WHOLE = "WHOLE"


class WholeCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer for processes that may be killed at any moment.

    A process that dies while it saves leaves a folder with some of the files, which
    SpeechBrain would take for the latest checkpoint and fail on. Here a file that is
    written last marks a checkpoint, and a folder without it counts for nothing.

    Arguments
    ---------
    checkpoints_dir : str or Path
    **kwargs
        For `speechbrain.utils.checkpoints.Checkpointer`.
    """

    def save_checkpoint(self, *args, **kwargs):
        """As SpeechBrain's; the mark comes last, and all processes wait for it: which
        checkpoints each of them finds decides how often they meet."""
        checkpoint = super().save_checkpoint(*args, **kwargs)
        if if_main_process():
            (checkpoint.path / WHOLE).touch()
        ddp_barrier()
        return checkpoint

    def list_checkpoints(self):
        """The checkpoints that are whole."""
        return [c for c in super().list_checkpoints() if (c.path / WHOLE).exists()]
