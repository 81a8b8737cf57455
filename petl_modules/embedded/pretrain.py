"""Pretrain a small AST by distilling Whisper's encoder into it.

`petl pretrain --teacher=FOLDER --speech=FOLDER --output=FOLDER`: a clip is a
formula-made scene, speech, or both. The student's patches span the whole band, and one
begins every 160 ms; each token predicts principal components of the teacher's hidden
states in the middle of its patch, the special tokens predict their mean over the clip,
and the mean token predicts which sources sound in the scene. The predictors are thrown
away afterwards. Inputs are masked and change in level, targets do not. The run takes up
where it was killed.
"""

import json
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import nn
from torchaudio.functional import resample
from tqdm import tqdm
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    WhisperFeatureExtractor,
    WhisperModel,
)

from petl_modules.backbones.features import KaldiFilterbank, WhisperLogMel
from petl_modules.console import Parser, above_zero, command, positive, share
from petl_modules.embedded.synthetic import EVENTS, TEXTURES, hump, random_sound, unit
from petl_modules.errors import UserError
from petl_modules.files import whole, write_json

RATE = 16000
STEP = 16  # frames of 10 ms from one token to the next
TEACHER_STEP = 2  # frames per teacher token
SOURCES = [*TEXTURES, *EVENTS, "speech", "voice"]
SHARD = 100  # clips per file of the cache
WARM_UP = 500  # steps
# What the cached clips depend on
CLIP_OPTIONS = (
    *("teacher", "teacher_layers", "speech", "speech_share", "voice_share"),
    *("mel_bins", "max_length", "seed"),
)


def main(argv: list[str] | None = None) -> None:
    """Make the clips, train, and save the model."""
    options = parse(argv)
    torch.manual_seed(options.seed)
    output = Path(options.output)
    cache = Path(options.cache or output / "pretraining")
    cache.mkdir(parents=True, exist_ok=True)
    started = time.time()
    clips = make_clips(options, cache)
    student = train(options, cache, clips)
    save(student, clips, output)
    print(f"{output}: done, {time.time() - started:.0f} s in this process")


def parse(argv):
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    teacher = "The Whisper checkpoint that is distilled: a folder or hub id."
    add("--teacher", required=True, help=teacher)
    speech = "Folders of speech, which are searched for audio."
    add("--speech", nargs="+", action="extend", default=[], help=speech)
    add("--output", required=True, help="The folder for the model.")
    cache = "A folder for clips and checkpoints (OUTPUT/pretraining)."
    add("--cache", help=cache)
    part = "The share of clips with speech (%(default)s)."
    add("--speech_share", type=share, default=0.3, help=part)
    part = "The share of other clips whose events are made of speech (%(default)s)."
    add("--voice_share", type=share, default=0.2, help=part)
    layers = "The teacher's layers whose states are predicted (2 3 4)."
    taken = {"type": above_zero, "nargs": "+", "default": [2, 3, 4]}
    add("--teacher_layers", **taken, help=layers)
    for name, default, what in (
        ("clips", 20000, "How many clips are made"),
        ("hidden_size", 192, "Width of the model"),
        ("layers", 6, "Layers of the model"),
        ("heads", 3, "Heads of each attention"),
        ("mel_bins", 64, "Mel bands, and frames of a patch"),
        ("max_length", 512, "Frames of 10 ms in a clip"),
        ("target_size", 256, "Principal components of the teacher's states to predict"),
        ("epochs", 36, "Passes over the clips"),
        ("batch_size", 32, "Clips in a batch, or crops of half the length"),
    ):
        help = f"{what} (%(default)s)."
        add(f"--{name}", type=above_zero, default=default, help=help)
    add("--lr", type=positive, default=1e-3, help="Learning rate (%(default)s).")
    add("--seed", type=int, default=0, help="Of clips and weights (%(default)s).")
    options = parser.parse_args(argv)
    patch, length = options.mel_bins, options.max_length
    if patch % (2 * STEP) or length % (2 * STEP) or length < 2 * patch:
        raise UserError(
            f"--mel_bins={patch} and --max_length={length}: both must be multiples of "
            f"{2 * STEP}, and the length two patches of {patch} frames or more."
        )
    if options.hidden_size % options.heads:
        raise UserError(
            f"--hidden_size={options.hidden_size} must be a multiple of "
            f"--heads={options.heads}."
        )
    if options.seed < 0:
        raise UserError(f"--seed={options.seed} must be 0 or more.")
    return options


# ---------------------------------------------------------------------------------
# Clips: features for the student, targets from the teacher, computed once


def make_clips(options, cache):
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
    for number, path in enumerate(tqdm(shards, f"clips, by {SHARD}")):
        if not path.is_file():
            rng = np.random.default_rng([options.seed, number])
            shard = make_shard(options, rng, speech, teacher, filterbank)
            with whole(path) as partial:
                torch.save(shard, partial)
    shards = [torch.load(path) for path in tqdm(shards, "loading")]
    return {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}


def make_shard(options, rng, speech, teacher, filterbank):
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


def make_clip(options, rng, samples, speech):
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


def voice(speech, rng, n, rate):
    """A cry with the fine structure of a recording: a stretch of speech, played much
    slower or faster, forwards or backwards."""
    utterance = read_speech(speech[rng.integers(len(speech))])
    speed = round(10 * np.exp(rng.uniform(np.log(0.4), np.log(3))))  # tenths
    length = int(rng.uniform(0.1, 1.5) * rate * speed / 10)
    start = rng.integers(max(1, len(utterance) - length))
    stretch = torch.from_numpy(utterance[start : start + length])
    sound = resample(stretch, speed, 10).numpy()[:n]
    return (sound[::-1] if rng.random() < 0.3 else sound) * hump(rng, len(sound))


def find_speech(folders):
    """The audio files below the folders, sorted."""
    endings = {".wav", ".flac", ".ogg", ".mp3"}
    files = []
    for folder in folders:
        found = [p for p in Path(folder).rglob("*") if p.suffix.lower() in endings]
        if not found:
            raise UserError(f"No audio in {folder}: give --speech a folder of speech.")
        files += sorted(found)
    return files


def read_speech(path):
    wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wav = torch.from_numpy(wav).mean(1)
    return (wav if rate == RATE else resample(wav, rate, RATE)).numpy()


class Teacher(nn.Module):
    """Whisper's encoder on short clips: its hidden states, averaged over each of the
    student's time steps.

    Arguments
    ---------
    source : str
        Checkpoint: folder or hub id.
    layers : list of int
        Which layers' outputs to take, from 1; the last one after the final norm.
    """

    def __init__(self, source, layers):
        super().__init__()
        try:
            extractor = WhisperFeatureExtractor.from_pretrained(source)
            encoder = WhisperModel.from_pretrained(source).encoder
        except (OSError, ValueError) as error:
            raise UserError(
                f"No Whisper checkpoint can be loaded from {source}: give --teacher a "
                "folder in transformers' layout or a hub id that can be reached."
            ) from error
        self.log_mel = WhisperLogMel(
            torch.tensor(extractor.mel_filters, dtype=torch.float32),
            extractor.n_fft,
            extractor.hop_length,
        )
        self.encoder = encoder.float().eval()
        self.layers = layers
        if not set(layers) <= set(range(1, len(self.encoder.layers) + 1)):
            raise UserError(
                f"--teacher_layers {layers}: the teacher has the layers 1 to "
                f"{len(self.encoder.layers)}."
            )

    def forward(self, wavs, frames):
        """`(clips, samples)` to `(clips, steps, layers * width)`."""
        encoder = self.encoder
        with torch.autocast("cpu", torch.bfloat16):
            hidden = F.gelu(encoder.conv1(self.log_mel(wavs, frames)))
            hidden = F.gelu(encoder.conv2(hidden)).transpose(1, 2)
            hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
            outputs = []
            for index, layer in enumerate(encoder.layers, 1):
                hidden = layer(hidden, None)
                last = index == len(encoder.layers)
                outputs.append(encoder.layer_norm(hidden) if last else hidden)
        taken = torch.cat([outputs[index - 1] for index in self.layers], -1).float()
        steps = taken.unfold(1, STEP // TEACHER_STEP, STEP // TEACHER_STEP)
        return steps.mean(-1)


# ---------------------------------------------------------------------------------
# Training


class Student(nn.Module):
    """The AST and the predictors that training needs.

    Arguments
    ---------
    config : transformers.ASTConfig
    target_size, sources : int
        Width of the teacher's targets; number of kinds of sources.
    """

    def __init__(self, config, target_size, sources):
        super().__init__()
        self.ast = ASTModel(config)
        # on the CPU, 1.6 times as fast as sdpa for these few tokens
        self.ast.set_attn_implementation("eager")
        # transformers leaves these at zero
        for table in (
            self.ast.embeddings.position_embeddings,
            self.ast.embeddings.cls_token,
            self.ast.embeddings.distillation_token,
        ):
            nn.init.normal_(table, std=0.02)
        self.steps = nn.Linear(config.hidden_size, target_size)
        self.clip = nn.Linear(config.hidden_size, target_size)
        self.sources = nn.Linear(config.hidden_size, sources)

    def forward(self, features, offset):
        """Features `(clips, frames, mel bins)` that begin at place `offset` of the
        position table; gives predictions for time steps, clips and sources."""
        embeddings = self.ast.embeddings
        patches = embeddings.patch_embeddings.projection(
            features.transpose(1, 2).unsqueeze(1)
        )
        places = embeddings.position_embeddings
        patches = patches.flatten(2).transpose(1, 2)
        table = places[:, 2 + offset : 2 + offset + patches.shape[1]]
        special = torch.cat([embeddings.cls_token, embeddings.distillation_token], 1)
        special = (special + places[:, :2]).expand(len(patches), -1, -1)
        hidden = torch.cat([special, patches + table], 1)
        for layer in self.ast.layers:
            hidden = layer(hidden)
        hidden = self.ast.layernorm(hidden)
        return (
            self.steps(hidden[:, 2:]),
            self.clip(hidden[:, :2].mean(1)),
            self.sources(hidden.mean(1)),
        )


def train(options, cache, clips):
    """The trained AST; checkpoints every epoch."""
    batches = Batches(options, clips)
    student = make_student(
        options, batches.directions.shape[1], clips["sources"].shape[-1]
    )
    matrices = [p for p in student.parameters() if p.ndim == 2]
    others = [p for p in student.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": others, "weight_decay": 0.0}],
        lr=options.lr,
        betas=(0.9, 0.98),
        weight_decay=0.05,
    )
    total = options.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(
            (step + 1) / min(WARM_UP, total),
            0.5 * (1 + math.cos(math.pi * min(1.0, step / total))) + 1e-3,
        ),
    )
    checkpoint = cache / "checkpoint.pt"
    parts = {"student": student, "optimizer": optimizer, "schedule": schedule}
    begin = resume(checkpoint, parts)
    bar = tqdm(total=total, initial=begin * len(batches), desc="training")
    for epoch in range(begin, options.epochs):
        sums = torch.zeros(3)
        for features, offset, targets, sources in batches.of_epoch(epoch):
            with torch.autocast("cpu", torch.bfloat16):
                steps, clip, names = student(features, offset)
            losses = torch.stack(
                [
                    F.mse_loss(steps.float(), batches.seen_by_tokens(targets)) / 2,
                    F.mse_loss(clip.float(), targets.mean(1)) / 2,
                    F.binary_cross_entropy_with_logits(names.float(), sources),
                ]
            )
            optimizer.zero_grad()
            losses.sum().backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            sums += losses.detach()
            bar.update()
        steps, clip, names = (sums / len(batches)).tolist()
        bar.set_postfix_str(f"steps {steps:.4f} clip {clip:.4f} sources {names:.4f}")
        state = {name: part.state_dict() for name, part in parts.items()}
        with whole(checkpoint) as partial:
            torch.save({"epoch": epoch + 1, **state}, partial)
    bar.close()
    return student.ast.eval()


class Batches:
    """An epoch's batches: mostly crops of half the length, from anywhere in the clip
    and put anywhere in the position table, else whole clips."""

    def __init__(self, options, clips):
        self.clips, self.size, self.seed = clips, options.batch_size, options.seed
        self.mean, self.deviation = feature_statistics(clips["features"])
        self.patch = options.mel_bins
        targets = clips["targets"]
        some = targets[:: max(1, len(targets) // 4000)].float()
        # The teacher's states say when in the clip they are, and a crop cannot know
        self.shift = some.mean(0)
        some = (some - self.shift).flatten(0, 1)
        scale = some.std(0).clamp(min=1e-4)
        some = some / scale
        variances, directions = torch.linalg.eigh(some.T @ some / len(some))
        kept = min(options.target_size, len(variances))
        directions = directions[:, -kept:] / variances[-kept:].mean().sqrt()
        self.directions = directions / scale.unsqueeze(1)

    def __len__(self):
        return max(1, len(self.clips["features"]) // self.size)

    def of_epoch(self, epoch):
        """Normalised features, the place they begin at in the position table, the
        targets' principal components, and sources. An epoch has its own seed, so that
        a resumed run draws the same."""
        generator = torch.Generator().manual_seed(self.seed * 100003 + epoch)
        features, targets = self.clips["features"], self.clips["targets"]
        steps = targets.shape[1]
        order = torch.randperm(len(features), generator=generator)
        for batch in order.split(self.size)[: len(self)]:
            whole = torch.rand((), generator=generator) < 0.25
            length = steps if whole else steps // 2
            batch = batch[: len(batch) // 2 + 1] if whole else batch
            start, offset = (
                int(torch.randint(steps - length + 1, (), generator=generator))
                for _ in range(2)
            )
            part = slice(start, start + length)
            x = features[batch, start * STEP : (start + length) * STEP].float()
            x = (x - self.mean) / (2 * self.deviation)
            y = (targets[batch, part].float() - self.shift[part]) @ self.directions
            yield (
                augment(x, self.deviation, generator),
                offset,
                y,
                self.clips["sources"][batch].float(),
            )

    def seen_by_tokens(self, targets):
        """Targets `(clips, steps, size)` of the two steps in the middle of every
        patch, averaged: `(clips, tokens, size)`."""
        begin = self.patch // STEP // 2 - 1
        pairs = targets.unfold(1, 2, 1).mean(-1)
        return pairs[:, begin : pairs.shape[1] - begin]


def make_student(options, target_size, sources):
    """The network with random weights."""
    config = ASTConfig(
        hidden_size=options.hidden_size,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.hidden_size,
        num_mel_bins=options.mel_bins,
        max_length=options.max_length,
        patch_size=options.mel_bins,
        frequency_stride=options.mel_bins,
        time_stride=STEP,
    )
    return Student(config, target_size, sources)


def augment(x, deviation, generator):
    """Changes the level and the spectral tilt of normalised log energies `(clips,
    frames, mel bins)` and masks a band and a stretch of time, at random per clip."""
    clips, frames, bins = x.shape

    def draw(low, high):
        return torch.empty(clips, 1, 1).uniform_(low, high, generator=generator)

    tilt = draw(-0.15, 0.15) * torch.linspace(-1, 1, bins)
    level = draw(-2.0, 6.0) / (2 * deviation)  # -9 to 26 dB
    x = x + tilt + level
    for places in (torch.arange(bins), torch.arange(frames).unsqueeze(1)):
        width = draw(0, 0.2) * places.numel()
        begin = draw(-0.5, 1) * places.numel()  # a third of the draws mask nothing
        x = x.masked_fill((places >= begin) & (places < begin + width), 0.0)
    return x


def feature_statistics(features):
    """Mean and standard deviation of the log energies, for the preprocessor."""
    part = features[:: max(1, len(features) // 1000)].float()
    return float(part.mean()), float(part.std())


def resume(checkpoint, parts):
    """Loads the checkpoint if there is one; gives the epoch to begin with."""
    if not checkpoint.is_file():
        return 0
    state = torch.load(checkpoint)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["epoch"]


def save(student, clips, output):
    """Writes the model (float16) and its preprocessor's settings."""
    mean, deviation = feature_statistics(clips["features"])
    student.half().save_pretrained(output)
    ASTFeatureExtractor(
        sampling_rate=RATE,
        num_mel_bins=student.config.num_mel_bins,
        max_length=student.config.max_length,
        mean=mean,
        std=deviation,
    ).save_pretrained(output)


if __name__ == "__main__":
    command("petl_modules.embedded.pretrain")
