"""One backbone that computes for several adapters, whoever asks: they take turns, or
serve one batch together. Clips of about one length run in one pass."""

import threading
from collections.abc import Iterator
from pathlib import Path

import torch

from petl_modules.backbones import Backbone
from petl_modules.core.masking import sample_counts, valid
from petl_modules.core.tokens import Tokens
from petl_modules.core.transfer import to_device
from petl_modules.core.turns import Turns
from petl_modules.errors import UserError, one_of
from petl_modules.tts.head import VoiceHead
from petl_modules.use.adapter_file import read_adapter
from petl_modules.use.loaded import Loaded
from petl_modules.use.mixed import MixedModel

ALIKE = 0.75  # least length of a clip in a pass, relative to the longest
CPU_SECONDS = 16  # of sound and padding in a pass on a CPU


class Engine:
    """Adapters on one frozen backbone, which serves one call at a time: threads wait
    for one another, and none meets the adapter of another.

    Arguments
    ---------
    backbone : Backbone
        With its pretrained weights.
    device : str
    precision : str
        fp32, or bf16 for autocast.

    Attributes
    ----------
    loaded : dict
        `{name: Loaded}`, in the order in which they were added.
    """

    def __init__(
        self, backbone: Backbone, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        self.device = torch.device(device)
        self.narrow = one_of("precision", precision, ("fp32", "bf16")) == "bf16"
        self.backbone = backbone.to(self.device)
        self.loaded: dict[str, Loaded] = {}
        self._mixed: MixedModel | None = None
        self._turns = Turns(self.backbone)
        self._lock = threading.RLock()

    def add(self, folder: str | Path, name: str) -> None:
        """Load one more adapter.

        Raises
        ------
        UserError
            As of `petl_modules.use.inference.Adapters.add`.
        """
        with self._lock:
            if name in self.loaded:
                raise UserError(
                    f"There is an adapter {name} already: give another name."
                )
            self._turns.give(None, {})
            adapter = read_adapter(folder, self.backbone)
            if isinstance(adapter.head, VoiceHead):
                raise UserError(
                    f"The adapter {folder} speaks, and has no answer to recordings: "
                    "use petl synthesize."
                )
            self.loaded[name] = Loaded(name, adapter, self.device)
            if self._mixed is not None:
                self.backbone.forget(self._mixed)
                self._mixed = None

    def outputs(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None, names: list[str]
    ) -> list:
        """Probabilities or text of every clip: all adapters that mix together, each of
        the others by itself.

        Arguments
        ---------
        wavs : torch.Tensor
            `(batch, samples)` at the backbone's rate, zero-padded on the right.
        wav_lens : torch.Tensor or None
            Relative lengths `(batch,)`; None when nothing is padded.
        names : list of str
            Each clip's adapter.
        """
        kind = self.device.type
        autocast = torch.autocast(kind, torch.bfloat16, enabled=self.narrow)
        with self._lock, torch.no_grad(), autocast:
            return self._outputs(wavs, wav_lens, names)

    def _outputs(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None, names: list[str]
    ) -> list:
        wavs = wavs.to(self.device)
        counts = self._cut(sample_counts(wavs, wav_lens).cpu(), names)
        mixing = [name for name in set(names) if self.loaded[name].mixes]
        others = [[name] for name in set(names).difference(mixing)]
        outputs: list = [None] * len(names)
        for together in filter(None, [mixing, *others]):
            theirs = [i for i, name in enumerate(names) if name in together]
            for rows in self._passes(theirs, counts.tolist()):
                heard_by = [names[i] for i in rows]
                tokens = self._tokens(wavs[rows], counts[rows], heard_by)
                for name in set(heard_by):
                    own = [j for j, other in enumerate(heard_by) if other == name]
                    found = self.loaded[name].outputs(tokens.rows(own))
                    for j, output in zip(own, found, strict=True):
                        outputs[rows[j]] = output
        return outputs

    def _passes(self, rows: list[int], counts: list[int]) -> Iterator[list[int]]:
        """Clips parted into passes of about one length, for padding costs what sound
        does; on a CPU into short passes, for fresh memory is slow to get there."""
        if self.backbone.has_head:  # it pads every clip to one length
            yield rows
            return
        most = CPU_SECONDS * self.backbone.sample_rate
        rows = sorted(rows, key=lambda row: -counts[row])
        while rows:
            longest = counts[rows[0]]
            size = sum(counts[row] >= ALIKE * longest for row in rows)
            if self.device.type == "cpu":
                size = min(size, max(1, most // longest))
            yield rows[:size]
            rows = rows[size:]

    def _cut(self, counts: torch.Tensor, names: list[str]) -> torch.Tensor:
        """Samples of each clip that are used, as in training."""
        seconds = [self.loaded[name].max_duration for name in names]
        rate = self.backbone.sample_rate
        longest = [
            count if most is None else round(most * rate)
            for count, most in zip(counts.tolist(), seconds, strict=True)
        ]
        return counts.minimum(counts.new_tensor(longest))

    def _tokens(
        self, wavs: torch.Tensor, counts: torch.Tensor, names: list[str]
    ) -> Tokens:
        """The backbone's tokens of clips, each through its own adapter."""
        samples = int(counts.max())
        wavs = wavs[:, :samples] * valid(to_device(counts, wavs.device), samples)
        layers = any(self.loaded[name].head.weighted_sum for name in names)
        if len(set(names)) == 1:
            adapter = self.loaded[names[0]]
            self._turns.give(adapter.model, adapter.tensors)
        else:
            self._serve_mixed(names)
        return self.backbone(wavs, counts / samples, all_layers=layers)

    def _serve_mixed(self, names: list[str]) -> None:
        """Let the backbone compute for several adapters that mix."""
        mixing = {name: a for name, a in self.loaded.items() if a.mixes}
        if self._mixed is None:
            self._turns.give(None, {})
            self._mixed = MixedModel(
                self.backbone,
                [adapter.model for adapter in mixing.values()],
                [adapter.tensors for adapter in mixing.values()],
            )
        places = list(mixing)
        clips = [places.index(name) for name in names]
        self._mixed.clips = torch.tensor(clips, device=self.device)
        self._turns.give(self._mixed, self._mixed.tensors)
