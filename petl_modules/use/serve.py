"""Answer recordings over HTTP: adapters on one backbone, until it is stopped.

`petl serve ADAPTER...`: POST a recording to /answer, as `curl -F file=@clip.wav
"http://127.0.0.1:8000/answer?adapter=NAME"` does, and its answer comes as JSON; GET
/adapters lists the adapters, and /docs explains the interface. Requests that wait for
one another are computed in one batch, whatever their adapters. It needs FastAPI: pip
install -e .[serve].
"""

import asyncio
import queue
import tempfile
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from petl_modules.console import Parser, above_zero, port, positive
from petl_modules.errors import UserError
from petl_modules.use.hearing import beginning, unheard
from petl_modules.use.inference import Adapters, load_adapter
from petl_modules.use.loaded import Answer

PIECE = 2**20  # bytes of an upload that are read at a time


class AdapterFacts(BaseModel):
    """One adapter of the server."""

    name: str
    gives: str
    labels: list[str]
    max_duration: float | None


class Said(BaseModel):
    """The answer to one recording: label, probability and probabilities; labels and
    probabilities, of an adapter of several; or text. Duration and heard, in seconds,
    where only its beginning was heard."""

    adapter: str
    file: str
    label: str | None = None
    labels: list[str] | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    text: str | None = None
    duration: float | None = None
    heard: float | None = None


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes
    ----------
    mebibytes : int
        Of an upload.
    seconds : float
        Of a recording that are heard.
    waiting : int
        Requests that may wait for the backbone.
    batch_size : int
        Requests that are computed together.
    """

    mebibytes: int = 50
    seconds: float = 60.0
    waiting: int = 256
    batch_size: int = 16


class Busy(Exception):
    """As many requests wait as may."""


class Batches:
    """Clips of many requests, computed together as they come in.

    While the backbone computes one batch, what comes in waits for the next: a request
    that is alone waits for nobody.

    Arguments
    ---------
    adapters : Adapters
    limits : Limits
    """

    def __init__(self, adapters: Adapters, limits: Limits) -> None:
        self.adapters, self.limits = adapters, limits
        self.waiting: queue.Queue = queue.Queue(limits.waiting)
        self.sizes: list[int] = []  # of the batches so far
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def ask(self, clip: torch.Tensor, file: str, name: str) -> "Future[Answer]":
        """The answer to a clip `(samples,)`, when it is there.

        Raises
        ------
        Busy
        """
        future: Future[Answer] = Future()
        try:
            self.waiting.put_nowait((clip, file, name, future))
        except queue.Full:
            raise Busy from None
        return future

    def stop(self) -> None:
        """Answer what waits, and end."""
        self.waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self.waiting.get()) is not None:
            batch = [first]
            while len(batch) < self.limits.batch_size and not self.waiting.empty():
                if (more := self.waiting.get()) is None:
                    self.waiting.put(None)
                    break
                batch.append(more)
            self.sizes.append(len(batch))
            clips, files, names, futures = zip(*batch, strict=True)
            try:
                answers = self.adapters.answer_clips(clips, files, names)
            except Exception as error:  # the server goes on
                for future in futures:
                    future.set_exception(error)
                continue
            for future, answer in zip(futures, answers, strict=True):
                future.set_result(answer)


def make_app(adapters: Adapters, limits: Limits | None = None) -> Any:
    """The interface, a `fastapi.FastAPI`.

    Arguments
    ---------
    adapters : Adapters
    limits : Limits or None
    """
    fastapi = load_fastapi()
    limits = limits or Limits()
    batches = Batches(adapters, limits)

    @asynccontextmanager
    async def life(_: Any) -> AsyncIterator[None]:
        yield
        batches.stop()

    app = fastapi.FastAPI(title="Adapters on one backbone", lifespan=life)
    app.state.batches = batches

    @app.get("/adapters")
    def list_adapters() -> list[AdapterFacts]:
        """The adapters, the first of which answers where none is named."""
        return [
            AdapterFacts(
                name=name,
                gives=adapters.gives(name),
                labels=adapters.labels_of(name),
                max_duration=adapters.longest(name),
            )
            for name in adapters.names
        ]

    @app.post("/answer", response_model_exclude_none=True)
    async def answer(
        file: fastapi.UploadFile,  # pyright: ignore[reportInvalidTypeForm]
        adapter: str | None = None,
    ) -> Said:
        """What an adapter says of a recording, in any format that FFmpeg reads."""
        name = adapters.names[0] if adapter is None else adapter
        if name not in adapters.names:
            known = ", ".join(adapters.names)
            raise fastapi.HTTPException(
                404, f"There is no adapter {name}: choose among {known}."
            )
        shown = Path(file.filename or "recording").name
        try:
            clip, told = await asyncio.to_thread(
                heard_of, file.file, shown, adapters, name, limits
            )
            found = await asyncio.wrap_future(batches.ask(clip, shown, name))
        except TooLarge:
            raise fastapi.HTTPException(
                413, f"{shown} has more than {limits.mebibytes} MiB."
            ) from None
        except Busy:
            raise fastapi.HTTPException(
                503, "Too many requests wait: try again later."
            ) from None
        except UserError as error:
            raise fastapi.HTTPException(422, str(error)) from None
        if "error" in found:
            raise fastapi.HTTPException(422, found["error"])
        return Said(adapter=name, **found, **told)

    @app.middleware("http")
    async def refuse_large(
        request: fastapi.Request,  # pyright: ignore[reportInvalidTypeForm]
        go_on: Any,
    ) -> Any:
        """Refuse what says that it is too large before it is read."""
        said = request.headers.get("content-length", "0")
        most = limits.mebibytes * 2**20 + PIECE
        if not said.isdecimal() or int(said) > most:
            return fastapi.responses.JSONResponse(
                {"detail": f"An upload may have {limits.mebibytes} MiB."}, 413
            )
        return await go_on(request)

    return app


# Helpers


class TooLarge(Exception):
    """An upload has more bytes than it may."""


def heard_of(
    stream: Any, shown: str, adapters: Adapters, name: str, limits: Limits
) -> tuple[torch.Tensor, Answer]:
    """What is heard of an upload `(samples,)`, and duration and heard, in seconds, if
    that is not all of it."""
    rate, most = adapters.backbone.sample_rate, adapters.backbone.capacity()
    longest = min(limits.seconds, adapters.longest(name) or limits.seconds)
    limit = min(round(longest * rate), most or round(longest * rate))
    with tempfile.NamedTemporaryFile(suffix=Path(shown).suffix) as kept:
        copied = 0
        while block := stream.read(PIECE):
            copied += len(block)
            if copied > limits.mebibytes * 2**20:
                raise TooLarge
            kept.write(block)
        kept.flush()
        try:
            clip, length = beginning(kept.name, rate, limit)
        except UserError as error:
            raise UserError(str(error).replace(kept.name, shown)) from None
    return clip, unheard(len(clip), length, rate)


def load_fastapi() -> Any:
    """FastAPI, with what it needs to take files."""
    try:
        import fastapi
        import fastapi.responses
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise UserError("FastAPI is not installed: pip install -e .[serve]") from None
    return fastapi


def main(argv: list[str] | None = None) -> None:
    """Serve until it is stopped."""
    parser = Parser(__doc__)
    add = parser.add_argument
    named = "The folders of runs; NAME=FOLDER calls one by a name."
    add("adapters", nargs="+", metavar="ADAPTER", help=named)
    add("--source", help="The backbone, if it is not where the adapter says.")
    add("--device", default="cpu", help="Where to compute (%(default)s).")
    add("--host", default="127.0.0.1", help="The address to listen at (%(default)s).")
    add("--port", type=port, default=8000, help="The port (%(default)s).")
    largest = "The largest upload in MiB (%(default)s)."
    add("--max_mebibytes", type=above_zero, default=Limits.mebibytes, help=largest)
    longest = "Seconds of a recording that are heard at most (%(default)s)."
    add("--max_seconds", type=positive, default=Limits.seconds, help=longest)
    waiting = "How many requests may wait (%(default)s)."
    add("--max_waiting", type=above_zero, default=Limits.waiting, help=waiting)
    size = "How many requests are computed together (%(default)s)."
    add("--batch_size", type=above_zero, default=Limits.batch_size, help=size)
    options = parser.parse_args(argv)
    load_fastapi()
    import uvicorn

    pairs = [folder.rpartition("=")[::2] for folder in options.adapters]
    (name, first), *others = [(name or folder, folder) for name, folder in pairs]
    adapters = load_adapter(first, name, options.source, options.device)
    for name, folder in others:
        adapters.add(folder, name)
    limits = Limits(
        options.max_mebibytes,
        options.max_seconds,
        options.max_waiting,
        options.batch_size,
    )
    uvicorn.run(make_app(adapters, limits), host=options.host, port=options.port)
