"""Data sets: manifests, checked clips, splits, and the audio pipeline.

A recipe's `prepare` function turns an official layout into splits of entries;
`make_manifests` checks every clip of them once, writes one JSON manifest a split in
SpeechBrain's format, and does nothing when they are up to date.

Paths in manifests are absolute: a run may be started from any folder, and its
manifests belong to it alone.
"""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from petl_modules.data.reading import duration
from petl_modules.data.splits import few_shot
from petl_modules.errors import UserError
from petl_modules.files import digest, listing, write_json

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
MARKER = "prepared.json"
PARTS = " | "  # between the parts of a label that is told by several softmaxes
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
    """Raise a UserError for a class, or a part of one, that training never sees."""
    train = splits["train"].values()
    seen = {part for entry in train for part in parts_of(entry["label"])}
    for name in ("valid", "test"):
        for key, entry in sorted(splits[name].items()):
            if not seen.issuperset(parts_of(entry["label"])):
                raise UserError(
                    f"The label {entry['label']} of the {name} clip {key} is never "
                    "seen in training."
                )
    for label in labels:
        for place, part in parts_of(label):
            if (place, part) not in seen:
                raise UserError(f"The class {part} has no training clips.")


def parts_of(label):
    """`(place, part)` of a label's parts, one of which a label is if it has no `PARTS`.

    Example
    -------
    >>> list(parts_of("increase | heat | kitchen"))[1]
    (1, 'heat')
    """
    return enumerate(label.split(PARTS))


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
