"""YAMNet, a classifier of sounds, as a second teacher beside Whisper.

The network and its log-mel patches are those of Google's YAMNet (MobileNet v1 on 0.96 s
patches, 521 classes of AudioSet, Apache-2.0), with the batch norms folded into the
convolutions. `docs/convert_yamnet.py` takes the weights out of a tflite.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from petl_modules.errors import UserError

WEIGHTS = "yamnet.safetensors"
CLASSES = 521
PATCH = 96  # frames
WINDOW, SHIFT, FFT_SIZE = 400, 160, 512  # samples, at 16 kHz
# (channels, channels after, stride) of the depthwise-separable blocks
BLOCKS = [
    *((32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)),
    *((256, 512, 2), *[(512, 512, 1)] * 5, (512, 1024, 2), (1024, 1024, 1)),
]


class YamNet(nn.Module):
    """Logits of 521 classes for patches of 0.96 s."""

    banks: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers = [Convolution(1, 32, 3, 2)]
        for channels, after, stride in BLOCKS:
            layers.append(Convolution(channels, channels, 3, stride, groups=channels))
            layers.append(Convolution(channels, after, 1))
        self.layers = nn.Sequential(*layers)
        self.scores = nn.Linear(BLOCKS[-1][1], CLASSES)
        self.register_buffer("banks", mel_banks(64, 125.0, 7500.0), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, wavs: Tensor, hop: int) -> Tensor:
        """`(clips, samples)` at 16 kHz to `(clips, patches, classes)`, a patch every
        `hop` frames of 10 ms."""
        frames = wavs.unfold(1, WINDOW, SHIFT) * self.window
        energies = torch.fft.rfft(frames, FFT_SIZE).abs() @ self.banks
        patches = (energies + 0.001).log().unfold(1, PATCH, hop).transpose(2, 3)
        with torch.autocast(wavs.device.type, torch.bfloat16):
            hidden = self.layers(patches.flatten(0, 1).unsqueeze(1))
        logits = self.scores(hidden.float().mean((2, 3)))
        return logits.unflatten(0, patches.shape[:2])


class Convolution(nn.Conv2d):
    """A convolution and its ReLU6, padded as TensorFlow does for even sizes: after the
    end only, where the stride is 2."""

    def forward(self, x: Tensor) -> Tensor:
        """`(patches, channels, frames, mel bins)`, in and out."""
        if self.kernel_size[0] == 3:
            before = 2 - self.stride[0]
            x = F.pad(x, (before, 1, before, 1))
        return F.relu6(super().forward(x))


def mel_banks(bins: int, low: float, high: float) -> Tensor:
    """Triangles on HTK's mel scale, straight in mel: `(FFT bins, mel bins)`."""

    def mel(hertz: float) -> float:
        return 1127 * math.log1p(hertz / 700)

    edges = torch.linspace(mel(low), mel(high), bins + 2, dtype=torch.float64)
    hertz = torch.linspace(0, 8000, FFT_SIZE // 2 + 1).tolist()
    places = torch.tensor([mel(f) for f in hertz], dtype=torch.float64).unsqueeze(1)
    rise = (places - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - places) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0).float()


def load_yamnet(folder: str) -> YamNet:
    """The network with the weights of `folder/yamnet.safetensors`.

    Raises
    ------
    UserError
        For a folder that holds none, or others.
    """
    network = YamNet()
    try:
        network.load_state_dict(load_file(Path(folder) / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{folder} has no {WEIGHTS} of YAMNet: give --second_teacher the folder "
            "that docs/convert_yamnet.py wrote."
        ) from error
    return network.eval()
