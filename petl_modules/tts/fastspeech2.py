"""FastSpeech 2 (Ren et al., arXiv 2006.04558) with a learned alignment, as SpeechBrain
has it, for many voices: symbols and a speaker's vector in, a log-mel spectrogram out.

The modules, and the names of their weights, are SpeechBrain's. What runs differently,
and why:

- attention calls its projections as modules, so that LoRA and prefixes act on them;
- convolutions read zeros beyond a clip's ends, and padding is zero before each of them.
  SpeechBrain's reflect the batch's end, and its attention masks of several heads belong
  to other clips of the batch: there, a clip's result depends on its batch;
- durations are rounded, not cut off, and no symbol is skipped;
- the aligner knows that speech runs along the text (the prior of arXiv 2108.10447).
"""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from speechbrain.lobes.models.FastSpeech2 import average_over_durations, upsample
from speechbrain.nnet.CNN import Conv1d
from torch import Tensor, nn

from petl_modules.backbones import registry
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.checkpoint import Checkpoint
from petl_modules.core.access_points import first
from petl_modules.core.family import Family
from petl_modules.core.hooks import Hooks
from petl_modules.core.masking import valid
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError, one_of
from petl_modules.files import write_json, write_tensors
from petl_modules.kinds import Items, PositiveInt, Probability, Size
from petl_modules.tts.alignment import best_path, diagonal_prior
from petl_modules.tts.config import (
    CONFIG,
    KIND,
    WEIGHTS,
    FastSpeech2Config,
    read_config,
)
from petl_modules.tts.features import SpeechFeatures
from petl_modules.tts.network import SelfAttention, speechbrain_model
from petl_modules.tts.speech import Speech, Target
from petl_modules.tts.text import PAUSE, SYMBOLS

logger = logging.getLogger(__name__)

MAX_FRAMES = 2500  # of SpeechBrain's table of positions
VOICES = "voices."  # prefix of the speakers' tensors in the file
SILENT_SYMBOLS = 20
KernelSizes = Annotated[list[Size], Items(2, 2)]

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
    """

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
        self.config, self.voices = config, {}
        self.features = SpeechFeatures(**config.features)
        self.symbols = {s: i for i, s in enumerate(SYMBOLS[config.text])}
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
            durations = self._durations(log_durations, mask, pace, hurry)
        else:
            frames = valid(target.counts, target.mel.shape[1])
            alignment = self.align(hidden, mask, target.mel, frames)
            path = best_path(alignment, mask, frames)
            durations = path.sum(1).long()
        spoken = mask, target, durations
        hidden, pitch, target_pitch = self._with_variance("pitch", hidden, *spoken)
        hidden, energy, target_energy = self._with_variance("energy", hidden, *spoken)
        hidden, lengths = upsample(hidden, durations)
        lengths = torch.tensor(lengths, device=hidden.device)
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
        self(symbols, torch.tensor([SILENT_SYMBOLS], device=device), voice)
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
        config = replace(self.config, speakers=tuple(speakers))
        write_tensors(folder / WEIGHTS, tensors)
        write_json(folder / CONFIG, {"model_type": KIND, **asdict(config)})

    def _run(self, stack, hidden, mask):
        """The encoder or the decoder, its last norm included."""
        padded = not bool(mask.all())
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

    def _predict(self, name, hidden, mask):
        predictor = self.model.get_submodule(name)
        return predictor(hidden, mask.unsqueeze(-1)).squeeze(-1)

    def _durations(self, log_durations, mask, pace, hurry):
        """Whole frames, one at least: the aligner gives every symbol one."""
        finite = log_durations.float().clamp(max=math.log1p(MAX_FRAMES))
        frames = torch.expm1(finite) * pace
        durations = frames.round().clamp(min=1).long() * mask
        if hurry:
            durations = hurried(durations)
        self._refuse_long(int(durations.sum(1).max()))
        return durations

    def _with_variance(self, name, hidden, mask, target, durations):
        """Hidden states with the pitch or energy of the target, or else as predicted;
        the prediction; the target's means over symbols."""
        predicted, truth = self._predict(f"{name}Pred", hidden, mask), None
        if target is not None:
            frames = getattr(target, name).unsqueeze(1)
            truth = average_over_durations(frames, durations).squeeze(1)
        shown = zeroed(predicted if truth is None else truth, mask).unsqueeze(1)
        embedded = self.model.get_submodule(f"{name}Embed")(shown).transpose(1, 2)
        return hidden + zeroed(embedded, mask), predicted, truth

    def _refuse_long(self, frames):
        if frames > MAX_FRAMES:
            limit = MAX_FRAMES * self.config.hop_length / self.config.sample_rate
            raise UserError(
                f"A text would take longer than {limit:.0f} s: give it in sentences."
            )


def load_fastspeech2(source: str, pretrained: bool = True) -> FastSpeech2Backbone:
    """A FastSpeech 2 from the folder that a base-training recipe leaves.

    Arguments
    ---------
    source : str
        The folder; or "fastspeech2", for the default sizes without weights.
    pretrained : bool
        False draws random weights.

    Returns
    -------
    FastSpeech2Backbone

    Raises
    ------
    UserError
        For a folder that is damaged or not complete.
    """
    if source == KIND:
        if pretrained:
            raise UserError(
                "fastspeech2 is an architecture without weights: give the folder base/ "
                "that base training left in its run's folder."
            )
        return random_fastspeech2(FastSpeech2Config(), source)
    config = read_config(Path(source) / CONFIG)
    if not pretrained:
        return random_fastspeech2(config, source)
    backbone = FastSpeech2Backbone(config, source)
    try:
        tensors = load_file(Path(source) / WEIGHTS)
        voices = {n: tensors.pop(n) for n in list(tensors) if n.startswith(VOICES)}
        backbone.model.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"The weights of {source} cannot be loaded ({reason})."
        ) from error
    backbone.voices = {n.removeprefix(VOICES): t for n, t in voices.items()}
    return backbone.eval()


def new_fastspeech2(
    text: Literal["arpabet", "graphemes"] = "arpabet",
    hidden_size: Size = 256,
    heads: Size = 2,
    encoder_layers: Size = 4,
    decoder_layers: Size = 6,
    ffn_size: Size = 1024,
    kernel_sizes: KernelSizes = (9, 1),
    postnet_size: Size = 512,
    dropout: Probability = 0.1,
    sample_rate: PositiveInt = 22050,
    hop_length: PositiveInt = 256,
    embedding_size: Size | None = None,
) -> FastSpeech2Backbone:
    """A FastSpeech 2 with random weights, to be trained as a base.

    Arguments
    ---------
    text : str
        The symbols that a text becomes: phones or letters.
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
    embedding_size : int or None
        Size of speaker_encoder's embeddings, such as 192 of ECAPA-TDNN; null for
        vectors that are learned.
    """
    config = FastSpeech2Config(
        text=text,
        hidden_size=hidden_size,
        heads=heads,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        ffn_size=ffn_size,
        kernel_sizes=tuple(kernel_sizes),
        postnet_size=postnet_size,
        dropout=dropout,
        sample_rate=sample_rate,
        hop_length=hop_length,
        embedding_size=embedding_size,
    )
    return random_fastspeech2(config, KIND)


# Helpers


def random_fastspeech2(config: FastSpeech2Config, source: str) -> FastSpeech2Backbone:
    """Random weights, said loudly."""
    one_of("text", config.text, SYMBOLS)
    if config.hidden_size % config.heads or config.hidden_size % 2:
        raise UserError(
            f"hidden_size={config.hidden_size} must be even, and a multiple of "
            f"heads={config.heads}."
        )
    if any(size % 2 == 0 for size in config.kernel_sizes):
        raise UserError(f"kernel_sizes={list(config.kernel_sizes)} must be odd.")
    logger.warning("%s is built with RANDOM weights, nothing is loaded.", source)
    return FastSpeech2Backbone(config, source).eval()


def zeroed(values: Tensor, mask: Tensor) -> Tensor:
    """`(batch, time, ...)` with zeros where the mask `(batch, time)` is False."""
    return values * mask.view(*mask.shape, *[1] * (values.ndim - 2)).to(values.dtype)


def without_padding(hooks: Hooks) -> Callable:
    """A hook that sets a module's input to zero where it is padding."""

    def hook(module: nn.Module, args: tuple) -> tuple:
        mask = hooks.mask
        return args if mask is None else (zeroed(args[0], mask), *args[1:])

    return hook


def hurried(durations: Tensor) -> Tensor:
    """Durations `(batch, symbols)` that fit the table of positions."""
    excess = durations.sum(1, keepdim=True) / (MAX_FRAMES - durations.shape[1])
    shorter = (durations / excess.clamp(min=1)).long().clamp(min=1)
    return torch.where(excess > 1, shorter * (durations > 0), durations)


def load(checkpoint: Checkpoint) -> FastSpeech2Backbone:
    """As of every family of backbones."""
    return load_fastspeech2(checkpoint.location, checkpoint.pretrained)


registry.register(KIND, load, {KIND: {}})
