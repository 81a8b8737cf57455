"""Where a Transformer can be reached: layers, sites, norms, projections.

A family of backbones is one `Family` table. From it, `AccessPoints` finds the
modules in a model and offers places to hook functions in (around a site, around a
projection, before a layer), without touching the backbone's modules or names.
"""

from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

PROJECTIONS = ("q", "k", "v", "o", "fc1", "fc2")
CROSS_PROJECTIONS = ("cross_q", "cross_k", "cross_v", "cross_o")


@dataclass(frozen=True)
class Family:
    """Where a family of models keeps its parts; paths within a layer, but for `layers`
    and `last_norm`, which are paths within the model.

    Attributes
    ----------
    layers : str or tuple of str
        The list of Transformer layers, or several that follow one another.
    mhsa, mhsa_norm : str
        Self-attention, and its LayerNorm.
    ffn, ffn_norm : tuple of str, str
        First and last module of the feed-forward block, and its LayerNorm.
    q, k, v, o : str
        The projections of self-attention.
    fc1, fc2 : str or None
        Those of the feed-forward block; None where it is no pair of Linears.
    last_norm : str or None
        The LayerNorm after the last layer; None where it is the last layer's own
        (post-norm).
    cross : tuple of str
        Of a decoder: the projections q, k, v, o of its attention to the encoder.
    """

    layers: str | tuple
    mhsa: str
    mhsa_norm: str
    ffn: tuple
    ffn_norm: str
    q: str
    k: str
    v: str
    o: str
    fc1: str | None
    fc2: str | None
    last_norm: str | None
    cross: tuple = ()


AST = Family(
    layers="layers",
    mhsa="attention",
    mhsa_norm="layernorm_before",
    ffn=("mlp", "mlp"),
    ffn_norm="layernorm_after",
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    o="attention.o_proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    last_norm="layernorm",
)

WHISPER = Family(
    layers="layers",
    mhsa="self_attn",
    mhsa_norm="self_attn_layer_norm",
    ffn=("fc1", "fc2"),
    ffn_norm="final_layer_norm",
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    o="self_attn.out_proj",
    fc1="fc1",
    fc2="fc2",
    last_norm="layer_norm",
)
WHISPER_DECODER = replace(
    WHISPER,
    cross=tuple(f"encoder_attn.{name}_proj" for name in ("q", "k", "v", "out")),
)

# wav2vec 2.0, HuBERT, WavLM; post-norm (base) and pre-norm ("stable layer norm")
waveform = partial(
    Family,
    layers="encoder.layers",
    mhsa="attention",
    mhsa_norm="layer_norm",
    ffn=("feed_forward", "feed_forward"),
    ffn_norm="final_layer_norm",
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    o="attention.out_proj",
    fc1="feed_forward.intermediate_dense",
    fc2="feed_forward.output_dense",
)
WAVEFORM_POST_NORM = waveform(last_norm=None)
WAVEFORM_PRE_NORM = waveform(last_norm="encoder.layer_norm")


class AccessPoints:
    """The access points of one model, an encoder or a decoder.

    Arguments
    ---------
    model : torch.nn.Module
        A model of the family.
    family : Family
        Where its parts are.
    hidden_size : int
        Size of the tokens.

    Attributes
    ----------
    model : torch.nn.Module
    is_decoder : bool
    layers : list of LayerPoints
    last_norm : torch.nn.LayerNorm
    mask : torch.Tensor or None
        Set by the backbone while it runs: `(batch, time)`, True for valid tokens,
        None when all are valid. Hooked functions receive it.
    owner : object or None
        Whom functions that are hooked in belong to; they act while it is the owner,
        so that several adapted models can take turns on one backbone.
    """

    def __init__(self, model, family, hidden_size):
        self.model, self.hidden_size = model, hidden_size
        self.is_decoder = bool(family.cross)
        self.mask = None
        self.owner = None
        self.handles = []  # (owner, what removes its hook)
        lists = [family.layers] if isinstance(family.layers, str) else family.layers
        modules = [layer for path in lists for layer in model.get_submodule(path)]
        self.layers = [
            LayerPoints(self, i, module, family) for i, module in enumerate(modules)
        ]
        if family.last_norm is None:
            self.last_norm = self.layers[-1].norms["ffn"]
        else:
            self.last_norm = model.get_submodule(family.last_norm)

    def hook_in(self, register, hook):
        """Register a hook that acts while the present owner is the owner."""
        owner = self.owner

        def owned(*args):
            return hook(*args) if owner is self.owner else None

        self.handles.append((owner, register(owned, with_kwargs=True)))

    def forget(self, owner):
        """Take out all that was hooked in for an owner."""
        for theirs, handle in self.handles:
            if theirs is owner:
                handle.remove()
        self.handles = [pair for pair in self.handles if pair[0] is not owner]
        for layer in self.layers:
            layer.functions = [pair for pair in layer.functions if pair[0] is not owner]


class LayerPoints:
    """The access points of one layer.

    Attributes
    ----------
    index : int
    name : str
        Part of the names of the tensors that train here.
    module : torch.nn.Module
    sites : dict
        mhsa and ffn, each a `Site`.
    norms : dict
        The LayerNorm of mhsa and of ffn.
    projections : dict
        q, k, v, o, and fc1 and fc2 where there are, each a `Site` around one Linear; of
        a decoder also cross_q, cross_k, cross_v, cross_o.
    """

    def __init__(self, points, index, module, family):
        find = module.get_submodule
        self.points, self.index, self.module = points, index, module
        self.name = f"decoder_layer{index}" if points.is_decoder else f"layer{index}"
        self.functions = []  # (owner, function)
        entry, exit_ = map(find, family.ffn)
        self.sites = {
            "mhsa": Site(points, find(family.mhsa), find(family.mhsa)),
            "ffn": Site(points, entry, exit_),
        }
        self.norms = {"mhsa": find(family.mhsa_norm), "ffn": find(family.ffn_norm)}
        paths = {name: getattr(family, name) for name in PROJECTIONS}
        paths |= zip(CROSS_PROJECTIONS, family.cross, strict=False)
        self.projections = {
            name: Site(points, find(path), find(path))
            for name, path in paths.items()
            if path is not None
        }
        self.post_norm = family.last_norm is None

    def before(self, function):
        """Replace the tokens that enter the layer by `function(tokens)`."""
        self.functions.append((self.points.owner, function))

    def enter(self, tokens):
        """The tokens that enter the layer, as the functions before it change them."""
        for owner, function in self.functions:
            if owner is self.points.owner:
                tokens = function(tokens)
        return tokens

    def on_block_output(self, function):
        """Replace the feed-forward block's output h, its residual included, by
        `function(h, mask)`; in post-norm layers that is what the last norm reads."""
        if self.post_norm:
            norm = self.norms["ffn"]
            Site(self.points, norm, norm).before(function)
        else:
            block = Site(self.points, self.module, self.module)
            block.around(lambda x, h, mask: function(h, mask))


@dataclass(eq=False)
class Site:
    """A stretch of a layer, from the input of `entry` to the output of `exit`; both
    are one module where the site is a module of its own.

    Attributes
    ----------
    module : torch.nn.Module
        The entry module.
    """

    points: AccessPoints
    module: nn.Module
    exit: nn.Module
    inputs: list = field(default_factory=list)

    def before(self, function):
        """Replace the site's input z by `function(z, mask)`."""

        def hook(module, args, kwargs):
            return with_first_input(
                args, kwargs, function(first_input(args, kwargs), self.points.mask)
            )

        self.points.hook_in(self.module.register_forward_pre_hook, hook)

    def around(self, function):
        """Replace the site's output by `function(z, output, mask)`."""
        if self.module is self.exit:

            def hook(module, args, kwargs, output):
                z = first_input(args, kwargs)
                new = function(z, first(output), self.points.mask)
                return replace_first(output, new)

            self.points.hook_in(self.exit.register_forward_hook, hook)
            return

        # The site is no module of its own: remember z until its last module is done.
        def enter(module, args, kwargs):
            self.inputs.append(first_input(args, kwargs))

        def leave(module, args, kwargs, output):
            return function(self.inputs.pop(), output, self.points.mask)

        self.points.hook_in(self.module.register_forward_pre_hook, enter)
        self.points.hook_in(self.exit.register_forward_hook, leave)

    def with_argument(self, name, make):
        """Call the site's module with one more keyword argument, `name=make()`."""

        def hook(module, args, kwargs):
            return args, {**kwargs, name: make()}

        self.points.hook_in(self.module.register_forward_pre_hook, hook)


def first_input(args, kwargs):
    """The hidden states among the arguments of a call."""
    return args[0] if args else kwargs["hidden_states"]


def with_first_input(args, kwargs, value):
    """The arguments of a call with other hidden states."""
    if args:
        return (value, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": value}


def first(output):
    """The hidden states of an output, a tensor or a tuple."""
    return output if isinstance(output, torch.Tensor) else output[0]


def replace_first(output, value):
    """The output with other hidden states."""
    return value if isinstance(output, torch.Tensor) else (value, *output[1:])
