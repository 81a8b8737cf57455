"""Entries of IEMOCAP (Busso et al., 2008)."""

import re
from collections.abc import Iterator
from pathlib import Path

from petl_modules import data
from petl_modules.errors import UserError

FOLDS = tuple(range(11))
SESSIONS = (1, 2, 3, 4, 5)
# Fold 0, by session
BY_SESSION = {1: "train", 2: "train", 3: "train", 4: "valid", 5: "test"}
LABELS = {
    "neu": "neutral",
    "hap": "happy",
    "exc": "happy",
    "sad": "sad",
    "ang": "angry",
}
# [start - end], utterance, emotion, and the ratings, which do not matter here
TURN = re.compile(r"^\[[\d. -]+\]\s+(Ses\w+_[FM]\d+)\s+(\w+)\s")
LAYOUT = (
    "it must be IEMOCAP_full_release with Session1 to Session5 "
    "(https://sail.usc.edu/iemocap/)."
)


def prepare_iemocap(data_folder: str, fold: int) -> tuple[data.Splits, list[str]]:
    """Entries of one of ten folds: four sessions train, the speakers of the fifth
    validate and test.

    Folds 2s - 1 and 2s hold out session s and test its woman and its man. Fold 0 is the
    split of arXiv 2303.03267: sessions 1 to 3 train, 4 validates, 5 tests.

    Arguments
    ---------
    data_folder : str
        With Session1 to Session5.
    fold : int
        0 to 10.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`: angry, happy (with excited), neutral,
        sad; other utterances are left out.

    Raises
    ------
    UserError
        For a wrong folder.
    """
    folder = data.data_folder_of("IEMOCAP", data_folder, "Session1", LAYOUT)
    if fold not in FOLDS:
        raise UserError(f"fold={fold} is none of IEMOCAP's folds 0 to 10.")
    splits = {name: {} for name in data.SPLITS}
    for session in SESSIONS:
        for utterance, emotion in turns(folder / f"Session{session}"):
            # F or M, whoever wears the markers
            speaker = utterance.rsplit("_", 1)[1][0]
            name = split_of(fold, session, speaker)
            dialog = utterance.rsplit("_", 1)[0]
            clip = f"Session{session}/sentences/wav/{dialog}/{utterance}.wav"
            splits[name][utterance] = {
                "wav": str(data.inside(folder, clip)),
                "label": LABELS[emotion],
                "speaker": f"Ses{session:02d}{speaker}",
            }
    return splits, sorted(set(LABELS.values()))


def split_of(fold: int, session: int, speaker: str) -> str:
    """The split that a session's speaker, F or M, is in."""
    if fold == 0:
        return BY_SESSION[session]
    if session != (fold + 1) // 2:
        return "train"
    return "test" if speaker == "FM"[(fold + 1) % 2] else "valid"


def turns(session: Path) -> Iterator[tuple[str, str]]:
    """`(utterance, emotion)` of a session, for the emotions that count."""
    folder = session / "dialog" / "EmoEvaluation"
    # the release holds ._ files, which some file systems leave behind
    files = [f for f in sorted(folder.glob("Ses*.txt")) if f.is_file()]
    if not files:
        raise UserError(f"There are no annotations (Ses*.txt) in {folder}: {LAYOUT}")
    for path in files:
        for line in data.read_lines(path):
            found = TURN.match(line)
            if found and found.group(2) in LABELS:
                yield found.groups()
