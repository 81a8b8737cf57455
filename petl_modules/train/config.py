"""From a recipe's yaml and the command line to one complete, checked config.

A recipe's yaml states what is its own; it is laid over `hparams/petl.yaml`, which
holds what all recipes share, so that the result is one complete HyperPyYAML text
whose knobs are all at the top level. Saved as hyperparams.yaml it runs again as it
is.
"""

import difflib
import math
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap

from petl_modules.errors import UserError
from petl_modules.methods import method_entry, method_table

SHARED = Path(__file__).parent.parent / "hparams" / "petl.yaml"

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

# Set by the run itself, or mappings of defaults: no knobs for the command line
INTERNAL = ("run_folder", "method_defaults", "recipe", "labels", "over")

# What a value may be where the default is null
NULLABLE = {
    "lr": float,
    "rank": int,
    "reduction_rate": float,
    "kernel_size": int,
    "dropout": float,
    "alpha": float,
    "prompt_length": int,
    "prompt_dropout": float,
    "projection": int,
    "num_adapters": int,
    "num_slots": int,
    "residual": bool,
    "train_norm": bool,
    "deep": bool,
    "normalize": bool,
    "freeze_feature_encoder": bool,
    "few_shot": int,
    "fold": int,
    "num_classes": int,
    "projector_size": int,
    "max_duration": float,
    "patience": int,
    "max_batch_seconds": float,
    "beam_size": int,
}
NAMES = {int: "a whole number", float: "a number", bool: "True or False"}
# What numbers may be, so that a run does not end in a library's complaint
POSITIVE = (
    "average",
    "lr",
    "batch_size",
    "num_beams",
    "max_batch_seconds",
    "beam_size",
    "vocab_size",
    "max_duration",
    "patience",
    "grad_accumulation_factor",
    "eps",
    "head_start_lr",
    "kernel_size",
    "alpha",
    "projection",
    "num_adapters",
    "num_slots",
    "projector_size",
)
NOT_NEGATIVE = (
    "number_of_epochs",
    "weight_decay",
    "spec_augment_freq",
    "spec_augment_time",
    "mixup",
    "head_start_epochs",
    "max_grad_norm",
    "audio_cache_mib",
    "num_workers",
    "ckpt_interval_minutes",
    "ckpt_interval_steps",
)
AT_MOST = {
    "warmup": 1,
    "label_smoothing": 1,
    "dropout": 1,
    "prompt_dropout": 1,
    "seed": 2**32 - 1,  # numpy's
    "lr": 1e30,  # the largest steps that float32 holds
    "head_start_lr": 1e30,
    "weight_decay": 1e6,
}


@dataclass(frozen=True)
class Config:
    """A complete config.

    Attributes
    ----------
    path : Path
        The yaml that it comes from.
    tree : CommentedMap
        The yaml with all values, tags and references.
    given : frozenset of str
        Keys set on the command line.
    """

    path: Path
    tree: CommentedMap
    given: frozenset = field(default=frozenset())

    def __getitem__(self, key):
        return self.tree[key]

    def replace(self, **values):
        """The same config with other values."""
        tree = CommentedMap(self.tree)
        tree.copy_attributes(self.tree)
        tree.update(values)
        return Config(self.path, tree, self.given)

    def settings(self):
        """The plain values (no objects), by key."""
        return {
            key: plain(value) for key, value in self.tree.items() if not tagged(value)
        }

    def text(self):
        """The config as HyperPyYAML."""
        stream = StringIO()
        round_trip().dump(self.tree, stream)
        return stream.getvalue()

    def build(self, **values):
        """Instantiate: a dict with all values and objects."""
        return load_hyperpyyaml(self.replace(**values).text())


def load_config(path, arguments=()):
    """The config of a recipe's yaml with the command line's changes.

    Arguments
    ---------
    path : str or Path
    arguments : list of str
        `--key=value` or `--key value`, values in yaml.

    Returns
    -------
    Config

    Raises
    ------
    UserError
        For an unknown key (with the nearest known one), a value of the wrong type,
        or a knob that the chosen method has no use for.
    """
    path = Path(path)
    shared, own = lower_layer(own := read(path), path), own
    for key, value in own.items():
        if key in shared and not tagged(value) and not tagged(shared[key]):
            typed(f"{key}={value} in {path}", key, plain(value), shared[key])
    tree = overlay(shared, own)
    given = parse(arguments)
    if tree["run_folder"] and given.get("method", tree["method"]) != tree["method"]:
        raise UserError(
            f"{path} says all settings of a run with method={tree['method']}: for "
            "another method start from the recipe's own yaml."
        )
    for key, value in given.items():
        refuse_unknown(key, tree, path)
        tree[key] = typed(f"--{key}={value}", key, value, tree[key])
    # null asks for the default, so that nothing was said
    said = frozenset(key for key, value in given.items() if value is not None)
    config = with_method_defaults(Config(path, tree, said))
    if config["ckpt_interval_steps"]:  # SpeechBrain takes one of the two
        config = config.replace(ckpt_interval_minutes=0)
    refuse_out_of_range(config.settings())
    return config


def refuse_unread(config, extra):
    """Raise a UserError for a key of a yaml that nothing reads, such as a misspelt one,
    and for an option that a recipe has no use for, such as mixup where text is spelt.

    Arguments
    ---------
    config : Config
    extra : iterable of str
        What the recipe itself reads, beside the keys that all recipes share.
    """
    shared, text = read(SHARED), config.text()
    objects = SHARED.read_text(encoding="utf-8")
    for key in sorted(config.given):
        if f"<{key}>" in objects and f"<{key}>" not in text:
            raise UserError(f"{config.path} has no use for --{key}.")
    known = {*shared, *extra}
    for key, value in config.tree.items():
        if not tagged(value) and f"<{key}>" not in text:
            refuse_misspelt(key, known, config.path)


def refuse_misspelt(key, known, path):
    """Raise a UserError for a key of a yaml that is none of those known."""
    if key not in known:
        near = difflib.get_close_matches(str(key), known, 1)
        hint = f": is it {near[0]}?" if near else "."
        raise UserError(f"{path} has the key {key}, which nothing reads{hint}")


def with_method_defaults(config):
    """The config with the method's own defaults where nothing else is said."""
    name = config["method"]
    entry = method_entry(name)
    knobs = {knob for other in method_table().values() for knob in other["knobs"]}
    useless = sorted((config.given & knobs) - set(entry["knobs"]))
    if useless:
        raise UserError(
            f"The method {name} has no use for --{useless[0]}; its knobs are: "
            f"{', '.join(entry['knobs']) or 'none'}."
        )
    if {"rank", "reduction_rate"} <= config.given:
        raise UserError("Give --rank or --reduction_rate, not both.")
    # the command line's rank takes the place of a default reduction_rate
    hidden = {"rank": "reduction_rate", "reduction_rate": "rank"}
    for other in config["method_defaults"]:
        method_entry(other)  # a misspelt name would be passed over
    own = dict(config["method_defaults"].get(name) or {})
    lr = "lr_after_head_start" if config["head_start_epochs"] else "lr"
    values = {"lr": entry[lr], **entry["knobs"], **own}
    for key, value in values.items():
        if key not in config.tree:
            raise UserError(f"method_defaults of {name} names the unknown key {key}.")
        if key in knobs - set(entry["knobs"]):
            raise UserError(f"method_defaults: {name} has no use for {key}.")
        if key in config.given or hidden.get(key) in config.given:
            values[key] = config[key] if key in config.given else None
        elif key not in own and config[key] is not None:
            values[key] = config[key]
        else:
            values[key] = value
    values |= dict.fromkeys(knobs - set(entry["knobs"]))
    # what is explicit now needs no defaults, and a saved config says what it ran
    return config.replace(**values, method_defaults={})


def lower_layer(own, path):
    """What a yaml is laid over: petl.yaml, or the yaml beside it that `over` names,
    which may be laid over another in turn."""
    name = own.pop("over", None)
    if name is None:
        return read(SHARED)
    if name not in (known := sorted(p.name for p in SHARED.parent.glob("*.yaml"))):
        raise UserError(f"over={name} in {path} is none of {', '.join(known)}.")
    layer = read(SHARED.parent / name)
    return overlay(lower_layer(layer, SHARED.parent / name), layer)


def overlay(base, top):
    """`base` with what `top` says; plain mappings are merged, the rest replaced."""
    for key, value in top.items():
        both = isinstance(value, CommentedMap) and isinstance(
            base.get(key), CommentedMap
        )
        if both and not tagged(value) and not tagged(base[key]):
            overlay(base[key], value)
        else:
            base[key] = value
    return base


def parse(arguments):
    """`--key=value ...` to a dict; `--key` alone means True."""
    given, waiting = {}, None
    for argument in arguments:
        if argument.startswith("--"):
            key, equals, text = argument[2:].partition("=")
            given[key] = text if equals else "True"
            waiting = None if equals else key
        elif waiting is not None:
            given[waiting], waiting = argument, None
        else:
            raise UserError(
                f"The argument {argument} is not understood: options are --key=value."
            )
    values = {}
    for key, text in given.items():
        try:
            values[key] = YAML(typ="safe", pure=True).load(text)
        except YAMLError:
            raise UserError(f"--{key}={text} is no yaml value.") from None
    return values


def refuse_unknown(key, tree, path):
    """Raise a UserError unless `key` can be set on the command line."""
    knobs = [k for k, v in tree.items() if not tagged(v) and k not in INTERNAL]
    if key not in knobs:
        near = difflib.get_close_matches(key, knobs, 1)
        hint = f" Did you mean --{near[0]}?" if near else f" See the keys in {path}."
        raise UserError(f"There is no option --{key}.{hint}")


def refuse_out_of_range(settings):
    """Raise a UserError for a number that makes no sense."""
    for key, value in settings.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number:
            continue
        if not math.isfinite(value):
            raise UserError(f"{key}={value} must be finite.")
        if key in POSITIVE and not value > 0:
            raise UserError(f"{key}={value} must be above 0.")
        if key in NOT_NEGATIVE and value < 0:
            raise UserError(f"{key}={value} must be 0 or more.")
        if key in AT_MOST and not 0 <= value <= AT_MOST[key]:
            raise UserError(f"{key}={value} must be from 0 to {AT_MOST[key]}.")
    betas = settings["betas"]
    fine = isinstance(betas, list) and len(betas) == 2
    if not fine or not all(isinstance(b, int | float) and 0 <= b < 1 for b in betas):
        raise UserError(f"betas={betas} must be two numbers from 0 to below 1.")


def typed(name, key, value, default):
    """`value` in the type of the option `key`, or a UserError; `name` is for it."""
    if value is None:
        if default is not None and key not in NULLABLE:
            raise UserError(f"{key} must have a value.")
        return None
    kind = NULLABLE.get(key) if default is None else type(plain(default))
    kind = next((k for k in (bool, int, float) if kind and issubclass(kind, k)), None)
    if kind is None:
        if isinstance(default, str) and not isinstance(value, str):
            raise UserError(f"{name} must be a name.")
        if key == "targets" and not isinstance(value, list | str):
            raise UserError(f"{name} must be a list of projections.")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{name} must be {NAMES[kind]}.")
    return value


def read(path):
    """A yaml file with its tags and comments."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        for old, new in MOVED.items():
            text = text.replace(f":{old}", f":{new}")
        tree = round_trip().load(text)
    except OSError:
        raise UserError(f"There is no hparams file {path}.") from None
    except YAMLError as error:
        raise UserError(f"{path} is no yaml: {str(error).splitlines()[0]}.") from None
    if not isinstance(tree, CommentedMap):
        raise UserError(f"{path} holds no keys.")
    return tree


def round_trip():
    """The yaml reader and writer that keeps tags and comments."""
    yaml = YAML()
    yaml.width = 4096
    yaml.representer.add_representer(
        type(None),
        lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"),
    )
    return yaml


def tagged(value):
    """Whether a value is an object or a reference rather than plain data."""
    tag = getattr(value, "tag", None)
    return getattr(tag, "value", None) is not None


def plain(value):
    """The value without ruamel's types."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
