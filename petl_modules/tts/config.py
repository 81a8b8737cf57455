"""What a synthesiser's folder says of it: config.json."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from petl_modules.errors import UserError

KIND = "fastspeech2"
CONFIG, WEIGHTS, ALIGNER = "config.json", "model.safetensors", "aligner.safetensors"
VOCODER = "vocoder"  # a folder beside them, if the base has one of its own
ALIGNMENTS = ("forced", "learned")


@dataclass(frozen=True)
class FastSpeech2Config:
    """Sizes of a FastSpeech 2, its symbols, its spectrogram, and whom it has heard.

    Attributes
    ----------
    text : str
        arpabet or graphemes.
    alignment : str
        Where durations come from in training: forced, found before by
        `petl_modules.tts.forced_alignment`, or learned with the rest.
    kernel_sizes : tuple of int
        Of the two convolutions of every feed-forward block.
    speakers : tuple of str
        Those of the training data.
    embedding_size : int or None
        Size of the speaker encoder's embeddings; None for learned vectors.
    """

    text: str = "arpabet"
    alignment: str = "learned"  # as of bases whose config does not say it
    hidden_size: int = 256
    heads: int = 2
    encoder_layers: int = 4
    decoder_layers: int = 6
    ffn_size: int = 1024
    kernel_sizes: tuple[int, ...] = (9, 1)
    postnet_size: int = 512
    dropout: float = 0.1
    sample_rate: int = 22050
    hop_length: int = 256
    win_length: int = 1024
    n_fft: int = 1024
    n_mels: int = 80
    f_min: float = 0.0
    f_max: float = 8000.0
    speakers: tuple[str, ...] = ()
    embedding_size: int | None = None

    model_type: ClassVar[str] = KIND

    def __post_init__(self) -> None:
        for name in ("kernel_sizes", "speakers"):  # lists in yaml and JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def features(self) -> dict[str, Any]:
        """The settings of `SpeechFeatures`."""
        return {
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "win_length": self.win_length,
            "n_fft": self.n_fft,
            "n_mels": self.n_mels,
            "f_min": self.f_min,
            "f_max": self.f_max,
        }


def read_config(path: Path) -> FastSpeech2Config:
    """The config of a folder."""
    values = json.loads(path.read_text(encoding="utf-8"))
    values.pop("model_type")
    known = {field.name for field in fields(FastSpeech2Config)}
    if unknown := sorted(values.keys() - known):
        raise UserError(f"{path} holds {unknown[0]}, which is no setting of a base.")
    try:
        return FastSpeech2Config(**values)
    except TypeError as error:
        raise UserError(f"{path} is damaged ({error}).") from None
