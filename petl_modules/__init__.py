"""Parameter-efficient transfer learning of audio and speech Transformers.

The Python API, imported when it is asked for: `load_backbone`, `make_method` and
`AdaptedModel` put a method on a pretrained model for sound, `load_adapter` uses what
training left, and `adapt` puts a method on a Transformer of one's own, whose parts a
`Family` names.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petl_modules.backbones import load_backbone
    from petl_modules.core.adapted import AdaptedModel
    from petl_modules.core.family import Block, Family, Part
    from petl_modules.methods import make_method
    from petl_modules.use.adapt import adapt
    from petl_modules.use.inference import load_adapter

__all__ = [
    "AdaptedModel",
    "Block",
    "Family",
    "Part",
    "adapt",
    "load_adapter",
    "load_backbone",
    "make_method",
]

_HOMES = {
    "AdaptedModel": "petl_modules.core.adapted",
    "Block": "petl_modules.core.family",
    "Family": "petl_modules.core.family",
    "Part": "petl_modules.core.family",
    "adapt": "petl_modules.use.adapt",
    "load_adapter": "petl_modules.use.inference",
    "load_backbone": "petl_modules.backbones",
    "make_method": "petl_modules.methods",
}

# SpeechBrain says on import that it cannot save figures, which nobody asked it to do
logging.getLogger("speechbrain.utils.train_logger").addFilter(lambda _: False)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
