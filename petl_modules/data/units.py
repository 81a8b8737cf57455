"""Text as symbols that a clip's steps of time can be labelled with, and back.

Symbols are characters or SentencePiece units, learnt from the training text alone. The
space between words is a symbol of its own or the beginning of a unit, and is written as
SentencePiece does. Marks in angle brackets, such as `<B-artist>`, are one symbol each
and no part of any word. To spell symbols out again nothing but the symbols is needed.
"""

import io
import logging
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import sentencepiece

from petl_modules.errors import UserError, one_of

logger = logging.getLogger(__name__)

Splits = dict[str, dict[str, dict[str, Any]]]
# Symbols, and the function that parts a text into them
Spelling = tuple[list[str], Callable[[str], list[str]]]

BLANK = "<blank>"
TOKENS = ("char", "bpe")
SPACE = "\u2581"  # SentencePiece's
MARK = re.compile(r"<[^<>]+>")
# written without spaces between words; languages by ISO 639
UNSPACED = {"cmn", "ja", "km", "lo", "my", "th", "yue"}
DOTTED = {"az", "tr"}  # their capital of i has a dot


def with_units(
    splits: Splits, tokens: str = "char", vocab_size: int = 500
) -> tuple[Splits, list[str]]:
    """Add to every entry the units of its text, parted by spaces.

    What the training text lacks has no symbol: it is left out of the units of the
    held-out texts, where it counts as an error, and said in the log.

    Arguments
    ---------
    splits : dict
        `{split: {id: {text, ...}}}`.
    tokens : str
        char or bpe.
    vocab_size : int
        Number of symbols, for bpe.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the labels are the blank and the
        symbols.

    Raises
    ------
    UserError
        For a number of symbols that does not suit the training text.

    Example
    -------
    >>> entries = {"x": {"text": "A BAA"}}
    >>> splits, labels = with_units({"train": entries})
    >>> splits["train"]["x"]["units"], labels
    ('A \u2581 B A A', ['<blank>', 'A', 'B', '\u2581'])
    """
    texts = [entry["text"] for entry in splits["train"].values()]
    cut = {"char": characters, "bpe": pieces}[one_of("tokens", tokens, TOKENS)]
    symbols, units_of = cut(texts, vocab_size)
    known, spelt_out = set(symbols), {}
    for split, entries in splits.items():
        spelt_out[split], odd = {}, set()
        for key, entry in entries.items():
            units = units_of(entry["text"])
            odd |= set(units) - known
            units = " ".join(unit for unit in units if unit in known)
            spelt_out[split][key] = {**entry, "units": units}
        if odd:
            logger.warning(
                "In the %s texts there is what the training text lacks, and what can "
                "only be missed: %s",
                split,
                " ".join(sorted(odd)),
            )
    return spelt_out, [BLANK, *symbols]


def joined(symbols: list[str]) -> str:
    """The text that symbols spell, its marks parted from words by spaces.

    Example
    -------
    >>> joined(["\u2581PLA", "Y", "<B-artist>", "A", "B", "\u2581C", "<E-artist>"])
    'PLAY <B-artist> AB C <E-artist>'
    """
    text = "".join(symbols).replace(SPACE, " ")
    return " ".join(MARK.sub(r" \g<0> ", text).split())


def normalized(text: str, language: str = "en") -> str:
    """A text as it is spelt and scored: small letters, digits, apostrophes inside words
    and the marks that belong to letters, and single spaces, or none where the language
    is written without.

    Arguments
    ---------
    text : str
    language : str
        A code that begins with that of ISO 639, such as en or cmn_hans_cn.

    Example
    -------
    >>> normalized("\u201cDon\u2019t!\u201d, she said\u2014twice.")
    "don't she said twice"
    >>> normalized("I\u015eIK \u0130\u015eTE", "tr_tr")
    '\u0131\u015f\u0131k i\u015fte'
    """
    language = language.split("_")[0]
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'")
    if language in DOTTED:
        text = text.replace("\u0130", "i").replace("I", "\u0131")
    kept = []
    for character in text.lower():
        category = unicodedata.category(character)
        if category[0] in "LMN" or character == "'":
            kept.append(character)
        elif category != "Cf":  # invisible joiners stand inside words
            kept.append(" ")
    words = (word.strip("'") for word in "".join(kept).split())
    between = "" if language in UNSPACED else " "
    return between.join(word for word in words if word)


# Helpers


def characters(texts: list[str], vocab_size: int | None) -> Spelling:
    """The characters and marks of texts, sorted, and the function that parts a text
    into them."""
    del vocab_size

    def units_of(text: str) -> list[str]:
        text = re.sub(f" ?({MARK.pattern}) ?", r"\1", text)
        return re.findall(f"{MARK.pattern}|.", text.replace(" ", SPACE))

    return sorted({unit for text in texts for unit in units_of(text)}), units_of


def pieces(texts: list[str], vocab_size: int) -> Spelling:
    """SentencePiece units of texts, and the function that parts a text into them."""
    texts = [before_marks(text) for text in texts]
    marks = sorted({mark for text in texts for mark in MARK.findall(text)})
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            user_defined_symbols=marks,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).split("] ")[-1].strip(" .")
        raise UserError(
            f"vocab_size={vocab_size} does not suit the training text: {reason}."
        ) from None
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    known = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]

    def units_of(text: str) -> list[str]:
        return processor.encode(before_marks(text), out_type=str)

    return [piece for piece in known if piece != processor.id_to_piece(0)], units_of


def before_marks(text: str) -> str:
    """A text without the spaces before its marks: they would be units of their own."""
    return re.sub(f" ({MARK.pattern})", r"\1", text)
