"""What the demo's page shows of an answer, as HTML that fits light, dark and phones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from petl_modules.use.loaded import Answer

STYLE = """
.petl-cards { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 240px), 1fr)); }
.petl-card { border: 1px solid var(--border-color-primary); border-radius: 10px;
  padding: .9rem 1.1rem; background: var(--background-fill-secondary); }
.petl-card h3 { margin: 0; }
.petl-card .facts { margin: .1rem 0 .8rem; opacity: .75; font-size: .9em; }
.petl-card .best { font-size: 1.5em; font-weight: 600; margin: 0 0 .5rem;
  overflow-wrap: anywhere; }
.petl-card .text { font-size: 1.15em; margin: 0 0 .5rem; overflow-wrap: anywhere; }
.petl-bar { display: grid; grid-template-columns: minmax(0, 1fr) 3.6em;
  gap: .2rem .6rem; margin: .35rem 0; align-items: center; }
.petl-bar span:first-child { overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.petl-bar span:nth-child(2) { text-align: right; font-variant-numeric: tabular-nums; }
.petl-bar i { grid-column: 1 / -1; height: .45rem; border-radius: .3rem;
  background: linear-gradient(var(--color-accent), var(--color-accent)) no-repeat 0 0 /
  var(--share) 100%, var(--border-color-primary); }
.petl-tags { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0 0 .6rem;
  padding: 0; }
.petl-tags b { background: var(--color-accent); color: white; border-radius: 1rem;
  padding: .1rem .7rem; font-weight: 500; }
.petl-line { display: flex; height: 1.9rem; border-radius: 6px; overflow: hidden;
  margin: .8rem 0 .2rem; }
.petl-line b { color: white; font-weight: 500; font-size: .85em; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; padding: .25rem .3rem; min-width: 2px;
  box-sizing: border-box; flex-basis: 0; }
.petl-ends { display: flex; justify-content: space-between; font-size: .8em;
  opacity: .75; }
.petl-times { max-height: 18rem; overflow: auto; margin-top: .6rem; }
.petl-times p { display: grid; grid-template-columns: 7.5em minmax(0, 1fr);
  gap: .6rem; margin: 0; padding: .25rem 0;
  border-top: 1px solid var(--border-color-primary); overflow-wrap: anywhere; }
.petl-times span:first-child { font-variant-numeric: tabular-nums; opacity: .75; }
.petl-note { border-left: 4px solid var(--color-accent); padding: .4rem .8rem; }
"""


@dataclass(frozen=True)
class Facts:
    """What is known of an adapter.

    Attributes
    ----------
    name : str
    score : str
        Such as `accuracy 90.4 % on ESC-50`; empty if it is not known.
    size : int or None
        Bytes of its file.
    classes : int or None
        None where it writes text.
    """

    name: str
    score: str = ""
    size: int | None = None
    classes: int | None = None

    @property
    def line(self) -> str:
        """All of it on one line."""
        parts = [self.score] if self.score else []
        if self.size is not None:
            parts.append(f"{self.size / 1000:,.0f} kB")
        if self.classes is not None:
            parts.append(f"{self.classes} classes")
        return " · ".join(parts)


@dataclass(frozen=True)
class Heard:
    """What an adapter says of a clip.

    Attributes
    ----------
    seconds : float
        That were heard.
    whole : Answer
        Of all of it: label and probabilities, labels and probabilities, or text.
    parts : list of Answer
        With start and end in seconds, where it is longer than what is heard at once.
    """

    seconds: float
    whole: Answer
    parts: Sequence[Answer] = field(default_factory=list)


def card(facts: Facts, heard: Heard, top: int) -> str:
    """An adapter's answer.

    Arguments
    ---------
    facts : Facts
    heard : Heard
    top : int
        How many classes are shown.
    """
    parts = [
        f"<h3>{escape(facts.name)}</h3>",
        f'<p class="facts">{escape(facts.line)}</p>' if facts.line else "",
    ]
    whole = heard.whole
    if "text" in whole:
        said = escape(whole["text"]) or "<i>nothing was said</i>"
        parts.append(f'<p class="text">{said}</p>')
    else:
        if "label" in whole:
            parts.append(f'<p class="best">{escape(whole["label"])}</p>')
        else:
            parts.append(tags(whole["labels"]))
        ranked = sorted(whole["probabilities"].items(), key=lambda pair: -pair[1])
        parts += [share(label, chance) for label, chance in ranked[:top]]
        if heard.parts:
            parts.append(timeline(heard.parts, list(whole["probabilities"])))
    if heard.parts:
        parts.append(times(heard.parts))
    return f'<section class="petl-card">{"".join(parts)}</section>'


def beside(cards: Sequence[str]) -> str:
    """Cards side by side, or one below the other where there is no room."""
    return f'<div class="petl-cards">{"".join(cards)}</div>' if cards else ""


def note(text: str) -> str:
    """What a person should know; nothing of nothing."""
    return f'<p class="petl-note" role="status">{escape(text)}</p>' if text else ""


def clock(seconds: float) -> str:
    """Seconds as a player shows them.

    Example
    -------
    >>> clock(3.25), clock(3725)
    ('0:03.2', '1:02:05.0')
    """
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{rest:04.1f}"


# Helpers


def share(label: str, chance: float) -> str:
    """A class with its probability as a bar."""
    return (
        f'<div class="petl-bar" style="--share: {chance:.2%}">'
        f"<span>{escape(label)}</span><span>{chance:.1%}</span><i></i></div>"
    )


def tags(labels: Sequence[str]) -> str:
    """Several labels, or the word that there are none."""
    if not labels:
        return '<p class="best">none of its labels</p>'
    items = "".join(f"<b>{escape(label)}</b>" for label in labels)
    return f'<p class="petl-tags">{items}</p>'


def named(part: Answer) -> str:
    """What is said of a part of a clip, in a few words."""
    if "text" in part:
        return part["text"]
    return part["label"] if "label" in part else ", ".join(part["labels"]) or "none"


def timeline(parts: Sequence[Answer], labels: Sequence[str]) -> str:
    """Parts beside one another, as wide as they are long, each label in a colour."""
    shown = list(dict.fromkeys([*labels, *map(named, parts)]))
    blocks = "".join(
        f'<b style="flex-grow: {part["end"] - part["start"]:.3f}; background: '
        f'hsl({shown.index(named(part)) * 137 % 360} 45% 42%)" '
        f'title="{span(part)} {escape(named(part))}">{escape(named(part))}</b>'
        for part in parts
    )
    ends = "".join(
        f"<span>{clock(at)}</span>" for at in (parts[0]["start"], parts[-1]["end"])
    )
    told = escape("; ".join(f"{span(part)} {named(part)}" for part in parts[:50]))
    return (
        f'<div class="petl-line" role="img" aria-label="{told}">{blocks}</div>'
        f'<div class="petl-ends">{ends}</div>'
    )


def times(parts: Sequence[Answer]) -> str:
    """Parts with their times, one below the other."""
    rows = "".join(
        f"<p><span>{span(part)}</span><span>{escape(named(part))}</span></p>"
        for part in parts
    )
    return f'<div class="petl-times">{rows}</div>'


def span(part: Answer) -> str:
    """From when to when."""
    return f"{clock(part['start'])} - {clock(part['end'])}"
