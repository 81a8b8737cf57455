"""Methods that add no modules: what PETL is measured against, BitFit, norms."""

from torch import nn

from petl_modules.core.adapted import AdaptedModel
from petl_modules.kinds import Layers
from petl_modules.methods.base import Method


class FullFineTuning(Method):
    """Every tensor of the backbone trains, or those of some layers, and dropout is on
    where it does.

    Arguments
    ---------
    layers : list of int or None
        The Transformer layers that train, such as [20, 21]; null for the whole
        backbone.
    freeze_feature_encoder : bool
        Whether the convolutions that read the waveform (of wav2vec 2.0, HuBERT, WavLM)
        stay as pretrained.
    """

    mergeable = True

    def __init__(
        self, layers: Layers | None = None, freeze_feature_encoder: bool = True
    ) -> None:
        super().__init__(layers)
        self.freeze_feature_encoder = freeze_feature_encoder

    def attach(self, model: AdaptedModel) -> None:
        if self.layers is not None:
            chosen = [layer.module for layer in self.chosen_layers(model)]
            model.train_backbone(chosen)
            return
        frozen = model.feature_encoder if self.freeze_feature_encoder else None
        model.train_backbone(frozen=frozen)


class LinearProbe(Method):
    """Only the last LayerNorm and the head train, as with every method; nothing where
    the backbone has a head of its own."""

    mergeable = True

    def __init__(self) -> None:
        super().__init__()

    def attach(self, model: AdaptedModel) -> None:
        pass


class BitFit(Method):
    """The biases of every Linear and LayerNorm train (Zaken et al., arXiv
    2106.10199), and those of convolutions inside Transformer layers, which are
    feed-forward blocks.

    Arguments
    ---------
    layers : list of int or None
        The layers that the method touches, such as [0, 1] or [-1]; null for all.
    parts : list of str or None
        The parts that it touches, encoder or decoder; null for all that there are.
    """

    mergeable = True

    def attach(self, model: AdaptedModel) -> None:
        layers = [layer.module for layer in self.chosen_layers(model)]
        kinds = {layer: nn.Linear | nn.LayerNorm | nn.Conv1d for layer in layers}
        if self.layers is None:
            trees = [points.model for points in self.chosen_parts(model)]
            kinds |= dict.fromkeys(trees, nn.Linear | nn.LayerNorm)
        for tree, kind in kinds.items():
            for module in tree.modules():
                if isinstance(module, kind) and module.bias is not None:
                    model.train_parameter(module, "bias")
                packed = isinstance(module, nn.MultiheadAttention)
                if packed and module.in_proj_bias is not None:
                    model.train_parameter(module, "in_proj_bias")


class NormTuning(Method):
    """The LayerNorms inside Transformer layers train (for language and vision: Zhao et
    al., arXiv 2312.11420), their weights and biases.

    Arguments
    ---------
    layers : list of int or None
        The layers that the method touches, such as [0, 1] or [-1]; null for all.
    parts : list of str or None
        The parts that it touches, encoder or decoder; null for all that there are.
    """

    mergeable = True

    def attach(self, model: AdaptedModel) -> None:
        for layer in self.chosen_layers(model):
            for module in layer.module.modules():
                if isinstance(module, nn.LayerNorm | nn.RMSNorm):
                    for name, _ in module.named_parameters():
                        model.train_parameter(module, name)
