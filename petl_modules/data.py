"""Data sets: manifests, checked clips, splits, and the audio pipeline.

A recipe's `prepare` function turns an official layout into splits of entries;
`make_manifests` checks every clip of them once, writes one JSON manifest a split in
SpeechBrain's format, and does nothing when they are up to date.

Paths in manifests are absolute: a run may be started from any folder, and its
manifests belong to it alone.
"""

import codecs
import csv
import hashlib
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio import audio_io
from torchaudio.transforms import Resample
from tqdm import tqdm

from petl_modules.errors import UserError
from petl_modules.media import SUFFIXES, read_media
from petl_modules.splits import few_shot

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
MARKER = "prepared.json"
THREADS = 4
# of files that soundfile reads
AUDIO = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"}


@dataclass(frozen=True)
class Prepared:
    """The manifests of one run.

    Attributes
    ----------
    train, valid, test : Path
        Manifests: `{id: {wav, duration, label, ...}}`, duration in seconds.
    labels : list of str or None
        The classes or symbols; their order gives the indices. None where the backbone
        writes text.
    broken : int
        Clips left out because they could not be read.
    """

    train: Path
    valid: Path
    test: Path
    labels: list
    broken: int


def make_manifests(save_folder, splits, labels, shots=None, seed=0, skip_broken=False):
    """Check clips and write manifests, unless they are there already.

    Manifests are up to date when they were made from the same splits, settings and
    files. Of a file, path, size and time of change are compared: reading all audio to
    hash it would take as long as checking it again.

    Arguments
    ---------
    save_folder : str or Path
        Where the manifests go.
    splits : dict
        `{"train": {id: {wav, label, ...}}, "valid": ..., "test": ...}`; entries of
        sequence tasks have a text instead of a label, and its units if they are known.
    labels : list of str or None
        All classes or symbols, in the order of their indices; None for plain text.
    shots : int or None
        Training clips per class, drawn with the seed from those that can be read.
    seed : int
    skip_broken : bool
        Leave clips out that cannot be read, instead of raising.

    Returns
    -------
    Prepared

    Raises
    ------
    UserError
        For clips that cannot be read, fewer than two classes, an empty split, or a
        label that training never sees.
    """
    folder = Path(save_folder)
    paths = {name: folder / f"{name}.json" for name in SPLITS}
    clips = [entry["wav"] for name in SPLITS for entry in splits[name].values()]
    made_from = [splits, labels, shots, seed, skip_broken, listing(clips)]
    key = digest(made_from)
    marker = folder / MARKER
    said = read_marker(marker)
    if said.get("key") == key and all(path.exists() for path in paths.values()):
        return Prepared(**paths, labels=said["labels"], broken=said["broken"])
    labels = None if labels is None else list(labels)
    check_splits(splits, labels)
    splits, broken = checked(splits, skip_broken)
    check_splits(splits, labels)
    splits["train"] = few_shot(splits["train"], shots, seed)
    folder.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    for name, path in paths.items():
        entries = sorted(splits[name].items())
        write_json(path, {key: escaped(entry) for key, entry in entries})
    write_json(marker, {"key": key, "labels": labels, "broken": broken})
    counts = ", ".join(f"{len(splits[name])} {name}" for name in SPLITS)
    logger.info("Clips: %s.", counts)
    return Prepared(**paths, labels=labels, broken=broken)


def make_dataset(manifest, sample_rate, max_duration=None, cache_mib=1024):
    """A SpeechBrain data set of one manifest.

    Arguments
    ---------
    manifest : str or Path
    sample_rate : int
        Hz; clips are resampled to it and mixed to mono.
    max_duration : float or None
        Seconds after which clips are cut.
    cache_mib : float
        Decoded clips of this data set kept in memory, in MiB: decoding and resampling
        costs milliseconds a clip, which would come again every epoch. Clips that find
        no room are decoded each time.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        With id, wav, and sig: `(samples,)`; a task adds its targets.
    """
    samples = None if max_duration is None else round(max_duration * sample_rate)
    memory, room = {}, [cache_mib * 2**20]

    def sig(wav):
        if wav in memory:
            return memory[wav]
        clip = read_clip(wav, sample_rate)[:samples].clone()
        size = clip.numel() * clip.element_size()
        if size <= room[0]:
            memory[wav] = clip
            room[0] -= size
        return clip

    return sb.dataio.dataset.DynamicItemDataset.from_json(
        manifest,
        dynamic_items=[{"func": sig, "takes": "wav", "provides": "sig"}],
        output_keys=["id", "wav", "sig"],
    )


def read_clip(path, sample_rate):
    """One clip, `(samples,)` float32, mono, at `sample_rate` Hz.

    Raises
    ------
    UserError
        If the file cannot be read, is empty, or holds NaN.
    """
    audio, rate = decode(path)
    return audio if rate == sample_rate else resampler(rate, sample_rate)(audio)


def is_audio(path):
    """Whether a file's name says that it is a recording, or has one in it."""
    return path.suffix.lower() in AUDIO | SUFFIXES and not path.name.startswith(".")


def inside(folder, name):
    """The path of a file that a data set names, which must lie in its folder.

    Raises
    ------
    UserError
        If the name leads out of the folder.
    """
    folder = Path(folder).resolve()
    # by name, not by resolve(): data sets kept by git-annex or DVC are symbolic links
    path = Path(os.path.normpath(folder / name))
    if folder not in path.parents:
        raise UserError(f"The data set names a file outside its folder: {name}.")
    return path


def read_table(path, columns):
    """The rows of a csv file that a data set comes with.

    Arguments
    ---------
    path : str or Path
        In UTF-8; any line ends.
    columns : iterable of str
        Columns that must be there, with a value in every row.

    Returns
    -------
    list of tuple
        `(place, row)`: file and line for messages, and the row as a dict.

    Raises
    ------
    UserError
        For a file that is missing or damaged, or lacks a column or value.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except FileNotFoundError:
        raise UserError(f"The file {path} is missing.") from None
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{path} is damaged: it is no csv file in UTF-8.") from None
    if not rows:
        raise UserError(f"{path} lists no clips.")
    if missing := set(columns) - set(rows[0][1]):
        raise UserError(f"{path} lacks the columns {', '.join(sorted(missing))}.")
    for place, row in rows:
        for column in columns:
            if not row[column]:
                raise UserError(f"{place} has no {column}.")
    return rows


def whole_number(place, row, column, least=0, most=None):
    """A column's whole number, in a row of `read_table`.

    Raises
    ------
    UserError
        If it is none, or out of range.
    """
    text = row[column]
    top = float("inf") if most is None else most
    if text.isdecimal() and least <= int(text) <= top:
        return int(text)
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise UserError(
        f"{place} has the {column} {text}, which must be a whole number {limits}."
    )


def read_lines(path):
    """The lines of a text file that a data set comes with, without empty ones; in
    UTF-8, or in UTF-16 with its mark.

    Raises
    ------
    UserError
        For a file that is missing or no text.
    """
    try:
        content = Path(path).read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        lines = content.decode("utf-16" if wide else "utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"The file {path} is missing.") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is damaged: it is no text in UTF-8 or UTF-16."
        ) from None
    return [line.strip() for line in lines if line.strip()]


def data_folder_of(recipe, folder, needs, layout):
    """The data folder as a Path, or a UserError that explains the layout.

    Arguments
    ---------
    recipe : str
        For the message.
    folder : str or None
    needs : str
        A file or folder that must be in it.
    layout : str
        What it should look like and where to get it.
    """
    if folder is None:
        raise UserError(f"Pass --data_folder=FOLDER, where {recipe} is: {layout}")
    path = Path(str(folder)).expanduser()
    if not path.is_dir():
        raise UserError(f"The data folder {folder} does not exist: {layout}")
    if not (path / needs).exists():
        raise UserError(f"The data folder {folder} has no {needs}: {layout}")
    return path.resolve()


# Helpers


def checked(splits, skip_broken):
    """The splits with durations, without broken clips, and how many these were.

    Every clip is decoded once, since a header says little about its body; the
    manifests then say that it was fine.
    """
    jobs = [(name, key) for name in SPLITS for key in splits[name]]
    checked_, broken = {name: {} for name in SPLITS}, []

    def look(job):
        entry = splits[job[0]][job[1]]
        try:
            return {**entry, "duration": duration(entry["wav"])}
        except UserError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(look, jobs)
        progress = tqdm(
            found, total=len(jobs), desc="checking clips", delay=2, leave=False
        )
        for (name, key), entry in zip(jobs, progress, strict=True):
            if isinstance(entry, UserError):
                broken.append(entry)
            else:
                checked_[name][key] = entry
    if broken and not skip_broken:
        more = f" ({len(broken) - 1} more are broken)" if len(broken) > 1 else ""
        raise UserError(
            f"{str(broken[0]).rstrip('.')}{more}: mend it, or leave such clips out "
            "with --skip_broken=True."
        )
    for error in broken:
        logger.warning("Left out: %s", error)
    if broken:
        logger.warning("Left out: %d of %d clips.", len(broken), len(jobs))
    return checked_, len(broken)


def duration(path):
    """Seconds of a clip that has been read to its end."""
    stat = os.stat(path) if Path(path).is_file() else None
    return seconds_of(str(path), stat and (stat.st_size, stat.st_mtime_ns))


@cache
def seconds_of(path, version):
    """The same, remembered, so that folds of one process check a file once."""
    del version  # a changed file is another one
    audio, rate = decode(path)
    return round(len(audio) / rate, 4)


def decode(path):
    """A clip, `(samples,)`, mixed to mono, and its rate in Hz."""
    if not Path(path).is_file():
        raise UserError(f"The clip {path} is missing.")
    try:
        if Path(path).suffix.lower() in SUFFIXES:
            audio, rate = read_media(path)
        else:
            audio, rate = audio_io.load(str(path), dtype=torch.float32)
    except RuntimeError as error:
        reason = str(error).split(":")[-1].strip(" .")
        raise UserError(
            f"The clip {path} cannot be read: it is damaged or no audio ({reason})."
        ) from None
    if audio.numel() == 0:
        raise UserError(f"The clip {path} is empty: it has no samples.")
    if not audio.isfinite().all():
        raise UserError(f"The clip {path} holds values that are no numbers (NaN).")
    return audio.mean(0), rate


def check_splits(splits, labels):
    """Raise a UserError for splits that nothing can be learnt from."""
    for name in SPLITS:
        if not splits[name]:
            raise UserError(f"The {name} split has no clips.")
    classes = all("label" in entry for entry in splits["train"].values())
    if classes and len(labels) < 2:
        raise UserError(
            f"There must be two classes or more, here there are {len(labels)}: "
            f"{', '.join(labels) or 'none'}."
        )
    if classes:
        check_labels(splits, labels)


def check_labels(splits, labels):
    """Raise a UserError for a class that training or nothing else sees."""
    seen = {entry["label"] for entry in splits["train"].values()}
    for name in ("valid", "test"):
        for key, entry in sorted(splits[name].items()):
            if entry["label"] not in seen:
                raise UserError(
                    f"The label {entry['label']} of the {name} clip {key} is never "
                    "seen in training."
                )
    for label in labels:
        if label not in seen:
            raise UserError(f"The class {label} has no training clips.")


@cache
def resampler(rate, target):
    """The resampling filter for two rates, made once.

    The filter grows with the product of the reduced rates: from 22,051 to 16,000 Hz
    it would take gigabytes. A ratio that is right to some millionths will do there;
    for the usual rates it is exact.
    """
    ratio = Fraction(rate, target).limit_denominator(1000)
    return Resample(ratio.numerator, ratio.denominator)


def digest(value):
    """A hash of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def read_marker(path):
    """What the manifests in a folder were made from; empty if that is not known."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def escaped(entry):
    """An entry whose braces SpeechBrain does not take for its replacements."""
    return {
        key: value.replace("{", "{{").replace("}", "}}")
        if isinstance(value, str)
        else value
        for key, value in entry.items()
    }


def write_json(path, value):
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path, text):
    """Write a file, whole or not at all."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def listing(paths):
    """`[[path, size, mtime], ...]`: what changes when files do."""
    rows = []
    for path in sorted(map(str, paths)):
        found = Path(path)
        stat = found.stat() if found.exists() else None
        rows.append([path, *((stat.st_size, stat.st_mtime) if stat else (0, 0))])
    return rows
