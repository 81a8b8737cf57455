"""What a synthesiser's folder says of it: config.json."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from petl_modules.errors import UserError
from petl_modules.kinds import Items, PositiveInt, Probability, Size

KIND = "fastspeech2"
CONFIG, WEIGHTS, ALIGNER = "config.json", "model.safetensors", "aligner.safetensors"
VOCODER = "vocoder"  # a folder beside them, if the base has one of its own
ALIGNMENTS = ("forced", "learned")
KernelSizes = Annotated[list[Size], Items(2, 2)]


@dataclass(frozen=True)
class FastSpeech2Config:
    """Sizes of a FastSpeech 2, its symbols, its spectrogram, and whom it has heard.

    Attributes
    ----------
    text : str
        The symbols that a text becomes: phones or letters.
    alignment : str
        Where durations come from: a forced alignment before training, or one that is
        learned with the rest.
    hidden_size : int
        Size of the tokens.
    heads : int
        The number of attention heads.
    encoder_layers : int
        The number of layers that read the symbols.
    decoder_layers : int
        The number of layers that write the frames.
    ffn_size : int
        Width of the feed-forward blocks.
    kernel_sizes : list of int
        Widths of the two convolutions of every feed-forward block.
    postnet_size : int
        Width of the convolutions after the decoder.
    dropout : float
        Dropout of all layers.
    sample_rate : int
        Samples of sound in a second.
    hop_length : int
        Samples between two frames.
    win_length, n_fft, n_mels, f_min, f_max
        Of the spectrogram, as `SpeechFeatures` takes them.
    speakers : tuple of str
        Those of the training data.
    embedding_size : int or None
        Size of speaker_encoder's embeddings, such as 192 of ECAPA-TDNN; None for
        vectors that are learned.
    """

    text: Literal["arpabet", "graphemes"] = "arpabet"
    alignment: Literal["forced", "learned"] = "learned"  # of a base that says nothing
    hidden_size: Size = 256
    heads: Size = 2
    encoder_layers: Size = 4
    decoder_layers: Size = 6
    ffn_size: Size = 1024
    kernel_sizes: KernelSizes = (9, 1)
    postnet_size: Size = 512
    dropout: Probability = 0.1
    sample_rate: PositiveInt = 22050
    hop_length: PositiveInt = 256
    win_length: int = 1024
    n_fft: int = 1024
    n_mels: int = 80
    f_min: float = 0.0
    f_max: float = 8000.0
    speakers: tuple[str, ...] = ()
    embedding_size: Size | None = None

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
