"""Speech from text: the loss and the judging of FastSpeech 2."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.lobes.models.FastSpeech2 import ForwardSumLoss
from speechbrain.utils.train_logger import TensorboardLogger, TrainLogger
from torch import Tensor

from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.transfer import to_device
from petl_modules.data import SPLITS
from petl_modules.errors import UserError, one_of
from petl_modules.files import write_figure, write_tensors, write_text
from petl_modules.kinds import Count, PositiveInt
from petl_modules.tasks.base import Task, padded
from petl_modules.tts.backbone import MAX_FRAMES
from petl_modules.tts.durations import Durations
from petl_modules.tts.features import KeptMels, hertz
from petl_modules.tts.forced_alignment import Spoken, least_frames
from petl_modules.tts.head import VoiceHead
from petl_modules.tts.losses import WEIGHTS, loss_terms
from petl_modules.tts.metrics import f0_error, mel_cepstral_distortion
from petl_modules.tts.pictures import spectrograms
from petl_modules.tts.recognise import load_recogniser, word_error_rate
from petl_modules.tts.similarity import SpeakerSimilarity
from petl_modules.tts.sounds import write_sound
from petl_modules.tts.speaker_encoder import mean_embeddings
from petl_modules.tts.spectra import match_spectra
from petl_modules.tts.speech import Target
from petl_modules.tts.text import symbols_of
from petl_modules.tts.vocoder import load_vocoder

METRICS = ("mcd", "loss")
Metric = Literal["mcd", "loss"]


class TTS(Task):
    """Speech from text, by voices that have names.

    Arguments
    ---------
    labels : list of str
        The speakers, in the order of their numbers.
    model : petl_modules.core.adapted.AdaptedModel
        Around a FastSpeech 2.
    head : petl_modules.tasks.heads.VoiceHead
    metric : str
        What the best epoch has least of.
    cache_folder : str
        Where pitch and energy are kept.
    samples : int
        The number of sentences that are drawn and played.
    sample_epochs : int
        They are after the first epoch and every so many.
    vocoder : str or None
        A HiFi-GAN that plays spectrograms, a folder or hub id, or griffin-lim; null
        for the base's own, and for Griffin-Lim where it has none.
    asr : str or None
        What tells the word error rate: Whisper, a folder or hub id, or pocketsphinx,
        a worse judge whose package brings its model; null for none.
    speaker_encoder : str or None
        The model of speakers that the base was trained with, a folder or hub id.
    trust_code : bool
        Whether a vocoder or speaker_encoder in SpeechBrain's layout may run the code
        that it names; read from the command line alone.
    similarity : bool
        Whether the likeness of voices is judged after training, by the encoder that
        the package resemblyzer ships.
    cache_mib : int
        Spectrograms that are kept in memory, in MiB.
    noprogressbar : bool
        Whether progress bars are left out.
    """

    name = "tts"
    sound = ("mel", "speaker_index", "pitch", "energy", "sentence")
    target = "symbols"
    cuts = False  # a text is that of the whole clip
    fitted = SPLITS  # others cannot be aligned

    def __init__(
        self,
        labels: list[str],
        model: AdaptedModel,
        head: VoiceHead,
        metric: Metric = "mcd",
        cache_folder: str = "results",
        samples: Count = 3,
        sample_epochs: PositiveInt = 10,
        vocoder: str | None = None,
        asr: str | None = None,
        speaker_encoder: str | None = None,
        trust_code: bool = False,
        similarity: bool = False,
        cache_mib: Count = 1024,
        noprogressbar: bool = False,
    ) -> None:
        self.labels, self.model, self.head = labels, model, head
        self.backbone = model.backbone
        self.full = bool(model.awake)
        self.metric = one_of("metric", metric, METRICS)
        self.cache_folder = cache_folder
        self.samples, self.sample_epochs = samples, sample_epochs
        self.features = self.backbone.features
        self.trust_code = trust_code
        vocoder = vocoder or self.backbone.vocoder
        self.vocoder = load_vocoder(vocoder, self.features, trust_code)
        self.recogniser = None if asr is None else load_recogniser(asr)
        self.similarity = SpeakerSimilarity() if similarity else None
        self.speaker_encoder = speaker_encoder
        if bool(speaker_encoder) != bool(self.backbone.config.embedding_size):
            raise UserError(
                "This base was trained with learned vectors of speakers: it has no use "
                "for speaker_encoder."
                if speaker_encoder
                else "This base was trained with embeddings of a speaker encoder: give "
                "its folder as --speaker_encoder."
            )
        self.met = False  # the speakers, in what trains
        self.progress = not noprogressbar
        self.mels = KeptMels(self.features, cache_mib)
        self.durations = None
        if self.backbone.aligner is not None:
            aligner = self.backbone.aligner
            self.durations = Durations(aligner, cache_folder, self.progress)
            self.sound = (*self.sound, "frames")
        self.forward_sum = ForwardSumLoss()

    # Data

    def add_targets(self, dataset: DynamicItemDataset) -> None:
        """Give a data set symbols, spectrogram, pitch, energy and the speaker's number.

        Raises
        ------
        UserError
            For a text that cannot be spoken, or a speaker who is not known.
        """
        numbers, place = self.backbone.symbols, self.labels.index
        for key, entry in dataset.data.items():
            if entry["speaker"] not in self.labels:
                raise UserError(f"The speaker {entry['speaker']} of {key} is unknown.")
            try:
                self.symbols(entry["text"])
            except UserError as error:
                raise UserError(f"{key}: {error}") from None
        known = self.features.cached(self.cache_folder, dataset, self.progress)
        if self.speaker_encoder and not self.met:
            encoder, trusted = self.speaker_encoder, self.trust_code
            mean_embeddings(encoder, dataset, self.labels, self.head, trusted)

        def symbols(text: str) -> Tensor:
            return torch.tensor([numbers[s] for s in self.symbols(text)])

        add = dataset.add_dynamic_item
        add(symbols, takes="text", provides="symbols")
        add(self.mels, takes="wav", provides="mel")
        add(lambda wav: known[wav][0], takes="wav", provides="pitch")
        add(lambda wav: known[wav][1], takes="wav", provides="energy")
        add(place, takes="speaker", provides="speaker_index")
        add(lambda text: text, takes="text", provides="sentence")
        if self.durations is not None:
            frames = self.durations.of(self.spoken(dataset))
            add(frames.get, takes="wav", provides="frames")
        if self.head.spectrum is not None and not self.met:
            match_spectra(self, dataset)
        self.met = True

    def symbols(self, text: str) -> list[str]:
        """The symbols of a text."""
        return symbols_of(text, self.backbone.config.text)

    def spoken(self, dataset: DynamicItemDataset) -> list[Spoken]:
        """What the aligner reads of a data set: clips that can speak their text."""
        rate, hop = self.features.sample_rate, self.features.hop_length
        return [
            Spoken(entry["wav"], entry["speaker"], tuple(self.symbols(entry["text"])))
            for entry in dataset.data.values()
            if self.fits(entry, int(entry["duration"] * rate) // hop)
        ]

    def fits(self, entry: dict, steps: int) -> bool:
        """Whether a clip of so many frames can speak its text."""
        symbols = self.symbols(entry["text"])
        least = len(symbols) if self.durations is None else least_frames(symbols)
        return least <= steps <= MAX_FRAMES

    def inputs(self, batch: PaddedBatch) -> dict[str, Any]:
        """Symbols, their counts, speakers, and the target."""
        symbols, counts = padded(batch.symbols)
        mel, frames = padded(batch.mel)
        return {
            "symbols": symbols,
            "counts": counts,
            "speakers": to_device(torch.as_tensor(batch.speaker_index), mel.device),
            "target": Target(
                mel,
                frames,
                batch.pitch.data,
                batch.energy.data,
                batch.frames.data if self.durations is not None else None,
            ),
        }

    # Loss

    def loss(self, predictions: Any, batch: PaddedBatch) -> Tensor:
        """The mean over clips of the sum of their terms: absolute errors of the
        spectrogram before and after the last convolutions, squared errors of
        log-durations, pitch and energy, the alignment's forward-sum loss, and its
        distance from the best path. A clip's terms do not hang on its batch."""
        guided, _ = predictions
        inputs = self.inputs(batch)
        counts, target = inputs["counts"], inputs["target"]
        with torch.autocast(guided.mel.device.type, enabled=False):
            terms = loss_terms(guided, counts, target, self.forward_sum)
        return sum(WEIGHTS.get(name, 1.0) * term for name, term in terms.items())

    # Judging

    def start(self, final: bool = False) -> None:
        """Forget what was collected; `final` after training."""
        self.rows, self.final = [], final

    def collect(self, predictions: Any, batch: PaddedBatch) -> None:
        """Judge what is spoken without a target, clip by clip."""
        guided, free = predictions
        inputs = self.inputs(batch)
        counts, target = inputs["counts"], inputs["target"]
        f0 = to_numpy(torch.where(target.pitch != 0, hertz(target.pitch), 0.0))
        spoken = to_numpy(hertz(free.pitch))
        milliseconds = 1000 * self.features.hop_length / self.features.sample_rate
        for i, key in enumerate(batch.id):
            frames, length = int(target.counts[i]), int(free.counts[i])
            real, mel = target.mel[i, :frames].cpu(), free.mel[i, :length].float().cpu()
            n = int(counts[i])
            durations = to_numpy(free.durations[i, :n])
            mcd, pairs = mel_cepstral_distortion(mel.numpy(), real.numpy())
            aligned = to_numpy(guided.durations[i, :n])
            error, voiced = f0_error(np.repeat(spoken[i, :n], durations), f0[i], pairs)
            self.rows.append(
                {
                    "id": key,
                    "text": batch.sentence[i],
                    "mcd": mcd,
                    "f0_rmse": error,
                    "voiced": voiced,
                    "duration_error": milliseconds * abs(durations - aligned).mean(),
                    "mel": mel,
                    "target": real,
                }
            )

    def metrics(self) -> dict[str, float]:
        """mcd in dB; f0_rmse in Hz, over the frames voiced in the recording;
        duration_error in ms a symbol, beside the durations of the alignment; and
        after training the word error rate, where there is a Whisper to tell it."""
        voiced = sum(row["voiced"] for row in self.rows)
        squares = sum(row["voiced"] * row["f0_rmse"] ** 2 for row in self.rows)
        found = {
            "mcd": mean(row["mcd"] for row in self.rows),
            "f0_rmse": (squares / max(1, voiced)) ** 0.5,
            "duration_error": mean(row["duration_error"] for row in self.rows),
        }
        if self.final:
            found |= self.judged()
        return found

    def judged(self) -> dict[str, float]:
        """What is judged by ear: the word error rate of what Whisper hears and the
        likeness of the voice, each beside copy synthesis (the recording's spectrogram
        through the same vocoder), which says what vocoder and judge cost."""
        rate, judges = self.features.sample_rate, (self.recogniser, self.similarity)
        if judges == (None, None):
            return {}
        for row in self.rows:
            wav, copy = self.played(row["mel"]), self.played(row["target"])
            if self.recogniser is not None:
                row["heard"] = self.recogniser.heard(wav, rate)
                row["heard_in_copy"] = self.recogniser.heard(copy, rate)
            if self.similarity is not None:
                row["similarity"] = self.similarity(wav, copy, rate)
        found = {}
        if self.recogniser is not None:
            said = [self.recogniser.words(row["text"]) for row in self.rows]
            for name, heard in (("", "heard"), ("copy_", "heard_in_copy")):
                rate_of = word_error_rate(said, [row[heard] for row in self.rows])
                found[f"{name}word_error_rate"] = rate_of
        if self.similarity is not None:
            found["speaker_similarity"] = mean(row["similarity"] for row in self.rows)
        return found

    def played(self, mel: Tensor) -> Tensor:
        """What the vocoder makes of a spectrogram, where the model is."""
        return self.vocoder(mel.to(next(self.backbone.parameters()).device))

    def error(self, metrics: dict[str, float], loss: float) -> float:
        """What a better epoch makes smaller."""
        return {**metrics, "loss": loss}[self.metric]

    # What is left for a person

    def loggers(
        self, folder: Path, tensorboard: TensorboardLogger
    ) -> list[TrainLogger]:
        """Pictures and sounds of the first validation sentences."""
        return [SampleLogger(self, folder / "samples", tensorboard)]

    def write(self, folder: Path) -> None:
        """sentences.csv, samples of the test, its spectrograms (for other vocoders) and
        the base if all of it trained."""
        numbers = ("mcd", "f0_rmse", "duration_error")
        columns = ("id", *numbers, "text", "heard", "heard_in_copy")
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(columns)
        for row in self.rows:
            heard = (" ".join(row.get(name, ())) for name in columns[-2:])
            values = (f"{row[name]:.4f}" for name in numbers)
            writer.writerow([row["id"], *values, row["text"], *heard])
        write_text(folder / "sentences.csv", table.getvalue())
        for row in self.rows[: self.samples]:
            self.write_sample(row, folder / "samples" / "test")
        spectrograms = {row["id"]: row["mel"].half() for row in self.rows}
        write_tensors(folder / "spectrograms.safetensors", spectrograms)
        if self.full:
            self.write_base(folder)

    def write_base(self, folder: Path) -> None:
        """What `load_backbone` and `petl synthesize` take."""
        voices = self.head.state_dict()
        self.backbone.save(folder / "base", self.labels, voices)

    def write_sample(self, row: dict[str, Any], folder: Path) -> tuple[Figure, Tensor]:
        """A picture and two sounds of one sentence; returns the picture's figure and
        the synthesised waveform."""
        name = str(Path(row["id"]).with_suffix("")).replace("/", "_")
        wav, figure = self.played(row["mel"]), spectrograms(row)
        write_figure(folder / f"{name}.png", figure, dpi=100)
        sounds = {name: wav, f"{name}_target": self.played(row["target"])}
        for name, sound in sounds.items():
            write_sound(folder / f"{name}.wav", sound, self.features.sample_rate)
        return figure, wav


class SampleLogger:
    """A train logger of SpeechBrain that shows what a task has collected.

    Arguments
    ---------
    task : TTS
    folder : Path
    tensorboard : speechbrain.utils.train_logger.TensorboardLogger
    """

    def __init__(self, task: TTS, folder: Path, tensorboard: TensorboardLogger) -> None:
        self.task, self.folder, self.tensorboard = task, folder, tensorboard

    def log_stats(self, stats_meta: dict[str, Any], **stats: Any) -> None:
        """Called after every epoch."""
        del stats
        epoch = stats_meta["epoch"]
        if epoch != 1 and epoch % self.task.sample_epochs:
            return
        writer, rate = self.tensorboard.writer, self.task.features.sample_rate
        for row in self.task.rows[: self.task.samples]:
            folder = self.folder / f"epoch{epoch}"
            figure, wav = self.task.write_sample(row, folder)
            writer.add_figure(row["id"], figure, epoch)
            writer.add_audio(row["id"], wav, epoch, rate)
        if self.task.full:  # to listen to while it trains
            self.task.write_base(self.folder.parent)


# Helpers


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor's values; numpy has no bfloat16."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def mean(values: Iterable[float]) -> float:
    """Mean of some numbers."""
    return float(np.mean(list(values)))
