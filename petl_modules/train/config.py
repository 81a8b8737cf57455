"""From a recipe's yaml and the command line to one complete, checked config.

A recipe's yaml states what is its own, some of it for one task alone; it is laid over
`hparams/petl.yaml`, which says what objects a run is built of, and the knobs that these
and training read fill in their defaults. The result is one complete HyperPyYAML text
whose knobs are all at the top level. Saved as hyperparams.yaml it runs again as it is.
"""

import difflib
from collections.abc import Callable, Collection, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from petl_modules.errors import UserError
from petl_modules.kinds import options_of, plain_types, takes_none
from petl_modules.knobs import REQUIRED, Knob
from petl_modules.methods import method_entry, method_knobs
from petl_modules.train.collect import INTERNAL, knobs_of_tree, own_knob
from petl_modules.train.yaml_files import parsed, plain, read, round_trip, tagged

SHARED = Path(__file__).parent.parent / "hparams" / "petl.yaml"
TASK = "task"  # of a recipe that has several
BY_TASK = "by_task"  # what a recipe's yaml says of each
# What petl.yaml itself says of its objects
OF_SHARED = ("normalize_layers",)


@dataclass(frozen=True)
class Config:
    """A complete config.

    Attributes
    ----------
    path : Path
        The yaml that it comes from.
    tree : CommentedMap
        The yaml with all values, tags and references.
    knobs : dict
        Its `petl_modules.knobs.Knob` by name.
    given : frozenset of str
        Keys set on the command line.
    """

    path: Path
    tree: CommentedMap
    knobs: dict[str, Knob]
    given: frozenset[str] = field(default=frozenset())

    def __getitem__(self, key: str) -> Any:
        return self.tree[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, where there is one."""
        return self.tree.get(key, default)

    def replace(self, **values: Any) -> "Config":
        """The same config with other values."""
        tree = CommentedMap(self.tree)
        tree.copy_attributes(self.tree)
        tree.update(values)
        return replace(self, tree=tree)

    def settings(self) -> dict[str, Any]:
        """The plain values (no objects), by key."""
        return {
            key: plain(value) for key, value in self.tree.items() if not tagged(value)
        }

    def text(self) -> str:
        """The config as HyperPyYAML."""
        return text_of(self.tree)

    def objects(self, only: Collection[str] | None = None) -> dict[str, Any]:
        """Instantiate: a dict with all values and objects, or with some objects alone
        (and those that they refer to)."""
        from hyperpyyaml import load_hyperpyyaml

        tree = self.tree
        if only is not None:
            wanted = needed(tree, only)
            kept = {k: v for k, v in tree.items() if not tagged(v) or k in wanted}
            tree = CommentedMap(kept)
        return load_hyperpyyaml(text_of(tree))


def load_config(
    path: str | Path,
    arguments: Sequence[str] = (),
    prepare: Callable | None = None,
    unbuilt: Collection[str] = (),
) -> Config:
    """The config of a recipe's yaml with the command line's changes.

    Arguments
    ---------
    path : str or Path
    arguments : list of str
        `--key=value` or `--key value`: text as it stands where a knob is text, else
        yaml.
    prepare : callable or None
        Of the recipe; its arguments are knobs too.
    unbuilt : collection of str
        Objects of the yaml that will not be built: what they read is not looked at.

    Returns
    -------
    Config

    Raises
    ------
    UserError
        For an unknown key (with the nearest known one), a value of the wrong kind or
        out of its range, or a knob that the chosen method has no use for.
    """
    given = split(arguments)
    config = recipe_config(path, prepare, unbuilt, given.get(TASK))
    said = {}
    for key, text in given.items():
        refuse_unknown(key, config)
        knob = config.knobs[key]
        said[key] = knob.read(switched_on(knob) if text is None else text)
    if (
        config["run_folder"]
        and said.get("method", config["method"]) != config["method"]
    ):
        raise UserError(
            f"{path} says all settings of a run with method={config['method']}: for "
            "another method start from the recipe's own yaml."
        )
    config = config.replace(**said)
    # null asks for the default, so that nothing was said
    told = frozenset(key for key, value in said.items() if value is not None)
    config = with_method_defaults(replace(config, given=told))
    if config["ckpt_interval_steps"]:  # SpeechBrain takes one of the two
        config = config.replace(ckpt_interval_minutes=0)
    return checked(config)


def recipe_config(
    path: str | Path,
    prepare: Callable | None = None,
    unbuilt: Collection[str] = (),
    task: str | None = None,
) -> Config:
    """The config of a recipe's yaml as it stands: no command line but the task, no
    method's own defaults."""
    path = Path(path)
    own = of_task(read(path), path, task)
    tree = overlay(lower_layer(own, path), own)
    knobs = knobs_of_tree(tree, prepare, unbuilt)
    whole = CommentedMap()
    for key, value in INTERNAL.items():
        whole[key] = tree.pop(key, value)
    for key, knob in knobs.items():
        default = None if knob.default is REQUIRED else knob.default
        whole[key] = tree.pop(key, default)
        if whole[key] is not None or not takes_none(knob.kind):
            said = f"{key}={whole[key]} in {path}"
            missing = whole[key] is None and default is None
            whole[key] = None if missing else knob.check(plain(whole[key]), said)
    for key, value in tree.items():
        if not tagged(value):
            if key in OF_SHARED and key not in own:
                continue  # of an object in whose place another stands
            knobs[key] = own_knob(key, plain(value))
        whole[key] = value
    return Config(path, with_method_knobs(whole), knobs)


def checked(config: Config) -> Config:
    """The config with every value in its knob's kind."""
    values = {}
    for key, knob in config.knobs.items():
        if config[key] is not None:
            values[key] = knob.check(plain(config[key]))
    return config.replace(**values)


def refuse_unread(config: Config, prepare: Callable | None) -> None:
    """Raise a UserError for a key of a yaml that nothing reads, such as a misspelt one.

    Arguments
    ---------
    config : Config
    prepare : callable or None
        Of the recipe; what it reads is no mistake.
    """
    shared = recipe_config(SHARED, prepare).knobs
    known = {*knobs_of_tree(config.tree, prepare), *shared, *INTERNAL}
    text = config.text()
    for key, value in config.tree.items():
        if not tagged(value) and f"<{key}>" not in text:
            refuse_misspelt(key, known, config.path)


def refuse_misspelt(key: str, known: Iterable[str], path: str | Path) -> None:
    """Raise a UserError for a key of a yaml that is none of those known."""
    if key not in known:
        near = difflib.get_close_matches(str(key), known, 1)
        hint = f": is it {near[0]}?" if near else "."
        raise UserError(f"{path} has the key {key}, which nothing reads{hint}")


def split(arguments: Sequence[str]) -> dict[str, str | None]:
    """`--key=value ...` to `{key: text}`, None for `--key` alone."""
    given: dict[str, str | None] = {}
    waiting = None
    for argument in arguments:
        if argument.startswith("--"):
            key, equals, text = argument[2:].partition("=")
            given[key] = text if equals else None
            waiting = None if equals else key
        elif waiting is not None:
            given[waiting], waiting = argument, None
        else:
            raise UserError(
                f"The argument {argument} is not understood: options are --key=value."
            )
    return given


# Helpers


def switched_on(knob: Knob) -> str:
    """What an option says that is given without a value.

    Raises
    ------
    UserError
        For one that is no switch.
    """
    if bool not in plain_types(options_of(knob.kind)):
        raise UserError(f"--{knob.name} has no value: --{knob.name}={knob.described}.")
    return "True"


def refuse_unknown(key: str, config: Config) -> None:
    """Raise a UserError unless `key` can be set on the command line."""
    if key in config.knobs:
        return
    if key in recipe_config(SHARED).knobs:
        raise UserError(f"{config.path} has no use for --{key}.")
    near = difflib.get_close_matches(key, config.knobs, 1)
    hint = f" Did you mean --{near[0]}?" if near else " --help lists all."
    raise UserError(f"There is no option --{key}.{hint}")


def with_method_defaults(config: Config) -> Config:
    """The config with the method's own defaults where nothing else is said."""
    name = config["method"]
    entry = method_entry(name)
    knobs = set(method_knobs())
    useless = sorted((config.given & knobs) - set(entry.knobs))
    if useless:
        raise UserError(
            f"The method {name} has no use for --{useless[0]}; its knobs are: "
            f"{', '.join(entry.knobs) or 'none'}."
        )
    if {"rank", "reduction_rate"} <= config.given:
        raise UserError("Give --rank or --reduction_rate, not both.")
    # the command line's rank takes the place of a default reduction_rate
    hidden = {"rank": "reduction_rate", "reduction_rate": "rank"}
    for other in config["method_defaults"]:
        method_entry(other)  # a misspelt name would be passed over
    own = dict(config["method_defaults"].get(name) or {})
    lr = entry.lr_after_head_start if config["head_start_epochs"] else entry.lr
    values = {"lr": lr, **entry.defaults, **own}

    def said(key: str) -> bool:
        return key in config.given or key in own or config.get(key) is not None

    for key, value in values.items():
        if key not in config.tree:
            raise UserError(f"method_defaults of {name} names the unknown key {key}.")
        if key in knobs - set(entry.knobs):
            raise UserError(f"method_defaults: {name} has no use for {key}.")
        if key in config.given or hidden.get(key, "") in config.given:
            values[key] = config[key] if key in config.given else None
        elif key not in own and config[key] is not None:
            values[key] = config[key]
        else:
            values[key] = value
    if values.get("rank") is not None and not said("reduction_rate"):
        values["reduction_rate"] = None
    entry.check({key: plain(values[key]) for key in entry.knobs})
    values |= entry.complete({key: plain(values[key]) for key in entry.knobs})
    entry.factory(**{k: values[k] for k in entry.knobs if values[k] is not None})
    values |= dict.fromkeys(knobs - set(entry.knobs))
    # what is explicit now needs no defaults, and a saved config says what it ran
    return config.replace(**values, method_defaults={})


def with_method_knobs(tree: CommentedMap) -> CommentedMap:
    """The tree whose `petl` object reads every knob of the methods."""
    petl = tree.get("petl")
    if isinstance(petl, CommentedMap):
        for name in method_knobs():
            if name not in petl:
                petl[name] = reference(name)
    return tree


def reference(key: str) -> Any:
    """`!ref <key>`."""
    # not one object twice, which would be written as an alias
    return copy(parsed(f"!ref <{key}>"))


def of_task(own: CommentedMap, path: Path, task: str | None) -> CommentedMap:
    """A yaml with what its `by_task` says of one task, or of its own; also what that is
    laid over."""
    parts = own.pop(BY_TASK, None)
    if parts is None:
        return own
    task = own[TASK] if task is None else task
    if task not in parts:
        raise UserError(f"task={task} is unknown: choose {' or '.join(parts)}.")
    own[TASK] = task
    return overlay(own, parts[task])


def lower_layer(
    own: CommentedMap, path: Path, above: tuple[Path, ...] = ()
) -> CommentedMap:
    """What a yaml is laid over: petl.yaml, or the one that `over` names, beside
    petl.yaml or beside the yaml itself, which may be laid over another in turn."""
    name = own.pop("over", None)
    if path.resolve() == SHARED:
        return CommentedMap()
    if name is None:
        return read(SHARED)
    folders = (SHARED.parent, path.parent)
    known = {p.name: p for f in reversed(folders) for p in sorted(f.glob("*.yaml"))}
    if name not in known or known[name] in (*above, path):
        raise UserError(f"over={name} in {path} is none of {', '.join(sorted(known))}.")
    layer = read(known[name])
    return overlay(lower_layer(layer, known[name], (*above, path)), layer)


def overlay(base: CommentedMap, top: CommentedMap) -> CommentedMap:
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


def text_of(tree: CommentedMap) -> str:
    """A tree as yaml."""
    stream = StringIO()
    round_trip().dump(tree, stream)
    return stream.getvalue()


def needed(tree: CommentedMap, names: Collection[str]) -> set[str]:
    """Objects and all that they refer to."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name in tree and name not in found:
            found.add(name)
            text = text_of(CommentedMap({name: tree[name]}))
            waiting += [key for key in tree if f"<{key}>" in text or f"<{key}." in text]
    return found
