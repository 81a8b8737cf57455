"""Entries of one's own recordings, from a table, JSON or a folder, for every task."""

import logging
from pathlib import Path

from petl_modules import data
from petl_modules.data.own import read_own
from petl_modules.data.own_columns import LEARNS, Columns, OwnTask
from petl_modules.data.own_splits import Division
from petl_modules.data.spoken_text import SpokenText
from petl_modules.data.units import with_units
from petl_modules.errors import UserError

logger = logging.getLogger("petl_modules.recipes.owndata")

FORMS = (
    "--data=TABLE names a csv, tsv or JSON list of recordings with the column path and "
    "label, labels or text, or a folder of recordings"
)


def prepare_owndata(
    data: str | None,
    task: OwnTask,
    columns: Columns,
    division: Division,
    spoken: SpokenText,
    tokens: str = "char",
    vocab_size: int = 500,
    output_folder: str = "results",
) -> tuple[data.Splits, list[str] | None]:
    """Entries of the recordings that a list names.

    Arguments
    ---------
    data : str or None
        A csv or tsv table, JSON, a folder that the library datasets saved, or a folder
        of recordings. None: of tts a voice that nobody has, which is made under
        `output_folder`.
    task : str
        What is learnt: a class (classification), several labels a clip (tags), text by
        CTC (ctc) or by a backbone that writes (seq2seq), or voices (tts).
    columns : Columns
    division : Division
    spoken : SpokenText
    tokens : str
        Of ctc: char, or bpe for SentencePiece units.
    vocab_size : int
        Of bpe.
    output_folder : str

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`.

    Raises
    ------
    UserError
        For a list that cannot be read or used; it names the row.
    """
    if data is None and task == "tts":
        from petl_modules.tts.made_voice import made_voice  # takes seconds to load

        data = str(made_voice(Path(output_folder) / "made_voice"))
        logger.info("No data: using a made voice, %s.", data)
    if data is None:
        raise UserError(f"{FORMS}.")
    own = read_own(data, columns, task)
    own.refuse()
    own.say_left_out()
    if LEARNS[task] == "text":
        own.rows = [spoken.row(row, plain=task == "ctc") for row in own.rows]
    splits = division.of_rows(own, task)
    if task == "ctc":
        return with_units(splits, tokens, vocab_size)
    return splits, labels_of(splits, task)


def labels_of(splits: data.Splits, task: str) -> list[str] | None:
    """The classes, labels or voices, sorted; None for text as a backbone writes it."""
    entries = [entry for part in splits.values() for entry in part.values()]
    if task == "seq2seq":
        return None
    if task == "tags":
        return sorted({label for entry in entries for label in entry["labels"]})
    key = {"classification": "label", "tts": "speaker"}[task]
    return sorted({entry[key] for entry in entries})
