"""Adapted models that take turns on one backbone."""

from collections.abc import Mapping

from torch import Tensor

from petl_modules.core.host import Host


class Turns:
    """A backbone that serves one adapted model at a time.

    Switching exchanges the few tensors of the backbone that a model trained, and whose
    functions act in it: nothing is copied or computed, and outputs are bit-equal to
    those of a fresh load.

    Arguments
    ---------
    backbone : Backbone
        With its pretrained weights, on its device.
    """

    def __init__(self, backbone: Host) -> None:
        self.backbone = backbone
        tensors = (*backbone.parameters(), *backbone.buffers())
        self._pretrained = {tensor: tensor.data for tensor in tensors}

    def give(self, model: object | None, tensors: Mapping[Tensor, Tensor]) -> None:
        """Let the backbone compute for a model, or as it was pretrained.

        Arguments
        ---------
        model : object or None
            Whose functions act; None for nobody's.
        tensors : dict
            `{parameter or buffer of the backbone: its value for the model}`, as of
            `AdaptedModel.backbone_tensors`.
        """
        for tensor, pretrained in self._pretrained.items():
            tensor.data = tensors.get(tensor, pretrained)
        self.backbone.serve(model)
