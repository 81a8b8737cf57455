"""FastSpeech 2 by name or folder: what a base's training starts from and leaves."""

import logging
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from petl_modules.backbones import registry
from petl_modules.backbones.checkpoint import Checkpoint
from petl_modules.errors import UserError, one_of
from petl_modules.tts.backbone import TABLES, VOICES, FastSpeech2Backbone
from petl_modules.tts.config import (
    ALIGNER,
    ALIGNMENTS,
    CONFIG,
    KIND,
    VOCODER,
    WEIGHTS,
    FastSpeech2Config,
    read_config,
)
from petl_modules.tts.forced_alignment import load_aligner
from petl_modules.tts.hifigan import is_hifigan
from petl_modules.tts.text import SYMBOLS

logger = logging.getLogger(__name__)


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
        own = backbone.model.state_dict()
        tables = {n: t for n, t in own.items() if n.endswith(TABLES)}
        backbone.model.load_state_dict(tables | tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"The weights of {source} cannot be loaded ({reason})."
        ) from error
    backbone.voices = {n.removeprefix(VOICES): t for n, t in voices.items()}
    if backbone.aligner is not None:
        backbone.aligner = load_aligner(Path(source) / ALIGNER)
    if is_hifigan(Path(source) / VOCODER):
        backbone.vocoder = str(Path(source) / VOCODER)
    return backbone.eval()


def new_fastspeech2(config: FastSpeech2Config) -> FastSpeech2Backbone:
    """A FastSpeech 2 with random weights, to be trained as a base.

    Arguments
    ---------
    config : FastSpeech2Config
        Its sizes, symbols and spectrogram.
    """
    return random_fastspeech2(config, KIND)


# Helpers


def random_fastspeech2(config: FastSpeech2Config, source: str) -> FastSpeech2Backbone:
    """Random weights, said loudly."""
    one_of("text", config.text, SYMBOLS)
    one_of("alignment", config.alignment, ALIGNMENTS)
    if config.hidden_size % config.heads or config.hidden_size % 2:
        raise UserError(
            f"hidden_size={config.hidden_size} must be even, and a multiple of "
            f"heads={config.heads}."
        )
    if any(size % 2 == 0 for size in config.kernel_sizes):
        raise UserError(f"kernel_sizes={list(config.kernel_sizes)} must be odd.")
    logger.warning("%s is built with RANDOM weights, nothing is loaded.", source)
    return FastSpeech2Backbone(config, source).eval()


def load(checkpoint: Checkpoint) -> FastSpeech2Backbone:
    """As of every family of backbones."""
    backbone = load_fastspeech2(checkpoint.location, checkpoint.pretrained)
    backbone.source = checkpoint.source
    return backbone


registry.register(KIND, load, {KIND: {}})
