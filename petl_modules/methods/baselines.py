"""What PETL is measured against, and BitFit: methods that add no modules."""

from torch import nn

from petl_modules.methods.base import Method


class FullFineTuning(Method):
    """Every tensor of the backbone trains, and its dropout is on."""

    mergeable = True

    def attach(self, model):
        model.train_backbone()


class LinearProbe(Method):
    """Only the last LayerNorm and the head train, as with every method; nothing where
    the backbone has a head of its own."""

    mergeable = True

    def attach(self, model):
        pass


class BitFit(Method):
    """The biases of every Linear and LayerNorm train (Zaken et al., arXiv
    2106.10199).

    Arguments
    ---------
    layers : list of int or None
        Restrict the method to the Transformer layers named.
    parts : list of str or None
        Restrict it to the encoder or the decoder.
    """

    mergeable = True

    def attach(self, model):
        trees = [points.model for points in self.chosen_parts(model)]
        if self.layers is not None:
            trees = [layer.module for layer in self.chosen_layers(model)]
        for tree in trees:
            for module in tree.modules():
                linear_or_norm = isinstance(module, nn.Linear | nn.LayerNorm)
                if linear_or_norm and module.bias is not None:
                    model.train_parameter(module, "bias")
