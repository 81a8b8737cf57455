"""Entries of the VCTK corpus (Yamagishi, Veaux and MacDonald, 2019)."""

from petl_modules import data
from petl_modules.errors import UserError

FOLDERS = ("wav48_silence_trimmed", "wav48")
SUFFIXES = {".wav", ".flac"}
HELD_OUT = 10  # one utterance in ten validates, one tests
LAYOUT = (
    "it must be the unpacked VCTK-Corpus with wav48_silence_trimmed/ (0.92) or "
    "wav48/ (0.80) (https://datashare.ed.ac.uk/handle/10283/3443)."
)


def prepare_vctk(data_folder, microphone="mic1"):
    """Entries for telling speakers apart: of each speaker's sorted utterances the first
    80 % train, the next 10 % validate, the last 10 % test.

    Arguments
    ---------
    data_folder : str
        With wav48_silence_trimmed/ or wav48/.
    microphone : str
        mic1 or mic2; version 0.92 has two recordings of every utterance.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the classes are the speakers, sorted.

    Raises
    ------
    UserError
        For a wrong folder or microphone, or a speaker with too few utterances.
    """
    folder = data.data_folder_of("VCTK", data_folder, ".", LAYOUT)
    if microphone not in ("mic1", "mic2"):
        raise UserError(f"microphone={microphone} is none of mic1 and mic2.")
    home = next((folder / n for n in FOLDERS if (folder / n).is_dir()), None)
    if home is None:
        raise UserError(f"The data folder {folder} has no wav48: {LAYOUT}")
    splits = {name: {} for name in data.SPLITS}
    for speaker in sorted(path for path in home.iterdir() if path.is_dir()):
        paths = utterances(speaker, microphone)
        if not paths:
            continue  # such as p280 and p315, which have no second microphone
        count = max(1, len(paths) // HELD_OUT)
        if len(paths) < 3:
            raise UserError(f"The speaker {speaker.name} has fewer than 3 utterances.")
        rest = len(paths) - 2 * count
        for place, path in enumerate(paths):
            name = data.SPLITS[(place >= rest) + (place >= rest + count)]
            splits[name][path.stem] = {"wav": str(path), "label": speaker.name}
    return splits, sorted({entry["label"] for entry in splits["train"].values()})


def utterances(speaker, microphone):
    """A speaker's recordings, sorted; all of them where microphones have no names."""
    paths = sorted(p for p in speaker.iterdir() if p.suffix.lower() in SUFFIXES)
    named = [path for path in paths if path.stem.endswith(("_mic1", "_mic2"))]
    return [p for p in paths if p not in named or p.stem.endswith(microphone)]
