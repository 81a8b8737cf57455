"""Clips are looked at once, whatever runs use them later."""

import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from petl_modules.console import progress_bar
from petl_modules.data.reading import duration
from petl_modules.errors import UserError
from petl_modules.files import file_and_times

logger = logging.getLogger(__name__)

THREADS = 4
CACHE = "PETL_CACHE"  # the environment variable that names the cache folder
SAVED_EVERY = 5.0  # seconds of work that a kill can lose
SCHEMA = """CREATE TABLE IF NOT EXISTS clips_1
(path BLOB PRIMARY KEY, size INT, changed INT, seconds REAL) WITHOUT ROWID"""


class ClipCheck:
    """Decodes clips to their end, unless that was done before by any run of this user.

    What is known of a clip holds as long as its size and time of change do; it is kept
    in `$PETL_CACHE`, or petl_modules in the user's cache folder, in a database that
    several processes share. Clips that cannot be read are looked at each time.

    Attributes
    ----------
    broken : list of UserError
        What was said of clips that cannot be read.
    looked_at : int
        How many were asked for.
    """

    def __init__(self) -> None:
        self.broken: list[UserError] = []
        self.looked_at = 0

    def whole(self, entries: dict[str, dict]) -> dict[str, dict]:
        """The entries whose clips can be read, with their duration in seconds."""
        self.looked_at += len(entries)
        wavs = [entry["wav"] for entry in entries.values()]
        seconds, new = {}, []
        with closing(index()) as known:
            for wav, version in versions(wavs):
                row = known.execute(
                    "SELECT seconds FROM clips_1 WHERE path=? AND size=? AND changed=?",
                    (os.fsencode(wav), *version),
                ).fetchone()
                if row is None:
                    new.append((wav, version))
                else:
                    seconds[wav] = row[0]
            seconds |= self.look(new, known)
        return {
            key: {**entry, "duration": seconds[entry["wav"]]}
            for key, entry in entries.items()
            if entry["wav"] in seconds
        }

    def look(
        self, clips: list[tuple[str, tuple]], known: sqlite3.Connection
    ) -> dict[str, float]:
        """The seconds of clips, each decoded; what is found is put down as it comes."""
        seconds, rows, saved = {}, [], time.monotonic()
        pool = ThreadPoolExecutor(THREADS)
        try:
            found = pool.map(seconds_or_complaint, [wav for wav, _ in clips])
            bar = progress_bar(found, total=len(clips), desc="checking clips", delay=2)
            for (wav, version), value in zip(clips, bar, strict=True):
                if isinstance(value, UserError):
                    self.broken.append(value)
                    continue
                seconds[wav] = value
                rows.append((os.fsencode(wav), *version, value))
                if time.monotonic() - saved > SAVED_EVERY:
                    save(known, rows)
                    rows, saved = [], time.monotonic()
        finally:  # what waits is not begun, where the user stops this
            pool.shutdown(wait=False, cancel_futures=True)
            save(known, rows)
        return seconds

    def refuse_broken(self) -> None:
        """Raise a UserError that names the first clip that cannot be read."""
        if not self.broken:
            return
        others = len(self.broken) - 1
        more = f" ({others} more are broken)" if others else ""
        raise UserError(
            f"{str(self.broken[0]).rstrip('.')}{more}: mend it, or leave such clips "
            "out with --skip_broken=True."
        )

    def say_broken(self) -> None:
        """Warn of each clip that cannot be read."""
        for complaint in self.broken:
            logger.warning("Left out: %s", complaint)
        if self.broken:
            left_out = len(self.broken), self.looked_at
            logger.warning("Left out: %d of %d clips.", *left_out)


# Helpers


def seconds_or_complaint(wav: str) -> float | UserError:
    """What a look at a clip finds."""
    try:
        return duration(wav)
    except UserError as complaint:
        return complaint


def versions(wavs: Iterable[str]) -> Iterator[tuple[str, tuple]]:
    """Each clip once, with its size and time of change."""
    for wav in dict.fromkeys(wavs):
        try:
            stat = os.stat(file_and_times(wav)[0])
        except OSError:
            yield wav, (None, None)  # equal to nothing in SQL
        else:
            yield wav, (stat.st_size, stat.st_mtime_ns)


def cache_folder() -> Path:
    """Where what is known of recordings is kept for later runs."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get(CACHE) or Path(home, "petl_modules"))


def index() -> sqlite3.Connection:
    """The database of clips; one in memory where none can be kept."""
    folder = cache_folder()
    path = folder / "clips.sqlite"
    with suppress(OSError, sqlite3.Error):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return opened(path)
        except sqlite3.OperationalError:  # it is locked, or may not be written
            raise
        except sqlite3.DatabaseError:  # it is damaged
            path.unlink()
            return opened(path)
    return opened(":memory:")


def opened(path: str | Path) -> sqlite3.Connection:
    """A database with its table, whose writers wait for one another."""
    known = sqlite3.connect(path, timeout=60)
    try:
        known.execute(SCHEMA)
        known.execute("SELECT seconds FROM clips_1 LIMIT 1").fetchone()
    except sqlite3.Error:
        known.close()
        raise
    return known


def save(known: sqlite3.Connection, rows: list[tuple]) -> None:
    """Put rows down, where the disk takes them."""
    try:
        with known:
            known.executemany("INSERT OR REPLACE INTO clips_1 VALUES (?,?,?,?)", rows)
    except sqlite3.Error as error:
        logger.info("The clips must be checked again next time: %s.", error)
