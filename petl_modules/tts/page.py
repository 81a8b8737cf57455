"""A page of voices to listen to: players and spectrograms, in one folder that a browser
opens without a server."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from torch import Tensor

from petl_modules.files import write_figure, write_text
from petl_modules.tts.sounds import write_sound

INDEX = "index.html"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem;
       padding: 0 1rem; color: #222; background: #fff; }
h2 { margin-top: 2.5rem; font-size: 1.15rem; }
.voices { display: grid; gap: 1.5rem;
          grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); }
figure { margin: 0; } figcaption { font-size: .9rem; }
img, audio { display: block; width: 100%; } audio { height: 2.2rem; }
"""


@dataclass(frozen=True)
class Spoken:
    """One sentence by one voice.

    Attributes
    ----------
    voice, text : str
    wav : torch.Tensor
        `(samples,)`.
    mel : torch.Tensor
        `(frames, n_mels)`, log-mel.
    """

    voice: str
    text: str
    wav: Tensor
    mel: Tensor


def write_page(
    folder: Path,
    spoken: Sequence[Spoken],
    rate: int,
    seconds: float,
    introduction: str = "",
) -> list[Path]:
    """Write index.html with a sound and a picture of everything that was spoken.

    Arguments
    ---------
    folder : Path
    spoken : sequence of Spoken
        Sentences are parts of the page, in the order in which they come first.
    rate : int
        Hz.
    seconds : float
        From one frame of a spectrogram to the next.
    introduction : str
        What stands above all.

    Returns
    -------
    list of Path
        The files, the page last.
    """
    texts, voices = (list(dict.fromkeys(v)) for v in zip(
        *((s.text, s.voice) for s in spoken), strict=True
    ))  # fmt: skip
    paths, parts = [], {text: [] for text in texts}
    for one in spoken:
        voice, text = voices.index(one.voice) + 1, texts.index(one.text) + 1
        sound = folder / f"voice{voice}_text{text}.ogg"
        write_sound(sound, one.wav, rate)
        picture = sound.with_suffix(".png")
        draw(one.mel, seconds, picture)
        paths += [sound, picture]
        name, said = html.escape(one.voice), html.escape(one.text)
        parts[one.text].append(
            f'<figure><figcaption>{name}</figcaption>\n<audio controls preload="none" '
            f'src="{sound.name}"></audio>\n<img loading="lazy" src="{picture.name}" '
            f'alt="Spectrogram: {name} says: {said}"></figure>'
        )
    body = "\n".join(
        f'<h2>{html.escape(text)}</h2>\n<div class="voices">\n'
        + "\n".join(figures)
        + "\n</div>"
        for text, figures in parts.items()
    )
    if introduction:
        body = f"<p>{html.escape(introduction)}</p>\n{body}"
    write_text(
        folder / INDEX,
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<title>Voices</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>Voices</h1>\n{body}\n</body>\n"
        "</html>\n",
    )
    return [*paths, folder / INDEX]


def draw(mel: Tensor, seconds: float, path: Path) -> None:
    """A spectrogram as a PNG."""
    figure, ax = pyplot.subplots(figsize=(5, 2), layout="constrained")
    extent = (0, len(mel) * seconds, 0, mel.shape[1])
    ax.imshow(mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
    ax.set_xlabel("s")
    ax.set_ylabel("mel bin")
    write_figure(path, figure, dpi=80)
    pyplot.close(figure)
