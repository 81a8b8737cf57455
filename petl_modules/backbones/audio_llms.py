"""The ears of audio language models: Whisper's encoder, further trained within
Qwen2-Audio (Chu et al., arXiv 2407.10759) and Voxtral (arXiv 2507.13264).

Nothing else of these models is read, and what is merged is saved as such an encoder."""

from petl_modules.backbones import registry
from petl_modules.backbones.checkpoint import Checkpoint, with_prefixes
from petl_modules.backbones.whisper import PREPROCESSING, WhisperBackbone


class EarBackbone(WhisperBackbone):
    """Such an encoder; its tokens are those of 20 ms, before the language model's
    pooling."""

    part_of = None


def load(checkpoint: Checkpoint) -> EarBackbone:
    """The encoder of an audio language model, or one that was saved alone."""
    name = ENCODERS[checkpoint.model_type.removesuffix("_encoder")]
    return EarBackbone(
        with_prefixes(checkpoint.model(name, inner=("audio_config", "audio_tower"))),
        checkpoint.source,
        checkpoint.preprocessing(PREPROCESSING),
        checkpoint.spec_augment(fill=None),
    )


ENCODERS = {"qwen2_audio": "Qwen2AudioEncoder", "voxtral": "VoxtralEncoder"}
for family in ENCODERS:
    registry.register(family, load)
    registry.register(f"{family}_encoder", load, {family: {}})
