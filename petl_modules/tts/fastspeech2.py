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

import json
import logging
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from speechbrain.lobes.models.FastSpeech2 import (
    FastSpeech2WithAlignment,
    average_over_durations,
    maximum_path_numpy,
    upsample,
)
from speechbrain.nnet.CNN import Conv1d
from torch import nn

from petl_modules.backbones.attention import attention_with_prefix
from petl_modules.backbones.base import Backbone
from petl_modules.core.access_points import FASTSPEECH2, first
from petl_modules.core.masking import valid
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError, one_of
from petl_modules.tts.features import SpeechFeatures
from petl_modules.tts.text import PAUSE, SYMBOLS

logger = logging.getLogger(__name__)

KIND = "fastspeech2"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_FRAMES = 2500  # of SpeechBrain's table of positions
VOICES = "voices."  # prefix of the speakers' tensors in the file
SILENT_SYMBOLS = 20


@dataclass(frozen=True)
class FastSpeech2Config:
    """Sizes of a FastSpeech 2, its symbols, its spectrogram, and whom it has heard.

    Attributes
    ----------
    text : str
        arpabet or graphemes.
    kernel_sizes : tuple of int
        Of the two convolutions of every feed-forward block.
    speakers : tuple of str
        Those of the training data.
    embedding_size : int or None
        Size of the speaker encoder's embeddings; None for learned vectors.
    """

    text: str = "arpabet"
    hidden_size: int = 256
    heads: int = 2
    encoder_layers: int = 4
    decoder_layers: int = 6
    ffn_size: int = 1024
    kernel_sizes: tuple = (9, 1)
    postnet_size: int = 512
    dropout: float = 0.1
    sample_rate: int = 22050
    hop_length: int = 256
    win_length: int = 1024
    n_fft: int = 1024
    n_mels: int = 80
    f_min: float = 0.0
    f_max: float = 8000.0
    speakers: tuple = ()
    embedding_size: int | None = None

    model_type = KIND

    @property
    def features(self):
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


@dataclass(frozen=True)
class Target:
    """What a batch sounds like.

    Attributes
    ----------
    mel : torch.Tensor
        `(batch, frames, n_mels)`, log-mel.
    counts : torch.Tensor
        `(batch,)`, valid frames.
    pitch, energy : torch.Tensor
        `(batch, frames)`.
    """

    mel: torch.Tensor
    counts: torch.Tensor
    pitch: torch.Tensor
    energy: torch.Tensor


@dataclass(frozen=True)
class Speech:
    """What a batch of texts becomes.

    Attributes
    ----------
    mel, coarse_mel : torch.Tensor
        `(batch, frames, n_mels)`: log-mel, after and before the last convolutions.
    counts : torch.Tensor
        `(batch,)`, valid frames.
    mask : torch.Tensor
        `(batch, symbols)`, True for valid symbols.
    durations : torch.Tensor
        `(batch, symbols)`, frames: predicted, or aligned with the target.
    log_durations, pitch, energy : torch.Tensor
        `(batch, symbols)`: predictions; of durations `ln(1 + frames)`.
    target_pitch, target_energy : torch.Tensor or None
        `(batch, symbols)`: means of the target over each symbol.
    alignment : torch.Tensor or None
        `(batch, frames, symbols)`: log-probabilities of each frame's symbol.
    path : torch.Tensor or None
        `(batch, frames, symbols)`: the best monotonic one, of zeros and ones.
    """

    mel: torch.Tensor
    coarse_mel: torch.Tensor
    counts: torch.Tensor
    mask: torch.Tensor
    durations: torch.Tensor
    log_durations: torch.Tensor
    pitch: torch.Tensor
    energy: torch.Tensor
    target_pitch: torch.Tensor = None
    target_energy: torch.Tensor = None
    alignment: torch.Tensor = None
    path: torch.Tensor = None


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

    def __init__(self, config, source):
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
                    module.register_forward_pre_hook(self._without_padding)

    def steps(self, samples):
        return samples // self.config.hop_length + 1

    def forward(self, symbols, counts, voice, target=None, pace=1.0, hurry=False):
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

    def align(self, hidden, mask, mel, frames):
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
    def silent_inputs(self):
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

    def save(self, folder, speakers, voices):
        """Write a folder that `load_fastspeech2` reads.

        Arguments
        ---------
        folder : str or Path
        speakers : list of str
        voices : dict
            Tensors of the head that gave the speakers' vectors.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = self.model.state_dict() | {VOICES + n: t for n, t in voices.items()}
        tensors = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}
        config = replace(self.config, speakers=tuple(speakers))
        save_file(tensors, folder / (WEIGHTS + ".partial"))
        (folder / (WEIGHTS + ".partial")).replace(folder / WEIGHTS)
        text = json.dumps({"model_type": KIND, **asdict(config)}, indent=1) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")

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

    def _without_padding(self, module, args):
        del module
        mask = self.points.mask
        return args if mask is None else (zeroed(args[0], mask), *args[1:])

    def _refuse_long(self, frames):
        if frames > MAX_FRAMES:
            limit = MAX_FRAMES * self.config.hop_length / self.config.sample_rate
            raise UserError(
                f"A text would take longer than {limit:.0f} s: give it in sentences."
            )


class SelfAttention(nn.Module):
    """SpeechBrain's self-attention with modules for its four projections; the weights
    keep SpeechBrain's names and packing in the state dict.

    Arguments
    ---------
    attention : torch.nn.MultiheadAttention
        Whose weights are taken.
    """

    packed = ("q_proj", "k_proj", "v_proj")

    def __init__(self, attention):
        super().__init__()
        size = attention.embed_dim
        self.num_heads, self.dropout = attention.num_heads, attention.dropout
        self.scaling = attention.head_dim**-0.5
        for name in (*self.packed, "out_proj"):
            self.add_module(name, nn.Linear(size, size))
        self.register_state_dict_post_hook(pack)
        self.register_load_state_dict_pre_hook(unpack)
        weights = {f"att.{n}": p for n, p in attention.state_dict().items()}
        self.load_state_dict(weights)

    def forward(
        self,
        query,
        key,
        value,
        attn_mask=None,
        key_padding_mask=None,
        pos_embs=None,
        prefix=None,
    ):
        """Called as SpeechBrain's layers do.

        Arguments
        ---------
        query : torch.Tensor
            `(batch, time, hidden)`; keys and values are made of it too.
        key_padding_mask : torch.Tensor or None
            `(batch, time)`, True for padding.
        prefix : tuple of torch.Tensor or None
            As in `attention_with_prefix`.

        Returns
        -------
        torch.Tensor, None
            `(batch, time, hidden)`, and no attention weights.
        """
        del key, value, attn_mask, pos_embs  # the query; and what is never given
        parts = (
            self.get_submodule(name)(query)
            .unflatten(-1, (self.num_heads, -1))
            .transpose(1, 2)
            for name in self.packed
        )
        seen = None if key_padding_mask is None else ~key_padding_mask[:, None, None]
        output, _ = attention_with_prefix(
            self,
            *parts,
            seen,
            prefix=prefix,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
        )
        return self.out_proj(output.flatten(2)), None


def load_fastspeech2(source, pretrained=True):
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


def new_fastspeech2(kernel_sizes, **settings):
    """A FastSpeech 2 with random weights, to be trained as a base; the settings are
    those of `FastSpeech2Config`."""
    config = FastSpeech2Config(kernel_sizes=tuple(kernel_sizes), **settings)
    return random_fastspeech2(config, KIND)


def is_fastspeech2(source):
    """Whether a source is a FastSpeech 2 rather than a model of transformers."""
    if source == KIND:
        return True
    path = Path(source) / CONFIG
    try:
        return json.loads(path.read_text(encoding="utf-8"))["model_type"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        return False  # whoever loads it says what is wrong


# Helpers


def random_fastspeech2(config, source):
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


def read_config(path):
    """The config of a folder."""
    values = json.loads(path.read_text(encoding="utf-8"))
    values.pop("model_type")
    known = {field.name for field in fields(FastSpeech2Config)}
    if unknown := sorted(values.keys() - known):
        raise UserError(f"{path} holds {unknown[0]}, which is no setting of a base.")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return FastSpeech2Config(**values)
    except TypeError as error:
        raise UserError(f"{path} is damaged ({error}).") from None


def speechbrain_model(config):
    """SpeechBrain's FastSpeech 2 with a learned alignment."""
    size, shared = config.hidden_size, {}
    for stack in ("enc", "dec"):
        shared |= {
            f"{stack}_num_head": config.heads,
            f"{stack}_d_model": size,
            f"{stack}_ffn_dim": config.ffn_size,
            f"{stack}_k_dim": size,
            f"{stack}_v_dim": size,
            f"{stack}_dropout": config.dropout,
        }
    return FastSpeech2WithAlignment(
        **shared,
        enc_num_layers=config.encoder_layers,
        dec_num_layers=config.decoder_layers,
        in_query_channels=config.n_mels,
        in_key_channels=size,
        attn_channels=config.n_mels,
        temperature=0.0005,
        normalize_before=True,  # trains without a long warm-up
        ffn_type="1dcnn",
        ffn_cnn_kernel_size_list=list(config.kernel_sizes),
        n_char=len(SYMBOLS[config.text]),
        n_mels=config.n_mels,
        postnet_embedding_dim=config.postnet_size,
        postnet_kernel_size=5,
        postnet_n_convolutions=5,
        postnet_dropout=config.dropout,
        padding_idx=0,
        dur_pred_kernel_size=3,
        pitch_pred_kernel_size=3,
        energy_pred_kernel_size=3,
        variance_predictor_dropout=config.dropout,
    )


def zeroed(values, mask):
    """`(batch, time, ...)` with zeros where the mask `(batch, time)` is False."""
    return values * mask.view(*mask.shape, *[1] * (values.ndim - 2)).to(values.dtype)


def hurried(durations):
    """Durations `(batch, symbols)` that fit the table of positions."""
    excess = durations.sum(1, keepdim=True) / (MAX_FRAMES - durations.shape[1])
    shorter = (durations / excess.clamp(min=1)).long().clamp(min=1)
    return torch.where(excess > 1, shorter * (durations > 0), durations)


def best_path(alignment, mask, frames):
    """The monotonic path of the highest probability, `(batch, frames, symbols)`, which
    gives every symbol a frame."""
    both = mask.unsqueeze(2) & frames.unsqueeze(1)
    scores = alignment.detach().mT.masked_fill(~both, 0.0)
    return maximum_path_numpy(scores.contiguous(), both.float()).mT


def diagonal_prior(frames, symbols, like):
    """Log-probabilities of the beta-binomial prior of Badlani et al. (arXiv
    2108.10447), shaped as `like`, `(batch, frames, symbols)`: frames early in a clip
    belong to symbols early in its text."""
    t = torch.arange(like.shape[1], device=like.device).view(1, -1, 1)
    k = torch.arange(like.shape[2], device=like.device).view(1, 1, -1)
    n = (symbols - 1).view(-1, 1, 1)
    rest = (n - k).clamp(min=0)
    a = (t + 1).float()
    b = (frames.view(-1, 1, 1) - t).clamp(min=1).float()

    def log_beta(x, y):
        return torch.lgamma(x) + torch.lgamma(y) - torch.lgamma(x + y)

    log_choose = -torch.log(n + 1.0) - log_beta(rest + 1.0, k + 1.0)
    return log_choose + log_beta(k + a, rest + b) - log_beta(a, b)


def pack(module, state, prefix, metadata):
    """Write the projections' weights as torch.nn.MultiheadAttention names them."""
    del metadata
    for kind in ("weight", "bias"):
        parts = [state.pop(f"{prefix}{name}.{kind}") for name in module.packed]
        state[f"{prefix}att.in_proj_{kind}"] = torch.cat(parts)
        out = state.pop(f"{prefix}out_proj.{kind}")
        state[f"{prefix}att.out_proj.{kind}"] = out


def unpack(module, state, prefix, *_):
    """Read them again."""
    for kind in ("weight", "bias"):
        key = f"{prefix}att.in_proj_{kind}"
        if key in state:
            parts = state.pop(key).chunk(3)
            for name, part in zip(module.packed, parts, strict=True):
                state[f"{prefix}{name}.{kind}"] = part
            out = state.pop(f"{prefix}att.out_proj.{kind}")
            state[f"{prefix}out_proj.{kind}"] = out
