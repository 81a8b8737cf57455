"""Yaml files with HyperPyYAML's tags, read without running anything.

A saved config comes from somewhere, and its tags would be imported and called: only
objects that the project's own files name are allowed, whatever they are called with.
"""

import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from textwrap import indent
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from petl_modules.errors import UserError
from petl_modules.kinds import NO_YAML

# Where the objects went that the yaml files of earlier versions name
MOVED = {
    "petl_modules.adapted.AdaptedModel": "petl_modules.core.adapted.AdaptedModel",
    "petl_modules.task_model.TaskModel": "petl_modules.core.task_model.TaskModel",
    "petl_modules.task_model.VoiceModel": "petl_modules.tts.model.VoiceModel",
    "petl_modules.heads.voice_head": "petl_modules.tts.head.voice_head",
    "petl_modules.heads.": "petl_modules.tasks.heads.",
    "petl_modules.tasks.TTS": "petl_modules.tts.task.TTS",
    "petl_modules.backbones.fastspeech2.": "petl_modules.tts.fastspeech2.",
}
TAG = re.compile(r"!(new|name|apply):([\w.]+)")
# Earlier versions named a function of transformers
SCHEDULE = re.compile(
    r"^scheduler: !name:transformers\.get_(\w+)_schedule_with_warmup\b.*$", re.MULTILINE
)
# and gave a new synthesiser its sizes one by one
SIZES = re.compile(
    r"(!apply:petl_modules\.tts\.fastspeech2\.new_fastspeech2)\n"
    r"((?: +\w+: !ref <\w+>\n)+)"
)
PLAIN = (dict, list, str, bool, int, float, type(None))
# What yaml files may name, and as which of HyperPyYAML's tags
ALLOWED = {
    "new": {
        "petl_modules.core.adapted.AdaptedModel",
        "petl_modules.tasks.heads.ClassificationHead",
        "petl_modules.tasks.heads.TagHead",
        "petl_modules.tasks.heads.SpeakerHead",
        "petl_modules.tasks.heads.CTCHead",
        "petl_modules.tasks.heads.OwnHead",
        "petl_modules.tts.config.FastSpeech2Config",
    },
    "name": {
        "petl_modules.core.task_model.TaskModel",
        "petl_modules.tts.model.VoiceModel",
        "petl_modules.tts.task.TTS",
        *(
            f"petl_modules.tasks.{name}"
            for name in (
                "Classification",
                "Tagging",
                "Verification",
                "CTC",
                "SlotFilling",
                "SpeechRecognition",
                "Transcription",
            )
        ),
        *(f"torch.optim.{name}" for name in ("Adam", "AdamW", "SGD")),
    },
    "apply": {
        "petl_modules.backbones.load_backbone",
        "petl_modules.methods.make_method",
        "petl_modules.tasks.heads.intent_head",
        "petl_modules.tts.fastspeech2.new_fastspeech2",
        "petl_modules.tts.head.voice_head",
        "speechbrain.utils.seed.seed_everything",
    },
}


def read(path: str | Path) -> CommentedMap:
    """A yaml file with its tags and comments; nothing that it names is run.

    Raises
    ------
    UserError
        If there is no such file, it is no yaml, or has a tag that is not allowed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = deepcopy(parsed(moved(text)))
        refuse_tags(tree, path, set())
    except OSError:
        raise UserError(f"There is no hparams file {path}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text in UTF-8.") from None
    except UserError:
        raise
    except NO_YAML as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{path} is no yaml: {said[0]}.") from None
    if not isinstance(tree, CommentedMap):
        raise UserError(f"{path} holds no keys.")
    return tree


def refuse_tags(node: Any, path: str | Path, seen: set[int]) -> None:
    """Raise a UserError for a tag that is not allowed, or for what is no plain data,
    anywhere below a node; `seen` are nodes that were looked at."""
    if id(node) in seen:
        return
    seen.add(id(node))
    tag = tag_of(node)
    if tag is not None and tag != "!ref":
        found = TAG.fullmatch(tag)
        if not found or found[2] not in ALLOWED[found[1]]:
            raise UserError(
                f"{path} has the tag {tag}, which would run code that no config of "
                "this project needs: it is not read."
            )
    elif tag is None and not isinstance(node, PLAIN):
        raise UserError(f"{path} holds a {type(node).__name__}, which no knob is.")
    if isinstance(node, dict):
        for key, value in node.items():
            if not isinstance(key, str | int):
                raise UserError(f"{path} has the key {key}, which is no name.")
            refuse_tags(value, path, seen)
    elif isinstance(node, list):
        for one in node:
            refuse_tags(one, path, seen)


def moved(text: str) -> str:
    """A yaml text of an earlier version with today's names in its tags."""

    def renamed(found: re.Match) -> str:
        name = found[2]
        for old, new in MOVED.items():
            if name == old or (old.endswith(".") and name.startswith(old)):
                name = new + name.removeprefix(old)
                break
        return f"!{found[1]}:{name}"

    def gathered(found: re.Match) -> str:
        config = "  config: !new:petl_modules.tts.config.FastSpeech2Config"
        return "\n".join([found[1], config, indent(found[2], "  ")])

    text = SCHEDULE.sub(r"scheduler: \1", TAG.sub(renamed, text))
    return SIZES.sub(gathered, text)


@lru_cache(256)
def parsed(text: str) -> Any:
    """A text's tree, which is not to be changed: a benchmark reads few texts often."""
    return round_trip().load(text)


def round_trip() -> YAML:
    """The yaml reader and writer that keeps tags and comments."""
    yaml = YAML()
    yaml.width = 4096
    yaml.representer.add_representer(
        type(None),
        lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"),
    )
    return yaml


def tag_of(value: Any) -> str | None:
    """A node's tag, such as !ref, or None."""
    return getattr(getattr(value, "tag", None), "value", None)


def tagged(value: Any) -> bool:
    """Whether a value is an object or a reference rather than plain data."""
    return tag_of(value) is not None


def object_of(value: Any) -> str | None:
    """What a node's tag names, such as torch.optim.AdamW."""
    found = TAG.fullmatch(tag_of(value) or "")
    return found[2] if found else None


def plain(value: Any) -> Any:
    """The value without ruamel's types."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
