"""Adapters in the convolutions that read the waveform."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from petl_modules.core.access_points import Site
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.hooks import Hooks
from petl_modules.errors import UserError
from petl_modules.kinds import Reduction, Size
from petl_modules.methods.adapters import Bottleneck
from petl_modules.methods.base import Method


@dataclass(frozen=True)
class Convolution:
    """One of the convolutions as a place where a module stands.

    Attributes
    ----------
    name : str
    hooks : Hooks
    activation : torch.nn.Module
        Its last module.
    """

    name: str
    hooks: Hooks
    activation: nn.Module
    is_decoder: bool = False


class ConvolutionAdapters(Method):
    """A bottleneck of 1 x 1 convolutions after each convolution that reads the
    waveform, added to what that gives: where CHAPTER has its adapters (Chen et al.,
    arXiv 2212.01282), for wav2vec 2.0 and its like. No frame reads another, so that
    none reads padding.

    Arguments
    ---------
    rank : int or None
        Width r of the bottleneck, in the place of reduction_rate.
    reduction_rate : float
        The channels over the width r of the bottleneck, where no rank is given; of 512
        at 32 that is r = 16.
    """

    module = None

    def __init__(
        self, rank: Size | None = None, reduction_rate: Reduction = 32
    ) -> None:
        super().__init__()
        self.rank, self.reduction_rate = rank, reduction_rate

    def attach(self, model: AdaptedModel) -> None:
        encoder: Any = model.feature_encoder
        for i, layer in enumerate(getattr(encoder, "conv_layers", ())):
            place: Any = Convolution(f"front{i}", model.points.hooks, layer.activation)
            channels = layer.conv.out_channels
            module = Bottleneck(channels, self.rank, self.reduction_rate)
            self.hook(place, "conv", model.add(self, place, "conv", module))
        if not model.petl:
            raise UserError(
                f"conv_front: {model.source} has no convolutions that read the "
                "waveform, as wav2vec 2.0 has. Other methods suit it."
            )

    def hook(self, layer: Any, site: str, module: Any) -> None:
        def more(z: Tensor, out: Tensor, mask: Tensor | None) -> Tensor:
            return out + module(out.mT).mT  # channels come first there

        Site(layer.hooks, layer.activation).around(more)
