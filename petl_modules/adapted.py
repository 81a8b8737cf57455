"""The name that `petl_modules.core.adapted` had before; it stays."""

from petl_modules.core.adapted import AdaptedModel

__all__ = ["AdaptedModel"]
