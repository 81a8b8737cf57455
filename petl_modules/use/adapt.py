"""Our methods on a Transformer of one's own: `petl_modules.adapt`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from petl_modules.backbones.own import OwnModel, torch_encoder
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.family import Family
from petl_modules.errors import UserError
from petl_modules.files import write_json, write_tensors
from petl_modules.methods import Method, make_method
from petl_modules.use.adapter_schema import SETTINGS, TENSORS, read_json
from petl_modules.use.adapter_tensors import check_header, read_header, read_tensors

FORMAT = "own-1"  # not that of adapters with a head and a backbone of this package


class AdaptedOwn(AdaptedModel):
    """An adapted model of one's own; calls are those of the model itself.

    `trained_parameters()` is what an optimizer takes, `groups()` what trains by place,
    `merge()` folds a method that can be folded into the model, and `train()` leaves the
    frozen model in eval mode.
    """

    def save(self, folder: str | Path) -> None:
        """Save what trains, and nothing of the frozen model.

        Arguments
        ---------
        folder : str or Path
            Gets adapter.safetensors and adapter.json.
        """
        write_tensors(Path(folder) / TENSORS, self.trained_state())
        write_json(Path(folder) / SETTINGS, self._settings())

    def load(self, folder: str | Path) -> "AdaptedOwn":
        """Put back what `save` wrote, on a model with the same weights, adapted in the
        same way; returns it.

        Arguments
        ---------
        folder : str or Path

        Raises
        ------
        UserError
            If the files are damaged, or made by another method or for another model.
        """
        folder = Path(folder)
        found, own = read_json(folder / SETTINGS), self._settings()
        for name, value in own.items():
            if found.get(name) != value:
                raise UserError(
                    f"The adapter {folder} does not fit: its {name} is "
                    f"{found.get(name)}, not {value}."
                )
        header = read_header(folder / TENSORS)
        check_header(header, self.trained_state(), folder / TENSORS)
        self.load_trained_state(read_tensors(folder / TENSORS))
        return self

    def _settings(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "methods": [
                {
                    "name": method.name,
                    "knobs": {
                        name: list(knob) if isinstance(knob, tuple) else knob
                        for name, knob in method.knobs.items()
                    },
                }
                for method in self.methods
            ],
            "besides": self.besides,
            "model": self.source,
            "fingerprint": self.backbone.fingerprint(),
        }


def adapt(
    module: nn.Module,
    family: Family | None,
    method: str | Method | Sequence[Method],
    besides: Sequence[str] = (),
    source: str | None = None,
    **knobs: Any,
) -> AdaptedOwn:
    """Put a method on a Transformer of one's own.

    The module is frozen, and its modules stay in eval mode; what the method trains is
    kept apart from them. Calls take and give what the module's own do.

    Arguments
    ---------
    module : torch.nn.Module
        A `torch.nn.TransformerEncoder`, or any module that holds a list of Transformer
        layers: of timm, of transformers, your own. It is changed in place: gradients
        are off, and functions are hooked in.
    family : Family or None
        Where its parts are; None for a `torch.nn.TransformerEncoder`. With `mask`,
        convolutions, means and batch statistics of a method leave padding out.
    method : str or Method or list of Method
        A name, such as lora, with its settings in `knobs`; or of `make_method`.
    besides : list of str
        Modules of yours that train too, by their names in the module: its head.
    source : str or None
        What the model is called in messages and in the file; None for its class.
    **knobs
        Settings of a method that is given by its name.

    Returns
    -------
    AdaptedOwn

    Raises
    ------
    UserError
        If the table does not fit the module, or the method cannot act in it.

    Example
    -------
    PyTorch's encoder:

    >>> import torch
    >>> from petl_modules import adapt
    >>> layer = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    >>> encoder = torch.nn.TransformerEncoder(layer, 2).eval()
    >>> model = adapt(encoder, None, "lora", rank=4)
    >>> sum(group.count for group in model.groups() if group.kind == "petl")
    2048
    >>> sound, padding = torch.randn(2, 9, 64), torch.zeros(2, 9, dtype=torch.bool)
    >>> model(sound, src_key_padding_mask=padding).shape
    torch.Size([2, 9, 64])
    >>> optimizer = torch.optim.AdamW(model.trained_parameters().values(), lr=1e-3)

    A model of transformers that this package does not have, with its classifier:

    >>> from transformers import ViTConfig, ViTForImageClassification
    >>> from petl_modules import Family
    >>> config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    ...     intermediate_size=64, image_size=32, patch_size=8)
    >>> vit = ViTForImageClassification(config)
    >>> family = Family(
    ...     layers="vit.layers", last_norm="vit.layernorm", special=1,
    ...     mhsa="attention", mhsa_norm="layernorm_before",
    ...     ffn="mlp", ffn_norm="layernorm_after",
    ...     q="attention.q_proj", k="attention.k_proj", v="attention.v_proj",
    ...     o="attention.o_proj", fc1="mlp.fc1", fc2="mlp.fc2",
    ... )
    >>> model = adapt(vit, family, "bottleneck", besides=["classifier"], rank=8)
    >>> [(group.kind, group.site, group.count) for group in model.groups()]
    [('petl', 'mhsa', 1104), ('site_norms', 'mhsa', 128), ('last_norm', '', 64), \
('head', 'classifier', 66)]
    >>> model(torch.randn(1, 3, 32, 32)).logits.shape
    torch.Size([1, 2])
    """
    if family is None:
        if not isinstance(module, nn.TransformerEncoder):
            raise UserError(
                f"{type(module).__name__} is no torch.nn.TransformerEncoder: say where "
                "its parts are by a petl_modules.Family."
            )
        family = torch_encoder(module)
    if isinstance(method, str):
        method = make_method(method, **knobs)
    elif knobs:
        raise UserError(
            f"{next(iter(knobs))} belongs to make_method where the method is given "
            "built, not by its name."
        )
    with torch.no_grad():
        host = OwnModel(module, family, source)
    model = AdaptedOwn(host, method, list(besides))
    if not model.trained_parameters():
        raise UserError(
            f"Nothing would train: {host.source} has no last norm, and linear adds "
            "nothing to it."
        )
    return model
