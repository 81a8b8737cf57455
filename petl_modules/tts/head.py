"""The head of a synthesiser: its speakers."""

from typing import Any

import torch
from torch import Tensor, nn


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
    """

    weighted_sum = False  # it reads no hidden states

    def __init__(
        self, hidden_size: int, speakers: list[str], embedding_size: int | None = None
    ) -> None:
        super().__init__()
        self.settings = {
            "hidden_size": hidden_size,
            "speakers": list(speakers),
            "embedding_size": embedding_size,
        }
        self.projection = None
        size = embedding_size or hidden_size
        table = torch.zeros(len(self.settings["speakers"]), size)
        if embedding_size:
            self.register_buffer("table", table)
            self.projection = nn.Linear(embedding_size, hidden_size)
        else:
            self.table = nn.Parameter(table)

    def forward(self, speakers: Tensor) -> Tensor:
        """Numbers of speakers `(batch,)` to vectors `(batch, hidden)`."""
        vectors = self.table[speakers]
        return vectors if self.projection is None else self.projection(vectors)


def voice_head(
    backbone: Any, speakers: list[str] | None = None, num_speakers: int = 1
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
    """
    config, known = backbone.config, backbone.voices
    names = speakers or [f"speaker{i}" for i in range(num_speakers)]
    head = VoiceHead(backbone.hidden_size, names, config.embedding_size)
    if known:
        state = {n: t.clone() for n, t in known.items() if n != "table"}
        rows = dict(zip(config.speakers, known["table"], strict=True))
        mean = known["table"].mean(0)
        state["table"] = torch.stack([rows.get(name, mean) for name in names])
        head.load_state_dict(state)
    return head
