"""What differs by task: targets, loss, metrics, and what is left for a person."""

from petl_modules.tasks.base import Task
from petl_modules.tasks.classification import Classification
from petl_modules.tasks.ctc import CTC
from petl_modules.tasks.recognition import SpeechRecognition
from petl_modules.tasks.slots import SlotFilling
from petl_modules.tasks.transcription import Transcription

__all__ = [
    "CTC",
    "Classification",
    "SlotFilling",
    "SpeechRecognition",
    "Task",
    "Transcription",
]
