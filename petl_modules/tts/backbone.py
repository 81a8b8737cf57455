"""FastSpeech 2 (Ren et al., arXiv 2006.04558) with a learned alignment, as SpeechBrain
has it, for many voices: symbols and a speaker's vector in, a log-mel spectrogram out.

The modules, and the names of their weights, are SpeechBrain's. What runs differently,
and why:

- attention calls its projections as modules, so that LoRA and prefixes act on them;
- convolutions read zeros beyond a clip's ends, and padding is zero before each of them.
  SpeechBrain's reflect the batch's end, and its attention masks of several heads belong
  to other clips of the batch: there, a clip's result depends on its batch;
- durations are rounded, not cut off, and no symbol is skipped;
- durations may be found before training instead of learned (`forced_alignment`); the
  aligner that learns knows that speech runs along the text (the prior of arXiv
  2108.10447).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from speechbrain.lobes.models.FastSpeech2 import average_over_durations
from speechbrain.nnet.CNN import Conv1d
from torch import Tensor, nn

from petl_modules.backbones.base import Backbone
from petl_modules.core.access_points import first
from petl_modules.core.family import Family
from petl_modules.core.hooks import Hooks
from petl_modules.core.masking import valid
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError
from petl_modules.files import write_json, write_tensors
from petl_modules.tts.alignment import best_path, diagonal_prior
from petl_modules.tts.config import (
    ALIGNER,
    CONFIG,
    KIND,
    WEIGHTS,
    FastSpeech2Config,
)
from petl_modules.tts.features import SpeechFeatures
from petl_modules.tts.forced_alignment import ForcedAligner, is_silent
from petl_modules.tts.network import SelfAttention, speechbrain_model
from petl_modules.tts.speech import Speech, Target
from petl_modules.tts.text import PAUSE, SYMBOLS

MAX_FRAMES = 2500  # of SpeechBrain's table of positions
VOICES = "voices."  # prefix of the speakers' tensors in the file
TABLES = "positional_embed_encoder.pe", "positional_embed_decoder.pe"  # sines: not kept
SILENT_SYMBOLS = 20

# SpeechBrain's, whose norms are wrapped; the feed-forward block is two convolutions
FASTSPEECH2 = Family(
    layers=("encoder.layers", "decoder.layers"),
    mhsa="self_att",
    mhsa_norm="norm1.norm",
    ffn="pos_ffn",
    ffn_norm="norm2.norm",
    q="self_att.q_proj",
    k="self_att.k_proj",
    v="self_att.v_proj",
    o="self_att.out_proj",
    last_norm="decoder.norm.norm",
)


class FastSpeech2Backbone(Backbone):
    """FastSpeech 2 with access points in its encoder and decoder, whose layers are
    counted through: the encoder's first.

    Arguments
    ---------
    config : FastSpeech2Config
    source : str
        The folder that the weights came from.

    Attributes
    ----------
    features : SpeechFeatures
    voices : dict
        The speakers' tensors of the file, for the head to start from.
    aligner : ForcedAligner or None
        Of the base, for the durations of other voices; None where they are learned.
    vocoder : str or None
        The folder of the vocoder that comes with the base.
    """

    can_be_held = False
    side_modules = {
        "durations": ("durPred",),
        "pitch": ("pitchPred", "pitchEmbed"),
        "energy": ("energyPred", "energyEmbed"),
        "symbols": ("encPreNet",),
        "aligner": ("aligner",),
        "mel": ("linear", "postnet"),
    }

    def __init__(self, config: FastSpeech2Config, source: str) -> None:
        model = speechbrain_model(config)
        for layer in (*model.encoder.layers, *model.decoder.layers):
            layer.self_att = SelfAttention(layer.self_att.att)
        model.config = config
        heard = {"text": config.text, **config.features}
        super().__init__(model, FASTSPEECH2, source, config.sample_rate, heard)
        self.config, self.voices, self.vocoder = config, {}, None
        self.features = SpeechFeatures(**config.features)
        names = SYMBOLS[config.text]
        self.symbols = {s: i for i, s in enumerate(names)}
        self.aligner = None
        forced = config.alignment == "forced"
        if forced:
            self.side_modules = {
                name: paths
                for name, paths in self.side_modules.items()
                if name != "aligner"
            }
            rate = config.sample_rate
            self.aligner = ForcedAligner(names[1:], rate, config.hop_length)
        # a pause need not be made; the learned alignment gives every symbol a frame
        least = [not (forced and is_silent(s)) for s in names]
        self.register_buffer("least", torch.tensor(least).long(), persistent=False)
        for module in model.modules():
            if isinstance(module, Conv1d):
                module.padding_mode = "constant"
                if not module.skip_transpose:
                    module.register_forward_pre_hook(without_padding(self.points.hooks))

    def steps(self, samples: Tensor) -> Tensor:
        """Frames of so many samples."""
        return samples // self.config.hop_length + 1

    def forward(
        self,
        symbols: Tensor,
        counts: Tensor,
        voice: Tensor,
        target: Target | None = None,
        pace: float = 1.0,
        hurry: bool = False,
    ) -> Speech:
        """Symbols to speech.

        Arguments
        ---------
        symbols : torch.Tensor
            `(batch, symbols)`, numbers, padded with 0.
        counts : torch.Tensor
            `(batch,)`, valid symbols.
        voice : torch.Tensor
            `(batch, hidden)`, the speaker's vector.
        target : Target or None
            Whose durations, pitch and energy are taken in the place of predictions.
        pace : float
            Factor of the predicted durations.
        hurry : bool
            Whether a text that would take too long is spoken faster, as is right for
            judging what is half trained, or refused.

        Returns
        -------
        Speech

        Raises
        ------
        UserError
            If a text is too long for the table of positions.
        """
        self._refuse_long(symbols.shape[1])
        model, mask = self.model, valid(counts, symbols.shape[1])
        hidden = model.encPreNet(symbols)
        hidden = hidden + model.sinusoidal_positional_embed_encoder(hidden)
        hidden = self._run("encoder", hidden, mask) + voice.unsqueeze(1)
        hidden = zeroed(hidden, mask)
        log_durations = self._predict("durPred", hidden, mask)
        alignment = path = None
        if target is None:
            least = self.least[symbols] * mask
            durations = self._durations(log_durations, least, mask, pace, hurry)
            length = int(durations.sum(1).max())
        elif target.durations is not None:
            durations, length = target.durations, target.mel.shape[1]
        else:
            frames = valid(target.counts, target.mel.shape[1])
            alignment = self.align(hidden, mask, target.mel, frames)
            path = best_path(alignment, mask, frames)
            durations, length = path.sum(1).long(), target.mel.shape[1]
        spoken = mask, target, durations
        hidden, pitch, target_pitch = self._with_variance("pitch", hidden, *spoken)
        hidden, energy, target_energy = self._with_variance("energy", hidden, *spoken)
        lengths = durations.sum(1)
        hidden = drawn_out(hidden, durations, length)
        frames = valid(lengths, hidden.shape[1])
        hidden = hidden + model.sinusoidal_positional_embed_decoder(hidden)
        hidden = self._run("decoder", zeroed(hidden, frames), frames)
        coarse = zeroed(model.linear(hidden), frames)
        return Speech(
            mel=coarse + model.postnet(coarse),
            coarse_mel=coarse,
            counts=lengths,
            mask=mask,
            durations=durations,
            log_durations=log_durations,
            pitch=pitch,
            energy=energy,
            target_pitch=target_pitch,
            target_energy=target_energy,
            alignment=alignment,
            path=path,
        )

    def align(
        self, hidden: Tensor, mask: Tensor, mel: Tensor, frames: Tensor
    ) -> Tensor:
        """Log-probabilities `(batch, frames, symbols)` of each frame's symbol, from
        distances between SpeechBrain's projections of frames and symbols."""
        with torch.autocast(hidden.device.type, enabled=False):
            aligner = self.model.aligner
            keys = aligner.key_layer(hidden.float().transpose(1, 2)).transpose(1, 2)
            queries = zeroed(mel.float(), frames).transpose(1, 2)
            queries = aligner.query_layer(queries).transpose(1, 2)
            # as a product: the differences themselves would fill the memory
            distances = queries.square().sum(-1, keepdim=True) - 2 * queries @ keys.mT
            distances = distances + keys.square().sum(-1).unsqueeze(1)
            scores = -aligner.temperature * distances
            scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
            prior = diagonal_prior(frames.sum(1), mask.sum(1), scores)
            return scores.log_softmax(-1) + prior

    @torch.no_grad()
    def silent_inputs(self) -> list[Tensor]:
        """As of every backbone; here of a text of pauses."""
        device = next(self.parameters()).device
        seen, handles = [], []
        for layer in self.points.layers:
            keep = lambda module, args: seen.append(args[0][0])  # noqa: E731
            handles.append(layer.module.register_forward_pre_hook(keep))
        shape = (1, SILENT_SYMBOLS)
        symbols = torch.full(shape, self.symbols[PAUSE], device=device)
        voice = torch.zeros(1, self.hidden_size, device=device)
        least, self.least = self.least, torch.ones_like(self.least)
        self(symbols, torch.tensor([SILENT_SYMBOLS], device=device), voice)
        self.least = least
        for handle in handles:
            handle.remove()
        return seen

    def save(
        self, folder: str | Path, speakers: Iterable[str], voices: dict[str, Tensor]
    ) -> None:
        """Write a folder that `load_fastspeech2` reads.

        Arguments
        ---------
        folder : str or Path
        speakers : list of str
        voices : dict
            Tensors of the head that gave the speakers' vectors.
        """
        folder = Path(folder)
        tensors = self.model.state_dict() | {VOICES + n: t for n, t in voices.items()}
        tensors = {n: t for n, t in tensors.items() if not n.endswith(TABLES)}
        config = replace(self.config, speakers=tuple(speakers))
        write_tensors(folder / WEIGHTS, tensors)
        write_json(folder / CONFIG, {"model_type": KIND, **asdict(config)})
        if self.aligner is not None:
            self.aligner.save(folder / ALIGNER)

    def _run(self, stack: str, hidden: Tensor, mask: Tensor) -> Tensor:
        """The encoder or the decoder, its last norm included."""
        padded = mask.is_cuda or not bool(mask.all())  # a GPU is not waited for
        tokens, count = Tokens(hidden, mask), self.config.encoder_layers
        layers = slice(count) if stack == "encoder" else slice(count, None)
        for points in self.points.layers[layers]:
            tokens = points.enter(tokens)
            self.points.mask = tokens.mask if padded else None
            blocked = ~tokens.mask if padded else None
            hidden = first(points.module(tokens.hidden, src_key_padding_mask=blocked))
            tokens = replace(tokens, hidden=hidden)
        self.points.mask = mask if padded else None
        norm = self.model.get_submodule(stack).norm
        return norm(tokens.hidden[:, tokens.prompts :])

    def _predict(self, name: str, hidden: Tensor, mask: Tensor) -> Tensor:
        predictor = self.model.get_submodule(name)
        return predictor(hidden, mask.unsqueeze(-1)).squeeze(-1)

    def _durations(
        self,
        log_durations: Tensor,
        least: Tensor,
        mask: Tensor,
        pace: float,
        hurry: bool,
    ) -> Tensor:
        """Whole frames."""
        finite = log_durations.float().clamp(max=math.log1p(MAX_FRAMES))
        frames = torch.expm1(finite) * pace
        durations = torch.maximum(frames.round().long(), least) * mask
        if hurry:
            durations = hurried(durations)
        self._refuse_long(int(durations.sum(1).max()))
        return durations

    def _with_variance(
        self,
        name: str,
        hidden: Tensor,
        mask: Tensor,
        target: Target | None,
        durations: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Hidden states with the pitch or energy of the target, or else as predicted;
        the prediction; the target's means over symbols."""
        predicted, truth = self._predict(f"{name}Pred", hidden, mask), None
        if target is not None:
            frames = getattr(target, name).unsqueeze(1)
            truth = average_over_durations(frames, durations).squeeze(1)
        shown = zeroed(predicted if truth is None else truth, mask).unsqueeze(1)
        embedded = self.model.get_submodule(f"{name}Embed")(shown).transpose(1, 2)
        return hidden + zeroed(embedded, mask), predicted, truth

    def _refuse_long(self, frames: int) -> None:
        if frames > MAX_FRAMES:
            limit = MAX_FRAMES * self.config.hop_length / self.config.sample_rate
            raise UserError(
                f"A text would take longer than {limit:.0f} s: give it in sentences."
            )


# Helpers


def zeroed(values: Tensor, mask: Tensor) -> Tensor:
    """`(batch, time, ...)` with zeros where the mask `(batch, time)` is False."""
    return values * mask.view(*mask.shape, *[1] * (values.ndim - 2)).to(values.dtype)


def without_padding(hooks: Hooks) -> Callable:
    """A hook that sets a module's input to zero where it is padding."""

    def hook(module: nn.Module, args: tuple) -> tuple:
        mask = hooks.mask
        return args if mask is None else (zeroed(args[0], mask), *args[1:])

    return hook


def drawn_out(hidden: Tensor, durations: Tensor, length: int) -> Tensor:
    """Symbols' hidden states `(batch, symbols, hidden)` as long as they last, `(batch,
    length, hidden)`; beyond a clip's end its last symbol."""
    ends = durations.cumsum(1)
    frames = torch.arange(length, device=hidden.device).expand(len(hidden), -1)
    places = torch.searchsorted(ends, frames.contiguous(), right=True)
    places = places.clamp(max=hidden.shape[1] - 1).unsqueeze(-1)
    return hidden.gather(1, places.expand(-1, -1, hidden.shape[2]))


def hurried(durations: Tensor) -> Tensor:
    """Durations `(batch, symbols)` that fit the table of positions."""
    excess = durations.sum(1, keepdim=True) / (MAX_FRAMES - durations.shape[1])
    shorter = (durations / excess.clamp(min=1)).long().clamp(min=1)
    return torch.where(excess > 1, shorter * (durations > 0), durations)
