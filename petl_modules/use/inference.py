"""Trained adapters at work: labels or text for recordings, in Python.

Several adapters share one frozen backbone: they take turns, or serve one batch in
which every clip names its own. Clips of about one length run together.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from petl_modules.backbones import Backbone
from petl_modules.console import progress_bar
from petl_modules.data.ahead import ahead
from petl_modules.errors import UserError, known_device
from petl_modules.use.adapter_file import load_its_backbone
from petl_modules.use.engine import Engine
from petl_modules.use.hearing import hear, hear_all
from petl_modules.use.loaded import Answer, Loaded

THREADS = 2  # that read files ahead


def load_adapter(
    folder: str | Path,
    name: str | None = None,
    source: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
) -> "Adapters":
    """A trained adapter on its backbone, ready for recordings; more can be added.

    Arguments
    ---------
    folder : str or Path
        Of a run, with adapter.safetensors and adapter.json; or an id on a hub.
    name : str or None
        What to call it; None for the folder's path.
    source : str or None
        Where the backbone is now, if not where the adapter says.
    device : str
    precision : str
        fp32, or bf16 for products in bfloat16.

    Returns
    -------
    Adapters

    Raises
    ------
    UserError
        For an adapter that is damaged, or of another backbone, or a device that is not
        here.

    Example
    -------
    >>> adapters = load_adapter("results/keywords", "keywords")  # doctest: +SKIP
    >>> adapters.classify_file("yes.wav")["label"]  # doctest: +SKIP
    'yes'
    >>> adapters.add("results/emotion", "emotion")  # doctest: +SKIP
    >>> adapters.use("emotion")  # doctest: +SKIP
    >>> adapters.classify_file("yes.wav")["label"]  # doctest: +SKIP
    'happy'
    """
    device = known_device(device)
    adapters = Adapters(load_its_backbone(folder, source), device, precision)
    adapters.add(folder, name)
    return adapters


class Adapters:
    """Trained adapters on one frozen backbone, for clips of any length and rate.

    An adapter costs its own tensors only, and switching nothing
    (`petl_modules.core.turns.Turns`): answers are bit-equal to those of a fresh load.

    Several threads may call one object: the backbone computes for one of them at a
    time, and each thread has its own adapter in use. What the thread that made the
    object puts to use holds for all threads that have chosen none.

    Arguments
    ---------
    backbone : Backbone
        With its pretrained weights.
    device : str
    precision : str
        fp32 or bf16.
    """

    def __init__(
        self, backbone: Backbone, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        self._engine = Engine(backbone, device, precision)
        self._loaded = self._engine.loaded
        self._common: str | None = None  # the choice of the thread that is here now
        self._own = threading.local()
        self._own.made_it = True

    @property
    def backbone(self) -> Backbone:
        """The backbone that all adapters share."""
        return self._engine.backbone

    @property
    def in_use(self) -> str | None:
        """The name of the adapter that answers where none is named, in this thread."""
        common = self._common or next(iter(self._loaded), None)
        return getattr(self._own, "name", common)

    @property
    def names(self) -> list[str]:
        """The adapters' names, in the order in which they were added."""
        return list(self._loaded)

    @property
    def labels(self) -> list[str]:
        """The classes or symbols of the adapter in use."""
        return self._named(self.in_use).labels

    @property
    def max_duration(self) -> float | None:
        """Seconds of a clip that the adapter in use reads, None for all."""
        return self._named(self.in_use).max_duration

    def gives(self, name: str) -> str:
        """What an adapter gives: label, labels (several, or none) or text."""
        return self._named(name).gives

    def told(self, name: str, probabilities: torch.Tensor) -> Answer:
        """What an adapter tells of probabilities `(classes,)`, as in its answers."""
        return self._named(name).told(probabilities)

    def info_of(self, name: str) -> dict[str, Any]:
        """What an adapter's file says of it: labels, metrics and where it is from."""
        return self._named(name).info

    def labels_of(self, name: str) -> list[str]:
        """The classes or symbols of an adapter."""
        return self._named(name).labels

    def longest(self, name: str) -> float | None:
        """Seconds of a clip that an adapter reads, None for all."""
        return self._named(name).max_duration

    def add(self, folder: str | Path, name: str | None = None) -> None:
        """Load one more adapter; the first that is added is put to use.

        Arguments
        ---------
        folder : str or Path
        name : str or None
            None for the folder's path.

        Raises
        ------
        UserError
            For a damaged adapter, one of another backbone, one of a synthesiser, or a
            name that is taken.
        """
        self._engine.add(folder, str(folder) if name is None else name)

    def use(self, name: str) -> None:
        """Let an adapter answer from now on, in this thread.

        Raises
        ------
        UserError
            If there is none of that name.
        """
        name = self._named(name).name
        if hasattr(self._own, "made_it"):
            self._common = name
        else:
            self._own.name = name

    def classify_file(self, path: str | Path, adapter: str | None = None) -> Answer:
        """The answer for one file: file, label, probability, probabilities; of an
        adapter that gives several labels file, labels and probabilities.

        Arguments
        ---------
        path : str or Path
        adapter : str or None
            Whose answer; None for the one in use.
        """
        return self._answer_file(path, "label", adapter)

    def classify_batch(
        self,
        wavs: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        adapters: Sequence[str] | None = None,
    ) -> Any:
        """Class probabilities of clips.

        Arguments
        ---------
        wavs : torch.Tensor
            `(batch, samples)` at the backbone's rate, zero-padded on the right.
        wav_lens : torch.Tensor or None
            Relative lengths `(batch,)`; None when nothing is padded.
        adapters : list of str or None
            Each clip's adapter; None for the one in use.

        Returns
        -------
        torch.Tensor or list of torch.Tensor
            `(batch, classes)`; with `adapters` a list of `(classes,)`.
        """
        self._refuse_unless("label", adapters)
        rows = self._outputs(wavs, wav_lens, adapters)
        return torch.stack(rows) if adapters is None else rows

    def transcribe_file(self, path: str | Path, adapter: str | None = None) -> str:
        """What is said in one file: words, or symbols parted by spaces; arguments are
        those of `classify_file`."""
        return self._answer_file(path, "text", adapter)["text"]

    def transcribe_batch(
        self,
        wavs: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        adapters: Sequence[str] | None = None,
    ) -> list[str]:
        """A list of texts; arguments are those of `classify_batch`."""
        self._refuse_unless("text", adapters)
        return self._outputs(wavs, wav_lens, adapters)

    def answer_files(
        self,
        paths: Sequence[str | Path],
        adapters: Sequence[str] | None = None,
        batch_size: int = 16,
        progress: bool = False,
    ) -> list[Answer]:
        """Answers for files, in their order.

        Arguments
        ---------
        paths : list of str or Path
        adapters : list of str or None
            Each file's adapter; None for the one in use.
        batch_size : int
        progress : bool
            Whether to show a bar.

        Returns
        -------
        list of dict
            As of `classify_file`, or file and text; file and error for what cannot be
            read; duration and heard, in seconds, where only its beginning was heard.
        """
        names = self._names(adapters, len(paths))
        # on a GPU, which padding keeps from sound, like lengths are sought among more
        size = batch_size if self._engine.device.type == "cpu" else 4 * batch_size
        parts = [slice(i, i + size) for i in range(0, len(paths), size)]
        longest = [self._loaded[name].max_duration for name in names]
        read = ahead(
            lambda part: hear_all(paths[part], self.backbone, longest[part]),
            parts,
            THREADS,
        )
        answers = []
        bar = progress_bar(total=len(paths), desc="clips", shown=progress)
        for part, clips in zip(parts, read, strict=True):
            answers += self._answer_read(paths[part], names[part], clips, batch_size)
            bar.update(len(answers) - bar.n)
        bar.close()
        return answers

    def answer_clips(
        self,
        clips: Sequence[torch.Tensor],
        paths: Sequence[str | Path],
        names: Sequence[str],
    ) -> list[Answer]:
        """Answers for clips in one batch; one by one if the backbone refuses one.

        Arguments
        ---------
        clips : list of torch.Tensor
            Each `(samples,)`, at the backbone's rate.
        paths : list of str or Path
            What to call them.
        names : list of str
            Each clip's adapter.
        """
        if not clips:
            return []
        wavs = pad_sequence(list(clips), batch_first=True)
        counts = torch.tensor([len(clip) for clip in clips])
        try:
            outputs = self._outputs(wavs, counts / wavs.shape[1], names)
        except UserError as error:
            if len(clips) == 1:
                return [{"file": str(paths[0]), "error": f"{paths[0]}: {error}"}]
            return [
                self.answer_clips([clip], [path], [name])[0]
                for clip, path, name in zip(clips, paths, names, strict=True)
            ]
        return [
            self._loaded[name].answer(path, output)
            for path, name, output in zip(paths, names, outputs, strict=True)
        ]

    # Helpers

    def _answer_file(self, path: str | Path, gives: str, name: str | None) -> Answer:
        loaded = self._named(self.in_use if name is None else name)
        self._refuse_unless(gives, [loaded.name])
        clip, told = hear(path, self.backbone, loaded.max_duration)
        (output,) = self._outputs(clip.unsqueeze(0), None, [loaded.name])
        return {**loaded.answer(path, output), **told}

    def _answer_read(
        self,
        paths: Sequence[str | Path],
        names: Sequence[str],
        read: list[tuple[torch.Tensor | None, Answer]],
        batch_size: int,
    ) -> list[Answer]:
        """Answers for what was read, clips of like lengths together."""
        clips = {i: clip for i, (clip, _) in enumerate(read) if clip is not None}
        answers = [told for _, told in read]
        places = list(clips)
        if len(places) > batch_size:
            places.sort(key=lambda i: len(clips[i]))
        for start in range(0, len(places), batch_size):
            chosen = places[start : start + batch_size]
            heard = self.answer_clips(
                [clips[i] for i in chosen],
                [paths[i] for i in chosen],
                [names[i] for i in chosen],
            )
            for place, answer in zip(chosen, heard, strict=True):
                answers[place] = {**answer, **answers[place]}
        return answers

    def _outputs(
        self,
        wavs: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        adapters: Sequence[str] | None = None,
    ) -> list:
        """Probabilities or text of every clip."""
        names = self._names(adapters, len(wavs))
        return self._engine.outputs(wavs, wav_lens, names)

    def _names(self, adapters: Sequence[str] | None, count: int) -> list[str]:
        """The name of every clip's adapter."""
        if adapters is None:
            return [self._named(self.in_use).name] * count
        if len(adapters) != count:
            raise UserError(
                f"{count} clips need {count} names of adapters, not {len(adapters)}."
            )
        return [self._named(name).name for name in adapters]

    def _named(self, name: str | None) -> Loaded:
        if name is None or name not in self._loaded:
            raise UserError(
                f"There is no adapter {name}: choose among {', '.join(self.names)}."
            )
        return self._loaded[name]

    def _refuse_unless(self, gives: str, adapters: Sequence[str] | None = None) -> None:
        for name in set(self._names(adapters, len(adapters or [0]))):
            if (self._loaded[name].gives == "text") != (gives == "text"):
                call = "transcribe" if gives == "label" else "classify"
                raise UserError(f"The adapter {name} gives no {gives}: {call} instead.")
