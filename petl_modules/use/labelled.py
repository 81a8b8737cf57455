"""Recordings with what is known of them, for an adapter to be judged on."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import DataLoader

from petl_modules.backbones import Backbone
from petl_modules.console import Parser, above_zero
from petl_modules.data import SPLITS, files_below, is_audio
from petl_modules.data.batch import Batch
from petl_modules.data.datasets import make_dataset
from petl_modules.data.manifests import escaped
from petl_modules.data.own import read_own
from petl_modules.data.own_columns import Columns
from petl_modules.data.own_rows import Row
from petl_modules.data.row_files import read_rows
from petl_modules.data.trials import entries_of_trials, homes_of, read_trials
from petl_modules.data.units import characters
from petl_modules.errors import UserError, one_of
from petl_modules.files import write_json
from petl_modules.tasks.base import lengths

WAV = "wav"  # the column of paths, as manifests have it
Entries = dict[str, dict[str, Any]]


def add_recordings(parser: Parser, recordings: str) -> None:
    """The options of a command that tries an adapter on recordings.

    Arguments
    ---------
    parser : Parser
    recordings : str
        What the help calls them.
    """
    add = parser.add_argument
    add("adapter", metavar="ADAPTER", help="The folder of a run.")
    add("data", nargs="?", metavar="DATA", help=recordings)
    add("--split", default="test", help="Of the run's own clips (%(default)s).")
    add("--source", help="The backbone, if it is not where the adapter says.")
    size = "How many clips are computed together (%(default)s)."
    add("--batch_size", type=above_zero, default=16, help=size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, help="Where to compute (%(default)s).")


def entries_of(run: str | Path, data: str | Path | None, split: str) -> Entries:
    """What there is to judge by: `{id: {wav, label, labels or text, ...}}`.

    Arguments
    ---------
    run : str or Path
        The folder of a run, whose own manifests are taken where no data is given.
    data : str or Path or None
        A folder with one folder of recordings per class; a manifest in JSON; or a table
        with the columns path (or wav) and label, labels or text, as of
        `petl_modules.data.own`.
    split : str
        Of the run's manifests: train, valid or test.

    Raises
    ------
    UserError
        For data that is not there, or not in one of these forms.
    """
    if data is None:
        manifest = Path(run) / "data" / f"{one_of('split', split, SPLITS)}.json"
        if not manifest.is_file():
            raise UserError(
                f"{run} keeps no manifest of its {split} clips: name a folder, a "
                "manifest or a csv table with recordings to judge by."
            )
        return read_manifest(manifest)
    path = Path(data)
    if path.is_dir():
        found = class_folders(path)
    elif path.suffix.lower() == ".json":
        found = read_manifest(path)
    else:
        found = read_listed(path)
    if not found:
        raise UserError(f"{path} holds no recordings.")
    return found


def entries_of_list(trials: str | Path, data: str | Path | None) -> Entries:
    """The recordings of a list of trials of speaker verification, as of
    `petl_modules.data.trials`.

    Arguments
    ---------
    trials : str or Path
    data : str or Path
        The folder that its paths are in, or one in VoxCeleb's layout.

    Raises
    ------
    UserError
        For a list or folder that cannot be used.
    """
    if data is None or not Path(data).is_dir():
        raise UserError(f"--trials={trials} needs DATA, the folder of its paths.")
    folder = Path(data).resolve()
    return entries_of_trials(read_trials(trials, homes_of(folder)), folder)


def dataset_of(
    entries: Entries, sample_rate: int, max_duration: float | None
) -> DynamicItemDataset:
    """A SpeechBrain data set of entries, with id, wav and sig."""
    with TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.json"
        write_json(manifest, {key: escaped(entry) for key, entry in entries.items()})
        return make_dataset(manifest, sample_rate, max_duration, cache_mib=0)


def batches_of(
    dataset: DynamicItemDataset, batch_size: int, backbone: Backbone
) -> Iterator[Any]:
    """The data set in batches, in its order.

    Raises
    ------
    UserError
        For a clip that is longer than the backbone hears at once.
    """
    room = None if backbone.has_head else backbone.capacity()  # else it cuts clips
    for batch in DataLoader(dataset, batch_size, collate_fn=Batch):
        for key, samples in zip(batch.id, lengths(batch.sig).tolist(), strict=True):
            if room is not None and samples > room:
                rate = backbone.sample_rate
                raise UserError(
                    f"The clip {key} is {samples / rate:.1f} s long, more than the "
                    f"{room / rate:g} s that {backbone.source} hears at once, and the "
                    "adapter was trained without max_duration: cut it into parts."
                )
        yield batch


# Helpers


def class_folders(folder: Path) -> Entries:
    """Recordings whose class is the folder that they are in."""
    found = {}
    for path in files_below(folder):
        name = path.relative_to(folder)
        if is_audio(path) and len(name.parts) > 1:
            found[name.as_posix()] = {"wav": str(path), "label": name.parts[0]}
    if not found:
        raise UserError(
            f"{folder} has no folders of recordings: it must hold one for each class."
        )
    return found


def read_manifest(path: Path) -> Entries:
    """The entries of a manifest as runs write them."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        entries = {key: dict(entry) for key, entry in found.items()}
    except OSError:
        raise UserError(f"There is no manifest {path}.") from None
    except (ValueError, TypeError, AttributeError):
        raise UserError(
            f"{path} is no manifest: {{id: {{wav, label}}, ...}}."
        ) from None
    for key, entry in entries.items():
        if not isinstance(entry.get("wav"), str):
            raise UserError(f"{path}: the entry {key} names no wav.")
    return {key: plain(path.parent, entry) for key, entry in entries.items()}


def read_listed(path: Path) -> Entries:
    """The entries of a table of recordings, wherever they lie."""
    columns = Columns(clip_folder="/")
    if WAV in read_rows(path, WAV).columns:
        columns = replace(columns, path_column=WAV)
    own = read_own(path, columns)
    own.refuse()
    tags = any(row.labels for row in own.rows)
    return {
        os.path.relpath(row.wav, path.parent): entry_of(row, tags) for row in own.rows
    }


def entry_of(row: Row, tags: bool) -> dict[str, Any]:
    """What is known of a recording; with `tags` also that it has none of them."""
    said = {"label": row.label, "text": row.text}
    known: dict[str, Any] = {key: value for key, value in said.items() if value}
    if tags:
        known["labels"] = list(row.labels)
    if not known:
        raise UserError(f"{row.place}, has no label, labels or text to judge by.")
    return plain(Path("/"), {"wav": row.wav, **known})


def plain(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry with its path from here, without SpeechBrain's doubled braces, and with
    the units of its text if they are not said."""
    entry = {key: unescaped(value) for key, value in entry.items()}
    entry["wav"] = str(folder / entry["wav"])
    if "text" in entry and "units" not in entry:
        _, units_of = characters([entry["text"]], None)
        entry["units"] = " ".join(units_of(entry["text"]))
    return entry


def unescaped(value: Any) -> Any:
    """A value of a manifest without SpeechBrain's doubled braces."""
    if isinstance(value, list):
        return [unescaped(item) for item in value]
    if not isinstance(value, str):
        return value
    return value.replace("{{", "{").replace("}}", "}")
