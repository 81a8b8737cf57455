"""Command lines that make no sense, and data that is damaged or odd: each ends in an
answer or in one sentence.

`python tests/fuzz.py --count=300 --seed=0` runs that many and prints what came of
them; the exit status is 1 if one of them ended in anything else, or did not end. A
slice of it is a test of the suite.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import layouts
import numpy as np
import soundfile
from conftest import ROOT, tone
from tiny import tiny_checkpoint, tiny_speech_base

from petl_modules.train import run_recipe
from petl_modules.train.config import load_config

SECONDS = 120  # that a run may take, on a busy machine
# recipe, its layout, its prepare function, its backbone
RECIPES = (
    ("AudioFolder", None, "prepare_audiofolder", "ast"),
    ("AudioFolder", None, "prepare_audiofolder", "wav2vec2"),
    ("SpeechCommands", "speechcommands", "prepare_speechcommands", "whisper"),
    ("ESD", "esd", "prepare_esd", "hubert"),
    ("ESD/ASR", "esd", "prepare_text", "wav2vec2"),
    ("LibriSpeech/ASR", "librispeech", "prepare_text", "wavlm"),
    ("L2ARCTIC/TTS", "l2arctic", "prepare_speech", "tts"),
)
METHODS = ("linear", "lora", "bottleneck", "conformer", "prompt", "prefix", "soft_moa")
PLACES = ("data_folder", "source", "output_folder")
# What takes long, or another machine: not what this is about
SPARED = {"device", "wandb", "number_of_epochs", "num_workers", "vocoder", "asr"}
ODD = ["null", "true", "false", "0", "-1", "1", "2", "1e-9", "0.5", "1e38", "-1e38"]
ODD += [
    ".nan",
    ".inf",
    "1e400",
    "''",
    "",
    "x",
    "é",
    "a b",
    "q,v",
    "[]",
    "[0]",
    "[1, 1]",
]
ODD += ["[a, b]", "[[]]", "{}", "{a: 1}", "[null]", "!ref <lr>", "!new:os.system [ls]"]
ODD += ["<lr>", "*a", "&a", "%", "@", ": :", "- -", "{", "]", "'", "0x10", "1_000"]
ODD += ["../..", "/dev/null", "x" * 300, "x\u2028y", "\udce9", "2020-01-01", "1e5000"]
ODD += ["[" * 3000, "\u0663", "1,,2", "None", "nan", "inf", "1e-400", "0b1", "q;v"]
NAMES = ["$a$_{", "{0}", "a | b", "-", "é\u2028x", "[b]", "%s", "..x", "a" * 200]
NAMES += [os.fsdecode(b"caf\xe9"), "train", "null", "1", "~", " ", "'", "#1", "a\nb"]


class Place:
    """Where everything is made: one tree and one backbone of each kind, to be copied.

    Arguments
    ---------
    root : Path
    """

    def __init__(self, root):
        self.root = root
        for recipe, layout, _, family in RECIPES:
            data = root / "data" / (layout or "AudioFolder")
            if not data.exists():
                data.mkdir(parents=True)
                getattr(layouts, layout)(data) if layout else own_clips(data)
            if not (root / family).exists():
                make = tiny_speech_base if family == "tts" else tiny_checkpoint
                make(*(() if family == "tts" else (family,)), root / family)
            del recipe

    def command(self, rng, run):
        """A recipe's prepare function, its yaml, its options, and its data folder,
        which may be changed."""
        recipe, layout, prepare, family = rng.choice(RECIPES)
        data = run / "data"
        shutil.copytree(self.root / "data" / (layout or "AudioFolder"), data)
        hparams = ROOT / "recipes" / recipe / "hparams" / "adapter.yaml"
        options = {
            "data_folder": data,
            "source": self.root / family,
            "output_folder": run / "out",
            "method": rng.choice(METHODS),
            "number_of_epochs": 1,
            "head_start_epochs": rng.choice([0, 0, 1]),
            "skip_broken": True,
            "device": "cpu",
            "noprogressbar": True,
        }
        if family == "tts":
            options |= {"valid_sentences": 1, "test_sentences": 1, "samples": 0}
        return function(recipe, prepare), hparams, options, data


def own_clips(folder):
    """One's own data: two classes."""
    for label, pitch in (("low", 300), ("high", 2000)):
        for i in range(6):
            tone(folder / label / f"{i}.wav", pitch, 0.2, seed=i)


def function(recipe, name):
    """A recipe's prepare function."""
    path = next((ROOT / "recipes" / recipe.split("/")[0]).glob("*_prepare.py"))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


# What makes a run odd: each changes options or files by a `random.Random`


def odd_values(rng, options, data, hparams):
    """Some options have values that make no sense."""
    del data
    knobs = sorted(set(load_config(hparams).settings()) - {*SPARED, *PLACES})
    for key in rng.sample(knobs, rng.choice([1, 1, 2, 4])):
        options[key] = rng.choice(ODD)


def odd_options(rng, options, data, hparams):
    """There are options that are none, or that other recipes have."""
    del data, hparams
    more = ["rnak", "", "-", "=", "lr=", "words", "fold", "labels", "recipe", "petl[x]"]
    options[rng.choice(more)] = rng.choice(ODD)


def odd_places(rng, options, data, hparams):
    """A folder is none."""
    del hparams
    odd = ["", "null", "/dev/null", "nowhere", "2024", "[a]", "~", "/proc/x", "x" * 300]
    odd += [data.parent / "missing", next(data.rglob("*.wav"), data)]
    options[rng.choice(PLACES)] = rng.choice(odd)


def odd_clips(rng, options, data, hparams):
    """Clips are damaged, or hold what is no sound."""
    del hparams
    options["skip_broken"] = rng.choice([True, False])
    clips = sorted(data.rglob("*.wav")) + sorted(data.rglob("*.flac"))
    for path in rng.sample(clips, min(len(clips), rng.choice([1, 3, 100]))):
        kind = rng.choice(
            ["cut", "text", "empty", "short", "loud", "nan", "link", "bits"]
        )
        content = path.read_bytes()
        path.unlink()
        if kind == "cut":
            path.write_bytes(content[: rng.randrange(len(content) + 1)])
        elif kind == "text":
            path.write_text("no sound\n" * 100)
        elif kind == "empty":
            path.touch()
        elif kind == "link":
            path.symlink_to(path.parent / "gone.wav")
        elif kind == "bits":
            damaged = bytearray(content)
            for _ in range(min(64, len(damaged))):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
        else:
            values = {"short": [0.1], "loud": [3e38, -3e38], "nan": [0.0, np.nan]}[kind]
            soundfile.write(path, np.array(values), 16000, "FLOAT", format="WAV")


def odd_names(rng, options, data, hparams):
    """Folders and clips have names that mean something elsewhere, and are linked."""
    del options, hparams
    paths = [path for path in sorted(data.rglob("*")) if path != data]
    for path in rng.sample(paths, min(len(paths), 3)):
        target = path.parent / (rng.choice(NAMES) + path.suffix)
        with contextlib.suppress(OSError):
            if rng.random() < 0.5:
                path.rename(target)
            else:
                target.symlink_to(rng.choice([path, data, data / "gone"]))


def odd_lists(rng, options, data, hparams):
    """Lists and tables that come with the data are damaged."""
    del options, hparams
    lists = [p for p in sorted(data.rglob("*")) if p.suffix in (".txt", ".tsv", ".csv")]
    for path in rng.sample(lists, min(len(lists), 2)):
        content = bytearray(path.read_bytes())
        kind = rng.choice(["cut", "bits", "doubled", "empty", "gone", "separators"])
        if kind == "gone":
            path.unlink()
            continue
        if kind == "cut":
            content = content[: rng.randrange(len(content) + 1)]
        elif kind == "bits":
            for _ in range(min(16, len(content))):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif kind == "doubled":
            content *= 2
        elif kind == "empty":
            content = bytearray()
        else:
            content = content.replace(b" ", "\u2028".encode(), 3)
        path.write_bytes(content)


def edited(rng, folder):
    """A file of a run that somebody has changed by hand."""
    files = [p for p in sorted(folder.rglob("*")) if p.suffix in (".json", ".yaml")]
    path = rng.choice(files)
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    kind = rng.choice(["cut", "value", "empty", "list", "gone"])
    if kind == "gone":
        path.unlink()
    elif kind == "value" and path.suffix == ".json":
        value = json.loads(text)
        if isinstance(value, dict) and value:
            value[rng.choice(sorted(value))] = rng.choice([None, 3, "x", [], {}, -1e38])
        path.write_text(json.dumps(value))
    else:
        cut = text[: rng.randrange(len(text) + 1)]
        path.write_text(
            {"empty": "", "list": "[1, 2]"}.get(kind, cut), errors="replace"
        )


ODDITIES = (odd_values, odd_options, odd_places, odd_clips, odd_names, odd_lists)


# What comes of them


def outcome(prepare, hparams, options):
    """`answered`, `refused`, or what is wrong with how a command line ends."""
    argv = [str(hparams), *(f"--{key}={value}" for key, value in options.items())]
    said = io.StringIO()
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(SECONDS)
    status = 0
    try:
        with (
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            run_recipe(prepare, argv)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        return f"{argv[1:]}\n{traceback.format_exc()}"
    finally:
        signal.alarm(0)
    errors = [x for x in said.getvalue().split("\n") if x.startswith("error: ")]
    if status == 0 or status is None:
        return "answered"
    fine = status == 2 and len(errors) == 1 and errors[0].rstrip()[-1] in ".?:)]"
    return "refused" if fine else f"{argv[1:]}\nstatus {status}, {said.getvalue()}"


def out_of_time(*_):
    raise TimeoutError(f"It takes more than {SECONDS} s.")


def fuzz(count, seed, root):
    """`(what was odd, outcome)` of each of `count` command lines."""
    place, home = Place(root), os.getcwd()
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        run = root / f"run{number}"
        run.mkdir()
        os.chdir(run)  # what is named by a relative path ends here
        try:
            prepare, hparams, options, data = place.command(rng, run)
            odd = rng.choice([*ODDITIES, edited])
            if odd is edited:
                found = outcome(prepare, hparams, options)
                if found == "answered":
                    edited(rng, run / "out")
                    found = outcome(prepare, hparams, options)
            else:
                odd(rng, options, data, hparams)
                found = outcome(prepare, hparams, options)
        finally:
            os.chdir(home)
            shutil.rmtree(run, ignore_errors=True)
        yield odd.__name__, found


def main():
    """Run the command line; gives its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    counts = Counter()
    with tempfile.TemporaryDirectory() as root:
        for number, (odd, found) in enumerate(
            fuzz(options.count, options.seed, Path(root))
        ):
            wrong = found not in ("answered", "refused")
            counts[odd, "WRONG" if wrong else found] += 1
            if wrong:
                print(f"--- {number}, {odd}: {found}", flush=True)
    for (odd, found), count in sorted(counts.items()):
        print(f"{odd:12} {found:9} {count}")
    return any(found == "WRONG" for _, found in counts)


if __name__ == "__main__":
    sys.exit(main())
