"""Functions hooked into a model: whom they belong to, and whose turn it is."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, finalize, ref

import torch
from torch import Tensor


class Owner:
    """Stands for an adapted model without keeping it alive."""


class Hooks:
    """The hooks of one encoder or decoder.

    Every hook belongs to the owner that had its turn when it was registered, and acts
    in that owner's turns only, so that several adapted models can share a model. When
    an owner is gone, its hooks go too.

    Arguments
    ---------
    time_first : bool
        Whether the hooked modules work on `(time, batch, hidden)`.

    Attributes
    ----------
    mask : torch.Tensor or None
        `(batch, time)`, True for valid tokens, None when all are valid: what hooked
        functions receive. Set by whoever runs the model.
    held : bool
        Whether the model is held in a narrow type (`petl_modules.core.precision`):
        hooked functions then compute in float32, or under autocast.
    autocast : torch.dtype or None
        Autocast's type, where it is on around a held model.
    """

    def __init__(self, time_first: bool = False) -> None:
        self.time_first = time_first
        self.mask: Tensor | None = None
        self.held = False
        self.autocast: torch.dtype | None = None
        self.turn: Owner | None = None
        self._owner: ref | None = None
        self._handles: list[tuple[Owner | None, Any]] = []
        self._owners: WeakKeyDictionary[Any, Owner] = WeakKeyDictionary()
        self._functions: list[tuple[Owner | None, list, Callable]] = []

    def serve(self, owner: object | None) -> None:
        """Let the hooks of `owner` act and no others, and new ones be its own."""
        if owner is not None and owner not in self._owners:
            self._owners[owner] = token = Owner()
            finalize(owner, self._take_out, token).atexit = False
        self.turn = None if owner is None else self._owners[owner]
        self._owner = None if owner is None else ref(owner)

    @property
    def owner(self) -> object | None:
        """Whose turn it is; None for nobody's, or if the owner is gone."""
        return None if self._owner is None else self._owner()

    def forget(self, owner: object | None) -> None:
        """Take out all that was hooked in for an owner."""
        token = None if owner is None else self._owners.pop(owner, None)
        if token is not None:
            self._take_out(token)

    def register(self, register: Callable, hook: Callable) -> None:
        """Register a hook by a module's own function for that."""
        owner = self.turn

        def owned(*args: Any) -> Any:
            return hook(*args) if owner is self.turn else None

        self._handles.append((owner, register(owned, with_kwargs=True)))

    def call(self, function: Callable, *hidden: Tensor) -> Tensor:
        """`function(*hidden, mask)`, in the type of the last of the hidden states."""
        if not self.held:
            return function(*hidden, self.mask)
        like = hidden[-1]
        if self.autocast is None:
            wide = (states.float() for states in hidden)
            return function(*wide, self.mask).to(like.dtype)
        with torch.autocast(like.device.type, self.autocast):
            return function(*hidden, self.mask).to(like.dtype)

    def keep(self, functions: list, function: Callable) -> None:
        """Put a function into a list of `(owner, function)`."""
        functions.append((self.turn, function))
        self._functions.append((self.turn, functions, function))

    def _take_out(self, owner: Owner) -> None:
        for theirs, handle in self._handles:
            if theirs is owner:
                handle.remove()
        self._handles = [pair for pair in self._handles if pair[0] is not owner]
        for theirs, functions, function in self._functions:
            if theirs is owner:
                functions.remove((theirs, function))
        self._functions = [f for f in self._functions if f[0] is not owner]
