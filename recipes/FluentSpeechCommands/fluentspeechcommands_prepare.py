"""Entries of Fluent Speech Commands (Lugosch et al., arXiv 1904.03670)."""

import itertools

from petl_modules import data
from petl_modules.data.manifests import PARTS
from petl_modules.errors import UserError

SLOTS = ("action", "object", "location")
COLUMNS = ("path", "speakerId", "transcription", *SLOTS)
LAYOUT = (
    "it must be the unpacked fluent_speech_commands_dataset with data/ and wavs/ "
    "(https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-"
    "understanding-research/)."
)


def prepare_fluentspeechcommands(
    data_folder: str, slots: bool = False
) -> tuple[data.Splits, list[str]]:
    """Entries of the official split; an intent is action, object and location.

    Arguments
    ---------
    data_folder : str
        With data/{train,valid,test}_data.csv and wavs/.
    slots : bool
        Whether an intent's parts are told apart each by itself: the classes are then
        all combinations of those that train, such as "increase | heat | kitchen".

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the classes are the intents, such as
        "increase heat kitchen", sorted. Entries hold text and speaker too.

    Raises
    ------
    UserError
        For a wrong folder or csv.
    """
    folder = data.data_folder_of(
        "Fluent Speech Commands", data_folder, "data/train_data.csv", LAYOUT
    )
    splits, between = {name: {} for name in data.SPLITS}, PARTS if slots else " "
    for name, entries in splits.items():
        table = folder / "data" / f"{name}_data.csv"
        for place, row in data.read_table(table, COLUMNS):
            if row["path"] in entries:
                raise UserError(f"{place} repeats {row['path']}.")
            entries[row["path"]] = {
                "wav": str(data.inside(folder, row["path"])),
                "label": between.join(row[slot] for slot in SLOTS),
                "text": row["transcription"],
                "speaker": row["speakerId"],
            }
    labels = sorted({entry["label"] for entry in splits["train"].values()})
    if slots:
        parts = zip(*(label.split(PARTS) for label in labels), strict=True)
        combined = itertools.product(*(sorted(set(part)) for part in parts))
        labels = [PARTS.join(values) for values in combined]
    return splits, labels
