"""The head of a synthesiser: its speakers."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from petl_modules.tts.speech import Speech

BY_SPEAKER = ("table", "spectrum")  # tensors of a row for each


class VoiceHead(nn.Module):
    """Speakers' vectors, which a synthesiser adds to the encoder's output.

    Arguments
    ---------
    hidden_size : int
        Size of the tokens.
    speakers : list of str
    embedding_size : int or None
        Size of a speaker encoder's embeddings, which are projected; None for vectors
        that are learned.
    bins : int or None
        Of the spectrogram, where every speaker has a mean spectrum too: what throat,
        microphone and room add to each frame. None for none.
    """

    weighted_sum = False  # it reads no hidden states

    def __init__(
        self,
        hidden_size: int,
        speakers: list[str],
        embedding_size: int | None = None,
        bins: int | None = None,
    ) -> None:
        super().__init__()
        self.settings = {
            "hidden_size": hidden_size,
            "speakers": list(speakers),
            "embedding_size": embedding_size,
            "bins": bins,
        }
        count = len(self.settings["speakers"])
        self.spectrum = nn.Parameter(torch.zeros(count, bins)) if bins else None
        self.projection = None
        size = embedding_size or hidden_size
        table = torch.zeros(count, size)
        if embedding_size:
            self.register_buffer("table", table)
            self.projection = nn.Linear(embedding_size, hidden_size)
        else:
            self.table = nn.Parameter(table)

    def forward(self, speakers: Tensor) -> Tensor:
        """Numbers of speakers `(batch,)` to vectors `(batch, hidden)`."""
        vectors = self.table[speakers]
        return vectors if self.projection is None else self.projection(vectors)

    def coloured(self, speech: Speech, speakers: Tensor) -> Speech:
        """Speech of speakers `(batch,)` with their mean spectra."""
        if self.spectrum is None:
            return speech
        added = self.spectrum[speakers].unsqueeze(1)
        mels = {"mel": speech.mel + added, "coarse_mel": speech.coarse_mel + added}
        return replace(speech, **mels)


def voice_head(
    backbone: Any,
    speakers: list[str] | None = None,
    num_speakers: int = 1,
    spectrum: bool = True,
) -> VoiceHead:
    """A `VoiceHead` for a synthesiser.

    Speakers whom the backbone has heard start from their own vectors, others from the
    mean of those, and all alike where it has heard nobody.

    Arguments
    ---------
    backbone : petl_modules.tts.fastspeech2.FastSpeech2Backbone
    speakers : list of str or None
        None for nameless ones.
    num_speakers : int
        How many nameless ones.
    spectrum : bool
        Whether voices have mean spectra of their own beside what the base says, which
        start from the clips that train them; a base that knows no voice has no use
        for them.
    """
    config, known = backbone.config, backbone.voices
    names = speakers or [f"speaker{i}" for i in range(num_speakers)]
    has_own = known and (spectrum or "spectrum" in known)
    bins = config.n_mels if has_own else None
    head = VoiceHead(backbone.hidden_size, names, config.embedding_size, bins)
    state = head.state_dict()
    for name, tensor in known.items():
        if name not in BY_SPEAKER:
            state[name] = tensor.clone()
            continue
        rows, mean = dict(zip(config.speakers, tensor, strict=True)), tensor.mean(0)
        state[name] = torch.stack([rows.get(speaker, mean) for speaker in names])
    head.load_state_dict(state)
    return head
