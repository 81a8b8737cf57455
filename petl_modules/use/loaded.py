"""One adapter at work: what its head says of tokens, and how that is told."""

from pathlib import Path
from typing import Any

import torch

from petl_modules.core.tokens import Tokens
from petl_modules.data.units import joined
from petl_modules.tasks.ctc import CTC, heard
from petl_modules.tasks.heads import CTCHead, OwnHead, TagHead
from petl_modules.use.adapter_file import Adapter
from petl_modules.use.mixed import can_mix

EVEN = 0.5  # the threshold of labels of which nothing else is known
# What is told of one file: strings, numbers, and probabilities by label
Answer = dict[str, Any]


class Loaded:
    """One adapter on a backbone that it shares.

    Arguments
    ---------
    name : str
    adapter : petl_modules.use.adapter_file.Adapter
        The backbone holds its tensors.
    device : torch.device
    """

    def __init__(self, name: str, adapter: Adapter, device: torch.device) -> None:
        self.name, self.info = name, adapter.info
        self.labels: list[str] = adapter.info.get("labels") or []
        self.model = adapter.model
        self.head: Any = adapter.head.to(device)
        self.model.petl.to(device)
        self.tensors = self.model.backbone_tensors()
        self.writes = isinstance(self.head, OwnHead)
        self.mixes = can_mix(self.model) and not self.writes
        text = self.writes or isinstance(self.head, CTCHead)
        tags = isinstance(self.head, TagHead)
        self.gives = "text" if text else "labels" if tags else "label"
        self.thresholds = self.info.get("thresholds") or [EVEN] * len(self.labels)
        # phones stand alone, characters and pieces of words are put together
        self.joined = " ".join if adapter.info.get("task") == CTC.name else joined
        # a text is that of the whole clip, which is never cut
        self.max_duration = None if text else adapter.max_duration

    def outputs(self, tokens: Tokens) -> list:
        """What the head says of each clip: probabilities `(classes,)`, or text."""
        if self.writes:
            sound, counts = tokens.in_time()
            return self.model.backbone.write(sound, counts, **self.head.settings)
        if self.gives == "text":
            scores, counts = self.head(tokens)
            return list(map(self.joined, heard(scores, counts, self.labels)))
        return list(self.head.probabilities(self.head(tokens)).cpu())

    def answer(self, path: str | Path, output: Any) -> Answer:
        """What is told of one file."""
        if self.gives == "text":
            return {"file": str(path), "text": output}
        return {"file": str(path), **self.told(output)}

    def told(self, output: torch.Tensor) -> Answer:
        """What is told of probabilities `(classes,)`: the likeliest label, or all that
        are as likely as their thresholds, likeliest first."""
        values = [round(float(p), 6) for p in output]
        chances = dict(zip(self.labels, values, strict=True))
        if self.gives == "labels":
            trio = zip(self.labels, output.tolist(), self.thresholds, strict=True)
            given = [label for label, chance, least in trio if chance >= least]
            given.sort(key=lambda label: -chances[label])
            return {"labels": given, "probabilities": chances}
        best = int(output.argmax())
        return {
            "label": self.labels[best],
            "probability": values[best],
            "probabilities": chances,
        }
