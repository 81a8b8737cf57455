"""Pretrained Transformers for sound, behind one interface."""

import logging
from contextlib import suppress
from pathlib import Path

from transformers import (
    ASTConfig,
    ASTModel,
    AutoConfig,
    AutoFeatureExtractor,
    HubertConfig,
    HubertModel,
    PreTrainedConfig,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperModel,
)
from transformers.feature_extraction_utils import FeatureExtractionMixin

from petl_modules.backbones import attention
from petl_modules.backbones.ast import ASTBackbone
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.features import SpecAugment
from petl_modules.backbones.waveform import WaveformBackbone, WavLMBackbone
from petl_modules.backbones.whisper import WhisperBackbone, WhisperWithDecoder
from petl_modules.core.tokens import Tokens
from petl_modules.embedded import MODEL_FOLDER
from petl_modules.errors import UserError

__all__ = ["Backbone", "Tokens", "load_backbone", "save_checkpoint"]

logger = logging.getLogger(__name__)

MODELS = {
    "audio-spectrogram-transformer": ASTModel,
    "wav2vec2": Wav2Vec2Model,
    "hubert": HubertModel,
    "wavlm": WavLMModel,
    "whisper": WhisperModel,
}

# What the preprocessors of published checkpoints say, for checkpoints that say less
PREPROCESSING = {
    "audio-spectrogram-transformer": {
        "sampling_rate": 16000,
        "do_normalize": True,
        "mean": -4.2677393,
        "std": 4.5689974,
    },
    "wav2vec2": {"sampling_rate": 16000, "do_normalize": True},
    "hubert": {"sampling_rate": 16000, "do_normalize": True},
    "wavlm": {"sampling_rate": 16000, "do_normalize": True},
    "whisper": {"sampling_rate": 16000, "n_fft": 400, "hop_length": 160},
}

# Architectures that pretrained=False builds by name, without asking a hub
ARCHITECTURES = {
    "ast": ASTConfig,
    "wav2vec2": Wav2Vec2Config,
    "hubert": HubertConfig,
    "wavlm": WavLMConfig,
    "whisper": WhisperConfig,
    "MIT/ast-finetuned-audioset-10-10-0.4593": ASTConfig,
    "facebook/wav2vec2-base-960h": Wav2Vec2Config,
    "jonatasgrosman/wav2vec2-large-xlsr-53-english": lambda: Wav2Vec2Config(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        conv_bias=True,
        do_stable_layer_norm=True,
    ),
}


def load_backbone(
    source,
    pretrained=True,
    max_duration=None,
    spec_freq=0,
    spec_time=0,
    decoder=False,
    speeds=None,
):
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
    folder = checkpoint_of(source)
    from petl_modules.tts.fastspeech2 import is_fastspeech2, load_fastspeech2

    if is_fastspeech2(folder):
        return load_fastspeech2(folder, pretrained)
    config = load_config(folder, pretrained)
    kind = config.model_type
    if kind not in MODELS:
        raise UserError(
            f"{source} is a {kind} model; the backbones are {', '.join(MODELS)}."
        )
    if decoder and kind != "whisper":
        raise UserError(
            f"{source} is a {kind} model, which has no decoder to write text with: "
            "give a Whisper checkpoint as source."
        )
    kind_of_model = WhisperForConditionalGeneration if decoder else MODELS[kind]
    if pretrained:
        model = load_model(folder, config, kind_of_model)
    else:
        model = random_model(source, config, kind_of_model)
    preprocessing = load_preprocessing(folder, kind, pretrained)
    if kind == "whisper" and not decoder:
        model = model.encoder
    model.config._attn_implementation = attention.NAME
    model.float().eval()
    # AST's features are normalised; Whisper's silence lies at each clip's own floor
    fill = None if kind == "whisper" else 0.0
    masks = spec_freq or spec_time
    augment = SpecAugment(spec_freq, spec_time, fill) if masks else None
    if kind == "audio-spectrogram-transformer":
        backbone = ASTBackbone(model, source, preprocessing, max_duration, augment)
    elif kind == "whisper":
        whisper = WhisperWithDecoder if decoder else WhisperBackbone
        backbone = whisper(model, source, preprocessing, augment)
    else:
        if augment is not None:
            logger.info("%s reads the waveform: SpecAugment is off.", kind)
        waveform = WavLMBackbone if kind == "wavlm" else WaveformBackbone
        backbone = waveform(model, source, preprocessing)
    backbone.max_duration = max_duration
    if speeds is not None:
        backbone.perturb_speed(speeds)
    return backbone


def save_checkpoint(backbone, folder):
    """Save a backbone as a checkpoint in transformers' layout, with its preprocessor.

    Arguments
    ---------
    backbone : Backbone
        Parts that it does not use (Whisper's decoder) and the preprocessor's settings
        come from where it was loaded.
    folder : str or Path
    """
    source = checkpoint_of(backbone.source)
    model = backbone.model
    if backbone.has_head:
        backbone.tokenizer.save_pretrained(folder)
    elif model.config.model_type == "whisper":
        whole = load_model(source, load_config(source, pretrained=True), WhisperModel)
        whole.encoder.load_state_dict(model.state_dict())
        model = whole
    model.config._attn_implementation = None  # ours is known to nobody else
    model.save_pretrained(folder)
    model.config._attn_implementation = attention.NAME
    try:
        extractor = AutoFeatureExtractor.from_pretrained(source)
    except OSError:  # a checkpoint without, whose family's defaults hold
        return
    if backbone.stretched:
        extractor.max_length = model.config.max_length
    extractor.save_pretrained(folder)


def checkpoint_of(source):
    """The folder or hub id of a source."""
    return str(MODEL_FOLDER) if source == "embedded" else str(source)


def load_config(source, pretrained):
    """The config of a folder or hub id, or of a known architecture."""
    local = Path(source).is_dir()
    if not pretrained and not local and source in ARCHITECTURES:
        return ARCHITECTURES[source]()
    if local and not (Path(source) / "config.json").is_file():
        raise UserError(
            f"The folder {source} has no config.json: source must be a checkpoint in "
            "transformers' layout."
        )
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"No checkpoint can be loaded from {source}: give a folder in "
            "transformers' layout or a hub id that can be reached "
            f"({first_line(error)})."
        ) from error


def load_preprocessing(source, kind, pretrained):
    """What the checkpoint's preprocessor says, as far as the features need it."""
    said = {}
    if pretrained or Path(source).is_dir():
        with suppress(OSError):
            said, _ = FeatureExtractionMixin.get_feature_extractor_dict(source)
    return {key: said.get(key, value) for key, value in PREPROCESSING[kind].items()}


def load_model(source, config: PreTrainedConfig, kind):
    """The pretrained model of a class; every weight that it reads must be there."""
    try:
        model, info = kind.from_pretrained(
            source, config=config, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"The weights of {source} cannot be loaded ({first_line(error)})."
        ) from error
    missing = [name for name in info["missing_keys"] if "masked_spec_embed" not in name]
    if missing:
        raise UserError(
            f"The checkpoint {source} lacks {len(missing)} weights, {missing[0]} among "
            "them: it is not complete."
        )
    return model


def random_model(source, config, kind):
    """The same architecture with random weights, said loudly."""
    logger.warning(
        "pretrained=False: %s is built with RANDOM weights, nothing is loaded.", source
    )
    model = kind(config)
    if config.model_type == "audio-spectrogram-transformer":
        # transformers leaves these at zero, which hides every position
        model.embeddings.position_embeddings.data.normal_(std=0.02)
    return model


def first_line(error):
    """The first line of an exception's message."""
    return str(error).strip().split("\n")[0]
