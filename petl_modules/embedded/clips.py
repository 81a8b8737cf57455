"""The clips that pretraining sees, with the teacher's answers: computed once."""

import json
import math
from argparse import Namespace
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
from petl_modules.embedded.networks import RATE, Teacher
from petl_modules.embedded.signals import hump, unit
from petl_modules.embedded.synthetic import random_sound
from petl_modules.embedded.textures import TEXTURES
from petl_modules.errors import UserError
from petl_modules.files import whole, write_json

SOURCES = [*TEXTURES, *EVENTS, "speech", "voice"]
SHARD = 100  # clips per file of the cache
# What the cached clips depend on
CLIP_OPTIONS = (
    *("teacher", "teacher_layers", "speech", "speech_share", "voice_share"),
    *("mel_bins", "max_length", "seed"),
)


def make_clips(options: Namespace, cache: Path) -> dict[str, Tensor]:
    """The training clips as a dict of tensors: `features` (clips, frames, mel bins),
    `targets` (clips, steps, layers * teacher width), both float16, and `sources`
    (clips, kinds). Made in shards, so that a killed run goes on."""
    speech = find_speech(options.speech)
    if options.speech_share and not speech:
        raise UserError("No speech: give --speech=FOLDER, or --speech_share=0.")
    teacher = Teacher(options.teacher, options.teacher_layers)
    wanted = {name: getattr(options, name) for name in CLIP_OPTIONS}
    settings = cache / "clips.json"
    if settings.is_file() and json.loads(settings.read_text()) != wanted:
        raise UserError(
            f"{cache} holds clips of other settings: give another --cache or delete it."
        )
    write_json(settings, wanted)
    filterbank = KaldiFilterbank(RATE, options.mel_bins)
    numbers = range(math.ceil(options.clips / SHARD))
    shards = [cache / f"clips_{number:04d}.pt" for number in numbers]
    for number, path in enumerate(progress_bar(shards, desc=f"clips, by {SHARD}")):
        if not path.is_file():
            rng = np.random.default_rng([options.seed, number])
            shard = make_shard(options, rng, speech, teacher, filterbank)
            with whole(path) as partial:
                torch.save(shard, partial)
    shards = [torch.load(path) for path in progress_bar(shards, desc="loading")]
    return {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}


def make_shard(
    options: Namespace,
    rng: Generator,
    speech: list[Path],
    teacher: Teacher,
    filterbank: KaldiFilterbank,
) -> dict[str, Tensor]:
    """`SHARD` clips: features, targets and sources, as of `make_clips`."""
    samples = (options.max_length - 1) * filterbank.shift + filterbank.length
    wavs = np.zeros((SHARD, samples), np.float32)
    sources = torch.zeros(SHARD, len(SOURCES), dtype=torch.uint8)
    for index in range(SHARD):
        wavs[index], names = make_clip(options, rng, samples, speech)
        sources[index, [SOURCES.index(name) for name in names]] = 1
    wavs = torch.from_numpy(wavs)
    with torch.inference_mode():
        features = torch.cat([filterbank(part) for part in wavs.split(20)])
        targets = torch.cat(
            [teacher(part, options.max_length) for part in wavs.split(20)]
        )
    return {"features": features.half(), "targets": targets.half(), "sources": sources}


def make_clip(
    options: Namespace, rng: Generator, samples: int, speech: list[Path]
) -> tuple[Sound, list[str]]:
    """One scene, utterance or both, and the names of its sources."""
    kind = rng.random()
    if kind >= options.speech_share:
        events = None
        if speech and rng.random() < options.voice_share:
            events = {"voice": partial(voice, speech)}
        return random_sound(
            rng, samples / RATE, RATE, return_sources=True, events=events
        )
    talk = np.zeros(samples, np.float32)
    position = 0
    while position < samples:  # short utterances follow each other
        utterance = read_speech(speech[rng.integers(len(speech))])
        start = rng.integers(0, max(1, len(utterance) - samples // 2))
        utterance = unit(utterance[start : start + samples - position])
        talk[position : position + len(utterance)] = utterance
        position += len(utterance) + int(rng.exponential(0.5) * RATE)
        if rng.random() < 0.3:
            break
    names = []
    if kind < options.speech_share / 2:
        scene, names = random_sound(rng, samples / RATE, RATE, return_sources=True)
        talk = unit(talk) + unit(scene) * 10 ** (rng.uniform(-20, 5) / 20)
    talk *= 10 ** rng.uniform(-1.5, 0) / max(np.abs(talk).max(), 1e-5)
    return talk, [*names, "speech"]


def voice(speech: list[Path], rng: Generator, n: int, rate: int) -> Sound:
    """A cry with the fine structure of a recording: a stretch of speech, played much
    slower or faster, forwards or backwards."""
    utterance = read_speech(speech[rng.integers(len(speech))])
    speed = round(10 * np.exp(rng.uniform(np.log(0.4), np.log(3))))  # tenths
    length = int(rng.uniform(0.1, 1.5) * rate * speed / 10)
    start = rng.integers(max(1, len(utterance) - length))
    stretch = torch.from_numpy(utterance[start : start + length])
    sound = resample(stretch, speed, 10).numpy()[:n]
    return (sound[::-1] if rng.random() < 0.3 else sound) * hump(rng, len(sound))


def find_speech(folders: list[str]) -> list[Path]:
    """The audio files below the folders, sorted."""
    endings = {".wav", ".flac", ".ogg", ".mp3"}
    files = []
    for folder in folders:
        found = [p for p in Path(folder).rglob("*") if p.suffix.lower() in endings]
        if not found:
            raise UserError(f"No audio in {folder}: give --speech a folder of speech.")
        files += sorted(found)
    return files


def read_speech(path: Path) -> Sound:
    """A recording at 16 kHz, its channels averaged."""
    wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wav = torch.from_numpy(wav).mean(1)
    return (wav if rate == RATE else resample(wav, rate, RATE)).numpy()
