"""Texts as they are said: digits and signs in words, and letters alone for CTC.

Numbers are the work of num2words (some fifty languages); the names of currencies,
percent and units, the word for &, and how a language writes 1,234.5 are CLDR's, by
Babel. NeMo's text processing knows more, and needs a compiler of grammars; Whisper's
normaliser turns words into digits, the other way round.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import Any

from petl_modules.data.own_rows import Row
from petl_modules.data.units import normalized
from petl_modules.errors import UserError
from petl_modules.knobs import Section

CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR"}
UNITS = {
    "%": "percent",
    "°C": "temperature-celsius",
    "°F": "temperature-fahrenheit",
    "°": "angle-degree",
    "km/h": "speed-kilometer-per-hour",
    "km": "length-kilometer",
    "cm": "length-centimeter",
    "mm": "length-millimeter",
    "m": "length-meter",
    "kg": "mass-kilogram",
    "g": "mass-gram",
}
SIGNS = "".join(re.escape(sign) for sign in CURRENCIES)
NAMES = "|".join(re.escape(name) for name in UNITS)
NUMBER = r"\d(?:[\d.,\u00a0\u202f\u2019']*\d)?"
AMOUNT = re.compile(
    rf"(?:(?P<before>[{SIGNS}])\s?)?(?P<minus>(?<!\w)[-\u2212])?(?P<number>{NUMBER})"
    rf"(?:(?P<ordinal>st|nd|rd|th)\b|\s?(?P<after>[{SIGNS}])"
    rf"|\s?(?P<unit>{NAMES})(?!\w))?"
)
YEARS = range(1100, 2100)  # four digits alone that are read as a year


@dataclass(frozen=True)
class SpokenText(Section):
    """How texts are written before they are learnt.

    Arguments
    ---------
    language : str or None
        Of the texts, by its code, such as en or de; null for English, or what a
        checkpoint of one language knows.
    verbalize : bool
        Whether digits and signs are written as words of that language.
    normalize_text : bool
        Whether ctc learns small letters, digits and apostrophes alone.
    """

    language: str | None = None
    verbalize: bool = False
    normalize_text: bool = True

    def row(self, row: Row, plain: bool) -> Row:
        """A row with its text as it is learnt; `plain` for letters alone.

        Raises
        ------
        UserError
            For a text of which nothing is left.
        """
        language, text = self.language or "en", row.text or ""
        if self.verbalize:
            text = verbalized(text, language)
        if plain and self.normalize_text:
            text = normalized(text, language)
        if not text:
            raise UserError(f"{row.place}, has a text without letters: {row.text}.")
        return replace(row, text=text)


def verbalized(text: str, language: str) -> str:
    """A text whose numbers, and the signs beside them, are words.

    Arguments
    ---------
    text : str
    language : str
        Such as en, or de_CH.

    Raises
    ------
    UserError
        For a language that is not known, or without num2words and Babel.

    Example
    -------
    >>> verbalized("In 1984 he paid $3 & 25% more.", "en")
    'In nineteen eighty-four he paid three US dollars and twenty-five percent more.'
    >>> verbalized("1,5 km bei -2 \u00b0C & 007.", "de")
    'eins Komma f\u00fcnf Kilometer bei minus zwei Grad Celsius und null null sieben.'
    """
    say, locale = voice_of(language)
    text = AMOUNT.sub(lambda found: apart(found, amount(found, say, locale)), text)
    return re.sub(r"\s?&\s?", f" {and_of(locale)} ", text)


# Helpers


def apart(found: re.Match, said: str) -> str:
    """What is said in a match's place, apart from letters beside it."""
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    lead, trail = (" " if c.isalpha() else "" for c in (before, after))
    return f"{lead}{said}{trail}"


def amount(found: re.Match, say: Callable, locale: Any) -> str:
    """A number with its sign or unit, in words."""
    from babel.numbers import get_currency_name
    from babel.units import format_unit

    digits = found["number"]
    value = number_of(digits, locale)
    if value is None:  # times, versions, numbers of telephones
        return re.sub(r"\d+", lambda part: say(int(part[0])), found[0])
    alone = found["before"] is None and found["after"] is None and found["unit"] is None
    if found["ordinal"]:
        return say(int(value), to="ordinal")
    if digits.isdecimal() and digits.startswith("0") and len(digits) > 1:
        said = " ".join(say(int(digit)) for digit in digits)
    elif alone and digits.isdecimal() and len(digits) == 4 and int(value) in YEARS:
        said = say(int(value), to="year")
    else:
        said = say(int(value) if value == int(value) else value)
    if found["minus"]:
        minus = say(-1).removesuffix(say(1)).strip()
        said = f"{minus} {said}"
    sign = found["before"] or found["after"]
    if sign:
        said = f"{said} {get_currency_name(CURRENCIES[sign], value, locale)}"
    elif found["unit"]:
        pattern = format_unit(value, UNITS[found["unit"]], "long", locale=locale)
        said = re.sub(r"[-\u2212]?\d[\d.,\s]*\d|\d", f" {said} ", pattern, count=1)
        said = " ".join(said.split())
    return said


def number_of(digits: str, locale: Any) -> Decimal | None:
    """What a language writes so, or None."""
    from babel.numbers import NumberFormatError, parse_decimal

    if digits.isdecimal():
        return Decimal(int(digits))
    try:
        return parse_decimal(digits, locale, strict=True)
    except NumberFormatError:
        return None


def and_of(locale: Any) -> str:
    """The word for &."""
    return (
        locale.list_patterns["standard"]["2"]
        .replace("{0}", "")
        .replace("{1}", "")
        .strip()
    )


@cache
def voice_of(language: str) -> tuple[Callable, Any]:
    """What says numbers, and the conventions of a language."""
    try:
        from babel import Locale, UnknownLocaleError
        from num2words import num2words
    except ImportError:
        raise UserError(
            "verbalize needs the packages num2words and babel: pip install -e .[own]"
        ) from None
    try:
        locale = Locale.parse(language)
        num2words(1, lang=language)
    except (UnknownLocaleError, ValueError, NotImplementedError):
        raise UserError(
            f"Numbers cannot be said in language={language}: give a code such as en, "
            "de or fr."
        ) from None

    def say(value: int | Decimal, to: str = "cardinal") -> str:
        said = num2words(value, lang=language, to=to)
        return re.sub(r"(?<=\w), (?=\w)", " ", said)

    return say, locale
