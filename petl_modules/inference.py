"""`load_adapter` stood here before `petl_modules.use`; what imports it goes on."""

from petl_modules.use.inference import load_adapter

__all__ = ["load_adapter"]
