"""What an adapted model needs of whatever it adapts."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from petl_modules.core.access_points import AccessPoints, LayerPoints


class Host(Protocol):
    """A Transformer that can be adapted: a `torch.nn.Module` with access points.

    `petl_modules.backbones.Backbone` is one, and `petl_modules.adapt` makes one of any
    Transformer. `HostModule` has the parts that are alike in all.

    Attributes
    ----------
    model : torch.nn.Module
        The pretrained model; the names of its parameters are those in adapter files.
    source : str
        What it is called in messages: a hub id, a folder, a class.
    points : AccessPoints
        Of its encoder.
    parts : dict
        The `AccessPoints` of all parts, by name: encoder, and decoder where there is
        one.
    has_head : bool
        Whether it predicts by itself; the last norm is then frozen with the rest.
    side_modules : dict
        What `besides` of an adapted model may name, each with the paths of its modules.
    feature_encoder : torch.nn.Module or None
        The convolutions that read the waveform, where there are such.
    augment : bool
        Set by the adapted model: whether it is training.
    checkpointing : bool
        Whether the backward pass computes the layers again.
    """

    model: nn.Module
    source: str
    points: AccessPoints
    parts: dict[str, AccessPoints]
    has_head: bool
    side_modules: Mapping[str, Sequence[str]]
    augment: bool
    checkpointing: bool

    @property
    def feature_encoder(self) -> nn.Module | None:
        """As above."""
        ...

    # of torch.nn.Module
    __call__: Callable[..., Any]
    train: Callable[..., Any]
    eval: Callable[[], Any]
    requires_grad_: Callable[..., Any]
    parameters: Callable[..., Iterator[nn.Parameter]]
    named_parameters: Callable[..., Iterator[tuple[str, nn.Parameter]]]
    buffers: Callable[..., Iterator[Tensor]]

    def serve(self, owner: object | None) -> None:
        """Let the functions that were hooked in for `owner` act, and no others."""
        ...

    def forget(self, owner: object | None) -> None:
        """Take out all that was hooked in for an owner."""
        ...

    def fingerprint(self) -> str:
        """What tells its pretrained weights from others."""
        ...

    def idle_parameters(self) -> Sequence[nn.Parameter]:
        """Parameters that a forward pass does not train even when all others do."""
        ...

    def silent_inputs(self) -> list[Tensor] | None:
        """What enters each layer at the tokens of silence, `(tokens, hidden)` a layer;
        None where silence has no meaning."""
        ...

    def takes_prefix(self, layer: LayerPoints) -> bool:
        """Whether a layer's attention lets learned keys and values act."""
        ...

    def takes_prompts(self) -> bool:
        """Whether its layers have room for learned tokens."""
        ...


class HostModule(nn.Module):
    """The parts of a `Host` that are alike in all."""

    has_head = False
    side_modules: Mapping[str, Sequence[str]] = {}
    augment = False
    checkpointing = False  # whether the backward pass computes layers again
    parts: dict[str, AccessPoints]

    @property
    def feature_encoder(self) -> nn.Module | None:
        """The convolutions that read the waveform, None where there are none."""
        return None

    def serve(self, owner: object | None) -> None:
        """Let the functions that were hooked in for `owner` act, and no others."""
        for points in self.parts.values():
            points.hooks.serve(owner)

    def forget(self, owner: object | None) -> None:
        """Take out all that was hooked in for an owner."""
        for points in self.parts.values():
            points.hooks.forget(owner)

    def idle_parameters(self) -> list[nn.Parameter]:
        """Parameters that a forward pass does not train even when all others do."""
        return []

    def silent_inputs(self) -> list[Tensor] | None:
        """What enters each layer at the tokens of silence; None: it has no meaning."""
        return None

    def takes_prefix(self, layer: LayerPoints) -> bool:
        """Whether a layer's attention lets learned keys and values act."""
        return True

    def takes_prompts(self) -> bool:
        """Whether its layers have room for learned tokens."""
        return True


def digest_of(model: nn.Module, *more: str) -> str:
    """SHA-256 of a model's tensors and of texts."""
    digest = hashlib.sha256("".join(more).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        if not tensor.is_meta:  # which has a shape and no values
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()
