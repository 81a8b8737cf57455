"""What differs by task: targets, loss, metrics, and what is left for a person."""

from petl_modules.tasks.base import Task
from petl_modules.tasks.classification import Classification
from petl_modules.tasks.ctc import CTC
from petl_modules.tasks.tts import TTS

__all__ = ["CTC", "TTS", "Classification", "Task"]
