"""The tensors of an adapter: what the file says of them is compared with what they
should be before one of them is read."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from petl_modules.errors import UserError

# safetensors' names of the types that an adapter can have
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
}

Header = dict[str, tuple[str, tuple[int, ...]]]


def read_header(path: Path) -> Header:
    """Type and shape of every tensor of a safetensors file, by name; none is read.

    Raises
    ------
    UserError
        If the file is not there, damaged, or cut short.
    """
    try:
        if not path.is_file():
            raise UserError(f"There is no adapter at {path}.")
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in list(file.keys())}
            return {
                name: (found.get_dtype(), tuple(found.get_shape()))
                for name, found in slices.items()
            }
    except (SafetensorError, OverflowError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}).") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from None


def check_header(
    header: Header, expected: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Raise a UserError unless the file has the tensors that it should have.

    Arguments
    ---------
    header : dict
        Of `read_header`.
    expected : dict
        Tensors with the names, shapes and types that are needed.
    path : Path
        Of the file, for the complaint.
    """
    missing, extra = expected.keys() - header.keys(), header.keys() - expected.keys()
    if missing or extra:
        raise UserError(
            f"The tensors do not fit the adapter file {path}: {len(missing)} are "
            f"missing and {len(extra)} are extra ({sorted(missing or extra)[0]}, for "
            "one)."
        )
    for name, tensor in expected.items():
        dtype, shape = header[name]
        if shape != tuple(tensor.shape):
            raise UserError(
                f"The tensor {name} of {path} has the shape {shape}, its settings need "
                f"{tuple(tensor.shape)}."
            )
        if DTYPES.get(dtype) is not tensor.dtype:
            raise UserError(
                f"The tensor {name} of {path} has the type {dtype}, not {tensor.dtype}."
            )


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, whose values are numbers.

    Raises
    ------
    UserError
        If the file is damaged, or a tensor holds NaN, infinity or a negative variance.
    """
    read_header(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}).") from None
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise UserError(
                f"The tensor {name} of {path} holds values that are no numbers (NaN or "
                "infinity): the file is damaged, or its training went wrong."
            )
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise UserError(
                f"The tensor {name} of {path} holds negative variances: the file is "
                "damaged."
            )
    return tensors
