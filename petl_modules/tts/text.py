"""Text for speech synthesis: characters or ARPAbet phones, as symbols with numbers.

A text is lower-cased, its accents are dropped, and its punctuation is reduced to the
marks below. Words become phones by the g2p library, which holds the CMU Pronouncing
Dictionary; words that it lacks are spelt by the letter rules below, a crude guess that
is said in the log. Phones may also be given as they are, in braces:
`"hello {W ER1 L D}"`. Both kinds begin and end with the pause, which also parts words.
"""

import logging
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

from petl_modules.errors import UserError, one_of

logger = logging.getLogger(__name__)

PAD, PAUSE = "_", " "
MARKS = (",", ".", "?", "!")
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
SYMBOLS = {
    "arpabet": (PAD, PAUSE, *MARKS, *sorted(f"{VOWELS} {CONSONANTS}".split())),
    "graphemes": (PAD, PAUSE, *MARKS, "'", *"abcdefghijklmnopqrstuvwxyz"),
}
# what marks and quotes are read as
REPLACED = str.maketrans(
    {
        "&": " and ",
        ";": ",",
        ":": ",",
        "\u2013": ",",
        "\u2014": ",",
        "\u2019": "'",
        "-": " ",
    }
    | dict.fromkeys('"()[]\u201c\u201d\u2018', "")
)
PIECES = re.compile(r"\{[^{}]*\}|[a-z']+|\s+|.")
# the longest that fits is taken; x is not one sound
LETTERS = {
    "tion": "SH AH N", "ough": "AO", "eigh": "EY",
    "tch": "CH", "igh": "AY", "sch": "S K", "dge": "JH", "que": "K", "ing": "IH NG",
    "ai": "EY", "ay": "EY", "au": "AO", "aw": "AO", "ar": "AA R", "ch": "CH",
    "ck": "K", "ea": "IY", "ee": "IY", "er": "ER", "ew": "UW", "ey": "IY",
    "ie": "IY", "ir": "ER", "kn": "N", "ll": "L", "ng": "NG", "oa": "OW",
    "oi": "OY", "oo": "UW", "or": "AO R", "ou": "AW", "ow": "OW", "oy": "OY",
    "ph": "F", "qu": "K W", "sh": "SH", "ss": "S", "th": "TH", "ur": "ER", "wh": "W",
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G",
    "h": "HH", "i": "IH", "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N",
    "o": "AA", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "u": "AH",
    "v": "V", "w": "W", "x": "K S", "y": "IY", "z": "Z", "'": "",
}  # fmt: skip


def symbols_of(text: str, kind: str) -> list[str]:
    """The symbols of a text.

    Arguments
    ---------
    text : str
    kind : str
        arpabet or graphemes.

    Returns
    -------
    list of str

    Raises
    ------
    UserError
        For a text that is empty, or holds what has no symbol.

    Example
    -------
    >>> symbols_of("Go, {N OW1}!", "graphemes")
    Traceback (most recent call last):
    petl_modules.errors.UserError: Phones in braces need a model of arpabet: {N OW1}.
    >>> "".join(symbols_of("Caf\u00e9, yes", "graphemes"))
    ' cafe, yes '
    """
    one_of("text", kind, SYMBOLS)
    found = []
    for piece in PIECES.findall(plain(text)):
        if piece.isspace():
            found.append(PAUSE)
        elif piece in MARKS:
            found.append(piece)
        elif piece.startswith("{") and piece.endswith("}"):
            found += given_phones(piece, kind)
        elif re.fullmatch("[a-z']+", piece):
            found += piece if kind == "graphemes" else phones_of(piece.strip("'"))
        else:
            raise UserError(
                f"The text {text!r} holds {piece!r}, which has no symbol: write "
                f"numbers and signs as words (petl synthesize --verbalize=en does); "
                f"known are letters, ' and {' '.join(MARKS)}"
            )
    if not any(symbol.isalpha() for symbol in found):
        raise UserError(f"The text {text!r} is empty: it says nothing.")
    return single_pauses([PAUSE, *found, PAUSE])


def plain(text: str) -> str:
    """Lower case but for phones in braces, without accents, with few marks."""
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if not unicodedata.combining(c))
    parts = re.split(r"(\{[^{}]*\})", text)
    return "".join(
        part if part.startswith("{") else part.lower().translate(REPLACED)
        for part in parts
    )


def given_phones(piece: str, kind: str) -> list[str]:
    """Phones in braces, without stress."""
    if kind != "arpabet":
        raise UserError(f"Phones in braces need a model of arpabet: {piece}.")
    phones = [re.sub(r"\d$", "", phone) for phone in piece.strip("{}").split()]
    for phone in phones:
        if phone not in SYMBOLS["arpabet"]:
            raise UserError(f"{phone} in {piece} is no phone of ARPAbet.")
    return phones


@cache
def phones_of(word: str) -> list[str]:
    """The phones of a word, without stress."""
    known = dictionary()(word).output_string.split()
    if (known or not word) and all(phone in SYMBOLS["arpabet"] for phone in known):
        return known
    phones = spelt(word)
    logger.warning("Not in the dictionary, spelt by rule: %s (%s)", word, phones)
    return phones.split()


@cache
def dictionary() -> Any:
    """The g2p library's English, loaded when it is first needed: it takes seconds."""
    from g2p import make_g2p

    return make_g2p("eng", "eng-arpabet")


def spelt(word: str) -> str:
    """Phones by the letter rules.

    Example
    -------
    >>> spelt("vrooshing")
    'V R UW SH IH NG'
    """
    phones, start = [], 0
    while start < len(word):
        length = next(n for n in (4, 3, 2, 1) if word[start : start + n] in LETTERS)
        phones.append(LETTERS[word[start : start + length]])
        start += length
    return " ".join(filter(None, phones))


def single_pauses(symbols: Sequence[str]) -> list[str]:
    """The symbols without a pause after a pause."""
    pairs = zip([None, *symbols], symbols, strict=False)
    return [s for before, s in pairs if not (s == before == PAUSE)]
