"""Entries of L2-ARCTIC (Zhao et al., 2018), as sentences to speak."""

from petl_modules import data
from petl_modules.errors import UserError
from petl_modules.kinds import Names
from petl_modules.tts.corpora import chosen_speakers, hold_out

# Comes beside the speakers: minutes in which each of them describes a picture
SPONTANEOUS = "suitcase_corpus"
LAYOUT = (
    "it must be the unpacked L2-ARCTIC with a folder for every speaker, such as ABA, "
    "with wav/ and transcript/ (https://psi.engr.tamu.edu/l2-arctic-corpus)."
)


def prepare_speech(
    data_folder: str,
    speakers: Names | None,
    without: list[str],
    valid_sentences: int,
    test_sentences: int,
    seed: int,
) -> tuple[data.Splits, list[str]]:
    """Entries with a speaker and a text. All speakers read the same prompts: those that
    are held out are held out of every speaker.

    Arguments
    ---------
    data_folder : str
        With speakers' folders.
    speakers : list of str or None
        Such as [ABA, YKWK]; None for all.
    without : list of str
        Speakers to leave out.
    valid_sentences, test_sentences : int
        Prompts drawn with the seed.
    seed : int

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the labels are the speakers, sorted.

    Raises
    ------
    UserError
        For a wrong folder or speaker, or a clip without its transcript.
    """
    folder = data.data_folder_of("L2-ARCTIC", data_folder, ".", LAYOUT)
    found = [p.name for p in data.folders_in(folder) if (p / "wav").is_dir()]
    found = [name for name in found if name != SPONTANEOUS]
    if not found:
        raise UserError(f"The data folder {folder} has no speakers: {LAYOUT}")
    names = chosen_speakers(found, speakers, without)
    entries = {}
    for name in names:
        for clip in data.clips_in(folder / name / "wav"):
            transcript = folder / name / "transcript" / f"{clip.stem}.txt"
            entries[data.clip_id(folder, clip)] = {
                "wav": str(clip),
                "text": " ".join(data.read_lines(transcript)),
                "speaker": name,
                "prompt": clip.stem,
            }
    return hold_out(entries, valid_sentences, test_sentences, seed), names
