"""`AdaptedModel` stood here before `petl_modules.core`; what imports it goes on."""

from petl_modules.core.adapted import AdaptedModel

__all__ = ["AdaptedModel"]
