"""Labels for recordings: `python -m petl_modules.predict ADAPTER PATH... [--json]`.

A path is a file or a folder, which is searched for recordings. What cannot be read is
named, and the rest is still answered; the exit status is then 1.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from petl_modules.adapter_file import load_adapter
from petl_modules.console import quiet, refusing
from petl_modules.data import is_audio, read_clip
from petl_modules.errors import UserError


class Classifier:
    """A trained adapter on its backbone, for clips of any length and rate.

    Arguments
    ---------
    adapter : str or Path
        A run's folder, with adapter.safetensors and adapter.json.
    source : str or None
        Where the backbone is now, if not where the adapter says.
    device : str

    Attributes
    ----------
    labels : list of str

    Raises
    ------
    UserError
        For an adapter that is damaged, of another backbone, or no classifier.

    Example
    -------
    >>> classifier = Classifier("results/ESC50/lora/fold1_seed0")  # doctest: +SKIP
    >>> classifier.classify_file("rain.wav")["label"]  # doctest: +SKIP
    'rain'
    """

    def __init__(self, adapter, source=None, device="cpu"):
        self.model, self.head, info = load_adapter(adapter, source=source)
        if info.get("task") in ("ctc", "tts"):
            raise UserError(f"The adapter {adapter} gives no labels.")
        self.labels, self.device = info["labels"], torch.device(device)
        self.model.to(self.device)
        self.head.to(self.device)

    def classify_file(self, path):
        """The answer for one file: file, label, probability, probabilities."""
        wav = read_clip(path, self.model.backbone.sample_rate)
        probabilities = self.classify_batch(wav.unsqueeze(0))
        return self.answer(path, probabilities[0])

    @torch.no_grad()
    def classify_batch(self, wavs, wav_lens=None):
        """Class probabilities `(batch, classes)` of waveforms `(batch, samples)` at the
        backbone's rate, with relative lengths `(batch,)`."""
        backbone = self.model.backbone
        wavs = wavs.to(self.device)
        if backbone.max_duration is not None:
            longest = round(backbone.max_duration * backbone.sample_rate)
            if wav_lens is not None:
                samples = (wav_lens * wavs.shape[1]).clamp(max=longest)
                wav_lens = samples / min(longest, wavs.shape[1])
            wavs = wavs[:, :longest]
        layers = self.head.weighted_sum
        logits = self.head(self.model(wavs, wav_lens, all_layers=layers))
        return logits.float().softmax(-1).cpu()

    def classify_files(self, paths, batch_size=16, progress=False):
        """Answers for files, in their order.

        Returns
        -------
        list of dict
            As of `classify_file`; file and error for what cannot be read.
        """
        answers, rate = {}, self.model.backbone.sample_rate
        bar = tqdm(total=len(paths), desc="clips", leave=False, disable=not progress)
        for start in range(0, len(paths), batch_size):
            clips = {}
            for path in paths[start : start + batch_size]:
                try:
                    clips[path] = read_clip(path, rate)
                except UserError as error:
                    answers[path] = {"file": str(path), "error": str(error)}
            answers |= self.answer_clips(clips)
            bar.update(min(batch_size, len(paths) - start))
        return [answers[path] for path in paths]

    def answer_clips(self, clips):
        """Answers for `{path: clip}`; clip by clip if the backbone refuses one."""
        if not clips:
            return {}
        wavs = pad_sequence(list(clips.values()), batch_first=True)
        counts = torch.tensor([len(clip) for clip in clips.values()])
        try:
            rows = self.classify_batch(wavs, counts / wavs.shape[1])
        except UserError as error:
            if len(clips) == 1:
                (path,) = clips
                return {path: {"file": str(path), "error": f"{path}: {error}"}}
            alone = [self.answer_clips({path: clip}) for path, clip in clips.items()]
            return {path: answer for one in alone for path, answer in one.items()}
        pairs = zip(clips, rows, strict=True)
        return {path: self.answer(path, row) for path, row in pairs}

    def answer(self, path, probabilities):
        """What is said of one file."""
        best = int(probabilities.argmax())
        values = [round(float(p), 6) for p in probabilities]
        return {
            "file": str(path),
            "label": self.labels[best],
            "probability": values[best],
            "probabilities": dict(zip(self.labels, values, strict=True)),
        }


def recordings(paths):
    """The files that paths name, folders searched; sorted within a folder.

    Raises
    ------
    UserError
        For a folder without recordings, or no such path.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and is_audio(p))
            if not inside:
                raise UserError(f"There are no recordings in the folder {path}.")
            found += inside
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def main(argv=None):
    """Print answers as a table, or with --json as a list of objects."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("adapter", help="folder of a run")
    add("paths", nargs="+", metavar="PATH", help="file or folder")
    add("--json", action="store_true", help="print JSON, with all probabilities")
    add("--source", help="the backbone, if it is not where the adapter says")
    add("--batch_size", type=positive, default=16)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(argv)
    classifier = Classifier(options.adapter, options.source, options.device)
    paths = recordings(options.paths)
    answers = classifier.classify_files(paths, options.batch_size, progress=True)
    if options.json:
        print(json.dumps(answers, indent=1, ensure_ascii=False))
    else:
        Console().print(table(answers))
    failed = [answer["error"] for answer in answers if "error" in answer]
    for error in failed:
        print(f"error: {error}", file=sys.stderr)
    return 1 if failed else 0


def positive(text):
    """A whole number above 0."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def table(answers):
    """Answers as a table."""
    shown = Table()
    for name in ("file", "label"):
        shown.add_column(name, overflow="fold")
    shown.add_column("probability", justify="right")
    for answer in answers:
        if "label" in answer:
            chance = f"{answer['probability']:.4f}"
            shown.add_row(answer["file"], answer["label"], chance)
    return shown


if __name__ == "__main__":
    quiet()
    with refusing():
        sys.exit(main())
