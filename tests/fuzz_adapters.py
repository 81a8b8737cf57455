"""Adapters that are damaged or made up: each is refused in a sentence or whole.

`python tests/fuzz_adapters.py --count=500 --seed=0` tampers that many folders and
prints what came of them; the exit status is 1 if one of them ended in anything but an
answer or a `UserError`, ran code, or took much memory. A slice of it is a test of the
suite.
"""

import argparse
import copy
import json
import math
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers reads it

import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_checkpoint, tiny_writer

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks.heads import ClassificationHead, CTCHead, OwnHead
from petl_modules.use.adapter_file import save_adapter
from petl_modules.use.adapter_schema import SETTINGS, TENSORS, checksum_of
from petl_modules.use.inference import load_adapter

GIB = 2**30
MEMORY = GIB // 2  # that a folder may add: with torch itself, under a GiB
SECONDS = 20.0  # that a folder may take, on a busy machine
RUNS_CODE = {"os.system", "subprocess.Popen", "pickle.find_class", "socket.connect"}
KINDS = {
    "ast": ("bottleneck", {"rank": 2, "site": "both"}, ClassificationHead),
    "wav2vec2": ("conformer", {"rank": 2, "kernel_size": 5}, CTCHead),
    "whisper": ("prompt", {"prompt_length": 3}, ClassificationHead),
    "hubert": ("soft_moa", {"rank": 2, "num_adapters": 2}, ClassificationHead),
    "wavlm": ("lora", {"rank": 2, "targets": ["q", "fc1"]}, ClassificationHead),
    "writer": ("lora", {"rank": 2}, OwnHead),
}
ODD = [None, True, False, 0, -1, 1, 3, 3_000_000, 2**40, 10**30, 0.5, -0.1, 1e38, ""]
ODD += [float("nan"), float("inf"), "x", "a" * 5000, "../../etc/passwd", "\0", "q,v"]
ODD += [[], [[]], {}, {"a": 1}, [0, 99], ["q"], [None], "__import__('os')", ["a", "a"]]


def whole(root):
    """An adapter of each kind with random tensors: `{kind: folder}`."""
    folders = {}
    for kind, (method, knobs, head) in KINDS.items():
        source, folder = root / "backbones" / kind, root / "adapters" / kind
        writes = head is OwnHead
        tiny_writer(source) if writes else tiny_checkpoint(kind, source)
        model = AdaptedModel(
            load_backbone(source, decoder=writes), make_method(method, **knobs)
        )
        built = head() if writes else head(model.points.hidden_size, 3)
        with torch.no_grad():
            for parameter in (*model.trained_parameters().values(),):
                parameter.add_(torch.randn_like(parameter) * 0.1)
        labels = None if writes else ["<blank>", "b", "c"]
        save_adapter(folder, model, built, {"labels": labels, "metrics": {"a": 0.5}})
        folders[kind] = folder
    return folders


def seal(folder):
    """Give tampered settings and tensors a checksum that is right."""
    settings = json.loads((folder / SETTINGS).read_text())
    settings["checksum"] = checksum_of(settings, folder / TENSORS)
    (folder / SETTINGS).write_text(json.dumps(settings))


# The ways to tamper: each changes a folder by a `random.Random`


def flip_bits(folder, rng):
    path = folder / rng.choice([SETTINGS, TENSORS])
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 1, 8, 64])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(folder, rng):
    path = folder / rng.choice([SETTINGS, TENSORS])
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def lengthen(folder, rng):
    path = folder / rng.choice([SETTINGS, TENSORS])
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.choice([1, 7, 4096])))


def remove(folder, rng):
    path = folder / rng.choice([SETTINGS, TENSORS])
    path.unlink()
    if rng.random() < 0.5:
        path.mkdir()


def places_of(value, path=()):
    """The path of every value in a JSON object."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places_of(inner, (*path, key))


def change_settings(folder, rng):
    settings = json.loads((folder / SETTINGS).read_text())
    for _ in range(rng.choice([1, 1, 2, 5])):
        *path, key = rng.choice(list(places_of(settings)))
        place = settings
        for step in path:
            place = place[step]
        way = rng.randrange(4)
        if way == 0:
            del place[key]
        elif way == 1 and isinstance(place, dict):
            place[rng.choice(["auto_map", "rank", "extra", "type"])] = copy.deepcopy(
                rng.choice(ODD)
            )
        elif way == 2 and isinstance(place[key], int | float):
            place[key] *= rng.choice([-1, 0, 2, 10**6, 1.5])
        else:
            place[key] = copy.deepcopy(rng.choice(ODD))
        if not settings:
            break
    (folder / SETTINGS).write_text(json.dumps(settings))


def change_tensor(folder, rng):
    tensors = load_file(folder / TENSORS)
    if not tensors:
        return
    name = rng.choice(sorted(tensors))
    tensor, flat = tensors[name], tensors[name].flatten()
    way = rng.randrange(9)
    if way < 3 and flat.numel():
        flat[rng.randrange(flat.numel())] = [math.nan, math.inf, -1e38][way]
    elif way == 3:
        types = [torch.bool, torch.complex64, torch.float16, torch.int64, torch.float64]
        tensors[name] = tensor.to(rng.choice(types))
    elif way == 4:
        tensors[name] = torch.zeros(*tensor.shape, 2)
    elif way == 5:
        del tensors[name]
    elif way == 6:
        tensors[name + rng.choice(["", ".weight", "\u202e"]) + "x"] = tensor
    elif way == 7:
        tensors[name] = -tensor.abs() - 1
    else:
        tensors[name] = tensor.flatten()
    save_file({n: t.contiguous().clone() for n, t in tensors.items()}, folder / TENSORS)


def change_header(folder, rng):
    content = (folder / TENSORS).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = rng.choice([name for name in header if name != "__metadata__"] or [""])
    entry = header.get(name, {})
    way = rng.randrange(5)
    if way == 0:
        entry["shape"] = [rng.choice([0, 1, 2**31, 2**62, -1]) for _ in range(2)]
    elif way == 1:
        entry["dtype"] = rng.choice(["BOOL", "C64", "F64", "I8", "OBJ", "F8_E4M3"])
    elif way == 2:
        entry["data_offsets"] = [rng.randrange(2**20), rng.choice([0, 2**63, 2**20])]
    elif way == 3:
        header["__metadata__"] = rng.choice([{"a": "b" * 10**5}, {"a": 1}, []])
    written = json.dumps(header).encode()
    if way == 4:
        written = b"[" * rng.choice([10, 10**5])
    told = len(written) if rng.random() < 0.8 else rng.choice([0, 2**40, 2**64 - 1])
    (folder / TENSORS).write_bytes(
        told.to_bytes(8, "little") + written + content[8 + size :]
    )


def swap(folder, rng, others):
    name = rng.choice([SETTINGS, TENSORS])
    shutil.copy(rng.choice(others) / name, folder / name)


def make_huge(folder, rng):
    path = folder / SETTINGS
    settings = json.loads(path.read_text())
    way = rng.randrange(5)
    if way == 0:
        path.write_text("[" * 200_000)
    elif way == 1:
        settings["info"]["notes"] = "x" * (20 * 2**20)
        path.write_text(json.dumps(settings))
    elif way == 2:
        knobs = settings["methods"][0]["knobs"]
        knobs[rng.choice(sorted(knobs))] = 3_000_000
        path.write_text(json.dumps(settings))
    elif way == 3:
        path.write_text(
            path.read_text().replace(
                '"labels"', '"n": ' + '{"a":' * 5000 + "1" + "}" * 5000 + ', "labels"'
            )
        )
    else:
        settings["info"]["labels"] = [str(i) for i in range(300_000)]
        settings["head"]["num_classes"] = 300_000
        path.write_text(json.dumps(settings))


def point_elsewhere(folder, rng):
    settings = json.loads((folder / SETTINGS).read_text())
    source = Path(settings["backbone"]["source"])
    trap = folder / "trap"
    if rng.random() < 0.5:  # a backbone that would run code
        shutil.copytree(source, trap)
        config = json.loads((trap / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
        config["model_type"] = rng.choice([config["model_type"], "evil"])
        (trap / "config.json").write_text(json.dumps(config))
        (trap / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
        settings["backbone"]["source"] = str(trap)
    else:
        elsewhere = ["/etc", "/dev/zero", "/proc/self", "..", "~", "http://a/b", "a/b"]
        settings["backbone"]["source"] = rng.choice([*elsewhere, "a" * 4000, "-x"])
    (folder / SETTINGS).write_text(json.dumps(settings))


def say_twice(folder, rng):
    """A key of the settings is there twice: which of them is read hangs on the
    reader."""
    text = (folder / SETTINGS).read_text()
    key = rng.choice(["format", "methods", "head", "source", "name"])
    twice = f'"{key}": {json.dumps(rng.choice(ODD))}, "{key}":'
    (folder / SETTINGS).write_text(text.replace(f'"{key}":', twice, 1))


def be_no_file(folder, rng):
    """A link to what has no end, a pipe, or a link to itself."""
    path = folder / rng.choice([SETTINGS, TENSORS])
    path.unlink()
    way = rng.randrange(3)
    os.mkfifo(path) if way == 0 else path.symlink_to(["/dev/zero", path][way - 1])


WAYS = [flip_bits, cut, lengthen, remove, change_header, swap, make_huge]
WAYS += [point_elsewhere, say_twice, be_no_file]
WAYS += [change_settings, change_settings, change_tensor, change_tensor]


def contents(folder):
    """What an adapter is, but for where its backbone lies: settings and tensors."""
    settings = json.loads((folder / SETTINGS).read_bytes())
    settings["backbone"].pop("source")
    return settings, (folder / TENSORS).read_bytes()


def tamper(original, folder, rng, others):
    """Copy an adapter and damage it; returns the way, and whether it has a checksum
    that fits."""
    shutil.copytree(original, folder)
    way = rng.choice(WAYS)
    way(folder, rng, others) if way is swap else way(folder, rng)
    made_up = way is not be_no_file and rng.random() < 0.5
    if made_up:
        try:
            seal(folder)
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
            RuntimeError,
            AttributeError,
        ):
            made_up = False
    return way.__name__, made_up


def forget_peak():
    """Start a new peak, which is the process's otherwise: others may have made it."""
    with suppress(OSError):  # another system: what the peak rises by is told
        Path("/proc/self/clear_refs").write_text("5")


def memory(field):
    """VmHWM, the peak since `forget_peak`, or VmRSS, what is held now, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = (line for line in status.split("\n") if line.startswith(field))
    return int(line.split()[1]) * 1024


def problem_of(folder, original, made_up, events):
    """What is wrong with what comes of a folder, or None; and what came of it."""
    wavs = torch.randn(2, 6000, generator=torch.Generator().manual_seed(0)) * 0.1
    events.clear()
    try:
        adapters = load_adapter(folder, "a")
        if adapters.gives("a") == "text":
            answer = adapters.transcribe_batch(wavs)
        else:
            answer = adapters.classify_batch(wavs)
    except UserError as error:
        if "\n" in str(error).strip() or len(str(error)) > 3000:
            return f"no sentence: {str(error)[:500]}", "refused"
        outcome = "refused"
    except BaseException:
        return traceback.format_exc(), "traceback"
    else:
        outcome = "taken"
        if not made_up and contents(folder) != contents(original):
            return "taken, and it is not whole", outcome
        if adapters.gives("a") == "label" and len(answer[0]) != len(adapters.labels):
            return "taken, with other labels than probabilities", outcome
    if events or (folder / "ran").exists():
        return f"code was run: {events}", outcome
    return None, outcome


def fuzz(count, seed=0, root=None):
    """Tamper `count` adapters and load them.

    Returns
    -------
    problems : list of str
        One for each that ended otherwise than it should.
    outcomes : Counter
        How many were refused and taken, by the way in which they were tampered.
    most : int
        The bytes that the greediest of them added.
    """
    root = Path(root or tempfile.mkdtemp())
    folders, events, problems, outcomes = whole(root), [], [], Counter()
    most = 0
    watching = [True]
    sys.addaudithook(
        lambda event, _: watching and event in RUNS_CODE and events.append(event)
    )
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        kind = rng.choice(sorted(folders))
        others = [folder for name, folder in folders.items() if name != kind]
        folder = root / "tampered"
        way, made_up = tamper(folders[kind], folder, rng, others)
        forget_peak()
        start, held = time.monotonic(), memory("VmRSS")
        problem, outcome = problem_of(folder, folders[kind], made_up, events)
        seconds = time.monotonic() - start
        added = memory("VmHWM") - held
        if added > MEMORY:
            problem = problem or f"{added / GIB:.1f} GiB more"
        most = max(most, added)
        if seconds > SECONDS:
            problem = problem or f"{seconds:.0f} s"
        if problem:
            problems.append(f"number {number} ({kind}, {way}, {made_up=}): {problem}")
        outcomes[way, outcome] += 1
        shutil.rmtree(folder)
    watching.clear()
    return problems, outcomes, most


def main():
    """Fuzz, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    problems, outcomes, most = fuzz(options.count, options.seed)
    for (way, outcome), number in sorted(outcomes.items()):
        print(f"{way:16} {outcome:9} {number}")
    print(*problems, sep="\n")
    print(
        f"{options.count} folders in {time.monotonic() - start:.0f} s, at most "
        f"{most / GIB:.2f} GiB more: {len(problems)} ended otherwise than they should."
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
