"""What tasks share: the parts that most of them leave as they are."""

from petl_modules.core.transfer import to_device


class Task:
    """A task: what a batch gives the model, the loss, the metrics.

    Attributes
    ----------
    name : str
    sound : tuple of str
        Items of a data set that the model reads.
    target : str
        The item that the loss reads.
    cuts : bool
        Whether a target holds for a part of its clip too.
    fitted : tuple of str
        Splits without the clips that are too long, or too short for their text.
    """

    sound = ("sig",)
    cuts = True
    fitted = ()

    def inputs(self, batch):
        """What the model is called with, by name."""
        return {"wavs": batch.sig.data, "wav_lens": batch.sig.lengths}

    def right(self, predictions, batch):
        """How many clips of a batch in training are told right, a number where the
        predictions are; None where that is no matter of whole clips."""
        del predictions, batch

    def augment(self, batch):
        """Change a batch of sound, in place, before it trains."""

    def loggers(self, folder, tensorboard):
        """More of SpeechBrain's train loggers, called after every epoch.

        Arguments
        ---------
        folder : Path
            Of the run.
        tensorboard : speechbrain.utils.train_logger.TensorboardLogger
        """
        del folder, tensorboard
        return []


def padded(data):
    """SpeechBrain's padded data as a tensor `(batch, steps, ...)` and the numbers of
    valid steps `(batch,)` on its device."""
    return data.data, to_device(lengths(data), data.data.device)


def lengths(data):
    """The numbers of valid steps of SpeechBrain's padded data, `(batch,)`, where its
    relative lengths are: in a `petl_modules.data.batch.Batch`, the CPU."""
    return (data.lengths * data.data.shape[1]).round().long()
