"""Entries of VoxCeleb 1 and 2 (Nagrani et al., arXiv 1706.08612; Chung et al.,
1806.05622) for speaker verification."""

import random
from collections import defaultdict
from pathlib import Path

from petl_modules import data
from petl_modules.data.trials import (
    drawn_trials,
    entries_of_trials,
    homes_of,
    read_trials,
)
from petl_modules.errors import UserError
from petl_modules.kinds import PositiveInt

LISTS = ("veri_test2.txt", "veri_test.txt")  # VoxCeleb1-O, cleaned and as it was first
LAYOUT = (
    "it must hold wav/SPEAKER/VIDEO/*.wav of VoxCeleb1, of dev and test, and may hold "
    "aac/SPEAKER/VIDEO/*.m4a of VoxCeleb2 "
    "(https://www.robots.ox.ac.uk/~vgg/data/voxceleb/)."
)

Speakers = dict[str, dict[str, list[Path]]]  # recordings by speaker and video


def prepare_voxceleb(
    data_folder: str,
    trials: str | None = None,
    valid_speakers: PositiveInt = 40,
    valid_trials: PositiveInt = 2000,
    seed: int = 0,
) -> tuple[data.Splits, list[str]]:
    """Entries for speaker verification: a list of trials tests, and none of its
    speakers trains. Some of the others validate, by trials drawn with the seed; the
    rest train.

    Arguments
    ---------
    data_folder : str
        With wav/SPEAKER/VIDEO/*.wav, or aac/SPEAKER/VIDEO/*.m4a; both may lie in dev/
        and test/.
    trials : str or None
        A list of trials to test by, such as VoxCeleb1-O, E or H; null for
        veri_test2.txt in the data folder.
    valid_speakers : int
        Speakers held out for validation, drawn with the seed.
    valid_trials : int
        Trials of them of one speaker, and as many of two, at most.
    seed : int

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the labels are the speakers that train,
        sorted.

    Raises
    ------
    UserError
        For a wrong folder or list, or too few speakers.
    """
    folder = data.data_folder_of("VoxCeleb", data_folder, ".", LAYOUT)
    homes = homes_of(folder)
    if homes == [folder]:
        raise UserError(f"The data folder {folder} has no wav/ or aac/: {LAYOUT}")
    tested = read_trials(trials or official_list(folder), homes)
    heard = {speaker_of(path, homes) for _, *pair in tested for path in pair}
    speakers = recordings(homes, without=heard)
    held_out, labels = held_out_speakers(sorted(speakers), valid_speakers, seed)
    drawn = drawn_trials({n: speakers[n] for n in held_out}, valid_trials, seed)
    train = {
        data.clip_id(folder, path): {"wav": str(path), "label": name}
        for name in labels
        for paths in speakers[name].values()
        for path in paths
    }
    splits = {
        "train": train,
        "valid": entries_of_trials(drawn, folder),
        "test": entries_of_trials(tested, folder),
    }
    return splits, labels


def official_list(folder: Path) -> Path:
    """The list that is tested where none is named."""
    for name in LISTS:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder} has no {LISTS[0]}: put one of VoxCeleb's lists of trials there "
        "(https://www.robots.ox.ac.uk/~vgg/data/voxceleb/), or name one by --trials."
    )


def speaker_of(path: Path, homes: list[Path]) -> str:
    """The speaker of a recording: the folder right in wav/ or aac/."""
    home = next(home for home in homes if home in path.parents)
    return path.relative_to(home).parts[0]


def recordings(homes: list[Path], without: set[str]) -> Speakers:
    """All recordings of all speakers but some."""
    found: Speakers = defaultdict(dict)
    for home in homes:
        for speaker in data.folders_in(home):
            if speaker.name in without:
                continue
            for video in data.folders_in(speaker):
                if paths := data.clips_in(video):
                    found[speaker.name].setdefault(video.name, []).extend(paths)
    return found


def held_out_speakers(
    names: list[str], count: int, seed: int
) -> tuple[list[str], list[str]]:
    """Speakers that validate, drawn with a seed, and those that train."""
    if len(names) < count + 2:
        raise UserError(
            f"valid_speakers={count} of {len(names)} speakers that the trials leave "
            "for training: two or more must train."
        )
    chosen = set(random.Random(f"speakers {seed}").sample(names, count))
    return sorted(chosen), [name for name in names if name not in chosen]
