"""Draw docs/architecture.svg: the packages, and the imports between them.

    python docs/draw_architecture.py

Read from the code, not from a plan: an arrow from A to B says that a module of A
imports one of B. Modules that people run (those with a `main`) stand in a row of their
own. What follows from other arrows is left out, and so is the row that all import.
"""

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "petl_modules"
PICTURE = Path(__file__).parent / "architecture.svg"
COMMANDS = "commands"
BASE = ("errors", "files", "console", "kinds", "knobs")
SAYS = {
    COMMANDS: "the door, petl, and what it runs",
    "grid": "benchmark, jobs, search, report",
    "embedded": "the small backbone, its pretraining",
    "train": "command line, config, Brain, folds",
    "use": "adapter file, inference, exchange",
    "tts": "the synthesiser",
    "tasks": "targets, heads, losses, metrics",
    "backbones": "one file a family",
    "data": "manifests, splits, decoding",
    "methods": "one file a family of methods",
    "core": "access points, AdaptedModel",
}
WIDTH, HEIGHT, GAP, RISE = 236, 52, 28, 112  # of a box and between boxes


def edges(package: Path = PACKAGE) -> set[tuple[str, str]]:
    """`(importer, imported)` of all packages, by name.

    Arguments
    ---------
    package : Path
    """
    trees = {path: ast.parse(path.read_text()) for path in package.rglob("*.py")}
    places = {path: node_of(path, tree, package) for path, tree in trees.items()}
    modules = {module_of(path, package): place for path, place in places.items()}
    found = set()
    for path, tree in trees.items():
        for name in imports_of(tree):
            if name in modules and modules[name] != places[path]:
                found.add((places[path], modules[name]))
    return {(a, b) for a, b in found if a not in BASE and b not in BASE}


def shown(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows that follow from no others.

    Raises
    ------
    ValueError
        If they run in a circle.
    """
    heights(arrows)
    return {
        (a, b)
        for a, b in arrows
        if not any(b in below(c, arrows) for x, c in arrows if x == a and c != b)
    }


def heights(arrows: set[tuple[str, str]]) -> dict[str, int]:
    """How high every package stands: one above all that it imports."""

    def height(name, above=()):
        if name in above:
            raise ValueError(f"imports run in a circle: {' -> '.join([*above, name])}")
        lower = [height(b, (*above, name)) for a, b in sorted(arrows) if a == name]
        return 1 + max(lower, default=-1)

    return {name: height(name) for pair in arrows for name in pair}


def drawn(arrows: set[tuple[str, str]]) -> str:
    """The picture, as SVG."""
    rows = {}
    for name, height in sorted(heights(arrows).items()):
        rows.setdefault(height, []).append(name)
    widest = max(map(len, rows.values()))
    wide = widest * (WIDTH + GAP) + GAP
    tall = (len(rows) + 1) * RISE
    boxes = {}
    for height, names in rows.items():
        left = (wide - len(names) * (WIDTH + GAP) + GAP) / 2
        for at, name in enumerate(names):
            boxes[name] = left + at * (WIDTH + GAP), tall - (height + 2) * RISE + GAP
    base = tall - RISE + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" '
        f'width="{wide}" font-family="sans-serif" text-anchor="middle">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#667"/></marker>'
        "</defs>",
        f'<rect width="{wide}" height="{tall}" fill="white"/>',
        *(arrow(a, b, boxes) for a, b in sorted(shown(arrows))),
        *(box(name, *place, WIDTH, SAYS[name]) for name, place in boxes.items()),
        box(", ".join(BASE), GAP, base, wide - 2 * GAP, "what all import"),
    ]
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(drawn(edges()), encoding="utf-8")


# Helpers


def node_of(path, tree, package):
    """The box that a module stands in."""
    inside = path.relative_to(package).parts
    runs = any(isinstance(n, ast.FunctionDef) and n.name == "main" for n in tree.body)
    if len(inside) > 1 and not runs:
        return inside[0]
    return path.stem if path.stem in BASE else COMMANDS


def module_of(path, package):
    """A module's full name."""
    inside = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(inside).removesuffix(".__init__")


def imports_of(tree) -> Iterator[str]:
    """What a module imports, wherever in it, but for the sake of types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports_of(node)


def below(name, arrows):
    """Everything that a package imports, and they in turn."""
    found, new = set(), {name}
    while new:
        found |= new
        new = {b for a, b in arrows if a in new} - found
    return found - {name}


def arrow(a, b, boxes):
    """A curve from a box to the next row, and on past the boxes of rows between."""
    (x, y), (to_x, to_y) = boxes[a], boxes[b]
    x, y, to_x = x + WIDTH / 2, y + HEIGHT, to_x + WIDTH / 2
    turn, below = y + (RISE - HEIGHT) / 2, y + RISE - HEIGHT
    on = f"L{to_x} {to_y}" if to_y > below else ""
    return (
        f'<path data-imports="{a} {b}" d="M{x} {y}C{x} {turn} {to_x} {turn} {to_x} '
        f'{below}{on}" fill="none" stroke="#667" stroke-width="1.4" '
        'marker-end="url(#tip)"/>'
    )


def box(name, x, y, width, says):
    """A package with what it is for."""
    middle = x + width / 2
    return (
        f'<g><rect x="{x}" y="{y}" width="{width}" height="{HEIGHT}" rx="8" '
        f'fill="#eef3fb" stroke="#345"/><text x="{middle}" y="{y + 21}" '
        f'font-size="16" font-weight="600" fill="#123">{escape(name)}</text>'
        f'<text x="{middle}" y="{y + 40}" font-size="12" fill="#456">{escape(says)}'
        "</text></g>"
    )


if __name__ == "__main__":
    main()
