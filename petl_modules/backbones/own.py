"""Somebody's own Transformer as a `Host`: its access points by a `Family` table."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from petl_modules.backbones import attention
from petl_modules.backbones.packed import ReachableAttention, reachable
from petl_modules.core.access_points import (
    AccessPoints,
    LayerPoints,
    batch_first,
    first,
    first_input,
    hidden_name,
    replace_first,
    with_first_input,
)
from petl_modules.core.family import Family, Part
from petl_modules.core.host import HostModule, digest_of
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError

# Arguments of PyTorch's layers in whose masks True is what is not seen
HIDING = ("src_mask", "attn_mask", "src_key_padding_mask", "key_padding_mask")


@dataclass
class Pass:
    """One forward pass.

    Attributes
    ----------
    length : int or None
        Number of tokens, learned ones aside, once it is known.
    prompts : int
        Learned tokens in the sequence.
    """

    length: int | None = None
    prompts: int = 0


class OwnModel(HostModule):
    """A Transformer of any making, called as it always was.

    Arguments
    ---------
    model : torch.nn.Module
        Its forward function's arguments and result stay as they are. Attention of
        PyTorch's (`torch.nn.MultiheadAttention`) is run through its projections, and
        PyTorch's fused encoder layers, which would pass by whatever is hooked in, are
        switched off.
    family : Family
        Where its parts are.
    source : str or None
        What it is called in messages; None for its class.

    Raises
    ------
    UserError
        If the table does not fit the model.
    """

    def __init__(
        self,
        model: nn.Module,
        family: Family,
        source: str | None = None,
    ) -> None:
        super().__init__()
        self.model, self.source = model, source or type(model).__name__
        self._table = family
        try:
            self._reach_attention(family)
            self.points = AccessPoints(model, family)
        except (AttributeError, IndexError) as error:
            raise UserError(
                f"The family does not fit {self.source}: {error}."
            ) from error
        self.parts = {"encoder": self.points}
        paths = [name for name, _ in model.named_modules() if name]
        self.side_modules: Mapping[str, Sequence[str]] = {p: (p,) for p in paths}
        self.hidden_size = self.points.hidden_size
        self._fingerprint: str | None = None
        self._pass = Pass()
        for layer in self.points.layers:
            hook = entering(layer, self._pass, family.special)
            layer.module.register_forward_pre_hook(hook, with_kwargs=True)
        last = self.points.layers[-1]
        hook = leaving(last, self._pass, family.special)
        last.module.register_forward_hook(hook)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives, for what the model takes."""
        self._pass.length, self._pass.prompts = None, 0
        self.points.mask = self._valid(args, kwargs)
        return self.model(*args, **kwargs)

    def fingerprint(self) -> str:
        """SHA-256 of the weights as they were at the first call."""
        if self._fingerprint is None:
            self._fingerprint = digest_of(self.model)
        return self._fingerprint

    def takes_prefix(self, layer: LayerPoints) -> bool:
        """Whether a layer's attention lets learned keys and values act; tried on
        noise."""
        module = layer.sites["mhsa"].module
        if isinstance(module, ReachableAttention):
            return True
        config = getattr(self.model, "config", None)
        before = getattr(config, "_attn_implementation", None)
        if config is not None:
            config._attn_implementation = attention.NAME
        acts = prefix_acts(module, layer.hidden_size)
        if not acts and config is not None:
            config._attn_implementation = before
        return acts

    def _reach_attention(self, family: Family) -> None:
        entry = family.sites["mhsa"].entry
        lists = [family.layers] if isinstance(family.layers, str) else family.layers
        for path in lists:
            for layer in self.model.get_submodule(path).children():
                found = layer.get_submodule(entry)
                if type(found) is nn.MultiheadAttention:
                    reachable(found)
        for module in self.model.modules():
            if isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = module.enable_nested_tensor = False

    def _valid(self, args: tuple, kwargs: dict) -> Tensor | None:
        """The valid tokens of a call, `(batch, time)`."""
        name = self._table.mask
        if name is None:
            return None
        bound = inspect.signature(self.model.forward).bind(*args, **kwargs)
        mask = bound.arguments.get(name.removeprefix("~"))
        if mask is None:
            return None
        added = mask.is_floating_point() and bool((mask < 0).any())
        return mask == 0 if name.startswith("~") or added else mask != 0


def torch_encoder(encoder: nn.TransformerEncoder) -> Family:
    """The table of PyTorch's encoder, post-norm or pre-norm, batch first or not."""
    layer: Any = encoder.layers[0]
    q, k, v = (Part("self_attn.in_proj", i) for i in range(3))
    return Family(
        layers="layers",
        mhsa="self_attn",
        mhsa_norm="norm1",
        ffn=("linear1", "linear2"),
        ffn_norm="norm2",
        q=q,
        k=k,
        v=v,
        o="self_attn.out_proj",
        fc1="linear1",
        fc2="linear2",
        last_norm=None if encoder.norm is None else "norm",
        block_norm=None if layer.norm_first else "norm2",
        time_first=not layer.self_attn.batch_first,
        mask="~src_key_padding_mask",
    )


def entering(layer: LayerPoints, run: Pass, special: int) -> Callable:
    """A hook that puts learned tokens in before a layer, and room for them into its
    masks."""
    hooks = layer.hooks

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
        if not layer.has_functions() and not run.prompts:
            return None
        hidden = batch_first(first_input(args, kwargs), hooks)
        if run.length is None:
            run.length = hidden.shape[1]
        mask = hooks.mask
        if mask is None:
            mask = hidden.new_ones(hidden.shape[:2], dtype=torch.bool)
        tokens = layer.enter(Tokens(hidden, mask, special, run.prompts))
        run.prompts, hooks.mask = tokens.prompts, tokens.mask
        hidden_in = None if args else hidden_name(kwargs)
        rest = tuple(widened("", given, run, special) for given in args[1:])
        named = {
            name: given if name == hidden_in else widened(name, given, run, special)
            for name, given in kwargs.items()
        }
        new = batch_first(tokens.hidden, hooks)
        return with_first_input((*args[:1], *rest), named, new)

    return hook


def leaving(layer: LayerPoints, run: Pass, special: int) -> Callable:
    """A hook that takes the learned tokens out after the last layer."""
    hooks = layer.hooks

    def hook(module: nn.Module, args: tuple, output: Any) -> Any:
        if not run.prompts or hooks.mask is None:
            return None
        hidden = batch_first(first(output), hooks)
        start, end = special, special + run.prompts
        hidden = torch.cat([hidden[:, :start], hidden[:, end:]], 1)
        hooks.mask = torch.cat([hooks.mask[:, :start], hooks.mask[:, end:]], 1)
        run.prompts = 0
        return replace_first(output, batch_first(hidden, hooks))

    return hook


def widened(name: str, given: Any, run: Pass, special: int) -> Any:
    """A layer's argument with room for learned tokens, if it is a mask over tokens."""
    if not run.prompts or given is None:
        return given
    if "position" in name:
        raise UserError(
            f"prompt puts tokens in, and the layers of this model are told positions "
            f"({name}) that these would shift: take prefix."
        )
    if not isinstance(given, Tensor) or given.dim() < 2 or run.length is None:
        return given
    seen = 0 if given.is_floating_point() or name in HIDING else 1
    square = given.dim() > 2 or name in ("src_mask", "attn_mask")
    for axis in (-1, -2) if square else (-1,):
        if given.shape[axis] == run.length:
            before, after = given.split([special, run.length - special], axis)
            shape = list(given.shape)
            shape[axis] = run.prompts
            given = torch.cat([before, given.new_full(shape, seen), after], axis)
    return given


@torch.no_grad()
def prefix_acts(module: nn.Module, hidden_size: int) -> bool:
    """Whether an attention module's output follows the prefix that it is given."""
    like = next(module.parameters())
    noise = torch.randn(3, 4, hidden_size).to(like)
    outputs = []
    for scale in (1.0, -1.0):
        prefix = (noise[0] * scale, noise[1] * scale)
        try:
            outputs.append(first(module(noise[2:], prefix=prefix)))
        except Exception:  # whatever a module makes of what it does not know
            return False
    return not torch.allclose(*outputs)
