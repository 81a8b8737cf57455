"""AdaLoRA: low-rank updates, whose ranks go to the projections that need them (Zhang et
al., arXiv 2303.10512)."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from petl_modules.core.access_points import Projection
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.kinds import (
    Fraction,
    Items,
    Layers,
    NotNegative,
    Parts,
    PositiveInt,
    Probability,
    Size,
)
from petl_modules.methods.lora import Alpha
from petl_modules.methods.projections import (
    Targets,
    Update,
    WeightUpdates,
    product_onto,
)

Betas = Annotated[list[Probability], Items(2, 2)]
TRIPLETS = ("a", "e", "b")  # a rank has a row of A, a value of e, and a column of B


class AdaLoRA(Update):
    """`s B diag(e) A x`, to be added to a projection's output, where rows of A and
    columns of B are held near to orthonormal, as in a singular value decomposition.

    Arguments
    ---------
    hidden_size : int
        Size of the projection's input.
    rank : int
        Rank r of each update as training begins.
    alpha : float or None
        The update is scaled by alpha / r; null for an alpha of r.
    out_features : int or None
        Size of the projection's output; None for hidden_size.
    dropout : float
        Dropout of what the update reads.

    Attributes
    ----------
    kept : torch.Tensor
        `(r,)`, 1 for ranks that the last allocation kept, else 0.
    """

    no_decay = TRIPLETS  # their lengths are the regularisation's
    kept: Tensor

    def __init__(
        self,
        hidden_size: int,
        rank: Size = 12,
        alpha: Alpha | None = None,
        out_features: int | None = None,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.scale = (rank if alpha is None else alpha) / rank
        self.dropout = nn.Dropout(dropout)
        self.a = nn.Parameter(0.02 * torch.randn(rank, hidden_size))
        self.e = nn.Parameter(torch.zeros(rank))
        self.b = nn.Parameter(0.02 * torch.randn(out_features or hidden_size, rank))

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """`(..., hidden_size)` to `(..., out_features)`, whatever `out` is."""
        a, b = self.factors()
        narrow = nn.functional.linear(self.dropout(x), a)
        return nn.functional.linear(narrow, b) * self.scale

    def onto(self, out: Tensor, x: Tensor) -> Tensor:
        a, b = self.factors()
        return product_onto(out, self.dropout(x), (a, b * self.scale))

    def factors(self) -> tuple[Tensor, Tensor]:
        """A `(r, hidden_size)` and B diag(e) `(out_features, r)` of the update."""
        return self.a, self.b * self.e

    def delta(self) -> Tensor:
        """The update of the weight, `(out_features, hidden_size)`."""
        a, b = self.factors()
        return self.scale * (b @ a)

    @property
    def allocated(self) -> int | None:
        """The rank that is left to it; None where it has no values."""
        return None if self.e.is_meta else int((self.e != 0).sum())

    # Training

    def begin_training(self) -> None:
        """Make room for what is known of the ranks' importance."""
        for name in TRIPLETS:
            for average in ("sensitivity", "uncertainty"):
                zeros = torch.zeros_like(getattr(self, name), requires_grad=False)
                self.register_buffer(f"{average}_{name}", zeros, persistent=False)
        self.register_buffer("kept", torch.ones_like(self.e.data), persistent=False)

    def training_state(self) -> dict[str, Tensor]:
        """What only training knows, by name; not copies."""
        return dict(self.named_buffers())

    def pull_together(self, weight: float) -> None:
        """Add to the gradients those of `weight (|A A' - I| + |B' B - I|)`, in
        Frobenius' norm."""
        for parameter, rows in ((self.a, self.a), (self.b, self.b.T)):
            if parameter.grad is None:
                continue
            apart = rows @ rows.T - torch.eye(self.rank, device=rows.device)
            slope = 2 * apart @ rows / apart.norm().clamp(min=1e-12)
            parameter.grad += weight * (slope if parameter is self.a else slope.T)

    def look(self, betas: Sequence[float]) -> None:
        """Note how much each number matters to the loss, by its gradient: a moving
        average of that, and one of how far it is from the average."""
        for name in TRIPLETS:
            parameter = getattr(self, name)
            if parameter.grad is None:
                continue
            matters = (parameter * parameter.grad).abs()
            average, doubt = (
                self.get_buffer(f"{kind}_{name}")
                for kind in ("sensitivity", "uncertainty")
            )
            average.lerp_(matters, 1 - betas[0])
            doubt.lerp_((matters - average).abs(), 1 - betas[1])

    def importance(self) -> Tensor:
        """How much each rank matters, `(r,)`: the value and the means of both
        vectors."""
        a, e, b = (
            self.get_buffer(f"sensitivity_{n}") * self.get_buffer(f"uncertainty_{n}")
            for n in TRIPLETS
        )
        return e + a.mean(1) + b.mean(0)


class AdaLoRAProjections(WeightUpdates):
    """AdaLoRA on the projections named by `targets`: all begin with one rank, and while
    they train, the ranks that matter least, of all projections together, are taken
    away; the ranks that are left are in results.json and adapter.json.

    Sizes and gradients are those of PEFT's AdaLoRA, whose regularisation takes norms
    where the paper has their squares. An epoch before the last allocation may be the
    best: `choose: last` takes one with target_rank.

    Arguments
    ---------
    targets : list of str
        The projections that get an update: q, k, v, o of self-attention, fc1 and fc2
        (or ffn for both) of the feed-forward block, and cross_q, cross_k, cross_v,
        cross_o of a decoder's attention to the encoder.
    target_rank : int
        What is left in the end, on average over the projections.
    budget_warmup : float
        The part of all steps before the first rank is taken away.
    budget_final : float
        The part of all steps, at the end, after the last one is.
    budget_interval : int
        Steps from one allocation to the next.
    budget_betas : list of float
        The memory of what matters, and of how sure that is.
    orthogonality : float
        The weight of the regularisation that holds the vectors near to orthonormal.
    layers : list of int or None
        The layers that the method touches, such as [0, 1] or [-1]; null for all.
    parts : list of str or None
        The parts that it touches, encoder or decoder; null for all that there are.
    **knobs
        For `AdaLoRA`.
    """

    module = AdaLoRA

    def __init__(
        self,
        targets: Targets = ("q", "v"),  # pyright: ignore[reportArgumentType]
        target_rank: Size = 8,
        budget_warmup: Fraction = 0.1,
        budget_final: Fraction = 0.5,
        budget_interval: PositiveInt = 10,
        budget_betas: Betas = (0.85, 0.85),  # pyright: ignore[reportArgumentType]
        orthogonality: NotNegative = 0.1,
        layers: Layers | None = None,
        parts: Parts | None = None,
        **knobs: Any,
    ) -> None:
        super().__init__(targets, layers, parts)
        self.target_rank, self.interval = target_rank, budget_interval
        self.warmup, self.final = budget_warmup, budget_final
        self.betas, self.orthogonality = tuple(budget_betas), orthogonality
        self.module_knobs = knobs
        if budget_warmup + budget_final >= 1:
            raise UserError(
                f"budget_warmup={budget_warmup} and budget_final={budget_final} leave "
                "no steps between them, in which ranks are taken away."
            )

    def update_of(self, place: Projection) -> AdaLoRA:
        sizes = {"hidden_size": place.in_features, "out_features": place.out_features}
        update = AdaLoRA(**sizes, **self.module_knobs)
        if update.rank < self.target_rank:
            raise UserError(
                f"target_rank={self.target_rank} is more than the rank={update.rank} "
                "that training begins with."
            )
        return update

    def attach(self, model: AdaptedModel) -> None:
        super().attach(model)
        if not self.written_over:
            for update in self.modules:
                update.begin_training()

    @property
    def modules(self) -> list[Any]:
        """The modules, in the order of layers and targets."""
        return [update for _, update in self.updates]

    def training_state(self, model: AdaptedModel) -> dict[str, Tensor]:
        names = {module: name for name, module in model.petl.items()}
        return {
            f"{names[module]}.{name}": tensor
            for module in self.modules
            for name, tensor in module.training_state().items()
        }

    @torch.no_grad()
    def before_step(self) -> None:
        """The regularisation's gradients: of the mean over all matrices."""
        weight = self.orthogonality / (2 * len(self.modules))
        for module in self.modules:
            module.pull_together(weight)

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        """Look at what matters, and where it is time take ranks away: at the beginning
        few, in the end what target_rank says, along a cubic curve."""
        first = round(self.warmup * steps)
        last = max(1, steps - round(self.final * steps))
        if step < last or step == 1:  # of two steps the first may be the last one too
            for module in self.modules:
                module.look(self.betas)
        if step == last:
            self.allocate(self.budget(1.0))
        elif first < step < last and step % self.interval == 0:
            self.allocate(self.budget((step - first) / (last - first)))
        elif step < last:  # a rank that was taken away may come back
            return
        for module in self.modules:
            module.e.mul_(module.kept)

    def budget(self, done: float) -> int:
        """How many ranks all modules may have together, when a part of the way is
        done."""
        begin = sum(module.rank for module in self.modules)
        end = self.target_rank * len(self.modules)
        return int((begin - end) * (1 - done) ** 3 + end)

    def allocate(self, budget: int) -> None:
        """Keep so many ranks, those that matter most."""
        scores = torch.cat([module.importance() for module in self.modules])
        best = scores.topk(budget).indices
        kept = torch.zeros_like(scores).index_fill(0, best, 1.0)
        sizes = [module.rank for module in self.modules]
        for module, own in zip(self.modules, kept.split(sizes), strict=True):
            module.kept.copy_(own)
