"""Entries of LJSpeech (Ito and Johnson, 2017), as sentences to speak."""

from pathlib import Path

from petl_modules import data
from petl_modules.errors import UserError
from petl_modules.tts.corpora import hold_out, words_of

SPEAKER = "LJ"
HELD_OUT = 100  # sentences, as many for validation as for the test
SUFFIXES = (".wav", ".flac", ".ogg")
LAYOUT = (
    "it must be the unpacked LJSpeech-1.1 with metadata.csv and wavs/ "
    "(https://keithito.com/LJ-Speech-Dataset)."
)


def prepare_speech(
    data_folder: str,
    seed: int,
    valid_sentences: int = HELD_OUT,
    test_sentences: int = HELD_OUT,
) -> tuple[data.Splits, list[str]]:
    """Entries with the normalised text, all of one speaker.

    Arguments
    ---------
    data_folder : str
        With metadata.csv, whose lines are id, text and normalised text, parted by `|`,
        and the clips `wavs/ID.wav`, .flac or .ogg.
    seed : int
    valid_sentences, test_sentences : int
        Drawn with the seed; clips of the same words are one sentence.

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
        if key in entries:
            raise UserError(f"{folder / 'metadata.csv'}, line {place}, repeats {key}.")
        entries[key] = {
            "wav": str(clip_of(folder / "wavs", key)),
            "text": rest[1],
            "speaker": SPEAKER,
            "prompt": words_of(rest[0]),
        }
    return hold_out(entries, valid_sentences, test_sentences, seed), [SPEAKER]


def clip_of(folder: Path, key: str) -> Path:
    """The recording of an id, in whichever format it is; .wav where there is none."""
    paths = [data.inside(folder, key + suffix) for suffix in SUFFIXES]
    return next(filter(Path.is_file, paths), paths[0])
