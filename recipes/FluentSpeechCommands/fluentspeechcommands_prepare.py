"""Entries of Fluent Speech Commands (Lugosch et al., arXiv 1904.03670)."""

from petl_modules import data
from petl_modules.errors import UserError

SLOTS = ("action", "object", "location")
COLUMNS = ("path", "speakerId", "transcription", *SLOTS)
LAYOUT = (
    "it must be the unpacked fluent_speech_commands_dataset with data/ and wavs/ "
    "(https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-"
    "understanding-research/)."
)


def prepare_fluentspeechcommands(data_folder):
    """Entries of the official split; an intent is action, object and location.

    Arguments
    ---------
    data_folder : str
        With data/{train,valid,test}_data.csv and wavs/.

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
    splits = {name: {} for name in data.SPLITS}
    for name, entries in splits.items():
        table = folder / "data" / f"{name}_data.csv"
        for place, row in data.read_table(table, COLUMNS):
            if row["path"] in entries:
                raise UserError(f"{place} repeats {row['path']}.")
            entries[row["path"]] = {
                "wav": str(data.inside(folder, row["path"])),
                "label": " ".join(row[slot] for slot in SLOTS),
                "text": row["transcription"],
                "speaker": row["speakerId"],
            }
    return splits, sorted({entry["label"] for entry in splits["train"].values()})
