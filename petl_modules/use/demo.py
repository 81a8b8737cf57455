"""Serve a page in the browser to try adapters out, until it is stopped.

`petl demo ADAPTER...`: drop or record a clip, or take an example; its waveform and
spectrogram are shown, and what one adapter says of it, or two side by side, with how
good and how large they are. Long recordings are answered in windows, with a timeline.
NAME=ADAPTER calls one by a name. Adapters share one backbone. It needs Gradio: pip
install -e .[demo].
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from petl_modules.console import Parser, above_zero, port, positive
from petl_modules.data import files_below, is_audio
from petl_modules.data.reading import read_clip
from petl_modules.errors import UserError
from petl_modules.tasks.metrics import NOT_FRACTIONS
from petl_modules.use.adapter_file import TENSORS
from petl_modules.use.demo_cards import STYLE, Facts, Heard, beside, card, note
from petl_modules.use.hub import located
from petl_modules.use.inference import Adapters, load_adapter
from petl_modules.use.windows import answer_windows

SECONDS = 600.0  # of a clip that are used at most: a page should answer soon
WINDOW = 30.0  # seconds that are heard at once, where an adapter hears more
FFT_SIZE = 512
GREY = "0.5"  # which can be read on light and on dark
NOBODY = "nothing"  # to compare with
# Requests that are answered at once and that may wait, and the largest file
AT_ONCE, WAITING, LARGEST = 4, 64, "100mb"


class Demo:
    """What the page computes.

    Arguments
    ---------
    adapters : petl_modules.use.inference.Adapters
    title : str
    sizes : dict or None
        Bytes of the adapters' files, by name.
    examples : list of Path
        Clips to try.
    top : int
        How many classes are shown.
    seconds : float
        Of a clip that are used at most.
    """

    def __init__(
        self,
        adapters: Adapters,
        title: str = "Adapters on one backbone",
        sizes: Mapping[str, int] | None = None,
        examples: Sequence[Path] = (),
        top: int = 5,
        seconds: float = SECONDS,
    ) -> None:
        self.adapters, self.title, self.top = adapters, title, top
        self.sizes, self.examples = dict(sizes or {}), list(examples)
        self.seconds = seconds

    def facts(self, name: str) -> Facts:
        """What is known of an adapter."""
        info = self.adapters.info_of(name)
        text = self.adapters.gives(name) == "text"
        classes = None if text else len(self.adapters.labels_of(name))
        return Facts(name, score_of(info), self.sizes.get(name), classes)

    def window(self, name: str) -> float:
        """Seconds that an adapter hears at once."""
        samples = self.adapters.backbone.capacity()
        rate = self.adapters.backbone.sample_rate
        known = [self.adapters.longest(name), samples and samples / rate, WINDOW]
        return min(seconds for seconds in known if seconds)

    def hear(self, path: str | Path, name: str) -> Heard:
        """What an adapter says of a clip.

        Raises
        ------
        UserError
            If it cannot be read.
        """
        rate, window = self.adapters.backbone.sample_rate, self.window(name)
        text = self.adapters.gives(name) == "text"
        clip = read_clip(path, rate, window + 1 / rate)
        if len(clip) <= round(window * rate):
            own = self.adapters
            ask = own.transcribe_batch if text else own.classify_batch
            (output,) = ask(clip.unsqueeze(0), None, [name])
            whole = {"text": output} if text else self.adapters.told(name, output)
            return Heard(len(clip) / rate, whole)
        parts = answer_windows(
            self.adapters, path, window, None, name, most=self.seconds
        )
        seconds = parts[-1]["end"]
        if text:
            whole = {"text": " ".join(part["text"] for part in parts).strip()}
            return Heard(seconds, whole, parts)
        rows = torch.tensor([list(part["probabilities"].values()) for part in parts])
        lengths = torch.tensor([part["end"] - part["start"] for part in parts])
        mean = (rows * lengths.unsqueeze(1)).sum(0) / lengths.sum()
        return Heard(seconds, self.adapters.told(name, mean), parts)

    def answer(
        self, path: str | Path | None, name: str, other: str | None = None
    ) -> tuple[str, list[str], Figure | None]:
        """What is said of a clip.

        Arguments
        ---------
        path : str or None
            The clip; None when there is none.
        name : str
            The adapter.
        other : str or None
            One to compare it with.

        Returns
        -------
        message : str
            What a person should know: a mistake, or that not all of it was heard.
        cards : list of str
            HTML of each adapter's answer.
        figure : matplotlib.figure.Figure or None
        """
        if path is None:
            return "", [], None
        names = [name] if other in (None, NOBODY, name) else [name, other]
        rate = self.adapters.backbone.sample_rate
        try:
            heard = [self.hear(path, one) for one in names]
            used = read_clip(path, rate, min(heard[0].seconds, self.seconds))
        except UserError as error:
            # under the name that it came with, not the one that the server gave it
            return str(error).replace(str(path), Path(path).name), [], None
        message = ""
        if heard[0].seconds >= self.seconds:
            message = f"The first {self.seconds / 60:g} minutes of the clip were heard."
        cards = [
            card(self.facts(one), said, self.top)
            for one, said in zip(names, heard, strict=True)
        ]
        return message, cards, draw(used, rate)

    def page(self) -> Any:
        """The page, a `gradio.Blocks`; launch it with `STYLE` as css."""
        gradio = load_gradio()
        names = self.adapters.names

        def show(path: str | None, name: str, other: str | None) -> list[Any]:
            message, cards, figure = self.answer(path, name, other)
            answers, told = beside(cards), note(message)
            return [
                gradio.update(visible=not cards and not message),
                gradio.update(value=told, visible=bool(told)),
                gradio.update(value=answers, visible=bool(answers)),
                gradio.update(value=figure, visible=figure is not None),
            ]

        with gradio.Blocks(title=self.title, analytics_enabled=False) as page:
            gradio.Markdown(f"# {self.title}")
            with gradio.Row():
                with gradio.Column(min_width=320, scale=2):
                    clip = gradio.Audio(
                        sources=["upload", "microphone"], type="filepath", label="Clip"
                    )
                    name = gradio.Dropdown(
                        names, value=names[0], label="Adapter", visible=len(names) > 1
                    )
                    other = gradio.Dropdown(
                        [NOBODY, *names],
                        value=NOBODY,
                        label="Compare with",
                        visible=len(names) > 1,
                    )
                    if self.examples:
                        paths = [[str(path)] for path in self.examples]
                        gradio.Examples(paths, inputs=[clip], label="Examples")
                with gradio.Column(min_width=320, scale=3):
                    hint = gradio.Markdown(
                        "Drop a recording, record one, or take an example."
                    )
                    message = gradio.HTML(visible=False)
                    answers = gradio.HTML(visible=False)
                    figure = gradio.Plot(visible=False, show_label=False)
            shown = [hint, message, answers, figure]
            for part in (clip, name, other):
                # the backbone computes for one of them at a time, files are read and
                # pictures drawn meanwhile
                part.change(
                    show,
                    [clip, name, other],
                    shown,
                    concurrency_id="answers",
                    concurrency_limit=AT_ONCE,
                )
        return page.queue(max_size=WAITING)


def score_of(info: Mapping[str, Any]) -> str:
    """How good an adapter was on its test set, in a few words."""
    test = (info.get("metrics") or {}).get("test") or {}
    metric = next((name for name in test if name != "loss"), None)
    if metric is None:
        return ""
    value, name = test[metric], metric.replace("_", " ")
    shown = f"{value:.2f}" if metric in NOT_FRACTIONS else f"{value:.1%}"
    data = info.get("dataset")
    return f"{name} {shown}" + (f" on {data}" if data else "")


@torch.no_grad()
def draw(clip: torch.Tensor, rate: int) -> Figure:
    """Waveform and spectrogram of a clip `(samples,)`, as a figure."""
    figure = Figure(figsize=(9, 4.5), layout="constrained", facecolor="none")
    wave, spectrogram = figure.subplots(2, sharex=True)
    seconds, fold = len(clip) / rate, max(1, len(clip) // 4000)
    peaks = clip[: len(clip) // fold * fold].unflatten(0, (-1, fold)).abs().amax(1)
    at = torch.arange(len(peaks)) * fold / rate
    wave.fill_between(at, -peaks, peaks, linewidth=0)
    wave.set_ylabel("amplitude")
    spectrum = torch.stft(
        clip,
        FFT_SIZE,
        max(FFT_SIZE // 4, len(clip) // 2000),
        window=torch.hann_window(FFT_SIZE),
        pad_mode="constant",
        return_complex=True,
    )
    decibels = 20 * spectrum.abs().clamp(min=1e-5).log10()
    extent = (0, seconds, 0, rate / 2000)
    spectrogram.imshow(decibels, origin="lower", aspect="auto", extent=extent)
    spectrogram.set(xlabel="s", ylabel="kHz", xlim=(0, seconds))
    for axes in (wave, spectrogram):
        axes.set_facecolor("none")
        axes.tick_params(colors=GREY)
        axes.xaxis.label.set_color(GREY)
        axes.yaxis.label.set_color(GREY)
        for side in axes.spines.values():
            side.set_color(GREY)
    return figure


def load_gradio() -> Any:
    """Gradio, which asks no server about itself."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError:
        raise UserError("Gradio is not installed: pip install -e .[demo]") from None
    return gradio


def main(argv: list[str] | None = None) -> None:
    """Serve the page until it is stopped."""
    parser = Parser(__doc__)
    add = parser.add_argument
    named = "The folders of runs; NAME=FOLDER calls one by a name."
    add("adapters", nargs="+", metavar="ADAPTER", help=named)
    add("--title", default="Adapters on one backbone", help="Of the page.")
    add("--examples", help="A folder of clips to try.")
    add("--top", type=above_zero, default=5, help="How many classes (%(default)s).")
    longest = "Seconds of a clip that are used at most (%(default)s)."
    add("--max_seconds", type=positive, default=SECONDS, help=longest)
    add("--source", help="The backbone, if it is not where the adapter says.")
    add("--device", default="cpu", help="Where to compute (%(default)s).")
    free = "The port of this machine (7860, or the next one that is free)."
    add("--port", type=port, help=free)
    options = parser.parse_args(argv)
    load_gradio()
    pairs = [folder.rpartition("=")[::2] for folder in options.adapters]
    folders = {name or folder: folder for name, folder in pairs}
    (name, first), *others = folders.items()
    adapters = load_adapter(first, name, options.source, options.device)
    for name, folder in others:
        adapters.add(folder, name)
    sizes = {n: (located(f) / TENSORS).stat().st_size for n, f in folders.items()}
    examples = [] if options.examples is None else clips_below(options.examples)
    demo = Demo(
        adapters, options.title, sizes, examples, options.top, options.max_seconds
    )
    try:
        demo.page().launch(
            server_port=options.port,
            max_file_size=LARGEST,
            css=STYLE,
            footer_links=[],
            allowed_paths=[str(path.parent) for path in examples],
        )
    except OSError as error:
        raise UserError(f"The page cannot be served: {error}") from None


def clips_below(folder: str) -> list[Path]:
    """The recordings in a folder.

    Raises
    ------
    UserError
        If there are none.
    """
    found = [path.resolve() for path in files_below(folder) if is_audio(path)]
    if not found:
        raise UserError(f"There are no recordings in the folder {folder}.")
    return found
