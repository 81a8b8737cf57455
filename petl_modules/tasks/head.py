"""What heads share: from hidden states to what their classifiers read."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from petl_modules.core.tokens import Tokens
from petl_modules.tasks.pooling import AttentiveStatistics, LayerAdapter


class Head(nn.Module):
    """What heads share: the learned weights of the layers, the projector, the Linear.

    What a head reads of `Tokens` are its features, `(batch, steps, layers, hidden)`:
    linear in the last layer's tokens, so that they can be computed once for a frozen
    backbone and still meet a last LayerNorm that trains.

    Attributes
    ----------
    settings : dict
        The arguments of the subclass, JSON-able; they rebuild the head.
    cacheable : bool
        Whether what it reads of a frozen backbone may be computed once and kept.
    by_time : bool
        Whether that is every step of time, or one mean a clip.
    classifier : type
        What makes scores of what was read: of its size, and the number of classes.
    """

    cacheable = True
    by_time = False
    classifier: type[nn.Module] = nn.Linear

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.settings = settings
        hidden_size, classes = settings["hidden_size"], settings["num_classes"]
        self.normalize_layers = settings["normalize_layers"]
        width, layers, self.layer_adapters = settings["layer_adapters"], 0, None
        if width:
            layers = settings["num_layers"]
            adapters = [LayerAdapter(hidden_size, width) for _ in range(layers)]
            self.layer_adapters = nn.ModuleList(adapters)
        elif settings["weighted_sum"]:
            layers = settings["num_layers"] + 1
        self.weighted_sum = layers > 0
        if self.weighted_sum:
            self.layer_weights = nn.Parameter(torch.zeros(layers))
        read, self.projector, self.attention = width or hidden_size, None, None
        if size := settings["projector_size"]:
            self.projector, read = nn.Linear(read, size), size
        if settings.get("attentive"):
            self.attention, read = AttentiveStatistics(read), 2 * read
        self.linear = self.classifier(read, classes)

    def forward(self, tokens: Tokens) -> Any:
        """`Tokens` (with `layers` for `weighted_sum`) to the head's output."""
        return self.predict(*self.features(self.layers(tokens)))

    def features(self, layers: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """What is read of some layers' `Tokens`, `(batch, steps, layers, hidden)`, and
        valid steps `(batch,)`."""
        read = [self.read(layer) for layer in layers]
        return torch.stack([steps for steps, _ in read], 2), read[-1][1]

    def layers(self, tokens: Tokens) -> tuple[Tokens, ...]:
        """The `Tokens` that are read: the last, or for `weighted_sum` every layer's.

        A Transformer that normalises the input of its blocks leaves their outputs at
        scales far apart (Whisper, AST, XLS-R), of which a sum hears only the loudest.
        """
        if not self.weighted_sum:
            return (tokens,)
        # an adapter reads what a Transformer layer gives, not what enters the first
        *below, last = tokens.layers[1:] if self.layer_adapters else tokens.layers
        if self.normalize_layers:
            below = [layer.standardised() for layer in below]
        return (*below, last)

    def combine(self, features: Tensor) -> Tensor:
        """Features to the Linear's input, `(batch, steps, hidden)`."""
        if self.layer_adapters is not None:
            layers = zip(self.layer_adapters, features.unbind(2), strict=True)
            features = torch.stack([adapter(layer) for adapter, layer in layers], 2)
        if self.weighted_sum:
            weights = self.layer_weights.softmax(0)
            features = (features * weights.unsqueeze(-1)).sum(2)
        else:
            features = features[:, :, -1]
        return features if self.projector is None else self.projector(features)
