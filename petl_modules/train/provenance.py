"""Of what versions a result is."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "torchaudio", "speechbrain", "transformers", "petl-modules")
ROOT = Path(__file__).parents[2]


def versions() -> dict[str, str | None]:
    """Of Python and the packages that a result hangs on; None where a package says
    none, as one that was copied and not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def commit(root: Path = ROOT) -> str | None:
    """The project's commit, with a + where files differ from it; None where the project
    has no repository of its own, as when it is installed into an environment that lies
    in one."""
    top = git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return None
    found = git(root, "rev-parse", "HEAD")
    changed = git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{found}+" if found and changed else found


def git(folder: Path, *words: str) -> str | None:
    """What git says in a folder, or None where it fails."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
