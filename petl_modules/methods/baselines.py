"""What PETL is measured against, and BitFit: methods that add no modules."""

from torch import nn

from petl_modules.methods.base import Method


class FullFineTuning(Method):
    """Every tensor of the backbone trains, and its dropout is on."""

    mergeable = True

    def attach(self, model):
        model.train_backbone()


class LinearProbe(Method):
    """Only the last LayerNorm and the head train, as with every method."""

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
    """

    mergeable = True

    def attach(self, model):
        roots = {"": model.backbone}
        if self.layers is not None:
            chosen = self.chosen_layers(model)
            roots = {f"layer{layer.index}": layer.module for layer in chosen}
        for root, tree in roots.items():
            for name, module in tree.named_modules():
                if isinstance(module, nn.Linear | nn.LayerNorm):
                    if module.bias is not None:
                        model.train_parameter(self, module, "bias")
