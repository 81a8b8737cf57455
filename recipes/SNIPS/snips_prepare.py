"""Entries of Audio SNIPS (Lai et al., arXiv 2010.13105), in s3prl's layout."""

from petl_modules import data
from petl_modules.data.units import with_units
from petl_modules.errors import UserError
from petl_modules.kinds import Names

LISTING = "all.iob.snips.txt"
PUNCTUATION = set("?!.,;-")
OUTSIDE = "O"
ALL = ["all"]
LAYOUT = (
    f"it must hold {LISTING} and the folders train, valid and test of wav files, as "
    "s3prl's preparation of SUPERB's slot filling leaves them "
    "(https://github.com/s3prl/s3prl)."
)


def prepare_snips(
    data_folder: str,
    train_speakers: Names,
    valid_speakers: Names,
    test_speakers: Names,
    tokens: str,
    vocab_size: int,
) -> tuple[data.Splits, list[str]]:
    """Entries whose text is the words in capitals, marks around the values of slots,
    and a mark for the intent, as `petl_modules.tasks.SlotFilling` reads it.

    Arguments
    ---------
    data_folder : str
        With all.iob.snips.txt, whose lines are `SPEAKER-snips-SPLIT-NUMBER BOS words
        EOS`, a tab, and a tag for each of them: O, or a slot's type; that of EOS is the
        intent.
    train_speakers, valid_speakers, test_speakers : list of str
        Voices; their utterances of the other splits are not read. [all] stands for
        every voice of the split.
    tokens, vocab_size
        As of `petl_modules.data.units.with_units`.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`.

    Raises
    ------
    UserError
        For a wrong folder or list, or a speaker who is not in it.
    """
    folder = data.data_folder_of("Audio SNIPS", data_folder, LISTING, LAYOUT)
    speakers = dict(
        zip(data.SPLITS, (train_speakers, valid_speakers, test_speakers), strict=True)
    )
    splits = {name: {} for name in data.SPLITS}
    for place, line in enumerate(data.read_lines(folder / LISTING), start=1):
        key, text = read_entry(line, f"{folder / LISTING}, entry {place},")
        speaker, _, split, _ = key.split("-")
        if speaker in speakers[split] or list(speakers[split]) == ALL:
            wav = data.inside(folder / split, f"{key}.wav")
            splits[split][key] = {"wav": str(wav), "text": text}
    for split, entries in splits.items():
        there = {key.split("-")[0] for key in entries}
        asked = there if list(speakers[split]) == ALL else set(speakers[split])
        if absent := asked - there:
            raise UserError(
                f"{folder / LISTING} has no {split} utterances of {min(absent)}: "
                f"choose others with --{split}_speakers."
            )
    return with_units(splits, tokens, vocab_size)


def read_entry(line: str, place: str) -> tuple[str, str]:
    """The id and the marked text of an utterance."""
    sides = [side.split() for side in line.split("\t")]
    fine = len(sides) == 2 and len(sides[0]) == len(sides[1]) + 1 > 3
    key = sides[0][0].split("-")
    if not fine or len(key) != 4 or key[2] not in data.SPLITS:
        raise UserError(f"{place} is no id, words, a tab and a tag for each: {LAYOUT}")
    (name, _, *words, _), (_, *tags, intent) = sides
    return name, f"{marked(words, tags)} <intent={intent}>"


def marked(words: list[str], tags: list[str]) -> str:
    """Words in capitals, with marks around runs of a tag other than O.

    Example
    -------
    >>> marked("play abba & co !".split(), "O artist artist artist O".split())
    'PLAY <B-artist> ABBA AND CO <E-artist>'
    """
    pairs = [
        ("AND" if word == "&" else word.upper(), tag)
        for word, tag in zip(words, tags, strict=True)
        if word not in PUNCTUATION
    ]
    text, slot = [], OUTSIDE
    for word, tag in [*pairs, ("", OUTSIDE)]:
        kind = tag.removeprefix("B-").removeprefix("I-")
        if kind != slot or tag.startswith("B-"):
            text += [f"<E-{slot}>"] * (slot != OUTSIDE)
            text += [f"<B-{kind}>"] * (kind != OUTSIDE)
            slot = kind
        text.append(word)
    return " ".join(text).strip()
