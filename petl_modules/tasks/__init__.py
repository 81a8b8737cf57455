"""What differs by task: targets, loss, metrics, and what is left for a person.

A task is imported when it is asked for: what one needs (a beam search, pictures, a
tokenizer's normaliser) takes others seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petl_modules.tasks.base import Task
    from petl_modules.tasks.classification import Classification
    from petl_modules.tasks.ctc import CTC
    from petl_modules.tasks.recognition import SpeechRecognition
    from petl_modules.tasks.slots import SlotFilling
    from petl_modules.tasks.tagging import Tagging
    from petl_modules.tasks.transcription import Transcription
    from petl_modules.tasks.verification import Verification

__all__ = [
    "CTC",
    "Classification",
    "SlotFilling",
    "SpeechRecognition",
    "Tagging",
    "Task",
    "Transcription",
    "Verification",
]
MODULES = {
    "CTC": "ctc",
    "Classification": "classification",
    "SlotFilling": "slots",
    "SpeechRecognition": "recognition",
    "Tagging": "tagging",
    "Task": "base",
    "Transcription": "transcription",
    "Verification": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
