"""No layer of the package imports one above it."""

import ast
from pathlib import Path

import petl_modules

PACKAGE = Path(petl_modules.__file__).parent

# From the bottom up; what shares a row knows nothing of its neighbours
LAYERS = (
    ("errors", "files", "console", "kinds", "knobs"),
    ("core",),
    ("methods",),
    ("backbones", "data"),
    ("tasks",),
    ("tts",),
    ("use",),
    ("train",),
    ("grid", "embedded"),
)
HEIGHTS = {name: height for height, row in enumerate(LAYERS) for name in row}
TOP = len(LAYERS)


def layer_of(module):
    """The package, or the module beside the packages, that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def modules(folder=PACKAGE):
    """`{name: path}` of every module of the package."""
    names = {}
    for path in sorted(folder.rglob("*.py")):
        parts = (folder.name, *path.relative_to(folder).with_suffix("").parts)
        names[".".join(p for p in parts if p != "__init__")] = path
    return names


def is_command(tree):
    """Whether a module is one that people run."""
    return any(isinstance(n, ast.FunctionDef) and n.name == "main" for n in tree.body)


def imported(tree, known):
    """The modules of the package that a module imports, wherever in it; not what it
    imports for the sake of its types alone."""
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (inner & known) or {node.module}


def breaches(folder=PACKAGE):
    """A sentence for each import that runs upward, or to a command."""
    paths = modules(folder)
    trees = {n: ast.parse(p.read_text(encoding="utf-8")) for n, p in paths.items()}
    commands = {n for n, tree in trees.items() if is_command(tree)}
    found = []
    for name, tree in trees.items():
        own = layer_of(name)
        for other in sorted(set(imported(tree, set(trees)))):
            theirs = layer_of(other)
            if own not in HEIGHTS or not theirs:  # beside the packages: the top
                continue
            height = TOP if name in commands else HEIGHTS[own]
            there = HEIGHTS.get(theirs, TOP)
            if theirs != own and (there > height or there == height > 0):
                found.append(f"{name} imports {other}, which stands above it")
            if other in commands and name not in commands:
                found.append(f"{name} imports {other}, which is a command")
    return found


def test_every_package_has_its_layer():
    packages = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert packages <= HEIGHTS.keys()


def test_imports_run_downward_and_none_to_a_command():
    assert not breaches()


def test_a_breach_is_seen(tmp_path):
    files = {
        "core/low.py": "def f():\n    from petl_modules.train import brain",
        "train/brain.py": "import petl_modules.grid.run",
        "grid/run.py": "from petl_modules.core import low\ndef main(): pass",
        "use/a.py": "from petl_modules.use.b import x",
        "use/b.py": "x = 1\ndef main(): pass",
    }
    for name, text in files.items():
        path = tmp_path / "petl_modules" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    assert breaches(tmp_path / "petl_modules") == [
        "petl_modules.core.low imports petl_modules.train.brain, which stands above it",
        "petl_modules.train.brain imports petl_modules.grid.run, which stands above it",
        "petl_modules.train.brain imports petl_modules.grid.run, which is a command",
        "petl_modules.use.a imports petl_modules.use.b, which is a command",
    ]
