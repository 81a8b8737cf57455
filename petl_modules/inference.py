"""The name that `petl_modules.use.inference` had before; it stays."""

from petl_modules.use.inference import load_adapter

__all__ = ["load_adapter"]
