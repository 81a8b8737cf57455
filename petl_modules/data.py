"""Data sets: manifests, checked clips, splits, and the audio pipeline.

A recipe's `prepare` function turns an official layout into `Splits` of entries and
hands them to `prepared`, which checks every clip once, writes one JSON manifest a
split in SpeechBrain's format, and does nothing when they are up to date.
"""

import hashlib
import json
import logging
import random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import speechbrain as sb
import torch
from sklearn.model_selection import StratifiedGroupKFold
from speechbrain.dataio import audio_io
from torchaudio.transforms import Resample
from tqdm import tqdm

from petl_modules.errors import UserError

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
MARKER = "prepared.json"
THREADS = 4


@dataclass(frozen=True)
class Prepared:
    """What a recipe's prepare function returns.

    Attributes
    ----------
    train, valid, test : Path
        Manifests: `{id: {wav, duration, label, ...}}`, duration in seconds.
    labels : list of str
        The classes; their order gives the indices.
    broken : int
        Clips left out because they could not be read.
    """

    train: Path
    valid: Path
    test: Path
    labels: list
    broken: int


def prepared(save_folder, made_from, splits, labels, skip_broken=False):
    """Check clips and write manifests, unless they are there already.

    Arguments
    ---------
    save_folder : str or Path
        Where the manifests go.
    made_from : dict
        The settings that the splits depend on, JSON-able.
    splits : dict
        `{"train": {id: {wav, label, ...}}, "valid": ..., "test": ...}`.
    labels : list of str
        All classes, in the order of their indices.
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
    key = digest({"made_from": made_from, "splits": splits, "skip": skip_broken})
    marker = folder / MARKER
    if marker.exists() and all(path.exists() for path in paths.values()):
        said = json.loads(marker.read_text(encoding="utf-8"))
        if said["key"] == key:
            return Prepared(**paths, labels=said["labels"], broken=said["broken"])
    check_labels(splits, labels)
    splits, broken = checked(splits, skip_broken)
    check_labels(splits, labels)
    folder.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    for name, path in paths.items():
        write_json(path, dict(sorted(splits[name].items())))
    write_json(marker, {"key": key, "labels": list(labels), "broken": broken})
    counts = ", ".join(f"{len(splits[name])} {name}" for name in SPLITS)
    logger.info("Clips: %s.", counts)
    return Prepared(**paths, labels=list(labels), broken=broken)


def make_dataset(manifest, labels, sample_rate, max_duration=None, cache_mib=1024):
    """A SpeechBrain data set of one manifest.

    Arguments
    ---------
    manifest : str or Path
    labels : list of str
    sample_rate : int
        Hz; clips are resampled to it and mixed to mono.
    max_duration : float or None
        Seconds after which clips are cut.
    cache_mib : float
        Decoded clips kept in memory, in MiB: decoding and resampling a clip takes
        several times as long as reading it from there.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        With id, wav, label, label_index, and sig: `(samples,)`.
    """
    index = {label: i for i, label in enumerate(labels)}
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
        dynamic_items=[
            {"func": sig, "takes": "wav", "provides": "sig"},
            {"func": index.get, "takes": "label", "provides": "label_index"},
        ],
        output_keys=["id", "wav", "sig", "label_index"],
    )


def read_clip(path, sample_rate):
    """One clip, `(samples,)` float32, mono, at `sample_rate` Hz.

    Raises
    ------
    UserError
        If the file cannot be read, is empty, or holds NaN.
    """
    try:
        audio, rate = audio_io.load(str(path), dtype=torch.float32)
    except RuntimeError as error:
        reason = str(error).split(":")[-1].strip()
        raise UserError(f"The clip {path} cannot be read ({reason})") from None
    if audio.numel() == 0:
        raise UserError(f"The clip {path} is empty: it has no samples.")
    if not audio.isfinite().all():
        raise UserError(f"The clip {path} holds values that are no numbers (NaN).")
    audio = audio.mean(0)
    return audio if rate == sample_rate else resampler(rate, sample_rate)(audio)


def few_shot(entries, count, seed):
    """`count` clips of every class, drawn with the seed; the order of files and
    folders has no say.

    Raises
    ------
    UserError
        If a class has fewer clips.
    """
    if count is None:
        return entries
    classes = defaultdict(list)
    for key in sorted(entries):
        classes[entries[key]["label"]].append(key)
    short = [label for label, keys in classes.items() if len(keys) < count]
    if short or count < 1:
        raise UserError(
            f"few_shot={count} cannot be drawn: the class {short[0]} has "
            f"{len(classes[short[0]])} training clips."
            if short
            else f"few_shot={count} must be at least 1."
        )
    # one generator a class, so that a class's draw does not hang on the others
    drawn = [
        key
        for label, keys in sorted(classes.items())
        for key in random.Random(f"{seed} {label}").sample(keys, count)
    ]
    return {key: entries[key] for key in sorted(drawn)}


def split_off(entries, fraction, seed, name):
    """Split entries in two, stratified by label, without parting a group.

    Arguments
    ---------
    entries : dict
        `{id: {label, group (optional), ...}}`; clips of one group stay together.
    fraction : float
        About how much goes to the second part.
    seed : int
    name : str
        What the second part is for, for messages.

    Returns
    -------
    rest, part : dict
        Both with every class.
    """
    if not 0 < fraction < 1:
        raise UserError(
            f"The fraction for {name}, {fraction}, must be between 0 and 1."
        )
    keys = sorted(entries)
    labels = [entries[key]["label"] for key in keys]
    groups = [str(entries[key].get("group", key)) for key in keys]
    fewest(labels, groups, name)
    folds = max(2, round(1 / fraction))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    classes = set(labels)
    for rest, part in splitter.split(keys, labels, groups):
        if all({labels[i] for i in side} == classes for side in (rest, part)):
            return (
                {keys[i]: entries[keys[i]] for i in rest},
                {keys[i]: entries[keys[i]] for i in part},
            )
    raise UserError(
        f"No split leaves every class on both sides of {name}: there are too few "
        "clips or groups; give more, or a larger fraction."
    )


def inside(folder, name):
    """The path of a file that a data set names, which must lie in its folder.

    Raises
    ------
    UserError
        If the name leads out of the folder.
    """
    folder = Path(folder).resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise UserError(f"The data set names a file outside its folder: {name}.")
    return path


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
    if not Path(folder).is_dir():
        raise UserError(f"The data folder {folder} does not exist: {layout}")
    if not (Path(folder) / needs).exists():
        raise UserError(f"The data folder {folder} has no {needs}: {layout}")
    return Path(folder).resolve()


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
            f"{broken[0]}{more} Mend it, or leave such clips out with "
            "--skip_broken=True."
        )
    for error in broken:
        logger.warning("Left out: %s", error)
    return checked_, len(broken)


def duration(path):
    """Seconds of a clip that has been read to its end."""
    if not Path(path).is_file():
        raise UserError(f"The clip {path} is missing.")
    rate = sample_rate_of(path)
    return round(len(read_clip(path, rate)) / rate, 4)


def sample_rate_of(path):
    """Hz, from the header."""
    try:
        return audio_io.info(str(path)).sample_rate
    except RuntimeError:
        raise UserError(
            f"The clip {path} cannot be read: it is empty, damaged or no audio file."
        ) from None


def check_labels(splits, labels):
    """Raise a UserError for splits that nothing can be learnt from."""
    if len(labels) < 2:
        raise UserError(
            f"There must be two classes or more, here there are {len(labels)}: "
            f"{', '.join(labels) or 'none'}."
        )
    for name in SPLITS:
        if not splits[name]:
            raise UserError(f"The {name} split has no clips.")
    seen = {entry["label"] for entry in splits["train"].values()}
    for name in ("valid", "test"):
        for key, entry in sorted(splits[name].items()):
            if entry["label"] not in seen:
                raise UserError(
                    f"The label {entry['label']} of the {name} clip {key} is never "
                    "seen in training."
                )


def fewest(labels, groups, name):
    """Raise a UserError where a class has too few groups to be split."""
    count = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        count[label].add(group)
    for label, own in sorted(count.items()):
        if len(own) < 2:
            raise UserError(
                f"The class {label} has too few clips (or groups of clips) to split "
                f"off {name}: it has {len(own)}, and needs one on each side."
            )


@cache
def resampler(rate, target):
    """The resampling filter for two rates, made once."""
    return Resample(rate, target)


def digest(value):
    """A hash of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path, value):
    """Write JSON, whole or not at all."""
    partial = path.with_suffix(path.suffix + ".partial")
    text = json.dumps(value, indent=1, ensure_ascii=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def listing(paths):
    """`[[path, size, mtime], ...]`: what changes when files do."""
    rows = []
    for path in sorted(map(str, paths)):
        found = Path(path)
        stat = found.stat() if found.exists() else None
        rows.append([path, *((stat.st_size, stat.st_mtime) if stat else (0, 0))])
    return rows
