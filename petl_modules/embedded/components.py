"""Principal components of what a teacher says: what the student predicts."""

import torch
from torch import Tensor


class Components:
    """Targets `(clips, places, size)` to `(clips, places, kept)`; the mean variance of
    the components is one.

    Arguments
    ---------
    some : torch.Tensor
        Targets of some clips, from which directions and scales come.
    kept : int
        Components to keep, at most.
    placed : bool
        Of a teacher whose states say when in the clip they are, which a crop cannot
        know: the mean at each place is taken off, and each dimension is standardised.
    whitened : float
        0 leaves the components' variances as they are, 1 makes them equal, and between
        they go with the power `1 - whitened`.
    """

    def __init__(
        self, some: Tensor, kept: int, placed: bool, whitened: float = 0.0
    ) -> None:
        some = some.float()
        shift = some.mean(0)
        self.shift = shift if placed else shift.mean(0).expand_as(shift)
        some = (some - self.shift).flatten(0, 1)
        scale = some.std(0).clamp(min=1e-4) if placed else torch.ones_like(some[0])
        some = some / scale
        variances, directions = torch.linalg.eigh(some.T @ some / len(some))
        kept = min(kept, len(variances))
        variances = variances[-kept:].clamp(min=1e-9)
        directions = directions[:, -kept:] * variances ** (-whitened / 2)
        unit = (variances ** (1 - whitened)).mean().sqrt()
        self.directions = directions / unit / scale.unsqueeze(1)

    def __call__(self, targets: Tensor, places: slice) -> Tensor:
        """Components of targets at these places of the clip."""
        return (targets.float() - self.shift[places]) @ self.directions
