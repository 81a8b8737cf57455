"""Entries of the VCTK corpus (Yamagishi, Veaux and MacDonald, 2019)."""

from pathlib import Path

from petl_modules import data
from petl_modules.errors import UserError
from petl_modules.kinds import Names
from petl_modules.tts.corpora import chosen_speakers, hold_out

FOLDERS = ("wav48_silence_trimmed", "wav48")
MICROPHONES = ("mic1", "mic2")
HELD_OUT = 10  # one utterance in ten validates, one tests
LAYOUT = (
    "it must be the unpacked VCTK-Corpus with wav48_silence_trimmed/ (0.92) or "
    "wav48/ (0.80) (https://datashare.ed.ac.uk/handle/10283/3443)."
)


def prepare_vctk(
    data_folder: str,
    microphone: str = "mic1",
    speakers: Names | None = None,
    without: list[str] | tuple = (),
) -> tuple[data.Splits, list[str]]:
    """Entries for telling speakers apart: of each speaker's sorted utterances the first
    80 % train, the next 10 % validate, the last 10 % test.

    Arguments
    ---------
    data_folder : str
        With wav48_silence_trimmed/ or wav48/.
    microphone : str
        mic1 or mic2; version 0.92 has two recordings of every utterance.
    speakers : list of str or None
        Those to tell apart; None for all.
    without : list of str
        Those to leave out.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the classes are the speakers, sorted.

    Raises
    ------
    UserError
        For a wrong folder, microphone or speaker, or one with too few utterances.
    """
    found = recordings(data_folder, microphone)
    names = chosen_speakers(found, speakers, without)
    splits = {name: {} for name in data.SPLITS}
    for speaker in names:
        paths = found[speaker]
        count = max(1, len(paths) // HELD_OUT)
        if len(paths) < 3:
            raise UserError(f"The speaker {speaker} has fewer than 3 utterances.")
        rest = len(paths) - 2 * count
        for place, path in enumerate(paths):
            name = data.SPLITS[(place >= rest) + (place >= rest + count)]
            key = f"{speaker}/{path.name}"
            splits[name][key] = {"wav": str(path), "label": speaker}
    return splits, names


def prepare_speech(
    data_folder: str,
    microphone: str,
    speakers: Names | None,
    without: list[str],
    valid_sentences: int,
    test_sentences: int,
    seed: int,
) -> tuple[data.Splits, list[str]]:
    """Entries for speech synthesis: what was read, and by whom. Utterances without a
    text, as all of p315 are, are left out.

    Arguments
    ---------
    data_folder : str
        With txt/ beside the recordings.
    microphone, speakers, without
        As of `prepare_vctk`.
    valid_sentences, test_sentences : int
        Sentences held out, drawn with the seed from those of all speakers together.
    seed : int

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the labels are the speakers, sorted.

    Raises
    ------
    UserError
        For a wrong folder, microphone or speaker.
    """
    found = recordings(data_folder, microphone)
    texts = data.data_folder_of("VCTK", data_folder, "txt", LAYOUT) / "txt"
    entries = {}
    for speaker, paths in found.items():
        for path in paths:
            name = path.stem.removesuffix(f"_{microphone}")
            text = texts / speaker / f"{name}.txt"
            if text.is_file():
                entries[f"{speaker}/{path.name}"] = {
                    "wav": str(path),
                    "text": " ".join(data.read_lines(text)),
                    "speaker": speaker,
                }
    spoken = {entry["speaker"] for entry in entries.values()}
    names = chosen_speakers(spoken, speakers, without)
    kept = {key: entry for key, entry in entries.items() if entry["speaker"] in names}
    return hold_out(kept, valid_sentences, test_sentences, seed), names


def recordings(data_folder: str, microphone: str) -> dict[str, list[Path]]:
    """`{speaker: paths}`, sorted, of the speakers that the microphone has."""
    folder = data.data_folder_of("VCTK", data_folder, ".", LAYOUT)
    if microphone not in MICROPHONES:
        raise UserError(f"microphone={microphone} is none of mic1 and mic2.")
    home = next((folder / n for n in FOLDERS if (folder / n).is_dir()), None)
    if home is None:
        raise UserError(f"The data folder {folder} has no wav48: {LAYOUT}")
    speakers = data.folders_in(home)
    found = {path.name: utterances(path, microphone) for path in speakers}
    # such as p280 and p315, which have no second microphone
    return {name: paths for name, paths in found.items() if paths}


def utterances(speaker: Path, microphone: str) -> list[Path]:
    """A speaker's recordings, sorted; all of them where microphones have no names."""
    paths = data.clips_in(speaker)
    named = [path for path in paths if path.stem.endswith(("_mic1", "_mic2"))]
    return [p for p in paths if p not in named or p.stem.endswith(microphone)]
