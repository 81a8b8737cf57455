"""The embedded backbone: a small AST that comes with the package."""

from petl_modules.files import EMBEDDED as MODEL_FOLDER

__all__ = ["MODEL_FOLDER"]
