"""What is in a list of recordings: how much of what, what is broken, what leaks."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import soundfile

from petl_modules.data.clips import ClipCheck
from petl_modules.data.media import opened
from petl_modules.data.own import OwnData, labels_of
from petl_modules.data.own_rows import Row


@dataclass
class Survey:
    """What was found.

    Attributes
    ----------
    name : str
        Of the list.
    task : str or None
        What it is looked at for.
    rows : list of Row
        Those whose recordings can be read.
    seconds : dict
        By row's key.
    rates, channels : collections.Counter
        Of files, in Hz and as numbers.
    broken : list of str
        A sentence for each row or recording that cannot be used.
    left_out : list of str
        What was left out because it was asked for.
    leaks : list of str
        A sentence for each recording or group that is in two splits.
    copies : list of str
        A sentence for each recording that is there twice, within one split.
    """

    name: str
    task: str | None
    rows: list[Row]
    seconds: dict[str, float]
    rates: Counter = field(default_factory=Counter)
    channels: Counter = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether all of it can be used, and nothing leaks."""
        return bool(self.rows) and not (self.broken or self.leaks)

    def hours(self, rows: Iterable[Row] | None = None) -> float:
        """Hours of some rows, or of all."""
        rows = self.rows if rows is None else rows
        return sum(self.seconds[row.key] for row in rows) / 3600

    def by_split(self) -> dict[str, list[Row]]:
        """Rows by their split; under an empty name those of a list without splits."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.split or "", []).append(row)
        return found

    def by_label(self) -> dict[str, list[Row]]:
        """Rows by class, or by each of their labels; most frequent first."""
        found: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            tags = row.labels if self.task in (None, "tags") else ()
            for label in tags or labels_of(row, "classification"):
                found[label].append(row)
        return dict(sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0])))

    def lengths(self) -> dict[str, float]:
        """Least, median, 95th percentile and most of the seconds of clips."""
        values = np.array([self.seconds[row.key] for row in self.rows] or [0.0])
        return {
            "shortest": float(values.min()),
            "median": float(np.median(values)),
            "95 % are under": float(np.quantile(values, 0.95)),
            "longest": float(values.max()),
        }


def survey(own: OwnData, task: str | None = None) -> Survey:
    """Look at every recording of a list, each decoded to its end.

    Arguments
    ---------
    own : OwnData
    task : str or None
        What it is looked at for; None: whatever it has.
    """
    check = ClipCheck()
    whole = check.whole({row.key: {"wav": row.wav} for row in own.rows})
    rows = [row for row in own.rows if row.key in whole]
    seconds = {key: entry["duration"] for key, entry in whole.items()}
    found = Survey(own.name, task, rows, seconds, left_out=list(own.left_out))
    found.broken = [*own.complaints, *map(str, check.broken)]
    for file in dict.fromkeys(row.file for row in rows):
        rate, channels = facts_of(file)
        found.rates[rate] += 1
        found.channels[channels] += 1
    same_content(found)
    if own.divided:
        found.leaks += groups_in_two_splits(rows)
    return found


# Helpers


def facts_of(path: Path) -> tuple[int, int]:
    """Rate in Hz and channels of a sound file."""
    try:
        info = soundfile.info(os.fsencode(path))
    except (OSError, RuntimeError):
        with opened(str(path)) as file, av.open(file) as container:
            stream = container.streams.audio[0]
            return stream.rate, stream.channels
    return info.samplerate, info.channels


def same_content(found: Survey) -> None:
    """Put down recordings that are one and the same under several names."""
    rows: dict[Path, list[Row]] = defaultdict(list)
    for row in found.rows:
        rows[row.file].append(row)
    sizes = defaultdict(list)
    for file in rows:
        sizes[file.stat().st_size].append(file)
    twins: dict[str, list[Path]] = defaultdict(list)
    for files in sizes.values():
        for file in files if len(files) > 1 else ():
            with open(file, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            twins[digest].append(file)
    for files in twins.values():
        for one in files[1:]:
            first, second = rows[files[0]][0], rows[one][0]
            said = f"{second.place}: {second.key} is the same recording as {first.key}"
            if {row.split for file in files for row in rows[file]} == {first.split}:
                found.copies.append(f"{said}.")
            else:
                splits = f"{first.split} and {second.split}"
                found.leaks.append(f"{said}, and they are in {splits}.")


def groups_in_two_splits(rows: Iterable[Row]) -> list[str]:
    """A sentence for each group that training and a held-out split share."""
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.group is not None:
            splits[row.group].add(row.split or "")
    return [
        f"The group {group} is in {' and '.join(sorted(names))}."
        for group, names in sorted(splits.items())
        if len(names) > 1
    ]
