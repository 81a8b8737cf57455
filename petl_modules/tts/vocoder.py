"""From log-mel spectrograms to sound."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from torchaudio.transforms import GriffinLim, InverseMelScale

from petl_modules.errors import UserError
from petl_modules.tts.features import SpeechFeatures
from petl_modules.tts.hifigan import is_hifigan, load_hifigan_folder

logger = logging.getLogger(__name__)

GRIFFIN_LIM = "griffin-lim"
ITERATIONS = 60


def load_vocoder(
    source: str | None, features: SpeechFeatures, trust_code: bool = False
) -> Callable[[Tensor], Tensor]:
    """HiFi-GAN from a checkpoint, or Griffin-Lim where none is given.

    Arguments
    ---------
    source : str or None
        griffin-lim or None; or the folder that vocoder training left; or folder or hub
        id of a HiFi-GAN in SpeechBrain's layout, such as
        speechbrain/tts-hifigan-ljspeech.
    features : petl_modules.tts.features.SpeechFeatures
    trust_code : bool
        SpeechBrain runs what a checkpoint's yaml names: without this, a checkpoint in
        its layout is refused.

    Returns
    -------
    callable
        Maps a log-mel spectrogram `(frames, n_mels)` to a waveform `(samples,)` on the
        CPU. HiFi-GAN computes where the spectrogram is, Griffin-Lim on the CPU.

    Raises
    ------
    UserError
        If it cannot be loaded, or would run code unasked.
    """
    if source in (None, GRIFFIN_LIM):
        logger.info("Vocoder: Griffin-Lim; --vocoder=FOLDER takes a HiFi-GAN.")
        return GriffinLimVocoder(features)
    if is_hifigan(source):
        vocoder = load_hifigan_folder(source, features.settings)
    else:
        vocoder = load_hifigan(source, trust_code)
    logger.info("Vocoder: HiFi-GAN of %s.", source)
    return vocoder


class GriffinLimVocoder:
    """Griffin and Lim's phases (1984); needs no weights, and gives the same sound for
    the same spectrogram.

    Arguments
    ---------
    features : SpeechFeatures
        How the spectrograms are made.
    """

    def __init__(self, features: SpeechFeatures) -> None:
        sizes = features.settings
        n_fft, hop_length = sizes["n_fft"], sizes["hop_length"]
        self.inverse_mel = InverseMelScale(
            n_fft // 2 + 1,
            sizes["n_mels"],
            sizes["sample_rate"],
            sizes["f_min"],
            sizes["f_max"],
            norm="slaney",
            mel_scale="slaney",
            driver="gelsd",  # the filters overlap little at the lowest bins
        )
        windows = {"win_length": sizes["win_length"], "hop_length": hop_length}
        self.griffin_lim = GriffinLim(
            n_fft, ITERATIONS, **windows, power=1, rand_init=False
        )

    def __call__(self, mel: Tensor) -> Tensor:
        """`(frames, n_mels)` to `(samples,)`."""
        wav = self.griffin_lim(self.inverse_mel(mel.float().cpu().exp().T))
        return wav / wav.abs().max().clamp(min=1.0)


def load_hifigan(source: str, trust_code: bool) -> Callable[[Tensor], Tensor]:
    """SpeechBrain's HiFi-GAN as a function."""
    from speechbrain.inference.vocoders import HIFIGAN
    from speechbrain.utils.fetching import FetchConfig

    folder = Path(source)
    if folder.is_dir() and not (folder / "hyperparams.yaml").is_file():
        raise UserError(
            f"The vocoder folder {source} has no hyperparams.yaml: it must be a "
            "HiFi-GAN in SpeechBrain's layout."
        )
    options = {
        "fetch_config": FetchConfig(allow_updates=False),
        "run_opts": {"device": "cpu"},  # or it would take a GPU where there is one
    }
    hifigan = from_speechbrain(HIFIGAN, source, "HiFi-GAN", trust_code, **options)

    def vocoder(mel: Tensor) -> Tensor:
        hifigan.device = mel.device
        hifigan.hparams.generator.to(mel.device)
        return hifigan.decode_batch(mel.float().T.unsqueeze(0))[0, 0].cpu()

    return vocoder


def from_speechbrain(
    interface: Any, source: str, what: str, trust_code: bool, **options: Any
) -> Any:
    """A pretrained model of SpeechBrain, from a folder or hub id.

    Arguments
    ---------
    interface : type
        Of `speechbrain.inference`.
    source : str
    what : str
        What the refusal calls it.
    trust_code : bool
        Whether it may run code: its yaml names what is called.
    **options
        Of `from_hparams`.

    Raises
    ------
    UserError
        If it cannot be loaded, or is not trusted.
    """
    from speechbrain.utils.fetching import LocalStrategy

    if not trust_code:
        raise UserError(
            f"The {what} {source} would be read by SpeechBrain, and its "
            "hyperparams.yaml can run code: if you trust it, say so with "
            "--trust_code=True."
        )
    try:
        return interface.from_hparams(
            source=str(source),
            savedir=str(source) if Path(source).is_dir() else None,
            local_strategy=LocalStrategy.NO_LINK,
            **options,
        )
    except Exception as error:  # whatever the folder's yaml and pickles may raise
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"No {what} can be loaded from {source} ({reason}).") from error
