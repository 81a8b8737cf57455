"""Adapted models that take turns on one backbone."""


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

    def __init__(self, backbone):
        self.backbone = backbone
        self._pretrained = {p: p.data for p in backbone.parameters()}

    def give(self, model, tensors):
        """Let the backbone compute for a model, or as it was pretrained.

        Arguments
        ---------
        model : object or None
            Whose functions act; None for nobody's.
        tensors : dict
            `{parameter of the backbone: its value for the model}`, as of
            `AdaptedModel.backbone_tensors`.
        """
        for parameter, pretrained in self._pretrained.items():
            parameter.data = tensors.get(parameter, pretrained)
        self.backbone.serve(model)
