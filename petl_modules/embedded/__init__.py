"""The embedded backbone: a small AST that comes with the package."""

from pathlib import Path

MODEL_FOLDER = Path(__file__).parent / "model"
