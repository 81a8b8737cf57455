"""A GPU that is pretended: tensors named cuda whose values lie on the CPU.

They mix with the CPU's tensors as little as a GPU's do, so that what computes in the
wrong place is found where there is no GPU. Products, rounding and random numbers are
those of the CPU, and so is autocast, which does nothing here.
"""

from contextlib import contextmanager

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default, aten.copy.default)
BY_PLACES = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
GIVES_A_NUMBER = (aten._local_scalar_dense, aten.equal)
# Made of operators that ask C++ for the device, where tensors of the card are the CPU's
WHOLE = ("one_hot", "ctc_loss", "stft")
FACTORIES = (torch.tensor, torch.as_tensor)

within, waits = [], []  # of what runs now; what a device would have been waited for


class OnCard(torch.Tensor):
    """A tensor of the card."""

    @staticmethod
    def __new__(cls, values):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device="cpu",
        )
        made.values_ = values
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    data = property(lambda self: self.detach(), lambda self, new: self._take(new))

    def _take(self, new):
        if not isinstance(new, OnCard):
            raise RuntimeError("the data of a CPU's tensor for one of the card")
        self.values_ = new.values_
        torch.Tensor.data.__set__(self, new)

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def pin_memory(self, *args):
        raise RuntimeError("only dense CPU tensors can be pinned")

    def tolist(self):
        return moved(self.detach(), "cpu").tolist()

    def __reduce_ex__(self, protocol):
        return self.values_.detach().__reduce_ex__(protocol)

    def __repr__(self, **kwargs):
        return f"OnCard({self.values_!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


@contextmanager
def card():
    """Let there be a card; gives the list of what waits for it."""
    waits.clear()
    swap = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.Tensor, "pin_memory", lambda self: self)
        health = "_accelerator_graph_capture_health_check"
        patch.setattr(torch.optim.Optimizer, health, lambda self: None)
        try:
            with Asked(), Dispatched():
                yield waits
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swap)


# Helpers


class Asked(TorchFunctionMode):
    """What Python asks of torch, where it names a device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func is torch.Tensor.to:
            return to(func, *args, **kwargs)
        if func is torch.Tensor.cpu:
            return moved(args[0], "cpu")
        if func in FACTORIES and is_card(kwargs.get("device")):
            return moved(func(*args, **{**kwargs, "device": None}), CUDA)
        if is_card(kwargs.get("device")):
            kwargs["device"] = CUDA
        if name not in WHOLE or not any(isinstance(a, OnCard) for a in args):
            return func(*args, **kwargs)
        within.append(WHOLE)
        try:
            return func(*args, **kwargs)
        finally:
            within.pop()


class Dispatched(TorchDispatchMode):
    """What makes tensors of nothing."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def is_card(device):
    return device is not None and torch.device(device).type == "cuda"


def to(func, tensor, *args, **kwargs):
    """`Tensor.to`."""
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    for given in args:
        if isinstance(given, torch.Tensor):
            device, dtype = given.device, given.dtype
        elif isinstance(given, torch.dtype):
            dtype = given
        elif isinstance(given, str | torch.device):
            device = given
    if device is not None and torch.device(device).type not in ("cpu", "cuda"):
        return func(tensor, *args, **kwargs)
    return moved(tensor, device, dtype, kwargs.get("non_blocking", False))


def moved(tensor, device, dtype=None, non_blocking=False):
    """A tensor elsewhere, or of another type."""
    here = isinstance(tensor, OnCard)
    there = here if device is None else is_card(device)
    if here == there and dtype in (None, tensor.dtype):
        return tensor
    if here != there and not non_blocking:
        waits.append(f"a copy to {device}")
    how = {} if dtype is None else {"dtype": dtype}
    if device is not None:
        how["device"] = CUDA if there else torch.device("cpu")
    within.append(moved)
    try:
        return aten._to_copy.default(tensor, **how)
    finally:
        within.pop()


def computed(func, args, kwargs):
    """What an operator gives; an error where a GPU would refuse it."""
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    on_card = [t for t in tensors if isinstance(t, OnCard)]
    device = kwargs.get("device")
    if on_card and moved not in within and device == torch.device("cpu"):
        device = CUDA  # C++ has asked a tensor of the card
    if is_card(device) or on_card:
        refuse(func, args, kwargs, tensors)
    how = {**kwargs, "device": torch.device("cpu")} if is_card(device) else kwargs
    bare = tree_map(lambda t: t.values_ if isinstance(t, OnCard) else t, (args, how))
    found = func(*bare[0], **bare[1])
    if func is aten.copy_.default:
        return args[0]
    stays = bool(on_card) if device is None else is_card(device)
    if not (stays or WHOLE in within) or func.overloadpacket in GIVES_A_NUMBER:
        return found
    known = {id(t.values_): t for t in on_card} if func._schema.is_mutable else {}

    def wrapped(value):
        if not isinstance(value, torch.Tensor):
            return value
        return known.get(id(value)) if id(value) in known else OnCard(value)

    return tree_map(wrapped, found)


def refuse(func, args, kwargs, tensors):
    """Raise an error where a GPU would; note what it would be waited for."""
    packet = func.overloadpacket
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a generator of the CPU for the card")
    if packet in GIVES_A_NUMBER:
        waits.append(str(func))
    if func in COPIES or WHOLE in within or packet == aten._ctc_loss_backward:
        return  # CTC takes its lengths from the CPU
    others = [t for t in tensors if not isinstance(t, OnCard)]
    if packet in BY_PLACES:
        places = [i for i in args[1] if i is not None]
        others = [t for t in others if not any(t is i for i in places)]
        if not all(isinstance(i, OnCard) for i in places):
            waits.append(f"{func} by places of the CPU")
    if any(t.dim() for t in others):
        sizes = [(tuple(t.shape), str(t.device)) for t in tensors]
        raise RuntimeError(f"{func}: tensors on two devices, {sizes}")
