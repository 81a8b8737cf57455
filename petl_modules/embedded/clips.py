"""The clips that pretraining sees, with the teacher's answers: computed once."""

import json
import math
from argparse import Namespace
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.random import Generator
from torch import Tensor
from torchaudio.functional import resample

from petl_modules.backbones.features import KaldiFilterbank
from petl_modules.console import progress_bar
from petl_modules.embedded.events import EVENTS
from petl_modules.embedded.filters import Sound
from petl_modules.embedded.networks import RATE, STEP, Teacher
from petl_modules.embedded.remixing import remixed
from petl_modules.embedded.signals import hump, unit
from petl_modules.embedded.synthetic import random_sound
from petl_modules.embedded.textures import TEXTURES
from petl_modules.embedded.yamnet import PATCH, YamNet, load_yamnet
from petl_modules.errors import UserError
from petl_modules.files import whole, write_json

SOURCES = [*TEXTURES, *EVENTS, "speech", "voice", "sound"]
SHARD = 100  # clips per file of the cache
LOGITS = -12.0, 10.0  # less is said by how unlikely a class is than by how likely
# What the cached clips depend on
CLIP_OPTIONS = (
    *("teacher", "second_teacher", "teacher_layers", "speech", "sounds", "remixes"),
    *("speech_share", "voice_share", "sound_share", "mel_bins", "max_length", "seed"),
)


def make_clips(options: Namespace, cache: Path) -> dict[str, Tensor]:
    """The training clips as a dict of tensors: `features` (clips, frames, mel bins),
    `targets` (clips, steps, layers * teacher width), both float16, and `sources`
    (clips, kinds); with a second teacher, `logits` (clips, tokens, classes), float16.
    Made in shards, so that a killed run goes on."""
    speech = find_recordings("speech", options.speech)
    sounds = find_recordings("sounds", options.sounds)
    if options.speech_share and not speech:
        raise UserError("No speech: give --speech=FOLDER, or --speech_share=0.")
    teacher = Teacher(options.teacher, options.teacher_layers).to(options.device)
    second = None
    if options.second_teacher:
        second = load_yamnet(options.second_teacher).to(options.device)
    wanted = {name: getattr(options, name) for name in CLIP_OPTIONS}
    settings = cache / "clips.json"
    if settings.is_file() and json.loads(settings.read_text()) != wanted:
        raise UserError(
            f"{cache} holds clips of other settings: give another --cache or delete it."
        )
    write_json(settings, wanted)
    filterbank = KaldiFilterbank(RATE, options.mel_bins)
    samples = (options.max_length - 1) * filterbank.shift + filterbank.length
    mixer = Mixer(options, samples, speech, sounds)
    numbers = range(math.ceil(options.clips / SHARD))
    shards = [cache / f"clips_{number:04d}.pt" for number in numbers]
    for number, path in enumerate(progress_bar(shards, desc=f"clips, by {SHARD}")):
        if not path.is_file():
            rng = np.random.default_rng([options.seed, number])
            wavs, sources = mixer.clips(rng)
            shard = asked(options, wavs, teacher, second, filterbank)
            shard["sources"] = sources
            with whole(path) as partial:
                torch.save(shard, partial)
    shards = [torch.load(path) for path in progress_bar(shards, desc="loading")]
    return {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}


@dataclass(frozen=True)
class Mixer:
    """Makes clips of formula-made sounds and of recordings.

    Arguments
    ---------
    options : argparse.Namespace
        Of pretraining: its remixes, speech_share, voice_share and sound_share.
    samples : int
        Length of a clip.
    speech, sounds : list of Path
        The recordings.
    """

    options: Namespace
    samples: int
    speech: list[Path]
    sounds: list[Path]

    def clips(self, rng: Generator) -> tuple[Tensor, Tensor]:
        """`SHARD` clips `(clips, samples)` and their sources `(clips, kinds)`: new
        ones, and the share `options.remixes` made of two of those."""
        wavs = np.zeros((SHARD, self.samples), np.float32)
        sources = torch.zeros(SHARD, len(SOURCES), dtype=torch.uint8)
        new = SHARD - round(self.options.remixes * SHARD)
        for index in range(new):
            wavs[index], names = self.clip(rng)
            sources[index, [SOURCES.index(name) for name in names]] = 1
        for index in range(new, SHARD):
            one, other = rng.integers(new, size=2)
            wavs[index], both = remixed(rng, wavs[one], wavs[other], RATE)
            sources[index] = sources[one] | sources[other] if both else sources[one]
        return torch.from_numpy(wavs), sources

    def clip(self, rng: Generator) -> tuple[Sound, list[str]]:
        """One scene, utterance or both, and the names of its sources."""
        kind = rng.random()
        if kind >= self.options.speech_share:
            return self.scene(rng)
        talk = np.zeros(self.samples, np.float32)
        position = 0
        while position < self.samples:  # short utterances follow each other
            utterance = read_recording(self.speech[rng.integers(len(self.speech))])
            start = rng.integers(0, max(1, len(utterance) - self.samples // 2))
            utterance = unit(utterance[start : start + self.samples - position])
            talk[position : position + len(utterance)] = utterance
            position += len(utterance) + int(rng.exponential(0.5) * RATE)
            if rng.random() < 0.3:
                break
        names = []
        if kind < self.options.speech_share / 2:
            seconds = self.samples / RATE
            scene, names = random_sound(rng, seconds, RATE, return_sources=True)
            talk = unit(talk) + unit(scene) * 10 ** (rng.uniform(-20, 5) / 20)
        talk *= 10 ** rng.uniform(-1.5, 0) / max(np.abs(talk).max(), 1e-5)
        return talk, [*names, "speech"]

    def scene(self, rng: Generator) -> tuple[Sound, list[str]]:
        """A scene whose events are formula-made, stretches of speech, or of recorded
        sounds, and the names of its sources."""
        kind, events = rng.random(), None
        if kind < self.options.voice_share:
            events = {"voice": partial(voice, self.speech)} if self.speech else None
        elif kind < self.options.voice_share + self.options.sound_share:
            events = {"sound": partial(voice, self.sounds)} if self.sounds else None
        seconds = self.samples / RATE
        return random_sound(rng, seconds, RATE, return_sources=True, events=events)


@torch.inference_mode()
def asked(
    options: Namespace,
    wavs: Tensor,
    teacher: Teacher,
    second: YamNet | None,
    filterbank: KaldiFilterbank,
) -> dict[str, Tensor]:
    """Features of clips, and the teachers' answers."""
    made = {"features": [], "targets": [], "logits": []}
    tokens = (options.max_length - options.mel_bins) // STEP + 1
    for part in wavs.split(20):
        made["features"].append(filterbank(part))
        part = part.to(options.device)
        made["targets"].append(teacher(part, options.max_length).cpu())
        if second is not None:
            logits = second(part, STEP).clamp(*LOGITS).cpu()
            # the patch in whose middle a token's is, or the nearest
            place = torch.arange(tokens) + (options.mel_bins - PATCH) // 2 // STEP
            logits = logits[:, place.clamp(0, logits.shape[1] - 1)]
            made["logits"].append(logits)
    return {name: torch.cat(parts).half() for name, parts in made.items() if parts}


def voice(recordings: list[Path], rng: Generator, n: int, rate: int) -> Sound:
    """A cry with the fine structure of a recording: a stretch of it, played much
    slower or faster, forwards or backwards."""
    recording = read_recording(recordings[rng.integers(len(recordings))])
    speed = round(10 * np.exp(rng.uniform(np.log(0.4), np.log(3))))  # tenths
    length = int(rng.uniform(0.1, 1.5) * rate * speed / 10)
    start = rng.integers(max(1, len(recording) - length))
    stretch = torch.from_numpy(recording[start : start + length])
    sound = resample(stretch, speed, 10).numpy()[:n]
    return (sound[::-1] if rng.random() < 0.3 else sound) * hump(rng, len(sound))


def find_recordings(option: str, folders: list[str]) -> list[Path]:
    """The audio files below the folders that an option names, sorted."""
    endings = {".wav", ".flac", ".ogg", ".mp3"}
    files = []
    for folder in folders:
        found = [p for p in Path(folder).rglob("*") if p.suffix.lower() in endings]
        if not found:
            raise UserError(f"No audio in {folder}: give --{option} a folder of it.")
        files += sorted(found)
    return files


def read_recording(path: Path) -> Sound:
    """A recording at 16 kHz, its channels averaged."""
    wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wav = torch.from_numpy(wav).mean(1)
    return (wav if rate == RATE else resample(wav, rate, RATE)).numpy()
