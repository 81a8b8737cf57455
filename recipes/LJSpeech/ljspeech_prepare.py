"""Entries of LJSpeech (Ito and Johnson, 2017), as sentences to speak."""

from petl_modules import data
from petl_modules.errors import UserError
from petl_modules.tts.corpora import hold_out

SPEAKER = "LJ"
LAYOUT = (
    "it must be the unpacked LJSpeech-1.1 with metadata.csv and wavs/ "
    "(https://keithito.com/LJ-Speech-Dataset)."
)


def prepare_speech(
    data_folder: str, valid_sentences: int, test_sentences: int, seed: int
) -> tuple[data.Splits, list[str]]:
    """Entries with the normalised text, all of one speaker.

    Arguments
    ---------
    data_folder : str
        With metadata.csv, whose lines are id, text and normalised text, parted by `|`.
    valid_sentences, test_sentences : int
        Drawn with the seed.
    seed : int

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the label is the speaker.

    Raises
    ------
    UserError
        For a wrong folder or a damaged list.
    """
    folder = data.data_folder_of("LJSpeech", data_folder, "metadata.csv", LAYOUT)
    entries = {}
    for place, line in enumerate(data.read_lines(folder / "metadata.csv"), start=1):
        key, *rest = line.split("|")
        if len(rest) != 2:
            raise UserError(
                f"{folder / 'metadata.csv'}, line {place}, has {len(rest) + 1} fields "
                "in the place of 3."
            )
        wav = data.inside(folder / "wavs", f"{key}.wav")
        if key in entries:
            raise UserError(f"{folder / 'metadata.csv'}, line {place}, repeats {key}.")
        entries[key] = {"wav": str(wav), "text": rest[1], "speaker": SPEAKER}
    return hold_out(entries, valid_sentences, test_sentences, seed), [SPEAKER]
