"""Entries of L2-ARCTIC (Zhao et al., 2018), as sentences to speak."""

from petl_modules import data
from petl_modules.errors import UserError
from petl_modules.tts.corpora import chosen_speakers, hold_out

LAYOUT = (
    "it must be the unpacked L2-ARCTIC with a folder for every speaker, such as ABA, "
    "with wav/ and transcript/ (https://psi.engr.tamu.edu/l2-arctic-corpus)."
)


def prepare_speech(
    data_folder, speakers, without, valid_sentences, test_sentences, seed
):
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
    found = [path.parent.name for path in folder.glob("*/wav") if path.is_dir()]
    if not found:
        raise UserError(f"The data folder {folder} has no speakers: {LAYOUT}")
    names = chosen_speakers(found, speakers, without)
    entries = {}
    for clip in (clip for name in names for clip in folder.glob(f"{name}/wav/*.wav")):
        speaker = clip.parent.parent
        transcript = speaker / "transcript" / f"{clip.stem}.txt"
        entries[f"{speaker.name}_{clip.stem}"] = {
            "wav": str(clip),
            "text": " ".join(data.read_lines(transcript)),
            "speaker": speaker.name,
            "prompt": clip.stem,
        }
    return hold_out(entries, valid_sentences, test_sentences, seed), names
