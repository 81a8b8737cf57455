"""Which knobs a config has, collected from all that reads it."""

from collections.abc import Callable, Collection
from pydoc import locate
from typing import Any

from ruamel.yaml.comments import CommentedMap

from petl_modules.data.loading import Loading
from petl_modules.kinds import NAMES
from petl_modules.knobs import Knob, knobs_of
from petl_modules.methods import method_knobs, method_table
from petl_modules.train.settings import Experiment, Machine, Training
from petl_modules.train.yaml_files import object_of, tag_of, tagged

# Set by a run or a recipe itself, and what they are where nothing is said
INTERNAL = {
    "recipe": None,
    "run_folder": None,
    "labels": None,
    "method_defaults": {},
    "own_data": False,  # of the user, not of one known data set
}
# Under what the knobs of an object are shown
SECTIONS = {"backbone": "Backbone", "head": "Head", "objective": "Task"}


def knobs_of_tree(
    tree: CommentedMap,
    prepare: Callable | None = None,
    unbuilt: Collection[str] = (),
) -> dict[str, Knob]:
    """The knobs of a recipe's tree, by name, in the order in which they are shown.

    Those that training reads, those of every method, those that an object of the tree
    reads by `!ref <key>` (of any kind where it is not to be built, nor imported),
    and those of the recipe's `prepare` function. Where several
    read one knob, the first of these says what it means.
    """
    found = knobs_of(Experiment, "Experiment")
    if prepare is not None:
        add(found, knobs_of(prepare, "Data set"))
    for key, node in tree.items():
        if key in SECTIONS or key == "model":
            section = SECTIONS.get(key, "Method")
            read = read_by(node, section, key not in unbuilt)
            for name, knob in read.items():
                if name not in INTERNAL and not tagged(tree.get(name)):
                    found.setdefault(name, knob)
        if key == "backbone":
            for name in method_knobs():
                add(found, {name: method_knob(name)})
    add(found, knobs_of(Loading, "Data"))
    add(found, knobs_of(Training, "Training"))
    add(found, knobs_of(Machine, "Machine"))
    return found


def read_by(node: Any, section: str, described: bool = True) -> dict[str, Knob]:
    """The knobs that an object of a yaml, and what it is made of, read by `!ref <key>`,
    as signatures and docstrings describe them."""
    if not isinstance(node, dict):
        return {}
    factory: Any = locate(object_of(node) or "") if described else None
    knobs = {} if factory is None else knobs_of(factory, section)
    found = {}
    for argument, value in node.items():
        if tagged(value):
            found |= read_by(value, section, described)
        key = referred(value)
        if key is not None and (argument in knobs or not described):
            knob = knobs.get(argument, Knob(argument, default=None))
            found[key] = Knob(key, knob.kind, knob.default, knob.help, section)
    return found


def method_knob(name: str) -> Knob:
    """A knob of several methods, as the first of them has it, with no default: that is
    each method's own."""
    knob = next(e.knobs[name] for e in method_table().values() if name in e.knobs)
    return Knob(name, knob.kind | None, None, knob.help, "Method")


def own_knob(key: str, value: Any) -> Knob:
    """The knob of a key that only a yaml knows: its kind is that of its value."""
    kind = type(value) if type(value) in NAMES else Any
    return Knob(key, kind, value, "", "Recipe")


# Helpers


def add(found: dict, more: dict) -> None:
    """Add knobs that are not there yet."""
    for name, knob in more.items():
        found.setdefault(name, knob)


def referred(value: Any) -> str | None:
    """The key of `!ref <key>`, or None for anything else."""
    text = str(getattr(value, "value", ""))
    if tag_of(value) != "!ref" or not (text.startswith("<") and text.endswith(">")):
        return None
    key = text[1:-1]
    return key if key.isidentifier() else None
