"""What a synthesiser learns to produce: log-mel spectrograms, pitch, energy."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.lobes.models.FastSpeech2 import mel_spectrogram
from torch import Tensor

from petl_modules.console import progress_bar
from petl_modules.data import read_clip
from petl_modules.data.tensor_cache import TensorCache
from petl_modules.files import digest, listing

logger = logging.getLogger(__name__)

REFERENCE_HZ = 150.0
F0_RANGE = (60.0, 600.0)  # Hz


class SpeechFeatures:
    """Log-mel spectrograms as SpeechBrain's HiFi-GAN takes them, energy and pitch.

    Arguments
    ---------
    sample_rate : int
        Hz.
    hop_length, win_length, n_fft : int
        Samples.
    n_mels : int
    f_min, f_max : float
        Hz.
    """

    def __init__(
        self,
        sample_rate: int,
        hop_length: int,
        win_length: int,
        n_fft: int,
        n_mels: int,
        f_min: float,
        f_max: float,
    ) -> None:
        self.sample_rate, self.hop_length = sample_rate, hop_length
        self.settings = {
            "sample_rate": sample_rate,
            "hop_length": hop_length,
            "win_length": win_length,
            "n_fft": n_fft,
            "n_mels": n_mels,
            "f_min": f_min,
            "f_max": f_max,
        }
        self._mel = partial(
            mel_spectrogram,
            **self.settings,
            power=1,
            normalized=False,
            min_max_energy_norm=True,
            norm="slaney",
            mel_scale="slaney",
            compression=True,
        )

    def mel(self, wav: Tensor) -> Tensor:
        """`(samples,)` to the log-mel spectrogram `(frames, n_mels)`, in nepers."""
        return self._framed(wav)[0].T

    def energy(self, wav: Tensor) -> Tensor:
        """`(samples,)` to the loudness of each frame, from 0 to 1 within the clip."""
        return self._framed(wav)[1].nan_to_num()

    def pitch(self, wav: Tensor) -> Tensor:
        """`(samples,)` to `ln(F0 / 150 Hz)` of each frame, 0 where unvoiced; WORLD's
        DIO and StoneMask."""
        import pyworld  # not where pitch has been found before

        signal = wav.double().numpy()
        low, high = F0_RANGE
        f0, times = pyworld.dio(
            signal,
            self.sample_rate,
            f0_floor=low,
            f0_ceil=high,
            frame_period=1000 * self.hop_length / self.sample_rate,
        )
        f0 = pyworld.stonemask(signal, f0, times, self.sample_rate)
        frames = len(wav) // self.hop_length + 1
        f0 = np.pad(f0, (0, max(0, frames - len(f0))))[:frames]
        logs = np.log(np.maximum(f0, low) / REFERENCE_HZ)
        return torch.from_numpy(np.where(f0 > 0, logs, 0.0)).float()

    def _framed(self, wav: Tensor) -> list[Tensor]:
        """Mel bins and loudness of each frame; a clip that is shorter than what its
        edges are mirrored from ends in silence."""
        frames = len(wav) // self.hop_length + 1
        short = self.settings["n_fft"] // 2 + 1 - len(wav)
        parts = self._mel(audio=torch.nn.functional.pad(wav, (0, max(0, short))))
        return [part[..., :frames] for part in parts]

    def cached(
        self, folder: str | Path, dataset: DynamicItemDataset, progress: bool = True
    ) -> dict[str, Tensor]:
        """Pitch and energy of every clip of a data set, computed once.

        Arguments
        ---------
        folder : str or Path
            Where they are kept, in one folder for one analysis.
        dataset : DynamicItemDataset
            With wav.
        progress : bool

        Returns
        -------
        dict
            `{wav: (2, frames)}`, pitch then energy.
        """
        cache = TensorCache(Path(folder) / digest([self.settings, F0_RANGE])[:20])
        wavs = sorted({entry["wav"] for entry in dataset.data.values()})
        names = {wav: digest(listing([wav]))[:32] for wav in wavs}
        missing = [wav for wav in wavs if names[wav] not in cache]
        computed = {}
        for wav in progress_bar(missing, desc="pitch", shown=progress):
            clip = read_clip(wav, self.sample_rate)
            computed[names[wav]] = torch.stack([self.pitch(clip), self.energy(clip)])
        cache.add(computed)
        return {wav: cache[name] for wav, name in names.items()}


class KeptMels:
    """Spectrograms of clips, computed once where there is room.

    Arguments
    ---------
    features : SpeechFeatures
    mib : float
        How much is kept.
    """

    def __init__(self, features: SpeechFeatures, mib: float) -> None:
        self.features, self.room = features, mib * 2**20
        self.kept: dict[str, torch.Tensor] = {}

    def __call__(self, wav: str) -> torch.Tensor:
        """The log-mel spectrogram of a clip's file, `(frames, n_mels)`."""
        if wav in self.kept:
            return self.kept[wav]
        mel = self.features.mel(read_clip(wav, self.features.sample_rate))
        size = mel.numel() * mel.element_size()
        if size <= self.room:
            self.kept[wav] = mel
            self.room -= size
        return mel


def hertz(pitch: Tensor) -> Tensor:
    """Pitch as above to Hz; meaningless where unvoiced."""
    return REFERENCE_HZ * torch.exp(pitch)
