"""A checkpoint in transformers' layout, as a family's loader asks for it."""

import json
import logging
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

from petl_modules.backbones import attention, registry
from petl_modules.backbones.features import SpecAugment
from petl_modules.errors import UserError
from petl_modules.files import EMBEDDED

logger = logging.getLogger(__name__)


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
        self.location = str(EMBEDDED) if source == "embedded" else source
        self.decoder, self.max_duration = decoder, max_duration
        self.spec_freq, self.spec_time = spec_freq, spec_time
        self.is_folder = Path(self.location).is_dir()

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
        try:
            return AutoConfig.from_pretrained(self.location)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"No checkpoint can be loaded from {self.location}: give a folder in "
                "transformers' layout or a hub id that can be reached "
                f"({first_line(error)})."
            ) from error

    def model(self, name: str) -> Any:
        """The model of a class of transformers, in eval mode and single precision, with
        attention that knows prefixes.

        Arguments
        ---------
        name : str
            Of the class.

        Raises
        ------
        UserError
            If a weight that it reads is not there.
        """
        kind: type[PreTrainedModel] = getattr(transformers, name)
        if self.pretrained:
            model = self._pretrained(kind)
        else:
            logger.warning(
                "pretrained=False: %s is built with RANDOM weights, nothing is loaded.",
                self.source,
            )
            model = kind(self.config)
        model.float().eval()
        return model

    def preprocessing(self, defaults: dict[str, Any]) -> dict[str, Any]:
        """What the checkpoint's preprocessor says, as far as the features need it.

        Arguments
        ---------
        defaults : dict
            What those of published checkpoints say, for checkpoints that say less.
        """
        said: dict[str, Any] = {}
        if self.pretrained or self.is_folder:
            with suppress(OSError):
                said, _ = FeatureExtractionMixin.get_feature_extractor_dict(
                    self.location
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

    def _pretrained(self, kind: type[PreTrainedModel]) -> PreTrainedModel:
        try:
            model, info = kind.from_pretrained(
                self.location, config=self.config, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"The weights of {self.location} cannot be loaded "
                f"({first_line(error)})."
            ) from error
        missing = [n for n in info["missing_keys"] if "masked_spec_embed" not in n]
        if missing:
            raise UserError(
                f"The checkpoint {self.location} lacks {len(missing)} weights, "
                f"{missing[0]} among them: it is not complete."
            )
        return model


def with_prefixes(model: Any) -> Any:
    """The model, with attention that knows learned prefixes."""
    model.config._attn_implementation = attention.NAME
    return model


def first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return str(error).strip().split("\n")[0]
