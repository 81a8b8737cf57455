"""Spectral features of batches of waveforms, on the waveforms' device."""

import hashlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio import transforms
from torchaudio.compliance import kaldi

from petl_modules.core.masking import valid

# Kaldi's frames: 25 ms every 10 ms, and its floor under the logarithm
FRAME_MS, SHIFT_MS = 25, 10


class KaldiFilterbank(nn.Module):
    """`torchaudio.compliance.kaldi.fbank` for whole batches, bit-equal to it, without
    dither and with HTK's mel scale.

    Arguments
    ---------
    sample_rate : int
        Hz.
    num_mel_bins : int
        Number of mel bins.
    window_power : float
        Of the Hann window: 1 as AST has it, 0.85 for Kaldi's own (Povey's).

    Attributes
    ----------
    memory : Memory or None
        Of clips that were heard before, on a CPU.
    """

    window: Tensor
    banks: Tensor

    def __init__(
        self, sample_rate: int, num_mel_bins: int, window_power: float = 1.0
    ) -> None:
        super().__init__()
        self.memory: Memory | None = None
        self.length = sample_rate * FRAME_MS // 1000
        self.shift = sample_rate * SHIFT_MS // 1000
        self.fft_size = 1 << (self.length - 1).bit_length()
        window = torch.hann_window(self.length, periodic=False) ** window_power
        banks, _ = kaldi.get_mel_banks(
            num_mel_bins, self.fft_size, sample_rate, 20.0, 0.0, 100.0, -500.0, 1.0
        )
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("banks", F.pad(banks, (0, 1)), persistent=False)

    def frames(self, samples: Tensor) -> Tensor:
        """Number of frames of clips of `samples` samples."""
        return (samples - self.length).clamp(min=0) // self.shift + 1

    def forward(self, wavs: Tensor) -> Tensor:
        """`(batch, samples)` to `(batch, frames, mel bins)`."""
        if self.memory is not None and wavs.device.type == "cpu":
            return self.memory(self.computed, wavs)
        return self.computed(wavs)

    def computed(self, wavs: Tensor) -> Tensor:
        """As `forward`, whatever was heard before."""
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = wavs.float()
            if wavs.shape[1] < self.length:
                wavs = F.pad(wavs, (0, self.length - wavs.shape[1]))
            frames = wavs.unfold(1, self.length, self.shift)
            frames = frames - frames.mean(-1, keepdim=True)
            last = torch.cat([frames[..., :1], frames[..., :-1]], -1)
            frames = (frames - 0.97 * last) * self.window
            frames = F.pad(frames, (0, self.fft_size - self.length))
            power = torch.fft.rfft(frames).abs().pow(2.0)
            if torch.compiler.is_exporting() or wavs.device.type != "cpu":
                energies = power @ self.banks.T  # for any number of clips
            else:  # clip by clip, as bits depend on the size of a product
                energies = torch.stack([clip @ self.banks.T for clip in power])
            return energies.clamp(min=torch.finfo(torch.float).eps).log()


class Memory:
    """Features of clips that were heard before: on a CPU a filterbank takes longer than
    a small backbone, and would be computed again in every epoch.

    Arguments
    ---------
    mib : float
        Of features that are kept.
    """

    def __init__(self, mib: float) -> None:
        self.room = mib * 2**20
        self.known: dict[bytes, Tensor] = {}

    def __call__(self, compute: Callable[[Tensor], Tensor], wavs: Tensor) -> Tensor:
        """`compute(wavs)`, whose rows do not depend on one another."""
        names = [hashlib.blake2b(wav.numpy()).digest() for wav in wavs.detach()]
        new = [i for i, name in enumerate(names) if name not in self.known]
        found = dict(zip(new, compute(wavs[new]), strict=True)) if new else {}
        for i, features in found.items():
            self.room -= features.nbytes
            if self.room >= 0:
                self.known[names[i]] = features.clone()
        rows = [found[i] if i in found else self.known[n] for i, n in enumerate(names)]
        return torch.stack(rows)


class HannMel(nn.Module):
    """What mel spectrograms are made of whose Hann window is as long as their Fourier
    transform.

    Arguments
    ---------
    mel_filters : torch.Tensor
        `(fft_size / 2 + 1, mel bins)`, of transformers' feature extractor.
    fft_size, hop_length : int
        In samples.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, mel_filters: Tensor, fft_size: int, hop_length: int) -> None:
        super().__init__()
        self.fft_size, self.hop_length = fft_size, hop_length
        self.register_buffer("filters", mel_filters, persistent=False)
        self.register_buffer("window", torch.hann_window(fft_size), persistent=False)


class WhisperLogMel(HannMel):
    """Whisper's log-mel spectrogram, as if the clip were followed by silence."""

    def forward(self, wavs: Tensor, frames: int) -> Tensor:
        """`(batch, samples)` to `(batch, mel bins, frames)`."""
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = wavs.float()
            half = self.fft_size // 2
            need = (frames - 1) * self.hop_length + half
            wavs = F.pad(wavs, (0, max(0, half + 1 - wavs.shape[1])))
            wavs = F.pad(wavs.unsqueeze(1), (half, 0), mode="reflect").squeeze(1)
            wavs = F.pad(wavs, (0, max(0, need + half - wavs.shape[1])))
            spectrum = torch.stft(
                wavs[:, : need + half],
                self.fft_size,
                self.hop_length,
                window=self.window,
                center=False,
                return_complex=True,
            )
            mel = self.filters.T @ spectrum.abs() ** 2
            log = mel.clamp(min=1e-10).log10()
            log = log.maximum(log.amax((1, 2), keepdim=True) - 8.0)
            return (log + 4.0) / 4.0


class DecibelMel(HannMel):
    """CLAP's mel spectrogram in decibels."""

    def forward(self, wavs: Tensor) -> Tensor:
        """`(batch, samples)` to `(batch, mel bins, 1 + samples // hop_length)`."""
        with torch.autocast(wavs.device.type, enabled=False):
            spectrum = torch.stft(
                wavs.float(),
                self.fft_size,
                self.hop_length,
                window=self.window,
                return_complex=True,
            )
            mel = self.filters.T @ spectrum.abs() ** 2
            return 10.0 * mel.clamp(min=1e-10).log10()


class NemoLogMel(nn.Module):
    """NeMo's log-mel spectrogram, each bin normalised over the clip.

    Arguments
    ---------
    mel_filters : torch.Tensor
        `(mel bins, fft_size / 2 + 1)`, of transformers' feature extractor.
    fft_size, hop_length, window_length : int
        In samples.
    preemphasis : float
        What is taken away of the sample before.
    """

    filters: Tensor
    window: Tensor

    def __init__(
        self,
        mel_filters: Tensor,
        fft_size: int,
        hop_length: int,
        window_length: int,
        preemphasis: float,
    ) -> None:
        super().__init__()
        self.fft_size, self.hop_length = fft_size, hop_length
        self.window_length, self.preemphasis = window_length, preemphasis
        window = torch.hann_window(window_length, periodic=False)
        self.register_buffer("filters", mel_filters, persistent=False)
        self.register_buffer("window", window, persistent=False)

    def forward(self, wavs: Tensor, counts: Tensor) -> Tensor:
        """`(batch, samples)` and lengths in samples to `(batch, frames, mel bins)`,
        zeros after a clip's `counts // hop_length` frames, of which two are needed."""
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = wavs.float()
            before = F.pad(wavs, (1, -1))
            wavs = wavs - self.preemphasis * before
            wavs = wavs.where(valid(counts, wavs.shape[1]), 0.0)
            spectrum = torch.stft(
                wavs,
                self.fft_size,
                self.hop_length,
                self.window_length,
                window=self.window,
                pad_mode="constant",
                return_complex=True,
            )
            log = (self.filters @ spectrum.abs() ** 2 + 2.0**-24).log().mT
            return standardised_bins(log, counts // self.hop_length, 1e-5, 0.0)


def standardised_bins(
    features: Tensor, frames: Tensor, beside: float, within: float
) -> Tensor:
    """`(batch, time, bins)` with zero mean and unit deviation of each bin over a clip's
    valid frames, zeros after them.

    Arguments
    ---------
    frames : torch.Tensor
        Of each clip, two or more.
    beside, within : float
        Small numbers that keep silence finite: beside the deviation, and within its
        root.
    """
    mask = valid(frames, features.shape[1]).unsqueeze(-1)
    total = frames[:, None, None]
    mean = (features * mask).sum(1, keepdim=True) / total
    variance = ((features - mean).square() * mask).sum(1, keepdim=True) / (total - 1)
    return (features - mean) / (torch.sqrt(variance + within) + beside) * mask


class SpecAugment(nn.Module):
    """One frequency mask and one time mask per clip (arXiv 1904.08779).

    Arguments
    ---------
    freq, time : int
        Greatest width in mel bins and in frames.
    fill : float or None
        Value of masked bins: 0 where features are normalised over the data. None
        fills with a clip's own quietest bin, for features that have no such zero.
    """

    def __init__(self, freq: int, time: int, fill: float | None = 0.0) -> None:
        super().__init__()
        self.freq = transforms.FrequencyMasking(freq, iid_masks=True)
        self.time = transforms.TimeMasking(time, iid_masks=True)
        self.fill = fill

    def forward(self, spectrogram: Tensor) -> Tensor:
        """`(batch, mel bins, frames)` to the same, masked."""
        kept = torch.ones_like(spectrogram).unsqueeze(1)
        if self.freq.mask_param:
            kept = self.freq(kept, 0.0)
        if self.time.mask_param:
            kept = self.time(kept, 0.0)
        quiet = spectrogram.amin((1, 2), keepdim=True)
        fill = quiet if self.fill is None else torch.full_like(quiet, self.fill)
        return spectrogram.where(kept.squeeze(1).bool(), fill)
