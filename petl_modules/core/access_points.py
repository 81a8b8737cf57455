"""Where a Transformer can be reached: layers, sites, norms, projections.

From the `Family` table of a model, `AccessPoints` finds the modules and offers places
to hook functions in (around a site, around a projection, before a layer), without
touching the model's modules or names.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from petl_modules.core.family import Family, Part
from petl_modules.core.hooks import Hooks
from petl_modules.core.quantised import unpacked


class AccessPoints:
    """The access points of one model, an encoder or a decoder.

    Arguments
    ---------
    model : torch.nn.Module
        A model of the family.
    family : Family
        Where its parts are.

    Attributes
    ----------
    model : torch.nn.Module
    is_decoder : bool
    hooks : Hooks
        What is hooked in, and whose turn it is.
    layers : list of LayerPoints
    hidden_size : int
        Size of the last layer's tokens.
    last_norm : torch.nn.Module or None
        The last norm of the model; None where it does not end in one.
    norm_follows : bool
        Whether `last_norm` is no part of the last layer.
    """

    def __init__(self, model: nn.Module, family: Family) -> None:
        self.model = model
        self.is_decoder = bool(family.cross)
        self.hooks = Hooks(family.time_first)
        lists = [family.layers] if isinstance(family.layers, str) else family.layers
        modules = [m for path in lists for m in model.get_submodule(path).children()]
        self.layers = [
            LayerPoints(self.hooks, i, module, family)
            for i, module in enumerate(modules)
        ]
        self.hidden_size = self.layers[-1].hidden_size
        self.norm_follows = family.last_norm is not None
        self.last_norm: Any = (
            self.layers[-1].block_norm
            if family.last_norm is None
            else model.get_submodule(family.last_norm)
        )

    @property
    def mask(self) -> Tensor | None:
        """What hooked functions receive; `Hooks.mask`."""
        return self.hooks.mask

    @mask.setter
    def mask(self, mask: Tensor | None) -> None:
        self.hooks.mask = mask


class LayerPoints:
    """The access points of one layer.

    Arguments
    ---------
    hooks : Hooks
        Of the model.
    index : int
    module : torch.nn.Module
    family : Family

    Attributes
    ----------
    name : str
        Part of the names of the tensors that train here.
    hidden_size : int
        Size of its tokens.
    sites : dict
        mhsa, ffn and what else the family has, each a `Site`.
    first : str or None
        The one that comes before self-attention, where there is one.
    norms : dict
        The LayerNorm of each site.
    block_norm : torch.nn.Module or None
        The LayerNorm that ends the layer, where one does.
    post_norm : bool
        Whether that is the feed-forward block's own.
    projections : dict
        q, k, v, o, and fc1 and fc2 where there are, each a `Projection`; of a decoder
        also cross_q, cross_k, cross_v, cross_o.
    """

    def __init__(
        self, hooks: Hooks, index: int, module: nn.Module, family: Family
    ) -> None:
        find = module.get_submodule
        self.hooks, self.index, self.module = hooks, index, module
        self.is_decoder = bool(family.cross)
        self.name = f"decoder_layer{index}" if self.is_decoder else f"layer{index}"
        self.functions: list[tuple[Any, Callable]] = []  # (owner, function)
        self.sites: dict[str, Site] = {}
        self.norms: dict[str, Any] = {}
        for name, block in family.sites.items():
            self.sites[name] = Site(
                hooks, find(block.entry), find(block.exit), block.gain
            )
            self.norms[name] = find(block.norm)
        self.projections = {
            name: Projection(hooks, find(part.path), part)
            for name, part in family.projections.items()
        }
        self.block_norm: Any = find(family.block_norm) if family.block_norm else None
        self.post_norm = family.block_norm == family.ffn_norm
        self.first = family.first
        self.hidden_size = int(self.norms["mhsa"].weight.shape[-1])

    def before(self, function: Callable) -> None:
        """Replace the tokens that enter the layer by `function(tokens)`."""
        self.hooks.keep(self.functions, function)

    def enter(self, tokens: Any) -> Any:
        """The tokens that enter the layer, as the functions before it change them."""
        for owner, function in self.functions:
            if owner is self.hooks.turn:
                tokens = function(tokens)
        return tokens

    def attended(self, tokens: Tensor) -> Tensor:
        """What self-attention reads of tokens that enter the layer."""
        if self.first is not None:
            site = self.sites[self.first]
            step = site.module(self.norms[self.first](tokens))
            tokens = tokens + site.gain * step
        return tokens if self.post_norm else self.norms["mhsa"](tokens)

    def has_functions(self) -> bool:
        """Whether any function changes the tokens that enter."""
        return any(owner is self.hooks.turn for owner, _ in self.functions)

    def on_block_output(self, function: Callable) -> None:
        """Replace the feed-forward block's output h, its residual included, by
        `function(h, mask)`; where a norm ends the layer that is what it reads."""
        if self.block_norm is not None:
            Site(self.hooks, self.block_norm).before(function)
        else:
            block = Site(self.hooks, self.module)
            block.around(lambda x, h, mask: function(h, mask))


class Site:
    """A stretch of a layer, from the input of one module to the output of another; of
    one module where the site is a module of its own.

    Arguments
    ---------
    hooks : Hooks
        Of the model.
    module : torch.nn.Module
        The first module.
    exit : torch.nn.Module or None
        The last one, None if it is the first.
    gain : float
        What the layer multiplies the output by before adding it to the tokens.
    """

    def __init__(
        self,
        hooks: Hooks,
        module: nn.Module,
        exit: nn.Module | None = None,
        gain: float = 1.0,
    ) -> None:
        self.hooks, self.module, self.gain = hooks, module, gain
        self.exit = module if exit is None else exit

    def before(self, function: Callable) -> None:
        """Replace the site's input z by `function(z, mask)`."""
        hooks = self.hooks

        def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple:
            z = batch_first(first_input(args, kwargs), hooks)
            new = batch_first(hooks.call(function, z), hooks)
            return with_first_input(args, kwargs, new)

        hooks.register(self.module.register_forward_pre_hook, hook)

    def around(self, function: Callable) -> None:
        """Replace the site's output by `function(z, output, mask)`."""
        hooks = self.hooks

        def changed(z: Tensor, output: Any) -> Any:
            z, old = batch_first(z, hooks), batch_first(first(output), hooks)
            new = batch_first(hooks.call(function, z, old), hooks)
            return replace_first(output, new)

        if self.module is self.exit:

            def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
                return changed(first_input(args, kwargs), output)

            hooks.register(self.exit.register_forward_hook, hook)
            return

        # The site is no module of its own: remember z until its last module is done. As
        # of a module, it is what `before` made of it, whichever was hooked in first.
        inputs: list[Tensor] = []

        def enter(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            inputs.append(first_input(args, kwargs))

        def leave(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
            return changed(inputs.pop(), output)

        hooks.register(self.module.register_forward_hook, enter)
        hooks.register(self.exit.register_forward_hook, leave)

    def add(self, function: Callable) -> None:
        """Add `function(z, output, mask)` to what the site adds to the tokens: as it
        is, also where the layer takes but a part of the site's output."""
        gain = self.gain
        if gain == 1:
            self.around(lambda z, out, mask: out + function(z, out, mask))
        else:
            self.around(lambda z, out, mask: out + function(z, out, mask) / gain)

    def with_argument(self, name: str, make: Callable) -> None:
        """Call the site's module with one more keyword argument, `name=make()`."""

        def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple:
            return args, {**kwargs, name: make()}

        self.hooks.register(self.module.register_forward_pre_hook, hook)


class Projection(Site):
    """A Linear, or a part of one that computes several projections.

    Arguments
    ---------
    hooks : Hooks
    module : torch.nn.Linear
    part : Part

    Attributes
    ----------
    in_features, out_features : int
    """

    def __init__(self, hooks: Hooks, module: nn.Module, part: Part) -> None:
        super().__init__(hooks, module)
        weight: Any = module.weight
        out_features, self.in_features = weight.shape
        self.out_features = out_features // part.of
        start = part.index * self.out_features
        self.rows = slice(start, start + self.out_features)
        self.whole = part.of == 1

    def __call__(self, x: Tensor) -> Tensor:
        """The projection of `(..., in_features)`, as the module computes it."""
        return self.module(x)[..., self.rows]

    @property
    def weight(self) -> Tensor:
        """`(out_features, in_features)`, as the module computes with it now."""
        weight = unpacked(self.module)
        return weight if self.whole else weight[self.rows]

    @property
    def bias(self) -> Tensor | None:
        """`(out_features,)`, where there is one."""
        bias: Any = self.module.bias
        return bias if bias is None or self.whole else bias[self.rows]

    def around(self, function: Callable) -> None:
        """Replace the projection's output by `function(x, output, mask)`."""
        if self.whole:
            super().around(function)
            return
        start, end = self.rows.start, self.rows.stop

        def of_the_part(x: Tensor, out: Tensor, mask: Tensor | None) -> Tensor:
            new = function(x, out[..., start:end], mask)
            return torch.cat([out[..., :start], new, out[..., end:]], -1)

        super().around(of_the_part)

    @torch.no_grad()
    def fold(self, update: Tensor, shift: Tensor | None = None) -> list[Tensor | None]:
        """Add `(out_features, in_features)` to the weight, and `(out_features,)` to the
        bias, which must be there; returns what `unfold` takes to undo it."""
        tensors = (self.module.weight, self.module.bias)
        originals: list[Tensor | None] = []
        for tensor, more in zip(tensors, (update, shift), strict=True):
            own: Any = tensor
            originals.append(None if more is None else own.data)
            if more is not None:
                own.data = own.data.clone()
                own.data[self.rows] += more
        return originals

    def unfold(self, originals: list[Tensor | None]) -> None:
        """Undo the last `fold`."""
        tensors = (self.module.weight, self.module.bias)
        for tensor, original in zip(tensors, originals, strict=True):
            own: Any = tensor
            if original is not None:
                own.data = original


def batch_first(hidden: Tensor, hooks: Hooks) -> Tensor:
    """Between `(time, batch, ...)` and `(batch, time, ...)` where the model has the
    former."""
    return hidden.transpose(0, 1) if hooks.time_first else hidden


def first_input(args: tuple, kwargs: dict) -> Tensor:
    """The hidden states among the arguments of a call."""
    return args[0] if args else kwargs[hidden_name(kwargs)]


def with_first_input(args: tuple, kwargs: dict, value: Tensor) -> tuple[tuple, dict]:
    """The arguments of a call with other hidden states."""
    if args:
        return (value, *args[1:]), kwargs
    return args, {**kwargs, hidden_name(kwargs): value}


def hidden_name(kwargs: dict) -> str:
    """The name under which hidden states are given."""
    return "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))


def first(output: Any) -> Tensor:
    """The hidden states of an output, a tensor or a tuple."""
    return output if isinstance(output, Tensor) else output[0]


def replace_first(output: Any, value: Tensor) -> Any:
    """The output with other hidden states."""
    return value if isinstance(output, Tensor) else (value, *output[1:])
