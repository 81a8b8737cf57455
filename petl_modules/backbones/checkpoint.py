"""A checkpoint in transformers' layout, as a family's loader asks for it."""

import json
import logging
import math
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

from petl_modules.backbones import attention, registry
from petl_modules.backbones.features import SpecAugment
from petl_modules.errors import UserError
from petl_modules.files import SHIPPED

if TYPE_CHECKING:
    from petl_modules.backbones.base import Backbone

logger = logging.getLogger(__name__)

PREPROCESSOR = "preprocessor_config.json"
LONGEST_NAME = 255  # bytes, on the usual file systems
POINTER = b"version https://git-lfs.github.com"
# What torch.compile and DistributedDataParallel put before the names of weights
WRAPPERS = {r"^(_orig_mod\.|module\.)+": ""}


class Checkpoint:
    """What `load_backbone` was asked for; nothing is read before it is needed.

    Arguments
    ---------
    source : str
        As the user named it; `location` is the folder or hub id that it stands for.
    pretrained : bool
        False for random weights.
    decoder : bool
        Whether a decoder is asked for.
    max_duration : float or None
        Seconds of the longest clip.
    spec_freq, spec_time : int
        SpecAugment's widest masks.

    Raises
    ------
    UserError
        If source has a name that no folder can have.
    """

    def __init__(
        self,
        source: str,
        pretrained: bool = True,
        decoder: bool = False,
        max_duration: float | None = None,
        spec_freq: int = 0,
        spec_time: int = 0,
    ) -> None:
        self.source, self.pretrained = source, pretrained
        self.location = str(SHIPPED.get(source, source))
        refuse_long_names(self.location)
        self.decoder, self.max_duration = decoder, max_duration
        self.spec_freq, self.spec_time = spec_freq, spec_time
        self.is_folder = os.path.isdir(self.location)  # of impossible names too

    @cached_property
    def model_type(self) -> str:
        """The family, in transformers' terms."""
        if not self.is_folder and (known := registry.architecture(self.location)):
            return known[0]
        path = Path(self.location) / "config.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            return json.loads(path.read_text(encoding="utf-8"))["model_type"]
        return self.config.model_type

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The config of the folder or hub id, or of a known architecture.

        Raises
        ------
        UserError
            If there is none.
        """
        known = None if self.is_folder else registry.architecture(self.location)
        if known is not None and not self.pretrained:
            model_type, settings = known
            return AutoConfig.for_model(model_type, **settings)
        if self.is_folder and not (Path(self.location) / "config.json").is_file():
            raise UserError(
                f"The folder {self.location} has no config.json: source must be a "
                "checkpoint in transformers' layout."
            )
        if self.is_folder:
            refuse_pointers(self.location)
        try:
            # never code that comes with a checkpoint
            return AutoConfig.from_pretrained(self.location, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"No checkpoint can be loaded from {self.location}: give a folder in "
                "transformers' layout or a hub id that can be reached "
                f"({first_line(error)})."
            ) from error

    def model(self, name: str, inner: tuple[str, str] | None = None) -> Any:
        """The model of a class of transformers, in eval mode and single precision, with
        attention that knows prefixes.

        Arguments
        ---------
        name : str
            Of the class.
        inner : tuple of str or None
            Where it is a part of a larger model, of which nothing else is read: the
            name of its config within that one's, and of its weights.

        Raises
        ------
        UserError
            If a weight that it reads is not there.
        """
        kind: type[PreTrainedModel] = getattr(transformers, name)
        config, mapping = self.config, WRAPPERS
        if inner is not None:
            config = getattr(config, inner[0], config)
            mapping = {**WRAPPERS, rf"^(model\.)?{inner[1]}\.": ""}
        if self.pretrained:
            model = self._pretrained(kind, config, mapping)
            if inner is not None:  # it is saved by names of its own
                model._weight_conversions = []
        else:
            logger.warning(
                "pretrained=False: %s is built with RANDOM weights, nothing is loaded.",
                self.source,
            )
            model = kind(config)
        model.float().eval()
        return model

    def part(self, kind: "type[Backbone]", name: str | None = None) -> Any:
        """The encoder of a larger model, as `kind.part_of` says where it stands.

        Arguments
        ---------
        kind : type
            Of backbone.
        name : str or None
            Of another class that has it in the same place.
        """
        assert kind.part_of is not None
        whole, path = kind.part_of
        return self.model(name or whole).get_submodule(path)

    def preprocessing(self, defaults: dict[str, Any]) -> dict[str, Any]:
        """What the checkpoint's preprocessor says, as far as the features need it.

        Arguments
        ---------
        defaults : dict
            What those of published checkpoints say, for checkpoints that say less.
        """
        said: dict[str, Any] = {}
        if self.pretrained or self.is_folder:
            try:
                said, _ = FeatureExtractionMixin.get_feature_extractor_dict(
                    self.location
                )
            except OSError as error:
                # without the file, the family's defaults hold
                if (Path(self.location) / PREPROCESSOR).exists():
                    raise UserError(
                        f"{self.location}/{PREPROCESSOR} is damaged: download it again."
                    ) from error
        for key, value in defaults.items():
            if key in said and not alike(said[key], value):
                raise UserError(
                    f"{self.location}/{PREPROCESSOR} says {key}={said[key]}, which is "
                    f"none, such as {value}."
                )
        return {key: said.get(key, value) for key, value in defaults.items()}

    def spec_augment(self, fill: float | None) -> SpecAugment | None:
        """The masks that were asked for, filled as suits the family's features."""
        if not (self.spec_freq or self.spec_time):
            return None
        return SpecAugment(self.spec_freq, self.spec_time, fill)

    def no_spec_augment(self) -> None:
        """Say so, if masks were asked for where there is no spectrogram."""
        if self.spec_freq or self.spec_time:
            logger.info(
                "%s reads the waveform: SpecAugment is off.", self.config.model_type
            )

    def _pretrained(
        self,
        kind: type[PreTrainedModel],
        config: PreTrainedConfig,
        mapping: dict[str, str],
    ) -> PreTrainedModel:
        if getattr(self.config, "quantization_config", None):
            raise UserError(
                f"{self.location} is quantized (quantization_config in its "
                "config.json): take the checkpoint that it was made from."
            )
        if self.is_folder:
            refuse_pickles(self.location)
        try:
            loaded: Any = kind.from_pretrained(
                self.location,
                config=config,
                attn_implementation="eager",  # whatever the file says
                key_mapping=mapping,
                use_safetensors=True,
                output_loading_info=True,
            )
            model, info = loaded
        except Exception as error:  # whatever a strange file makes of its reader
            raise UserError(
                f"The weights of {self.location} cannot be loaded: they are damaged, "
                f"or more than weights ({first_line(error)})."
            ) from error
        missing = [n for n in info["missing_keys"] if "masked_spec_embed" not in n]
        if missing:
            raise UserError(
                f"The checkpoint {self.location} lacks {len(missing)} weights, "
                f"{missing[0]} among them: it is not complete."
            )
        return model


def refuse_pointers(location: str) -> None:
    """Raise a UserError for a folder whose files Git LFS has yet to fetch."""
    for path in sorted(Path(location).glob("*")):
        if not path.is_file():
            continue
        with open(path, "rb") as stream:
            if stream.read(len(POINTER)) == POINTER:
                raise UserError(
                    f"{path} is a pointer of Git LFS and not the file itself: run "
                    "`git lfs pull` in that folder."
                )


def refuse_pickles(location: str) -> None:
    """Raise a UserError for a folder whose weights could run code when they are read:
    only safetensors are read, from a hub too."""
    weights = [path.name for path in sorted(Path(location).glob("*"))]
    pickles = [name for name in weights if name.endswith((".bin", ".pt", ".pth"))]
    if pickles and not any(name.endswith(".safetensors") for name in weights):
        raise UserError(
            f"{location}/{pickles[0]} is a pickle, which can run code: convert it to "
            "safetensors where you trust it, by transformers' save_pretrained."
        )


def alike(value: Any, default: Any) -> bool:
    """Whether a value of a preprocessor can stand for a default."""
    if isinstance(default, bool | str):
        return type(value) is type(default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and (default <= 0 or value > 0)


def with_prefixes(model: Any) -> Any:
    """The model, with attention that knows learned prefixes."""
    model.config._attn_implementation = attention.NAME
    return model


def refuse_long_names(location: str) -> None:
    """Raise a UserError, itself short, for a name that no folder or hub id has."""
    longest = max(len(os.fsencode(name)) for name in location.split("/"))
    if longest > LONGEST_NAME:
        raise UserError(
            f"source={location[:40]}... has a name of {longest} bytes: no folder or "
            f"hub id has more than {LONGEST_NAME}."
        )


def first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return str(error).strip().split("\n")[0]
