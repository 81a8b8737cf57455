"""Entries of FLEURS (Conneau et al., arXiv 2205.12446), one language of it."""

from petl_modules import data
from petl_modules.data.units import normalized, with_units
from petl_modules.errors import UserError

FILES = {"train": "train", "valid": "dev", "test": "test"}
# columns of the tsv files, which have no header
WAV, TEXT, COLUMNS = 1, 3, 7
LAYOUT = (
    "it must be the folder of one language, such as en_us, with train.tsv, dev.tsv, "
    "test.tsv and the unpacked audio/train, audio/dev and audio/test "
    "(https://huggingface.co/datasets/google/fleurs)."
)


def prepare_fleurs(
    data_folder: str, language: str | None, tokens: str, vocab_size: int
) -> tuple[data.Splits, list[str]]:
    """Entries of the official splits, with texts as of
    `petl_modules.data.units.normalized`.

    Arguments
    ---------
    data_folder : str
        Of one language, with {train,dev,test}.tsv, and the recordings in folders train,
        dev and test, there or in a folder audio.
    language : str or None
        FLEURS's code, such as en_us; None for the name of the folder.
    tokens, vocab_size
        As of `petl_modules.data.units.with_units`.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`.

    Raises
    ------
    UserError
        For a wrong folder or tsv, or a recording that it lists twice.
    """
    folder = data.data_folder_of("FLEURS", data_folder, "train.tsv", LAYOUT)
    splits = {name: {} for name in FILES}
    for name, part in FILES.items():
        homes = (folder / "audio" / part, folder / part)
        home = next((home for home in homes if home.is_dir()), None)
        if home is None:
            raise UserError(f"The data folder {folder} has no audio/{part}: {LAYOUT}")
        path = folder / f"{part}.tsv"
        for line in data.read_lines(path):
            columns = line.split("\t")
            if len(columns) != COLUMNS:
                raise UserError(
                    f"{path} has a line with {len(columns)} columns, not {COLUMNS}: "
                    f"{line[:40]}."
                )
            wav = data.inside(home, columns[WAV])
            text = normalized(columns[TEXT], language or folder.name)
            if (key := data.clip_id(home, wav)) in splits[name]:
                raise UserError(f"{path} repeats {key}.")
            splits[name][key] = {"wav": str(wav), "text": text}
    return with_units(splits, tokens, vocab_size)
