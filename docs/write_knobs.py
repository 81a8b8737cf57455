"""Write docs/knobs.md: `python docs/write_knobs.py`.

Every knob, with its kind, default and meaning, as the signatures and docstrings of what
reads it have them. A test checks that the file is current.
"""

from pathlib import Path

from petl_modules.knobs import REQUIRED, Knob
from petl_modules.methods import method_table
from petl_modules.train.config import SHARED, Config, recipe_config
from petl_modules.train.help import sections, shown
from petl_modules.train.recipes import HPARAMS, RECIPES, TRAIN, prepare_of

HOME = Path(__file__).parent
LAYERS = (
    "tags.yaml",
    "ctc.yaml",
    "asr.yaml",
    "seq2seq.yaml",
    "tts.yaml",
    "tts_base.yaml",
)
HEAD = """# Knobs

Every setting that a yaml or the command line (`--key=value`) may change. This file is
written by `python docs/write_knobs.py`; `python train.py --help` says the same of one
recipe, with the recipe's own defaults.
"""


def text() -> str:
    """The whole file."""
    shared = recipe_config(SHARED)
    parts = [HEAD, "## Of every recipe\n"]
    told = {name for entry in method_table().values() for name in entry.knobs}
    for title, knobs in sections(shared).items():
        rest = [knob for knob in knobs if title != "Method" or knob.name not in told]
        if rest:
            parts += [f"### {title}\n", table(rest, shared)]
    parts += ["## Of each method\n", methods()]
    known = set(shared.knobs)
    layers = set(known)
    for name in LAYERS:
        config = recipe_config(SHARED.parent / name)
        parts += own_knobs(f"## Of recipes over {name}\n", config, known)
        layers |= set(config.knobs)
    parts.append("## Of one recipe\n")
    for path in sorted(RECIPES.glob(f"**/{TRAIN}")):
        if not (path.parent / HPARAMS).exists():
            continue  # it has options of its own
        folder = path.parent
        config = recipe_config(folder / HPARAMS, prepare_of(folder))
        title = f"### {folder.relative_to(RECIPES)}\n"
        read = {k for k, knob in config.knobs.items() if knob.section == "Data set"}
        parts += own_knobs(title, config, (layers - read) | known)
    return "\n".join(parts)


def own_knobs(title: str, config: Config, known: set[str]) -> list[str]:
    """The part of a file's own knobs, if it has any."""
    own = [knob for name, knob in config.knobs.items() if name not in known]
    return [title, table(own, config)] if own else []


def methods() -> str:
    """The knobs of the methods, each method's apart."""
    parts = []
    for name, entry in method_table().items():
        lr = f"lr {entry.lr:g}, after a head start {entry.lr_after_head_start:g}"
        parts.append(f"### {name}\n\nBy default: {lr}.\n")
        rows = [
            row(knob, knob.default, "null" if knob.default is None else None)
            for knob in entry.knobs.values()
        ]
        parts.append(lines(rows) if rows else "It has no knobs.\n")
    return "\n".join(parts)


def table(knobs: list[Knob], config: Config) -> str:
    """A table of knobs, with a config's values as defaults."""
    return lines([row(knob, config[knob.name]) for knob in knobs])


def row(knob: Knob, value: object, null: str | None = None) -> str:
    """A table's row."""
    default = null or ("null" if value is REQUIRED else shown(value))
    kind = "" if knob.described == "a yaml value" else knob.described
    cells = [f"`{knob.name}`", kind, f"`{default}`", knob.help]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def lines(rows: list[str]) -> str:
    """Rows under a heading."""
    return "\n".join(
        ["| knob | takes | default | meaning |", "|---|---|---|---|", *rows, ""]
    )


if __name__ == "__main__":
    (HOME / "knobs.md").write_text(text(), encoding="utf-8")
