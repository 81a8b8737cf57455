"""LoRA: low-rank updates of frozen projections (Hu et al., arXiv 2106.09685)."""

import torch
from torch import nn

from petl_modules.errors import UserError
from petl_modules.methods.base import Method, bottleneck_width

ALIASES = {"ffn": ("fc1", "fc2")}


class LoRA(nn.Module):
    """`(alpha / r) B A x`, to be added to a projection's output.

    Arguments
    ---------
    hidden_size : int
        Size of the projection's input.
    rank, reduction_rate : int, float
        Rank r, or hidden_size / r (128 by default: r = 6 at d = 768).
    alpha : float or None
        Scale times r; None for alpha = r.
    out_features : int or None
        Size of the projection's output; None for hidden_size.
    dropout : float
        On the input.
    """

    def __init__(
        self,
        hidden_size,
        rank=None,
        reduction_rate=None,
        alpha=None,
        out_features=None,
        dropout=0.0,
    ):
        super().__init__()
        rank = bottleneck_width(hidden_size, rank, reduction_rate, default_rate=128)
        self.scale = (rank if alpha is None else alpha) / rank
        self.dropout = nn.Dropout(dropout)
        self.a = nn.Linear(hidden_size, rank, bias=False)
        self.b = nn.Linear(rank, out_features or hidden_size, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        """`(..., hidden_size)` to `(..., out_features)`."""
        return self.b(self.a(self.dropout(x))) * self.scale

    def delta(self):
        """The update of the weight, `(out_features, hidden_size)`."""
        return self.scale * (self.b.weight @ self.a.weight)


class LoRAProjections(Method):
    """LoRA on the projections named by `targets`.

    Arguments
    ---------
    targets : list of str or str
        Any of q, k, v, o, fc1, fc2, and in a decoder cross_q, cross_k, cross_v,
        cross_o, of its attention to the encoder; ffn stands for fc1 and fc2.
    layers : list of int or None
        Restrict the method to these layers.
    parts : list of str or None
        Restrict it to the encoder or the decoder.
    **knobs
        For `LoRA`.
    """

    mergeable = True
    additive = True

    def __init__(self, targets=("q", "v"), layers=None, parts=None, **knobs):
        super().__init__(layers, parts)
        names = targets.split(",") if isinstance(targets, str) else targets
        names = [name.strip() for name in names]
        self.targets = [t for name in names for t in ALIASES.get(name, (name,))]
        self.module_knobs = knobs

    def attach(self, model):
        self.updates = []
        layers = self.chosen_layers(model)
        known = {name: None for layer in layers for name in layer.projections}
        for target in self.targets:
            if target not in known:
                raise UserError(
                    f"targets={target} matches no projection of this backbone: choose "
                    f"among {', '.join(known)}{' and ffn' if 'fc1' in known else ''}."
                )
        for layer in layers:
            for target in (t for t in self.targets if t in layer.projections):
                place = layer.projections[target]
                update = LoRA(
                    place.in_features,
                    out_features=place.out_features,
                    **self.module_knobs,
                )
                self.hook(layer, target, model.add(self, layer, target, update))
                self.updates.append((place, update))

    def hook(self, layer, site, module):
        layer.projections[site].around(lambda x, out, mask: out + module(x))

    @torch.no_grad()
    def merge(self, model):
        self.originals = [place.fold(update.delta()) for place, update in self.updates]

    def unmerge(self, model):
        for place, _ in reversed(self.updates):
            place.unfold(self.originals.pop())
