"""Pretrained Transformers for sound, behind one interface."""

from pathlib import Path
from typing import Annotated

from transformers import AutoFeatureExtractor

from petl_modules.backbones import attention, registry
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.checkpoint import Checkpoint
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError
from petl_modules.kinds import Count, Items, Range, Seconds

__all__ = ["Backbone", "Tokens", "load_backbone", "save_checkpoint"]

Speeds = Annotated[list[Annotated[float, Range(0.5, 2)]], Items(1)]


def load_backbone(
    source: str | Path | None,
    pretrained: bool = True,
    max_duration: Seconds | None = None,
    spec_freq: Count = 0,
    spec_time: Count = 0,
    decoder: bool = False,
    speeds: Speeds | None = None,
) -> Backbone:
    """A backbone from a hub or a folder in transformers' layout.

    Arguments
    ---------
    source : str
        The pretrained backbone: a hub id, a local folder, or embedded for the small AST
        of this package. The family is read from the checkpoint's own config. A
        synthesiser is the folder that its base training left.
    pretrained : bool
        Whether its weights are loaded; otherwise they are random, built from the config
        alone, and source may be a family: ast, wav2vec2, hubert, wavlm, whisper or
        fastspeech2.
    max_duration : float or None
        Seconds after which clips are cut, or left out where their text is that of the
        whole clip; AST's position table is stretched to it if need be.
    spec_freq : int
        SpecAugment's widest mask in mel bins, 0 for none. Backbones that read the
        waveform have no spectrogram to mask.
    spec_time : int
        SpecAugment's widest mask in frames of 10 ms, 0 for none.
    decoder : bool
        Whether the decoder of a Whisper or a Moonshine is loaded too: a backbone that
        writes text.
    speeds : list of float or None
        Speeds at which training hears clips, such as [0.9, 1.0, 1.1]: each batch at
        one of them (T. Ko et al., Interspeech 2015); null for clips as they are.

    Returns
    -------
    Backbone

    Raises
    ------
    UserError
        If none is named or there, or it is of no known family, lacks weights, or has
        no decoder where one is asked for.
    """
    if source is None:
        raise UserError("source is null: name a checkpoint with --source=FOLDER.")
    checkpoint = Checkpoint(
        str(source), pretrained, decoder, max_duration, spec_freq, spec_time
    )
    family = registry.find(checkpoint.model_type, checkpoint.source)
    if decoder and not family.writes:
        raise UserError(
            f"{source} is a {family.model_type} model, which has no decoder to write "
            "text with: give a Whisper or Moonshine checkpoint as source."
        )
    backbone = family.load(checkpoint)
    backbone.max_duration = max_duration
    if speeds is not None:
        backbone.perturb_speed(speeds)
    return backbone


def save_checkpoint(backbone: Backbone, folder: str | Path) -> None:
    """Save a backbone as a checkpoint in transformers' layout, with its preprocessor.

    Arguments
    ---------
    backbone : Backbone
        Parts that it does not use (Whisper's decoder) and the preprocessor's settings
        come from where it was loaded.
    folder : str or Path
    """
    model = backbone.whole_model()
    backbone.save_more(folder)
    model.config._attn_implementation = None  # ours is known to nobody else
    model.save_pretrained(folder)
    model.config._attn_implementation = attention.NAME
    try:
        location = Checkpoint(backbone.source).location
        extractor = AutoFeatureExtractor.from_pretrained(
            location, trust_remote_code=False
        )
    except OSError:  # a checkpoint without, whose family's defaults hold
        return
    if backbone.stretched:
        extractor.max_length = model.config.max_length
    extractor.save_pretrained(folder)
