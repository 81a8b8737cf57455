"""A small HiFi-GAN (Kong et al., arXiv 2010.05646) of SpeechBrain's modules, in a
folder of numbers alone: config.json and generator.safetensors."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from speechbrain.lobes.models.HifiGAN import HifiganGenerator
from torch import Tensor

from petl_modules.errors import UserError
from petl_modules.files import write_json, write_tensors

KIND = "hifigan"
CONFIG, WEIGHTS = "config.json", "generator.safetensors"


@dataclass(frozen=True)
class HifiganConfig:
    """Sizes of a generator, by default those of the paper's V3 at hop 256, and the
    spectrograms that it reads.

    Attributes
    ----------
    channels : int
        Before the first upsampling, each of which halves them.
    factors, kernels : tuple of int
        Of the upsampling; the product of the factors is the hop length.
    block_kernels : tuple of int
    block_dilations : tuple of tuple of int
        Of the residual blocks after each upsampling.
    features : dict
        The settings of `petl_modules.tts.features.SpeechFeatures`.
    """

    features: dict
    channels: int = 256
    factors: tuple[int, ...] = (8, 8, 4)
    kernels: tuple[int, ...] = (16, 16, 8)
    block_kernels: tuple[int, ...] = (3, 5, 7)
    block_dilations: tuple[tuple[int, int], ...] = ((1, 2), (2, 6), (3, 12))


class HifiganVocoder:
    """A generator as a function from spectrograms to sound on the CPU, which goes where
    they are and computes there.

    Arguments
    ---------
    config : HifiganConfig
    generator : HifiganGenerator
    """

    def __init__(self, config: HifiganConfig, generator: HifiganGenerator) -> None:
        self.config, self.generator = config, generator.eval()

    @torch.no_grad()
    def __call__(self, mel: Tensor) -> Tensor:
        """`(frames, n_mels)` to `(samples,)`."""
        generator = self.generator.to(mel.device)
        return generator(mel.float().T.unsqueeze(0))[0, 0].cpu()


def new_generator(config: HifiganConfig) -> HifiganGenerator:
    """SpeechBrain's generator with random weights."""
    return HifiganGenerator(
        in_channels=config.features["n_mels"],
        out_channels=1,
        resblock_type="2",
        resblock_dilation_sizes=[list(pair) for pair in config.block_dilations],
        resblock_kernel_sizes=list(config.block_kernels),
        upsample_kernel_sizes=list(config.kernels),
        upsample_initial_channel=config.channels,
        upsample_factors=list(config.factors),
        inference_padding=0,
    )


def save_hifigan(
    folder: str | Path, config: HifiganConfig, tensors: dict[str, Tensor]
) -> None:
    """Write a folder that `load_hifigan_folder` reads.

    Arguments
    ---------
    folder : str or Path
    config : HifiganConfig
    tensors : dict
        The state of its generator.
    """
    write_tensors(Path(folder) / WEIGHTS, tensors)
    write_json(Path(folder) / CONFIG, {"model_type": KIND, **asdict(config)})


def is_hifigan(folder: str | Path) -> bool:
    """Whether a folder holds such a vocoder."""
    try:
        text = (Path(folder) / CONFIG).read_text(encoding="utf-8")
        return json.loads(text)["model_type"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_hifigan_folder(folder: str | Path, features: dict) -> HifiganVocoder:
    """A vocoder from its folder.

    Arguments
    ---------
    folder : str or Path
    features : dict
        The settings of the spectrograms that it is to read.

    Raises
    ------
    UserError
        If the folder is damaged, or its spectrograms are others.
    """
    try:
        values = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
        values.pop("model_type")
        config = HifiganConfig(**values)
        generator = new_generator(config)
        tensors = load_file(Path(folder) / WEIGHTS)
        generator.load_state_dict({n: t.float() for n, t in tensors.items()})
    except (OSError, ValueError, TypeError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"The vocoder {folder} cannot be loaded ({reason}).") from None
    for name, value in features.items():
        if config.features.get(name) != value:
            raise UserError(
                f"The vocoder {folder} reads spectrograms with "
                f"{name}={config.features.get(name)}, the voice makes them with "
                f"{value}."
            )
    return HifiganVocoder(config, generator)
