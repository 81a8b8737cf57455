"""Text by connectionist temporal classification, scored by words and characters."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.decoders.ctc import CTCBeamSearcher
from speechbrain.utils.metric_stats import ErrorRateStats

from petl_modules.data.units import joined
from petl_modules.errors import UserError, one_of
from petl_modules.kinds import PositiveInt
from petl_modules.tasks.ctc import CTC, CTCOutput, heard
from petl_modules.tasks.sequence import write_alignments

# what is compared, and the file for its alignments
RATES = {
    "word_error_rate": (str.split, "wer.txt"),
    "character_error_rate": (list, "cer.txt"),
}
Metric = Literal["word_error_rate", "character_error_rate"]


class SpeechRecognition(CTC):
    """The text of a clip, spelt by characters or units of `petl_modules.data.units`.

    Errors are counted against the text itself, not against its units. After every epoch
    texts are the best symbols of each step and only the metric that chooses the epoch
    is worked out; after training, both are, of texts found by beam search if asked for.

    Arguments
    ---------
    labels : list of str
        The symbols, the blank first.
    metric : str
        What the best epoch has least of.
    beam_size : int or None
        Width of a beam search after training; null for the best symbols.
    language_model : str or None
        A file of n-grams of words in KenLM's formats (.arpa or binary), for the beam
        search.
    lm_weight : float
        The weight of the language model in the beam search.
    word_bonus : float
        What the beam search adds for every word.

    Raises
    ------
    UserError
        For an unknown metric, or a language model that is not there, cannot be read
        here, or has no beam.
    """

    name = "recognition"
    choices = tuple(RATES)

    def __init__(
        self,
        labels: list[str],
        metric: Metric = "word_error_rate",
        beam_size: PositiveInt | None = None,
        language_model: str | None = None,
        lm_weight: float = 0.5,
        word_bonus: float = 1.5,
    ) -> None:
        super().__init__(labels, one_of("metric", metric, self.choices))
        refuse_language_model(language_model, beam_size)
        self.texts, self.searcher = {}, None
        if beam_size is not None:
            self.searcher = searcher(
                vocab_list=self.labels,
                kenlm_model_path=language_model,
                alpha=lm_weight,
                beta=word_bonus,
                beam_size=beam_size,
            )

    def add_targets(self, dataset: DynamicItemDataset) -> None:
        """Give a data set the item that `loss` reads, and keep the texts."""
        super().add_targets(dataset)
        self.texts |= {entry["wav"]: entry["text"] for entry in dataset.data.values()}

    def start(self, final: bool = False) -> None:
        """Forget what was collected; `final` after training."""
        self.final = final
        self.stats = {
            rate: ErrorRateStats() for rate in RATES if final or rate == self.metric
        }

    def collect(self, predictions: CTCOutput, batch: PaddedBatch) -> None:
        """Keep the texts of a batch."""
        guesses, truths = self.guesses(predictions), self.truths(batch)
        for rate, stats in self.stats.items():
            part, _ = RATES[rate]
            stats.append(batch.id, list(map(part, guesses)), list(map(part, truths)))

    def guesses(self, predictions: CTCOutput) -> list[str]:
        """Texts that are heard; predictions are those of `CTCHead`."""
        logits, counts = predictions
        if self.searcher is None or not self.final:
            return [joined(said) for said in heard(logits, counts, self.labels)]
        scores = logits.float().log_softmax(-1).cpu()
        rows = zip(scores, counts.tolist(), strict=True)
        # one by one: the searcher would round relative lengths down
        return [joined(self.searcher(row[None, :n])[0][0].text) for row, n in rows]

    def truths(self, batch: PaddedBatch) -> list[str]:
        """The texts of a batch as they are."""
        return [self.texts[wav] for wav in batch.wav]

    def metrics(self) -> dict[str, float]:
        """Error rates: insertions, deletions and substitutions by words, or by
        characters, spaces among them."""
        return {
            rate: stats.summarize("error_rate") / 100
            for rate, stats in self.stats.items()
        }

    def write(self, folder: Path) -> None:
        """Alignments of what was collected, in SpeechBrain's format."""
        for rate, stats in self.stats.items():
            write_alignments(folder / RATES[rate][1], stats)


def searcher(kenlm_model_path: str | None, **settings: Any) -> CTCBeamSearcher:
    """SpeechBrain's beam search, with a language model that can be read."""
    try:
        return CTCBeamSearcher(0, kenlm_model_path=kenlm_model_path, **settings)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The language_model {kenlm_model_path} cannot be read ({error})."
        ) from None


def refuse_language_model(path: str | None, beam_size: int | None) -> None:
    """Raise a UserError for a language model that cannot be used."""
    if path is None:
        return
    if beam_size is None:
        raise UserError("A language_model needs a beam search: pass --beam_size=50.")
    if not Path(path).is_file():
        raise UserError(f"There is no language_model {path}.")
    if find_spec("kenlm") is None or find_spec("pygtrie") is None:
        raise UserError(
            "A language_model needs the packages kenlm and pygtrie: "
            "pip install kenlm pygtrie."
        )
