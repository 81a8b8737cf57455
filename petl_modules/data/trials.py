"""Trials of speaker verification: pairs of recordings, and whether one speaker is heard
in both.

A list has one trial a line, in VoxCeleb's format: `1 PATH PATH` for one speaker, `0
PATH PATH` for two. In a manifest a trial stands with the first of its recordings:
`{id: {wav, trials: [[id of the second, 1], ...]}}`.
"""

import os
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from petl_modules.data.folders import clip_id
from petl_modules.data.tables import LINE_END, read_text
from petl_modules.errors import UserError

Trial = tuple[int, Path, Path]  # 1 for one speaker, 0 for two
Entries = dict[str, dict[str, Any]]
# Where VoxCeleb's recordings are: in one folder, or parted as they are downloaded
HOMES = ("wav", "dev/wav", "test/wav", "aac", "dev/aac", "test/aac")
TRIES = 20  # draws for each trial that is wanted, where few are possible


def homes_of(folder: Path) -> list[Path]:
    """The folders that paths of a list begin in: VoxCeleb's, or the folder itself."""
    return [folder / n for n in HOMES if (folder / n).is_dir()] or [folder]


def read_trials(path: str | Path, homes: Sequence[Path]) -> list[Trial]:
    """The trials of a list.

    Arguments
    ---------
    path : str or Path
    homes : list of Path
        As of `homes_of`.

    Raises
    ------
    UserError
        For a list that is missing or empty, a line that is no trial, a recording that
        is not there, not inside the folder or not of one speaker, or trials of one kind
        alone.
    """
    trials, known = [], {}
    for number, line in enumerate(LINE_END.split(read_text(path)), start=1):
        if not (parts := line.split()):
            continue
        place = f"{path}, line {number}"
        if len(parts) != 3:
            raise UserError(
                f"{place} has {len(parts)} columns, where a trial has three: 1 or 0, "
                "and two paths."
            )
        same, *names = parts
        if same not in ("0", "1"):
            raise UserError(
                f"{place} has the label {same}, which must be 1 (one speaker) or 0 "
                "(two)."
            )
        for name in names:
            if name not in known:
                known[name] = found_in(homes, name, place)
        first, second = (known[name] for name in names)
        if same == "0" and first == second:
            raise UserError(f"{place} has two speakers in one recording, {names[0]}.")
        trials.append((int(same), first, second))
    if not trials:
        raise UserError(f"{path} lists no trials.")
    if len(kinds := {same for same, *_ in trials}) < 2:
        raise UserError(
            f"All trials of {path} have the label {min(kinds)}: an error rate needs "
            "both, 1 (one speaker) and 0 (two)."
        )
    return trials


def drawn_trials(
    speakers: Mapping[str, Mapping[str, Sequence[Path]]], count: int, seed: int
) -> list[Trial]:
    """Trials of known speakers, drawn with a seed: as many of one speaker as of two, at
    most `count` each, none twice.

    Arguments
    ---------
    speakers : dict
        `{speaker: {session: paths}}`. Two recordings of one speaker are of different
        sessions, where the speaker has several.
    count : int
    seed : int

    Raises
    ------
    UserError
        Where there is no pair of one speaker, or none of two.
    """
    rng = random.Random(f"trials {seed}")
    names = sorted(speakers)
    clips = {name: [*chain(*speakers[name].values())] for name in names}
    several = [name for name in names if len(clips[name]) > 1]
    if not several or len(names) < 2:
        raise UserError(
            "Trials need two speakers or more, one of them with two recordings; here "
            f"are {len(names)} speakers."
        )

    def of_one() -> Trial:
        own = speakers[name := rng.choice(several)]
        if len(own) < 2:
            return 1, *sorted(rng.sample(clips[name], 2))
        sessions = rng.sample(sorted(own), 2)
        return 1, *sorted(rng.choice(own[session]) for session in sessions)

    def of_two() -> Trial:
        return 0, *sorted(rng.choice(clips[name]) for name in rng.sample(names, 2))

    found = [
        sorted({draw() for _ in range(TRIES * count)}) for draw in (of_one, of_two)
    ]
    fewest = min(count, *map(len, found))
    return [trial for own in found for trial in rng.sample(own, fewest)]


def entries_of_trials(trials: Iterable[Trial], folder: Path) -> Entries:
    """The entries of all recordings of some trials, each once however many trials it
    is in; ids are paths in `folder`."""
    entries: Entries = {}

    def key_of(path: Path) -> str:
        key = clip_id(folder, path)
        entries.setdefault(key, {"wav": str(path), "trials": []})
        return key

    for same, first, second in trials:
        pair = key_of(first), key_of(second)
        entries[pair[0]]["trials"].append([pair[1], same])
    return entries


# Helpers


def found_in(homes: Sequence[Path], name: str, place: str) -> Path:
    """The recording of a name in a list, by its path in one of the folders."""
    # by name, not by resolve(): data sets kept by git-annex or DVC are symbolic links
    paths = [Path(os.path.normpath(home / name)) for home in homes]
    if any(h not in path.parents for h, path in zip(homes, paths, strict=True)):
        raise UserError(f"{place} names a file outside of the data folder: {name}.")
    if path := next((path for path in paths if path.is_file()), None):
        return path
    raise UserError(
        f"{place} names {name}, which is not in {' or '.join(map(str, homes))}."
    )
