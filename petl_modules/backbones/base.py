"""What every backbone is: waveforms in, hidden states and a mask out."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.transforms import SpeedPerturbation

from petl_modules.backbones.checkpoint import Checkpoint
from petl_modules.core.access_points import AccessPoints, LayerPoints, first
from petl_modules.core.family import Family
from petl_modules.core.host import HostModule, digest_of
from petl_modules.core.masking import sample_counts, valid
from petl_modules.core.precision import exact_convolutions, without_autocast
from petl_modules.core.recompute import recomputed
from petl_modules.core.tokens import Tokens
from petl_modules.core.transfer import to_device
from petl_modules.errors import UserError

SILENT_SECONDS = 1.0
SLOWEST, FASTEST = 0.5, 2.0


class Backbone(HostModule):
    """A pretrained Transformer for sound, run layer by layer.

    A subclass says in `embed` how waveforms become the tokens of the first layer,
    and in `run_layer` how a layer is called; the loop over the layers is here, so
    that learned tokens can be put in, LayerDrop cannot strike, and short clips
    cost what they are.

    Arguments
    ---------
    model : transformers.PreTrainedModel
    family : Family
        Its access points.
    source : str
        Hub id or folder that the weights came from.
    sample_rate : int
        Hz.
    preprocessing : dict
        All that the features depend on, JSON-able.
    spec_augment : callable or None
        Maps features to features; used only while `augment` is on.

    Attributes
    ----------
    points : AccessPoints
        Of the encoder.
    parts : dict
        The `AccessPoints` of all parts: encoder, and decoder where there is one.
    """

    # of which class of transformers it is a part, and where that has it
    part_of: tuple[str, str] | None = None
    max_duration: float | None = None  # seconds of the longest clip, if that was said
    stretched = False  # whether its position table is longer than the checkpoint's
    can_be_held = True  # in a narrow type
    fastest = 1.0  # speed at which training may hear a clip
    hears_silence = False  # whether what fills a clip up counts as sound
    keeps_time = True  # whether its steps of time are those of a clip

    def __init__(
        self,
        model: Any,
        family: Family,
        source: str,
        sample_rate: int,
        preprocessing: dict[str, Any],
        spec_augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        exact_convolutions(model)
        self.source = source
        self.sample_rate = sample_rate
        self.preprocessing = preprocessing
        self.spec_augment = spec_augment
        self.augment = False
        self.speed: Any = None
        self.hidden_size = model.config.hidden_size
        self.points = AccessPoints(self.encoder, family)
        self.parts = {"encoder": self.points}
        self.num_layers = len(self.points.layers)
        self._fingerprint: str | None = None

    @property
    def encoder(self) -> Any:
        """The part of the model that hears."""
        return self.model

    @property
    def family(self) -> str:
        """The model type in transformers' terms, such as whisper."""
        return self.model.config.model_type

    def embed(self, wavs: Tensor, counts: Tensor) -> Tokens:
        """Waveforms `(batch, samples)`, as long as the longest clip, and lengths in
        samples `(batch,)` to the `Tokens` that enter the first layer."""
        raise NotImplementedError

    def steps(self, samples: Any) -> Any:
        """Steps of time that clips of so many samples have; whole numbers, or a tensor
        of them."""
        raise NotImplementedError

    def capacity(self) -> int | None:
        """Samples of the longest clip that fits its position table, or None."""
        return None

    def run_layer(
        self,
        layer: nn.Module,
        hidden: Tensor,
        attention_mask: Tensor | None,
        **shared: Any,
    ) -> Tensor:
        """One layer; `shared` is what `shared_by_layers` gives."""
        return first(layer(hidden, attention_mask=attention_mask, **shared))

    def shared_by_layers(self, length: int) -> dict[str, Any]:
        """What every layer is given for so many tokens, by name."""
        del length
        return {}

    def passed_on(self, layer: LayerPoints, tokens: Tokens) -> Tokens:
        """What comes of the tokens that a layer gives, before the next one or the end:
        here they themselves."""
        del layer
        return tokens

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None, all_layers: bool = False
    ) -> Tokens:
        """Hidden states of a batch of waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            `(batch, samples)` at `sample_rate`, zero-padded on the right.
        wav_lens : torch.Tensor or None
            `(batch,)`, relative to the longest, best on the CPU: from a GPU they cost a
            wait; None when nothing is padded.
        all_layers : bool
            Whether `layers` of the result is filled.

        Returns
        -------
        Tokens
            After the last LayerNorm.
        """
        with self.as_held(wavs.device.type):
            return self._hear(wavs, wav_lens, all_layers)

    def as_held(self, device_type: str) -> AbstractContextManager:
        """A context in which the model runs in the type that it is held in."""
        if not self.points.hooks.held:
            return nullcontext()
        hooks = [points.hooks for points in self.parts.values()]
        return without_autocast(hooks, device_type)

    def _hear(self, wavs: Tensor, wav_lens: Tensor | None, all_layers: bool) -> Tokens:
        counts, lengths = sample_counts(wavs, wav_lens), None
        if self.augment and self.speed is not None:
            wavs, counts = self.at_another_speed(wavs, counts)
        if wav_lens is not None:  # shapes, which the CPU must know
            wavs = wavs[:, : max(counts.tolist())]
            if not self.hears_silence:
                lengths = tuple(self.steps(counts).tolist())
            counts = to_device(counts, wavs.device)
        tokens = replace(self.embed(wavs, counts), lengths=lengths)
        padded = lengths is not None and min(lengths) < max(lengths)
        states, shared, of = [], None, None
        for points in self.points.layers:
            tokens = points.enter(tokens)
            if all_layers:
                states.append(tokens)
            length = tokens.hidden.shape[1]
            if shared is None or length != of:  # no key of a dict: a graph's symbol
                shared, of = self.shared_by_layers(length), length
            mask = tokens.mask if padded else None
            hidden = self._through(points, tokens.hidden, mask, shared)
            tokens = self.passed_on(points, replace(tokens, hidden=hidden))
        if self.points.hooks.held:  # what leaves a narrow base is float32
            states = [replace(state, hidden=state.hidden.float()) for state in states]
            tokens = replace(tokens, hidden=tokens.hidden.float())
        if self.points.norm_follows:
            tokens = replace(tokens, hidden=self.points.last_norm(tokens.hidden))
        if all_layers:
            tokens = replace(tokens, layers=(*states, tokens))
        return tokens

    def _through(
        self,
        points: LayerPoints,
        hidden: Tensor,
        mask: Tensor | None,
        shared: dict[str, Any],
    ) -> Tensor:
        attention_mask = None if mask is None else mask[:, None, None, :]

        def run(hidden: Tensor) -> Tensor:
            self.points.mask = mask  # again, where the backward pass runs it again
            return self.run_layer(points.module, hidden, attention_mask, **shared)

        again = self.checkpointing and torch.is_grad_enabled()
        return recomputed(run, hidden) if again else run(hidden)

    def remember(self, mib: float) -> None:
        """Keep features of clips that will be heard again, where that saves time."""

    @torch.no_grad()
    def silent_inputs(self) -> list[Tensor] | None:
        """What enters each layer at the sound's tokens of a silent clip, `(tokens,
        hidden)` a layer."""
        seconds = min(SILENT_SECONDS, self.max_duration or SILENT_SECONDS)
        device = next(self.parameters()).device
        silence = torch.zeros(1, round(seconds * self.sample_rate), device=device)
        layers = self(silence, all_layers=True).layers[:-1]
        return [layer.hidden[0, layer.special + layer.prompts :] for layer in layers]

    def whole_model(self) -> Any:
        """The model as its checkpoint has it, with parts that this does not use: those
        are the source's."""
        if self.part_of is None:
            return self.model
        name, path = self.part_of
        whole = Checkpoint(self.source).model(name)
        whole.get_submodule(path).load_state_dict(self.model.state_dict())
        return whole

    def save_more(self, folder: str | Path) -> None:
        """Write what a checkpoint needs beside model and preprocessor."""

    def perturb_speed(self, speeds: list[float]) -> None:
        """Hear each batch of training at one of some speeds, 1.0 as it is.

        Raises
        ------
        UserError
            If they are not a list of numbers from 0.5 to 2.
        """
        several = isinstance(speeds, list) and len(speeds) > 0
        if not several or not all(
            isinstance(s, int | float) and SLOWEST <= s <= FASTEST for s in speeds
        ):
            raise UserError(
                f"speeds={speeds} must be a list of numbers from {SLOWEST} to "
                f"{FASTEST}, such as [0.9, 1.0, 1.1]."
            )
        self.speed = SpeedPerturbation(self.sample_rate, speeds)
        self.fastest = float(max(speeds))

    def at_another_speed(self, wavs: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms and lengths in samples at a random speed; what then finds no place
        in the position table is cut."""
        draw = torch.randint(len(self.speed.speeders), ()).tolist()
        with torch.autocast(wavs.device.type, enabled=False):
            wavs, counts = self.speed.speeders[draw](wavs.float(), counts)
        longest = min(wavs.shape[1], self.capacity() or wavs.shape[1])
        wavs, counts = wavs[:, :longest], counts.clamp(max=longest)
        # the resampler's filter rings on into the padding
        inside = valid(to_device(counts, wavs.device), longest)
        return wavs.where(inside, 0.0), counts

    def augmented(self, features: Tensor) -> Tensor:
        """`features`, with SpecAugment in training."""
        if self.augment and self.spec_augment is not None:
            return self.spec_augment(features)
        return features

    def fingerprint(self) -> str:
        """SHA-256 of the pretrained weights and preprocessing, as they were at the
        first call."""
        if self._fingerprint is None:
            said = json.dumps(self.preprocessing, sort_keys=True)
            self._fingerprint = digest_of(self.model, said)
        return self._fingerprint
