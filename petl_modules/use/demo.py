"""Serve a page in the browser to try adapters out, until it is stopped.

`petl demo ADAPTER...`: drop or record a clip, see its waveform and spectrogram and what
an adapter says of it, and switch adapters, which share one backbone. It needs Gradio:
pip install -e .[demo].
"""

import os
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from petl_modules.console import Parser, port
from petl_modules.data.reading import read_pieces
from petl_modules.errors import UserError
from petl_modules.use.inference import Adapters, load_adapter

SECONDS = 30.0  # of a clip that are used at most: a page should answer soon
FFT_SIZE = 512
# Requests that are answered at once and that may wait, and the largest file
AT_ONCE, WAITING, LARGEST = 4, 64, "100mb"


class Demo:
    """What the page computes.

    Arguments
    ---------
    adapters : petl_modules.use.inference.Adapters
    """

    def __init__(self, adapters: Adapters) -> None:
        self.adapters = adapters

    def answer(
        self, path: str | Path | None, name: str
    ) -> tuple[str, dict[str, float] | None, str | None, Figure | None]:
        """What is said of a clip.

        Arguments
        ---------
        path : str or None
            The clip; None when there is none.
        name : str
            The adapter.

        Returns
        -------
        message : str
            What a person should know: a mistake, or that the clip was cut.
        probabilities : dict or None
            By class.
        text : str or None
        figure : matplotlib.figure.Figure or None
        """
        if path is None:
            return "", None, None, None
        rate = self.adapters.backbone.sample_rate
        try:
            used, length = self.beginning(path, name, rate)
        except UserError as error:
            # under the name that it came with, not the one that the server gave it
            return str(error).replace(str(path), Path(path).name), None, None, None
        probabilities, text = None, None
        if self.adapters.gives(name) == "text":
            (text,) = self.adapters.transcribe_batch(used.unsqueeze(0), None, [name])
        else:
            (row,) = self.adapters.classify_batch(used.unsqueeze(0), None, [name])
            labels = self.adapters.labels_of(name)
            probabilities = dict(zip(labels, row.tolist(), strict=True))
        message = ""
        if len(used) < length:
            whole, part = length / rate, len(used) / rate
            message = f"The clip has {whole:.1f} s: the first {part:.1f} s are used."
        return message, probabilities, text, draw(used, rate)

    def beginning(
        self, path: str | Path, name: str, rate: int
    ) -> tuple[torch.Tensor, int]:
        """What an adapter reads of a clip `(samples,)`, and the samples of all of it,
        which is never in memory whole."""
        seconds = min(SECONDS, self.adapters.longest(name) or SECONDS)
        most = round(seconds * rate)
        most = min(most, self.adapters.backbone.capacity() or most)
        kept, length = torch.zeros(0), 0
        for piece in read_pieces(path, rate):
            kept = torch.cat([kept, piece[: max(0, most - len(kept))]])
            length += len(piece)
        return kept, length

    def page(self) -> Any:
        """The page, a `gradio.Blocks`."""
        gradio = load_gradio()
        names = self.adapters.names
        gives = {self.adapters.gives(name) for name in names}
        with gradio.Blocks(title="Adapters", analytics_enabled=False) as page:
            gradio.Markdown("# Adapters on one backbone")
            name = gradio.Dropdown(names, value=names[0], label="Adapter")
            clip = gradio.Audio(
                sources=["upload", "microphone"], type="filepath", label="Clip"
            )
            message = gradio.Textbox(label="Message", interactive=False)
            with gradio.Row():
                classes = gradio.Label(
                    label="Classes", num_top_classes=10, visible=gives != {"text"}
                )
                text = gradio.Textbox(
                    label="Text", interactive=False, visible="text" in gives
                )
            figure = gradio.Plot(label="Waveform and spectrogram")
            shown = [message, classes, text, figure]
            for change in (clip.change, name.change):
                # the backbone computes for one of them at a time, files are read and
                # pictures drawn meanwhile
                change(
                    self.answer,
                    [clip, name],
                    shown,
                    concurrency_id="answers",
                    concurrency_limit=AT_ONCE,
                )
        return page.queue(max_size=WAITING)


@torch.no_grad()
def draw(clip: torch.Tensor, rate: int) -> Figure:
    """Waveform and spectrogram of a clip `(samples,)`, as a figure."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    wave, spectrogram = figure.subplots(2, sharex=True)
    seconds = len(clip) / rate
    wave.plot(torch.arange(len(clip)) / rate, clip, linewidth=0.5)
    wave.set_ylabel("amplitude")
    spectrum = torch.stft(
        clip,
        FFT_SIZE,
        FFT_SIZE // 4,
        window=torch.hann_window(FFT_SIZE),
        pad_mode="constant",
        return_complex=True,
    )
    decibels = 20 * spectrum.abs().clamp(min=1e-5).log10()
    extent = (0, seconds, 0, rate / 2000)
    spectrogram.imshow(decibels, origin="lower", aspect="auto", extent=extent)
    spectrogram.set(xlabel="s", ylabel="kHz", xlim=(0, seconds))
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
    add("adapters", nargs="+", metavar="ADAPTER", help="The folders of runs.")
    add("--source", help="The backbone, if it is not where the adapter says.")
    add("--device", default="cpu", help="Where to compute (%(default)s).")
    free = "The port of this machine (7860, or the next one that is free)."
    add("--port", type=port, help=free)
    options = parser.parse_args(argv)
    load_gradio()
    first, *others = dict.fromkeys(options.adapters)
    adapters = load_adapter(first, source=options.source, device=options.device)
    for folder in others:
        adapters.add(folder)
    try:
        Demo(adapters).page().launch(server_port=options.port, max_file_size=LARGEST)
    except OSError as error:
        raise UserError(f"The page cannot be served: {error}") from None
