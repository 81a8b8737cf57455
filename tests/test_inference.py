"""Adapters at work: in turns and together on one backbone, each as if it were alone."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import tone
from tiny import FAMILIES

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks.heads import ClassificationHead, CTCHead
from petl_modules.use.adapter_file import read_adapter, save_adapter
from petl_modules.use.inference import load_adapter

# Together in one pass: other sites, placements, widths, activations, heads
MIXING = {
    "keywords": ([("bottleneck", {"rank": 2})], ["yes", "no", "stop"]),
    "emotion": (
        [("bottleneck", {"rank": 5, "site": "both", "train_norm": False})],
        ["glad", "sad"],
    ),
    "speaker": (
        [
            ("lora", {"rank": 3, "alpha": 7, "targets": ["q", "fc2"]}),
            ("bottleneck", {"site": "ffn", "placement": "sequential", "layers": [1]}),
        ],
        ["ann", "bob", "cid", "dan"],
    ),
    "before": (
        [
            (
                "bottleneck",
                {
                    "activation": "relu",
                    "placement": "sequential",
                    "position": "before",
                },
            ),
            ("lora", {"targets": ["fc1", "o"]}),
        ],
        ["loud", "soft"],
    ),
    "probe": ([("linear", {})], ["dog", "cat"]),
    "lengths": ([("lora", {"variant": "dora", "rank": 3})], ["dora", "other"]),
    "singular": ([("lora", {"variant": "pissa", "rank": 2})], ["pissa", "other"]),
    "random": ([("vera", {"rank": 5}), ("norms", {})], ["vera", "other"]),
    "another": ([("vera", {"rank": 5, "projection_seed": 1})], ["vera", "one"]),
    "ranks": ([("adalora", {"rank": 5, "target_rank": 2})], ["adalora", "other"]),
    "rotated": ([("ssvd", {"rank": 4})], ["ssvd", "other"]),
    "scaled": ([("scale", {"scaled_inputs": ["fc1"]})], ["ssf", "other"]),
    "vectors": ([("ia3", {}), ("lora", {})], ["ia3", "other"]),
}
# Each in a pass of its own
OTHERS = {
    "prompt": ([("prompt", {"prompt_length": 3})], ["in", "out"]),
    "bitfit": ([("bitfit", {})], ["up", "down"]),
    "prefix": ([("prefix", {"prompt_length": 4})], ["left", "right"]),
    "conv": ([("conv_adapter", {"train_norm": True})], ["far", "near"]),
    "alone": (
        [("bottleneck", {"placement": "sequential", "residual": False})],
        ["odd", "even"],
    ),
}
LENGTHS = (9600, 4800, 7200)


def saved(checkpoint, folder, methods, labels, head=ClassificationHead, **settings):
    """An adapter with random tensors, as after much training."""
    torch.manual_seed(len(folder.name))
    backbone = load_backbone(checkpoint, max_duration=settings.pop("cut", None))
    model = AdaptedModel(backbone, [make_method(n, **knobs) for n, knobs in methods])
    head = head(backbone.hidden_size, len(labels), **settings)
    with torch.no_grad():
        for parameter in (*model.trained_parameters().values(), *head.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.2)
    save_adapter(folder, model, head, {"labels": labels})
    return folder


@pytest.fixture(scope="module")
def folders(checkpoints, tmp_path_factory):
    """`{family: {name: folder}}`, made when they are asked for."""
    root = tmp_path_factory.mktemp("adapters")

    def make(family, names):
        known = {**MIXING, **OTHERS}
        for name in names:
            if not (root / family / name).exists():
                saved(checkpoints[family], root / family / name, *known[name])
        return {name: root / family / name for name in names}

    return make


def clips(count=3):
    generator = torch.Generator().manual_seed(0)
    lengths = [LENGTHS[i % len(LENGTHS)] for i in range(count)]
    wavs = torch.zeros(count, max(LENGTHS))
    for row, length in zip(wavs, lengths, strict=True):
        row[:length] = torch.randn(length, generator=generator) * 0.1
    return wavs, torch.tensor(lengths) / max(LENGTHS)


def loaded(folders):
    """All of them on one backbone."""
    (name, folder), *others = folders.items()
    adapters = load_adapter(folder, name)
    for name, folder in others:
        adapters.add(folder, name)
    return adapters


@pytest.mark.parametrize("family", ["ast", "wav2vec2", "whisper"])
def test_in_turns_each_is_bit_equal_to_a_fresh_load(folders, family):
    theirs = folders(family, ["keywords", *OTHERS])
    adapters = loaded(theirs)
    wavs, lens = clips()
    for name in (*theirs, *reversed(theirs)):
        adapters.use(name)
        fresh = load_adapter(theirs[name])
        expected = fresh.classify_batch(wavs, lens)
        assert torch.equal(adapters.classify_batch(wavs, lens), expected)
        with torch.no_grad():
            plain = read_adapter(theirs[name])
            logits = plain.head(plain.model(wavs, lens))
        torch.testing.assert_close(expected, logits.softmax(-1))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_batch_equals_separate_passes(folders, family):
    theirs = folders(family, MIXING)
    adapters = loaded(theirs)
    names = [*MIXING, *reversed(MIXING), "speaker"]
    wavs, lens = clips(len(names))
    passes = []
    adapters.backbone.points.layers[-1].module.register_forward_hook(
        lambda *_: passes.append(1)
    )
    together = adapters.classify_batch(wavs, lens, names)
    assert len(passes) == 2  # of the long clips and of the short ones
    for name, wav, length, row in zip(names, wavs, lens, together, strict=True):
        adapters.use(name)
        (alone,) = adapters.classify_batch(wav[None, : round(float(length) * 9600)])
        assert len(row) == len(MIXING[name][1])
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=0)
    later = adapters.classify_batch(wavs, lens, names)
    assert all(map(torch.equal, later, together))  # switching left nothing behind


def test_clips_of_other_lengths_are_not_padded_to_the_longest(folders, monkeypatch):
    adapters = loaded(folders("whisper", ["keywords", "emotion"]))
    shapes = []
    adapters.backbone.register_forward_pre_hook(
        lambda _, args: shapes.append(tuple(args[0].shape))
    )
    wavs = torch.zeros(7, 16000)
    lens = torch.tensor([0.25, 1.0, 0.5, 0.2, 0.8, 0.9, 0.45])
    names = ["keywords", "emotion"] * 3 + ["keywords"]
    adapters.classify_batch(wavs, lens, names)
    assert shapes == [(3, 16000), (2, 8000), (2, 4000)]
    shapes.clear()
    monkeypatch.setattr("petl_modules.use.engine.CPU_SECONDS", 2)
    adapters.classify_batch(wavs, None, names)
    assert shapes == [(2, 16000)] * 3 + [(1, 16000)]


def test_other_methods_get_passes_of_their_own(folders):
    adapters = loaded(folders("whisper", ["prompt", "keywords", "bitfit", "emotion"]))
    names = ["emotion", "bitfit", "prompt", "keywords", "prompt", "emotion"]
    wavs, lens = clips(len(names))
    together = adapters.classify_batch(wavs, lens, names)
    adapters.add(folders("whisper", ["probe"])["probe"], "probe")  # between two batches
    again = adapters.classify_batch(wavs, lens, [*names[:-1], "probe"])
    for i, name in enumerate(names):
        adapters.use(name)
        alone = adapters.classify_batch(wavs[i : i + 1], lens[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=0)
        if i < len(names) - 1:
            torch.testing.assert_close(again[i], alone, atol=1e-5, rtol=0)


def test_what_does_not_fit_is_refused_and_the_others_go_on(
    folders, checkpoints, tmp_path
):
    adapters = loaded(folders("whisper", ["keywords"]))
    wavs, lens = clips()
    before = adapters.classify_batch(wavs, lens)
    other = folders("wavlm", ["emotion"])["emotion"]
    with pytest.raises(UserError, match="trained on a wavlm model"):
        adapters.add(other, "emotion")
    with pytest.raises(UserError, match="no adapter at"):
        adapters.add(tmp_path, "nothing")
    with pytest.raises(UserError, match="an adapter keywords already"):
        adapters.add(other, "keywords")
    with pytest.raises(UserError, match="no adapter emotion: choose among keywords"):
        adapters.use("emotion")
    with pytest.raises(UserError, match="3 clips need 3 names"):
        adapters.classify_batch(wavs, lens, ["keywords"])
    with pytest.raises(UserError, match="gives no text: classify instead"):
        adapters.transcribe_file("clip.wav")
    assert adapters.names == ["keywords"]
    assert torch.equal(adapters.classify_batch(wavs, lens), before)


@pytest.mark.parametrize("family", ["ast", "whisper", "hubert"])
def test_long_clips_are_cut_as_each_adapter_was_trained(checkpoints, family, tmp_path):
    methods, labels = MIXING["keywords"]
    adapters = load_adapter(
        saved(checkpoints[family], tmp_path / "whole", methods, labels), "whole"
    )
    cut = saved(checkpoints[family], tmp_path / "cut", methods, labels, cut=0.4)
    adapters.add(cut, "cut")
    wavs, _ = clips()
    whole, short = adapters.classify_batch(wavs[[0, 0]], None, ["whole", "cut"])
    for name, wav, expected in (
        ("whole", wavs[0], whole),
        ("cut", wavs[0, :6400], short),
        ("cut", wavs[0], short),
    ):
        adapters.use(name)
        alone = adapters.classify_batch(wav[None])[0]
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)


def test_sequences_are_transcribed(checkpoints, folders, tmp_path):
    labels = ["<blank>", "A", "B", "C"]
    methods = [("bottleneck", {"rank": 2})]
    folder = saved(
        checkpoints["wav2vec2"], tmp_path / "phones", methods, labels, CTCHead, cut=0.2
    )
    for i, seconds in enumerate((0.6, 0.4)):
        tone(tmp_path / f"{i}.wav", 300 + 900 * i, seconds, seed=i)
    paths = [tmp_path / "0.wav", tmp_path / "1.wav"]
    adapters = load_adapter(folder, "phones")
    texts = [adapters.transcribe_file(path) for path in paths]
    assert set("".join(texts)) <= set("ABC ") and len(texts[0]) > len(texts[1]) > 0
    adapters.add(folders("wav2vec2", ["emotion"])["emotion"], "emotion")
    said, felt = adapters.answer_files(paths, ["phones", "emotion"])
    assert said == {"file": str(paths[0]), "text": texts[0]}
    assert felt["label"] in {"glad", "sad"} and "text" not in felt
    with pytest.raises(UserError, match="gives no label: transcribe instead"):
        adapters.classify_file(paths[0])


def test_eight_threads_switch_and_each_gets_its_own_answers(folders):
    theirs = folders("wav2vec2", ["keywords", "bitfit", "prefix", "emotion"])
    adapters = loaded(theirs)
    wavs, lens = clips()
    expected = {}
    for name in theirs:
        adapters.use(name)
        expected[name] = adapters.classify_batch(wavs, lens)
    names = list(theirs)

    def work(number):
        name = names[number % len(names)]
        if number % 3:
            adapters.use(name)
            return name, adapters.classify_batch(wavs, lens)
        rows = adapters.classify_batch(wavs, lens, [name] * 3)
        return name, torch.stack(rows)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(work, range(64)))
    assert all(torch.equal(rows, expected[name]) for name, rows in found)


def test_threads_that_choose_nothing_have_what_the_first_one_chose(folders):
    adapters = loaded(folders("wav2vec2", ["keywords", "emotion"]))
    adapters.use("emotion")
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lambda: adapters.in_use).result() == "emotion"
        thread.submit(adapters.use, "keywords").result()
        assert thread.submit(lambda: adapters.in_use).result() == "keywords"
    assert adapters.in_use == "emotion"


def test_two_processes_answer_alike(folders, tmp_path):
    folder = folders("wav2vec2", ["keywords"])["keywords"]
    tone(tmp_path / "a.wav", 300)
    command = [sys.executable, "-m", "petl_modules.predict", folder, tmp_path, "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=300)[0]) for process in both]
    (here,) = load_adapter(folder).answer_files([tmp_path / "a.wav"])
    assert answers == [[here], [here]]
