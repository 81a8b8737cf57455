"""Which of our methods are which of PEFT's, and what their tensors are called there."""

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.methods import (
    AdaLoRAProjections,
    DoRA,
    LoRAProjections,
    NormTuning,
    ScaleProjections,
    VeRAProjections,
)
from petl_modules.methods.scale import INPUT
from petl_modules.use.adapter_schema import shortened
from petl_modules.use.adapter_tensors import Header

# Keys of any config that have no part in what a trained adapter computes, or show in
# the tensors
ANY = {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "revision"),
    *("base_model_name_or_path", "inference_mode", "target_modules"),
    *("exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
    *("runtime_config", "megatron_core"),
}
# Starts of a LoRA that leave the base as it was; PiSSA's, OLoRA's change its weights
NUDGE = 1e-5  # what PEFT's AdaLoRA adds to the rank that it divides by
STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


class Kind:
    """One of PEFT's tuners.

    Attributes
    ----------
    type : str
        PEFT's name for it.
    method : type
        Of ours.
    mark : str
        What comes after a module's path in the names of its tensors.
    reads : set of str
        Keys of its config that are read.
    plain : dict
        Those that must have one value.
    """

    type: str
    method: type
    mark: str
    reads: frozenset[str] = frozenset()
    plain: Mapping[str, Any] = {}

    def config(self, modules: Sequence[Any]) -> dict[str, Any]:
        """What its config says of our modules, or a UserError."""
        return dict(self.plain)

    def tensors(self, module: Any, site: str) -> dict[str, Tensor]:
        """The tensors of one of our modules, named from its path on."""
        raise NotImplementedError

    def shared(self, model: AdaptedModel) -> dict[str, Tensor]:
        """The tensors that several modules have together."""
        del model
        return {}

    def site(self, target: str, shapes: Mapping[str, tuple]) -> str:
        """The site of a module's tensors at a projection."""
        del shapes
        return target

    def whole(self, name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
        """A tensor as ours has it, where theirs is smaller."""
        del name, config
        return tensor

    def settings(self, config: Mapping[str, Any], sites: list[str]) -> dict[str, Any]:
        """The name and knobs of our method, for `make_method`."""
        raise NotImplementedError

    def refuse(self, config: Mapping[str, Any], header: Header, folder: Path) -> None:
        """Raise a UserError for what ours cannot compute."""
        for key, value in config.items():
            # a key that is off, such as those that later versions of PEFT add
            plain = self.plain.get(key, value if not value else None)
            if key not in ANY | self.reads and value != plain:
                raise UserError(
                    f"The {self.type} of {folder} has {key}={shortened(str(value))}, "
                    "which is unknown here."
                )
        rank = config.get("r", 1)
        if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
            raise UserError(f"The {self.type} of {folder} has r={rank}.")
        del header


class LoraKind(Kind):
    """LoRA with its variants, of which PEFT knows PiSSA as a LoRA of twice the rank."""

    type, method, mark = "LORA", LoRAProjections, ".lora_"
    reads = frozenset(
        ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")
        + ("init_lora_weights", "qalora_group_size", "eva_config")
    )
    plain: Mapping[str, Any] = {
        "bias": "none",
        "lora_bias": False,
        "fan_in_fan_out": False,
        "rank_pattern": {},
        "alpha_pattern": {},
    }

    def config(self, modules: Sequence[Any]) -> dict[str, Any]:
        """As of every kind; for one rank, one alpha."""
        factors = [module.factors() for module in modules]
        ranks = {len(a) for a, _ in factors}
        if len(ranks) > 1:
            raise UserError(
                f"The LoRA has the ranks {sorted(ranks)}, and PEFT's format is written "
                "for one: train with rank instead of reduction_rate."
            )
        if len({module.scale for module in modules}) > 1:
            raise UserError("PEFT's format is written for one alpha, not several.")
        stretched = {isinstance(module, DoRA) for module in modules}
        if len(stretched) > 1:
            raise UserError("PEFT's format is written for LoRA or DoRA, not for both.")
        rank, first = ranks.pop(), modules[0]
        return {
            **self.plain,
            "r": rank,
            "lora_alpha": first.scale * rank,
            "lora_dropout": first.dropout.p,
            "use_rslora": False,
            "use_dora": stretched.pop(),
        }

    def tensors(self, module: Any, site: str) -> dict[str, Tensor]:
        """As of every kind."""
        a, b = module.factors()
        named = {".lora_A.weight": a, ".lora_B.weight": b}
        if isinstance(module, DoRA):
            named[".lora_magnitude_vector"] = module.magnitude
        return named

    def settings(self, config: Mapping[str, Any], sites: list[str]) -> dict[str, Any]:
        """As of every kind; rsLoRA's scale is alpha / sqrt(r)."""
        stretch = sqrt(config["r"]) if config.get("use_rslora") else 1.0
        return {
            "name": "lora",
            "rank": config["r"],
            "alpha": config["lora_alpha"] * stretch,
            "dropout": config.get("lora_dropout"),
            "variant": "dora" if config.get("use_dora") else "lora",
            "targets": sites,
        }

    def refuse(self, config: Mapping[str, Any], header: Header, folder: Path) -> None:
        """As of every kind."""
        start = config.get("init_lora_weights")
        if not any(start is known or start == known for known in STARTS):
            raise UserError(
                f"The LoRA of {folder} started by {start}, which changes the base's "
                "weights: convert it with PEFT's "
                "path_initial_model_for_weight_conversion."
            )
        super().refuse(config, header, folder)
        alpha = config.get("lora_alpha")
        if "r" not in config or not isinstance(alpha, int | float):
            raise UserError(f"The LoRA of {folder} lacks r or lora_alpha.")
        if not isfinite(alpha):
            raise UserError(f"The LoRA of {folder} has lora_alpha={alpha}.")
        for name, (_, shape) in header.items():
            if "lora_A" in name and shape[:1] != (config["r"],):
                raise UserError(
                    f"The tensor {name} of {folder} has the shape {shape}, its r is "
                    f"{config['r']}."
                )


class AdaLoraKind(Kind):
    """AdaLoRA; what PEFT has trained comes without the ranks that were taken away."""

    type, method, mark = "ADALORA", AdaLoRAProjections, ".lora_"
    reads = LoraKind.reads | frozenset(
        ("init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2")
        + ("orth_reg_weight", "total_step", "rank_pattern")
    )
    plain: Mapping[str, Any] = {**LoraKind.plain, "rank_pattern": None}

    def config(self, modules: Sequence[Any]) -> dict[str, Any]:
        """As of every kind; for one alpha."""
        if len({(module.scale, module.rank) for module in modules}) > 1:
            raise UserError("PEFT's format is written for one AdaLoRA, not several.")
        first = modules[0]
        return {
            **self.plain,
            "init_r": first.rank,
            "target_r": first.rank,
            "lora_alpha": first.scale * (first.rank + NUDGE),
            "lora_dropout": first.dropout.p,
            "total_step": 1,  # which PEFT asks for, though nothing is left to train
        }

    def tensors(self, module: Any, site: str) -> dict[str, Tensor]:
        """As of every kind."""
        e = module.e.data.unsqueeze(1)
        return {".lora_A": module.a, ".lora_B": module.b, ".lora_E": e}

    def whole(self, name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
        """As of every kind; ranks that were taken away are zeros."""
        _, mark, inner = name.partition(self.mark)
        if not mark:
            return tensor
        lost = config["init_r"] - tensor.shape[inner == "B"]
        return F.pad(tensor, (0, lost) if inner == "B" else (0, 0, 0, lost))

    def settings(self, config: Mapping[str, Any], sites: list[str]) -> dict[str, Any]:
        """As of every kind."""
        rank = config["init_r"]
        return {
            "name": "adalora",
            "rank": rank,
            "target_rank": min(rank, config.get("target_r", rank)),
            "alpha": config["lora_alpha"] * rank / (rank + NUDGE),
            "dropout": config.get("lora_dropout"),
            "targets": sites,
        }

    def refuse(self, config: Mapping[str, Any], header: Header, folder: Path) -> None:
        """As of every kind."""
        super().refuse(config, header, folder)
        rank, alpha = config.get("init_r"), config.get("lora_alpha")
        if not isinstance(alpha, int | float) or not isfinite(alpha):
            raise UserError(f"The AdaLoRA of {folder} has lora_alpha={alpha}.")
        pattern = config.get("rank_pattern")
        lengths = {len(own) for own in (pattern or {}).values()}
        for name, (_, shape) in header.items():
            _, mark, inner = name.partition(self.mark)
            own = shape[inner == "B"] if mark and len(shape) == 2 else rank
            if own != rank and (pattern is None or lengths != {rank} or own > rank):
                raise UserError(
                    f"The tensor {name} of {folder} has the shape {shape}, its init_r "
                    f"is {rank}."
                )


class IA3Kind(Kind):
    """IA3, which is our scale without shifts."""

    type, method, mark = "IA3", ScaleProjections, ".ia3_"
    reads = frozenset(("feedforward_modules", "init_ia3_weights"))
    plain: Mapping[str, Any] = {"fan_in_fan_out": False}

    def config(self, modules: Sequence[Any]) -> dict[str, Any]:
        """As of every kind."""
        if any(module.shift is not None for module in modules):
            raise UserError("PEFT's IA3 knows no shifts: train with shift=False.")
        return dict(self.plain)

    def tensors(self, module: Any, site: str) -> dict[str, Tensor]:
        """As of every kind; a column scales what is given, a row what is read."""
        shape = (1, -1) if site.endswith(INPUT) else (-1, 1)
        return {".ia3_l": module.gain.data.view(shape)}

    def site(self, target: str, shapes: Mapping[str, tuple]) -> str:
        """As of every kind."""
        (shape,) = shapes.values()
        return target + INPUT if shape[0] == 1 else target

    def settings(self, config: Mapping[str, Any], sites: list[str]) -> dict[str, Any]:
        """As of every kind."""
        inputs = [s.removesuffix(INPUT) for s in sites if s.endswith(INPUT)]
        return {
            "name": "scale",
            "scaled_outputs": [s for s in sites if not s.endswith(INPUT)],
            "scaled_inputs": inputs,
            "shift": False,
        }


class VeraKind(Kind):
    """VeRA, whose random projections are saved there."""

    type, method, mark = "VERA", VeRAProjections, ".vera_lambda_"
    reads = frozenset(
        ("r", "projection_prng_key", "save_projection", "vera_dropout", "d_initial")
        + ("init_weights",)
    )
    plain: Mapping[str, Any] = {"bias": "none", "fan_in_fan_out": False}

    def config(self, modules: Sequence[Any]) -> dict[str, Any]:
        """As of every kind; for one pair of random projections."""
        if len({id(module.shared) for module in modules}) > 1:
            raise UserError("PEFT's format is written for one VeRA, not several.")
        module = modules[0]
        return {
            **self.plain,
            "r": len(module.d),
            "projection_prng_key": module.shared.seed,
            "save_projection": True,
            "vera_dropout": module.dropout.p,
        }

    def tensors(self, module: Any, site: str) -> dict[str, Tensor]:
        """As of every kind."""
        return {".vera_lambda_b": module.b, ".vera_lambda_d": module.d}

    def shared(self, model: AdaptedModel) -> dict[str, Tensor]:
        """As of every kind."""
        module: Any = next(iter(model.petl.values()))
        drawn = module.shared
        return {"base_model.vera_A": drawn.a, "base_model.vera_B": drawn.b}

    def settings(self, config: Mapping[str, Any], sites: list[str]) -> dict[str, Any]:
        """As of every kind."""
        return {
            "name": "vera",
            "rank": config["r"],
            "projection_seed": config.get("projection_prng_key"),
            "dropout": config.get("vera_dropout"),
            "targets": sites,
        }


class NormsKind(Kind):
    """LayerNorm tuning."""

    type, method, mark = "LN_TUNING", NormTuning, ".ln_tuning_layers."


KINDS: tuple[Kind, ...] = (
    LoraKind(),
    AdaLoraKind(),
    IA3Kind(),
    VeraKind(),
    NormsKind(),
)


def kind_of(model: AdaptedModel) -> Kind:
    """PEFT's tuner that a model's methods are, or a UserError."""
    for kind in KINDS:
        if all(isinstance(method, kind.method) for method in model.methods):
            return kind
    names = ", ".join(method.name for method in model.methods)
    raise UserError(
        "PEFT's format is for one of lora, adalora, ia3, vera and norms alone, not "
        f"{names}."
    )


def kind_named(name: Any, folder: Path) -> Kind:
    """PEFT's tuner of a config, or a UserError."""
    for kind in KINDS:
        if kind.type == name:
            return kind
    known = ", ".join(kind.type for kind in KINDS)
    raise UserError(f"{folder} holds {name}, none of {known}.")


def trained_norms(model: nn.Module) -> dict[str, Tensor]:
    """What trains of a model's LayerNorms, by PEFT's names within the model."""
    return {
        f"{path}{NormsKind.mark}{name}": parameter
        for path, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def same_projections(expected: Tensor, given: Tensor) -> bool:
    """Whether random projections are those that ours begin with."""
    a, b = (
        tensor[: len(expected), : expected.shape[1]] for tensor in (expected, given)
    )
    return a.shape == b.shape and torch.allclose(a, b.to(a.dtype), atol=1e-6)
