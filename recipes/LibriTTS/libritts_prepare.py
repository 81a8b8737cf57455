"""Entries of LibriTTS (Zen et al., 2019), as sentences to speak; LibriSpeech's layout
is read too, whose texts have no punctuation."""

from pathlib import Path

from petl_modules import data
from petl_modules.errors import UserError
from petl_modules.kinds import Names
from petl_modules.tts.corpora import chosen_speakers, hold_out

LAYOUT = (
    "it must be the unpacked LibriTTS with folders such as train-clean-100 "
    "(https://www.openslr.org/60)."
)


def prepare_speech(
    data_folder: str,
    sets: Names,
    speakers: Names | None,
    without: list[str],
    valid_sentences: int,
    test_sentences: int,
    seed: int,
) -> tuple[data.Splits, list[str]]:
    """Entries with a speaker and the normalised text; sentences that are held out are
    drawn from those of all speakers.

    Arguments
    ---------
    data_folder : str
        With one folder per set.
    sets : list of str
    speakers : list of str or None
        Their numbers; None for all of the sets.
    without : list of str
        Speakers to leave out, such as those whom a base must not hear.
    valid_sentences, test_sentences : int
        Drawn with the seed.
    seed : int

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the labels are the speakers, sorted.

    Raises
    ------
    UserError
        For a wrong folder, set or speaker, or a clip without its text.
    """
    folder = data.data_folder_of("LibriTTS", data_folder, sets[0], LAYOUT)
    for name in sets:
        if not (folder / name).is_dir():
            raise UserError(f"The data folder {folder} has no {name}: {LAYOUT}")
    below = (path for name in sets for path in data.files_below(folder / name))
    clips = sorted(path for path in below if data.is_audio(path))
    reader = {clip: clip.parent.parent.name for clip in clips}
    names = chosen_speakers(set(reader.values()), speakers, without)
    entries = {}
    for clip in (clip for clip in clips if reader[clip] in names):
        entries[data.clip_id(folder, clip)] = {
            "wav": str(clip),
            "text": text_of(clip),
            "speaker": reader[clip],
        }
    return hold_out(entries, valid_sentences, test_sentences, seed), names


def text_of(clip: Path) -> str:
    """The normalised text beside a clip, or its line of LibriSpeech's transcripts."""
    reader, chapter = clip.parent.parent.name, clip.parent.name
    lines = clip.with_name(f"{reader}-{chapter}.trans.txt")
    own = clip.with_name(f"{clip.stem}.normalized.txt")
    if own.is_file() or not lines.is_file():
        return " ".join(data.read_lines(own))
    texts = dict(line.split(" ", 1) for line in data.read_lines(lines) if " " in line)
    if clip.stem not in texts:
        raise UserError(f"{lines} has no line for {clip.name}.")
    return texts[clip.stem].lower()
