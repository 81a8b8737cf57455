"""Pretrained Transformers for sound, behind one interface."""

from pathlib import Path

from transformers import AutoFeatureExtractor

from petl_modules.backbones import attention, registry
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.checkpoint import Checkpoint
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError

__all__ = ["Backbone", "Tokens", "load_backbone", "save_checkpoint"]


def load_backbone(
    source: str | Path,
    pretrained: bool = True,
    max_duration: float | None = None,
    spec_freq: int = 0,
    spec_time: int = 0,
    decoder: bool = False,
    speeds: list[float] | None = None,
) -> Backbone:
    """A backbone from a hub or a folder in transformers' layout.

    Arguments
    ---------
    source : str
        Hub id, local folder, or "embedded" for the small AST of this package. The
        family is read from the checkpoint's own config. A synthesiser is the folder
        that its base training left.
    pretrained : bool
        False builds random weights from the config alone; `source` may then also
        be a family: ast, wav2vec2, hubert, wavlm, whisper or fastspeech2.
    max_duration : float or None
        Seconds of the longest clip, to be kept for whoever cuts clips; stretches
        AST's position table if need be.
    spec_freq, spec_time : int
        SpecAugment's widest masks in mel bins and frames of 10 ms, 0 for none.
        Backbones that read the waveform have no spectrogram to mask.
    decoder : bool
        Load Whisper's decoder too: a backbone that writes text.
    speeds : list of float or None
        Speeds at which training hears clips, 1.0 as they are: each batch at one of
        them (T. Ko et al., Interspeech 2015).

    Returns
    -------
    Backbone

    Raises
    ------
    UserError
        If there is no such checkpoint, it is of no known family, lacks weights, or
        has no decoder where one is asked for.
    """
    checkpoint = Checkpoint(
        str(source), pretrained, decoder, max_duration, spec_freq, spec_time
    )
    family = registry.find(checkpoint.model_type, checkpoint.source)
    if decoder and not family.writes:
        raise UserError(
            f"{source} is a {family.model_type} model, which has no decoder to write "
            "text with: give a Whisper checkpoint as source."
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
        extractor = AutoFeatureExtractor.from_pretrained(location)
    except OSError:  # a checkpoint without, whose family's defaults hold
        return
    if backbone.stretched:
        extractor.max_length = model.config.max_length
    extractor.save_pretrained(folder)
