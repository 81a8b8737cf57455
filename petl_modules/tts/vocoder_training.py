"""Training of a vocoder on recordings of any texts: HiFi-GAN's losses, but for the
first part of the steps only those of spectra, which cost a fraction and bring it most
of the way.

Every step draws its segments by its own number, and a checkpoint holds all that the
next step hangs on: a run that was killed ends with the same tensors (on a CPU; on a GPU
up to the order of its sums).
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.HifiGAN import (
    HifiganDiscriminator,
    MelganFeatureLoss,
    MSEDLoss,
    MSEGLoss,
)
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from petl_modules.console import progress_bar
from petl_modules.data import read_clip
from petl_modules.errors import UserError
from petl_modules.files import whole
from petl_modules.tts.features import SpeechFeatures
from petl_modules.tts.hifigan import HifiganConfig, new_generator, save_hifigan

logger = logging.getLogger(__name__)

STATE = "training.pt"
RESOLUTIONS = ((256, 32), (512, 64), (1024, 80), (2048, 128))  # samples, mel bins
SPECTRA, FEATURES = 45.0, 2.0  # weights beside the discriminators' scores
FLOOR = 1e-5  # of an amplitude before its logarithm


@dataclass(frozen=True)
class VocoderTraining:
    """How a vocoder is trained.

    Attributes
    ----------
    steps : int
    spectral_steps : int
        The first of them, without discriminators.
    batch_size : int
        Segments.
    segment : int
        Frames of one.
    lr, final_lr : float
        Where AdamW's rate begins and ends; it falls by a constant factor.
    seed : int
    precision : str
        fp32 or bf16.
    checkpoint_steps : int
    average : float
        Of the generator's weights, whose running mean is what comes out.
    """

    steps: int = 20000
    spectral_steps: int = 10000
    batch_size: int = 16
    segment: int = 32
    lr: float = 5e-4
    final_lr: float = 1e-4
    seed: int = 0
    precision: str = "fp32"
    checkpoint_steps: int = 500
    average: float = 0.999


class Recordings:
    """Clips and their spectrograms in memory, to draw segments of.

    Arguments
    ---------
    wavs : sequence of str
    features : SpeechFeatures
    device : str or torch.device
    segment : int
        Frames of a segment; clips that are shorter are left out.
    """

    def __init__(
        self,
        wavs: Sequence[str],
        features: SpeechFeatures,
        device: str | torch.device,
        segment: int,
        progress: bool = True,
    ) -> None:
        self.hop, self.segment = features.hop_length, segment
        sounds, mels, starts, frames = [], [], [], 0
        for wav in progress_bar(wavs, desc="recordings", shown=progress):
            sound = read_clip(wav, features.sample_rate)
            mel = features.mel(sound)
            if len(mel) < segment:
                continue
            starts.append(torch.arange(frames, frames + len(mel) - segment + 1))
            frames += len(mel)
            sounds.append(F.pad(sound, (0, len(mel) * self.hop - len(sound))))
            mels.append(mel)
        if not mels:
            raise UserError(f"No clip is as long as {segment} frames.")
        self.sound = torch.cat(sounds).to(device)
        self.mel = torch.cat(mels).half().to(device)
        self.starts = torch.cat(starts).to(device)

    def draw(self, seed: int, count: int) -> tuple[Tensor, Tensor]:
        """Spectrograms `(count, n_mels, segment)` and sounds `(count, 1, samples)`."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(self.starts), (count,), generator=generator)
        starts = self.starts[drawn.to(self.starts.device)].unsqueeze(1)
        frames = starts + torch.arange(self.segment, device=starts.device)
        length = self.segment * self.hop
        samples = starts * self.hop + torch.arange(length, device=starts.device)
        return self.mel[frames].float().mT, self.sound[samples].unsqueeze(1)


class SpectralLoss(nn.Module):
    """Absolute errors of mel spectra at several resolutions, in nepers.

    Arguments
    ---------
    sample_rate : int
        Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.spectra = nn.ModuleList(
            MelSpectrogram(
                sample_rate,
                size,
                hop_length=size // 4,
                n_mels=bins,
                power=1,
                norm="slaney",
                mel_scale="slaney",
            )
            for size, bins in RESOLUTIONS
        )

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        """Sounds `(batch, 1, samples)` to one number."""
        logs = lambda spectrum, sound: spectrum(sound).clamp(min=FLOOR).log()  # noqa: E731
        made, real = made.float().squeeze(1), real.squeeze(1)
        errors = [F.l1_loss(logs(s, made), logs(s, real)) for s in self.spectra]
        return sum(errors) / len(errors)


class VocoderTrainer:
    """A generator, its judges, and where training has come to.

    Arguments
    ---------
    config : HifiganConfig
    training : VocoderTraining
    device : str or torch.device
    """

    def __init__(
        self,
        config: HifiganConfig,
        training: VocoderTraining,
        device: str | torch.device,
    ) -> None:
        torch.manual_seed(training.seed)
        torch.backends.cudnn.benchmark = True  # all segments are of one length
        self.config, self.training = config, training
        self.device = torch.device(device)
        self.generator = new_generator(config).to(device)
        self.judge = HifiganDiscriminator().to(device)
        self.mean = {n: t.clone() for n, t in self.generator.state_dict().items()}
        self.spectral = SpectralLoss(config.features["sample_rate"]).to(device)
        self.optimizers = [
            torch.optim.AdamW(module.parameters(), training.lr, (0.8, 0.99))
            for module in (self.generator, self.judge)
        ]
        self.step = 0

    def fit(self, recordings: Recordings, folder: Path, seconds: float | None) -> bool:
        """Train to the end, or for so many seconds.

        Returns
        -------
        bool
            Whether it is done.
        """
        began, shown = time.monotonic(), 0.0
        while self.step < self.training.steps:
            spent = time.monotonic() - began
            if seconds is not None and spent > seconds:
                break
            spectral = self._step(*recordings.draw(self._seed(), self._size))
            shown = spectral if self.step == 1 else shown
            if self.step % self.training.checkpoint_steps == 0:
                self.save(folder)
                logger.info(
                    "step %d of %d: spectral error %.4f, %.0f s",
                    self.step,
                    self.training.steps,
                    float(spectral),
                    time.monotonic() - began,
                )
        self.save(folder)
        return self.step >= self.training.steps

    def save(self, folder: Path) -> None:
        """Write the vocoder as it is, and all that is needed to go on."""
        save_hifigan(folder, self.config, self.mean)
        state = {
            "training": asdict(self.training),
            "step": self.step,
            "generator": self.generator.state_dict(),
            "judge": self.judge.state_dict(),
            "mean": self.mean,
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        with whole(folder / STATE) as partial:
            torch.save(state, partial)

    def take_up(self, folder: Path) -> None:
        """Go on where a folder's run was, if there is one.

        Raises
        ------
        UserError
            If it was trained in another way.
        """
        if not (folder / STATE).is_file():
            return
        # on a GPU the optimizers' counts of steps would have to be asked for
        state = torch.load(folder / STATE, "cpu", weights_only=True)
        for name, value in asdict(self.training).items():
            if name != "checkpoint_steps" and state["training"][name] != value:
                raise UserError(
                    f"{folder} holds a run with {name}={state['training'][name]}, now "
                    f"it is {value}: choose another --out, or delete that one."
                )
        self.step = state["step"]
        self.mean = {n: t.to(self.device) for n, t in state["mean"].items()}
        self.generator.load_state_dict(state["generator"])
        self.judge.load_state_dict(state["judge"])
        for optimizer, its in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its)

    @property
    def _size(self) -> int:
        return self.training.batch_size

    def _seed(self) -> int:
        return self.training.seed * 1_000_003 + self.step

    def _step(self, mel: Tensor, real: Tensor) -> Tensor:
        """One step of the generator, after one of its judge; the spectral error."""
        training, (makes, judges) = self.training, self.optimizers
        falls = (training.final_lr / training.lr) ** (self.step / training.steps)
        for group in (*makes.param_groups, *judges.param_groups):
            group["lr"] = training.lr * falls
        half = torch.autocast(
            self.device.type, torch.bfloat16, enabled=training.precision == "bf16"
        )
        with half:
            made = self.generator(mel)
        spectral = self.spectral(made, real)
        loss = SPECTRA * spectral
        if self.step >= training.spectral_steps:
            with half:
                fake, _ = self.judge(made.detach())
                true, _ = self.judge(real)
            lesson = sum(
                MSEDLoss()(f.float(), t.float())[0]
                for f, t in zip(fake, true, strict=True)
            )
            judges.zero_grad(set_to_none=True)
            lesson.backward()
            judges.step()
            with half:
                scores, seen = self.judge(made)
                with torch.no_grad():
                    _, meant = self.judge(real)
                alike = MelganFeatureLoss()(seen, meant)
            loss = loss + sum(MSEGLoss()(score.float()) for score in scores)
            # SpeechBrain's mean over the layers; the paper's is a sum
            loss = loss + FEATURES * alike.float() * sum(map(len, seen))
        makes.zero_grad(set_to_none=True)
        loss.backward()
        makes.step()
        self.step += 1
        # of a run's beginning the mean forgets fast
        keep = min(training.average, self.step / (self.step + 10))
        with torch.no_grad():
            for name, tensor in self.generator.state_dict().items():
                self.mean[name].lerp_(tensor, 1 - keep)
        return spectral.detach()
