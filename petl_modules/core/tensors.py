"""Tensors by name."""

from collections.abc import Mapping

from torch import Tensor

from petl_modules.errors import UserError


def check_same_tensors(
    expected: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str
) -> None:
    """Raise a UserError unless both dicts have the same names and shapes."""
    missing, extra = expected.keys() - given.keys(), given.keys() - expected.keys()
    if missing or extra:
        raise UserError(
            f"The tensors do not fit {where}: {len(missing)} are missing and "
            f"{len(extra)} are extra ({min(missing or extra)}, for one)."
        )
    for name, tensor in expected.items():
        if tensor.shape != given[name].shape:
            raise UserError(
                f"The tensor {name} has the shape {tuple(given[name].shape)}, "
                f"{where} needs {tuple(tensor.shape)}."
            )
