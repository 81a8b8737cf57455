"""The one class that freezes a backbone, injects a method, and keeps what trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.core.access_points import LayerPoints
from petl_modules.core.host import Host
from petl_modules.core.precision import hold_base
from petl_modules.core.tensors import check_same_tensors
from petl_modules.errors import UserError, one_of


@dataclass(frozen=True)
class Group:
    """Parameters that train together.

    Attributes
    ----------
    kind : str
        petl, site_norms, last_norm, backbone (full fine-tuning), or head (parts of the
        backbone that train beside the method).
    site : str
        Where: mhsa, ffn, a projection, input, the name of a part, or empty.
    parameters : dict
        Parameters by name.
    """

    kind: str
    site: str
    parameters: dict

    @property
    def count(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.parameters.values())


class AdaptedModel(nn.Module):
    """A frozen backbone with a method put in.

    The backbone's gradients are off and its modules pinned to eval mode; the
    method's modules hang on hooks at the access points, so that the backbone's own
    names and state dict stay as they were. The last LayerNorm trains with the head,
    unless the backbone has a head of its own, which is frozen with the rest, or ends in
    something else.

    Arguments
    ---------
    backbone : petl_modules.backbones.Backbone
        Freshly loaded, or one that served another adapted model: it then serves this
        one (`petl_modules.core.turns` lets several take turns).
    method : Method or list of Method
        From `petl_modules.methods.make_method`; a list is applied in its order.
    besides : list of str
        Modules of the backbone that train beside the method, of its `side_modules`;
        they stay in eval mode.

    Raises
    ------
    UserError
        If a method matches nothing in this backbone, or does not suit its decoder, or
        the backbone has no such module.

    Example
    -------
    >>> from petl_modules.backbones import load_backbone
    >>> from petl_modules.methods import make_method
    >>> backbone = load_backbone("ast", pretrained=False)  # AST-base
    >>> model = AdaptedModel(backbone, make_method("bottleneck", rank=12))
    >>> sum(g.count for g in model.groups() if g.kind in ("petl", "site_norms"))
    248976
    """

    def __init__(
        self, backbone: Host, method: Any, besides: list[str] | tuple = ()
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.points = backbone.points
        self.parts, self.source = backbone.parts, backbone.source
        self.methods = list(method) if isinstance(method, list | tuple) else [method]
        self.besides = list(besides)
        self.petl = nn.ModuleDict()
        self.awake = []  # modules of the backbone that follow train mode
        self.asleep = []  # modules within these that do not
        self.merged = False
        self.held: Any = None  # a HeldModel, where the base is held in a narrow type
        self._kinds = {}  # name of a trained parameter -> (kind, site)
        self._trained = {}  # name -> parameter of the backbone
        self.places = {}  # name of a module -> (method, layer, site)
        backbone.fingerprint()  # of the weights as loaded, before any training
        backbone.requires_grad_(False)
        backbone.serve(self)
        last_norm = self.points.last_norm
        for method_ in self.methods:
            before = len(self._kinds)
            method_.attach(self)
            if len(self._kinds) == before and method_.name != "linear":
                raise UserError(
                    f"The method {method_.name} found nothing to train in "
                    f"{backbone.source}."
                )
        for name, parameter in last_norm.named_parameters() if last_norm else ():
            free = not parameter.requires_grad or self._is_site_norm(parameter)
            if free and not backbone.has_head:
                self._train(f"last_norm.{name}", parameter, "last_norm", "")
        for part in self.besides:
            self._train_side_modules(part)
        if not self._kinds and backbone.has_head:
            raise UserError(
                f"Nothing would train: {backbone.source} has a head of its own, and "
                "linear adds nothing to it."
            )
        self.train()

    # What methods call

    def add(
        self, method: Any, layer: LayerPoints, site: str, module: nn.Module
    ) -> nn.Module:
        """Register a method's module at a site of a layer; returns it. A module whose
        tokens read later ones says so with a true `sees_later`."""
        if layer.is_decoder and getattr(module, "sees_later", False):
            raise UserError(
                f"The method {method.name} does not suit a decoder, where no token may "
                "read later ones: restrict it with --parts=[encoder]."
            )
        key = f"{layer.name}_{site}_{method.name}"
        if key in self.petl:
            raise UserError(f"The method {method.name} is given twice.")
        self.petl[key] = module
        self.places[key] = method, layer, site
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                self._kinds[f"{key}.{name}"] = ("petl", site)
        return module

    def train_norm(self, layer: LayerPoints, site: str) -> None:
        """Train the LayerNorm of a site."""
        for name, parameter in layer.norms[site].named_parameters():
            if not parameter.requires_grad:
                name = f"{layer.name}_{site}_norm.{name}"
                self._train(name, parameter, "site_norms", site)

    def train_parameter(self, module: nn.Module, attribute: str) -> None:
        """Train one parameter of a module of the backbone."""
        parameter = getattr(module, attribute)
        if not parameter.requires_grad:
            self._train(self._place(module, attribute), parameter, "petl", "")

    def silent_inputs(self) -> list[Tensor] | None:
        """What enters each layer at the tokens of silence, `(tokens, hidden)` a layer;
        None where silence has no meaning."""
        return self.backbone.silent_inputs()

    def takes_prefix(self, layer: LayerPoints) -> bool:
        """Whether a layer's attention lets learned keys and values act."""
        return self.backbone.takes_prefix(layer)

    def takes_prompts(self) -> bool:
        """Whether the layers have room for learned tokens."""
        return self.backbone.takes_prompts()

    @property
    def feature_encoder(self) -> nn.Module | None:
        """The convolutions that read the waveform, None where there are none."""
        return self.backbone.feature_encoder

    def train_backbone(
        self,
        modules: Sequence[nn.Module] | None = None,
        frozen: nn.Module | None = None,
    ) -> None:
        """Train the backbone, and take what trains of it into train mode.

        Arguments
        ---------
        modules : list of torch.nn.Module or None
            These alone; None for all of it.
        frozen : torch.nn.Module or None
            A module that does not train with the rest.
        """
        self.awake = [self.backbone] if modules is None else list(modules)
        self.asleep = [] if frozen is None else [frozen]
        idle = {id(p) for p in self.backbone.idle_parameters()}
        idle |= {id(p) for module in self.asleep for p in module.parameters()}
        chosen = {id(p) for module in self.awake for p in module.parameters()} - idle
        for name, parameter in self.backbone.named_parameters():
            if id(parameter) in chosen:
                name = name.removeprefix("model.")
                self._train(f"backbone.{name}", parameter, "backbone", "")
        for buffer in self.statistics().values():
            buffer.data = buffer.data.clone()  # as in `_train`

    # Running

    def train(self, mode: bool = True) -> "AdaptedModel":
        """Set train mode for what trains; the frozen backbone stays in eval mode,
        but for SpecAugment."""
        super().train(mode)
        self.backbone.eval()
        for module in self.awake:
            module.train(mode)
        for module in self.asleep:
            module.eval()
        self.backbone.augment = mode
        return self

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Hidden states; arguments and result are those of the backbone."""
        return self.backbone(*inputs, **options)

    # What trains

    def groups(self) -> list[Group]:
        """The trained parameters, as a list of `Group`."""
        groups: dict[tuple[str, str], dict[str, nn.Parameter]] = {}
        for name, parameter in self.trained_parameters().items():
            groups.setdefault(self._kinds[name], {})[name] = parameter
        return [Group(*key, parameters) for key, parameters in groups.items()]

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Every trained parameter by name, those of the backbone after the method's."""
        own = {n: p for n, p in self.petl.named_parameters() if n in self._kinds}
        return {**own, **self._trained}

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay suits a parameter: not biases, norms, scales, prompts
        and prefixes."""
        key, _, inner = name.partition(".")
        spared = getattr(self.petl[key], "no_decay", ()) if key in self.petl else ()
        return parameter.ndim > 1 and inner not in spared

    def statistics(self) -> dict[str, Tensor]:
        """What the backbone itself gathers in train mode, such as the means and
        variances of a BatchNorm: `{name: buffer}`; not copies."""
        follow = {m for module in self.awake for m in module.modules()}
        follow -= {m for module in self.asleep for m in module.modules()}
        kept = self.backbone.state_dict().keys()
        return {
            f"backbone.{name.removeprefix('model.')}": buffer
            for path, module in self.backbone.named_modules()
            for inner, buffer in module.named_buffers(recurse=False)
            if module in follow and (name := f"{path}.{inner}".lstrip(".")) in kept
        }

    def backbone_tensors(self) -> dict[Tensor, Tensor]:
        """`{parameter or buffer of the backbone: its trained value}`; not copies."""
        changed = (*self._trained.values(), *self.statistics().values())
        return {tensor: tensor.data for tensor in changed}

    def trained_state(self) -> dict[str, Tensor]:
        """All tensors that training changes, buffers included, by name; not copies."""
        return {
            **self.petl.state_dict(),
            **{n: p.data for n, p in self._trained.items()},
            **{n: b.data for n, b in self.statistics().items()},
        }

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `trained_state` gave; every tensor must be there and fit.

        Raises
        ------
        UserError
            Naming what is missing, left over or of another shape.
        """
        check_same_tensors(self.trained_state(), state, "the model")
        with torch.no_grad():
            for name, tensor in self.trained_state().items():
                tensor.copy_(state[name])

    # Merging

    def merge(self) -> None:
        """Fold the methods into the backbone's weights: equal outputs, no hooks.

        Raises
        ------
        UserError
            If a method cannot be merged.
        """
        for method in self.methods:
            if not method.mergeable:
                raise UserError(
                    f"The method {method.name} cannot be merged: {method.stuck}."
                )
        if not self.merged:
            hold_base(self, "fp32")  # what is folded in, and what into, is float32
            for method in self.methods:
                method.merge(self)
            self.backbone.serve(None)
            self.merged = True

    def unmerge(self) -> None:
        """Undo `merge`; the weights are bit-equal to those before it."""
        if self.merged:
            for method in reversed(self.methods):
                method.unmerge(self)
            self.backbone.serve(self)
            self.merged = False

    # Features below the head, which a linear probe computes only once

    @property
    def frozen_below_head(self) -> bool:
        """Whether nothing trains but the last LayerNorm and the head."""
        return {kind for kind, _ in self._kinds.values()} <= {"last_norm"}

    def features(
        self, wavs: Tensor, wav_lens: Tensor | None, head: Any
    ) -> tuple[Tensor, Tensor]:
        """What the head reads of each layer, before the last LayerNorm's weights.

        The last LayerNorm's weights and means over tokens commute, so that what the
        head reads of the standardised tokens is all that a trained norm and head need;
        where no norm is the last, it is what the head reads of the tokens.

        Returns
        -------
        features : torch.Tensor
            `(batch, steps, layers, hidden)`.
        counts : torch.Tensor
            `(batch,)`, valid steps.
        """
        seen = []
        norm = self.points.last_norm
        if norm is None:
            return head.features(head.layers(self(wavs, wav_lens, head.weighted_sum)))
        handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            tokens = self(wavs, wav_lens, all_layers=head.weighted_sum)
        finally:
            handle.remove()
        plain = F.layer_norm(seen[-1].float(), norm.normalized_shape, eps=norm.eps)
        last = replace(tokens, hidden=plain)
        return head.features((*head.layers(tokens)[:-1], last))

    def head_from_features(self, features: Tensor, counts: Tensor, head: Any) -> Any:
        """The head's output from `features`."""
        norm = self.points.last_norm
        if norm is None:
            return head.predict(features, counts)
        below, last = features[:, :, :-1], features[:, :, -1:] * norm.weight
        if norm.bias is not None:
            last = last + norm.bias
        layers = torch.cat([below, last], 2) if below.shape[2] else last
        return head.predict(layers, counts)

    # Helpers

    def _train_side_modules(self, part: str) -> None:
        one_of("besides", part, self.backbone.side_modules)
        for path in self.backbone.side_modules[part]:
            module = self.backbone.model.get_submodule(path)
            for name, parameter in module.named_parameters():
                if not parameter.requires_grad:
                    self._train(f"backbone.{path}.{name}", parameter, "head", part)

    def _train(self, name: str, parameter: nn.Parameter, kind: str, site: str) -> None:
        # A tensor of its own: whoever holds the pretrained one keeps it as it was
        parameter.data = parameter.data.clone()
        parameter.requires_grad_(True)
        self._drop(parameter)
        self._trained[name] = parameter
        self._kinds[name] = (kind, site)

    def _drop(self, parameter: nn.Parameter) -> None:
        for name in [n for n, p in self._trained.items() if p is parameter]:
            del self._trained[name], self._kinds[name]

    def _is_site_norm(self, parameter: nn.Parameter) -> bool:
        kinds = [self._kinds[n][0] for n, p in self._trained.items() if p is parameter]
        return kinds in (["site_norms"], ["backbone"])

    def _place(self, module: nn.Module, attribute: str) -> str:
        """Name of a backbone's parameter by layer and place, where it has one."""
        parts = self.backbone.parts.values()
        for layer in (layer for points in parts for layer in points.layers):
            places = {f"{s}_norm": norm for s, norm in layer.norms.items()}
            places |= {s: site.module for s, site in layer.projections.items()}
            for place, found in (places | dict(layer.module.named_modules())).items():
                if found is module:
                    return f"{layer.name}_{place}.{attribute}"
        if module is self.points.last_norm:
            return f"last_norm.{attribute}"
        names = {m: name for name, m in self.backbone.model.named_modules()}
        return f"backbone.{names[module]}.{attribute}"
