"""What tasks share that compare sequences of symbols or words."""

from io import StringIO
from pathlib import Path

from speechbrain.utils.metric_stats import ErrorRateStats

from petl_modules.files import write_text
from petl_modules.tasks.base import Task


class SequenceTask(Task):
    """One error rate: insertions, deletions and substitutions by what is to be said.

    Attributes
    ----------
    metric : str
        What the error rate is called; a fraction.
    """

    cuts = False  # a text is that of the whole clip
    fitted = ("train",)

    def start(self, final: bool = False) -> None:
        """Forget what was collected; `final` after training."""
        del final
        self.stats = ErrorRateStats()

    def metrics(self) -> dict[str, float]:
        """The error rate."""
        return {self.metric: self.stats.summarize("error_rate") / 100}

    def error(self, metrics: dict[str, float], loss: float) -> float:
        """What a better epoch makes smaller; among equals the loss decides."""
        return metrics[self.metric] + 1e-6 * min(loss, 1e3)

    def write(self, folder: Path) -> None:
        """Alignments of what was collected, in SpeechBrain's format."""
        write_alignments(folder / "alignments.txt", self.stats)


def write_alignments(path: Path, stats: ErrorRateStats) -> None:
    """Hypotheses beside what was to be said, in SpeechBrain's format."""
    stream = StringIO()
    stats.write_stats(stream)
    write_text(path, stream.getvalue())
