"""What must hold for every method on every backbone family."""

import copy
import functools
import os
from dataclasses import replace
from itertools import product

import pytest
import torch
from tiny import FAMILIES, few_steps

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError
from petl_modules.methods import make_method, method_table
from petl_modules.tasks.heads import ClassificationHead, CTCHead
from petl_modules.use.adapter_file import read_adapter, save_adapter

# Every method, and every option that changes where or how it acts
CASES = {
    "full": ("full", {}),
    "linear": ("linear", {}),
    "bitfit": ("bitfit", {}),
    "bottleneck": ("bottleneck", {"rank": 4}),
    "bottleneck-ffn": ("bottleneck", {"rank": 4, "site": "ffn"}),
    "bottleneck-after": (
        "bottleneck",
        {"rank": 4, "site": "both", "placement": "sequential"},
    ),
    "bottleneck-before": (
        "bottleneck",
        {"rank": 4, "site": "both", "placement": "sequential", "position": "before"},
    ),
    "conformer": ("conformer", {"rank": 4, "kernel_size": 8, "site": "both"}),
    "convpass": ("convpass", {"rank": 4, "dropout": 0.0, "site": "both"}),
    "conv_adapter": ("conv_adapter", {"train_norm": True}),
    "mamba": ("mamba", {"rank": 4, "site": "both", "d_conv": 5}),
    "lora": ("lora", {"rank": 2, "targets": ["q", "k", "v", "o", "ffn"], "alpha": 4}),
    **{
        f"lora-{variant}": ("lora", {"rank": 2, "alpha": 4, "variant": variant})
        for variant in ("dora", "pissa", "lora_fa")
    },
    "adalora": ("adalora", {"rank": 4, "target_rank": 2, "targets": ["q", "fc2"]}),
    "vera": ("vera", {"rank": 12, "targets": ["q", "v", "fc1", "fc2"]}),
    "ssvd": ("ssvd", {"rank": 6, "targets": ["q", "v", "fc1", "fc2"]}),
    "scale": ("scale", {"scaled_inputs": ["fc1"]}),
    "ia3": ("ia3", {}),
    "norms": ("norms", {}),
    "peft": ("peft", {"tuner": "LOHA", "tuner_settings": '{"r": 2}'}),
    "conv_front": ("conv_front", {"rank": 3}),
    "prefix": ("prefix", {"prompt_length": 6}),
    "prefix-projected": ("prefix", {"prompt_length": 6, "projection": 8}),
    "prompt": ("prompt", {"prompt_length": 3}),
    "prompt-shallow": ("prompt", {"prompt_length": 3, "deep": False}),
    "dense_moa": ("dense_moa", {"num_adapters": 3, "rank": 2, "site": "both"}),
    "dense_moa-convpass": (
        "dense_moa",
        {"num_adapters": 3, "rank": 2, "expert": "convpass", "dropout": 0.0},
    ),
    "soft_moa": ("soft_moa", {"num_adapters": 3, "num_slots": 2, "rank": 2}),
    "soft_moa-normalized": ("soft_moa", {"normalize": True, "rank": 2}),
}
MERGE = ("lora", "bitfit", "full", "linear", "vera", "ssvd", "scale", "ia3", "norms")
MERGE = (*MERGE, "peft", "adalora")
BIASLESS = ("whisper", "moonshine")  # keys without bias, or nothing with one
ADDS_TOKENS = ("prefix", "prefix-projected", "prompt", "prompt-shallow")
SAMPLES = 9600
# Of families that share most of their code with others the cases that meet their own
FEW = {
    "sew": ("full", "linear", "conformer", "lora", "prefix", "prompt"),
    "htsat": (
        *("full", "linear", "bitfit", "bottleneck-after", "conformer", "mamba", "lora"),
        *("adalora", "vera", "ssvd", "scale", "norms", "prefix", "soft_moa"),
    ),
}
MATRIX = [
    (family, case)
    for family in FAMILIES
    for case in CASES
    if case in FEW.get(family, CASES)
]
# The costly matrices (host waits, graphs, precision) take every case on some families,
# one that reads spectrograms, one whose layers share a bias, one with a decoder, and on
# every family what acts at other places, of those with few cases one; all pairs with
# PETL_ALL_PAIRS=1
CROSSED = {"ast", "wavlm", "whisper", "full", "bottleneck-after", "lora", "prefix"}
ALL_PAIRS = os.environ.get("PETL_ALL_PAIRS") == "1"
PAIRS = [
    (family, case)
    for family, case in MATRIX
    if ALL_PAIRS or (CROSSED & {family, case} and (family not in FEW or case == "lora"))
]
# PEFT's own code asks tensors for their values as it runs: its layers wait for the
# device, and break graphs
UNASKED = [pair for pair in PAIRS if pair[1] != "peft"]


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("family, case", MATRIX)
    elif "family" in metafunc.fixturenames:
        metafunc.parametrize("family", FAMILIES)


loaded = functools.cache(load_backbone)


def fresh(folder):
    """A backbone as it is loaded, without the time that this takes; but in memory it
    lies elsewhere, which products may be rounded by."""
    return copy.deepcopy(loaded(folder))


def build(folder, case, seed=0, load=fresh):
    torch.manual_seed(seed)
    name, knobs = CASES[case]
    if name == "peft":
        pytest.importorskip("peft")
    backbone = load(folder)
    if name == "conv_front" and backbone.feature_encoder is None:
        pytest.skip("refused where no convolutions read the waveform: test_variants")
    model = AdaptedModel(backbone, make_method(name, **knobs))
    return model, ClassificationHead(backbone.hidden_size, 3)


def batch(lengths=(9600, 9600, 9600), seed=1):
    generator = torch.Generator().manual_seed(seed)
    wavs = torch.zeros(len(lengths), max(lengths))
    for row, length in zip(wavs, lengths, strict=True):
        row[:length] = torch.randn(length, generator=generator) * 0.1
    return wavs, torch.tensor(lengths) / max(lengths)


def trained(model, head, steps=3, lr=0.02, lengths=(9600, 7000, 4000)):
    """A few steps of training; returns which parameters ever got a gradient."""
    wavs, lens = batch(lengths)
    parameters = {**model.trained_parameters(), **dict(head.named_parameters())}
    model.train(), head.train()

    def loss():
        logits = head(model(wavs, lens))
        return torch.nn.functional.cross_entropy(logits, torch.arange(len(lengths)))

    return few_steps(parameters, loss, steps, lr)


def test_all_methods_are_covered():
    assert {name for name, _ in CASES.values()} == set(method_table())


def test_step_0_is_the_base_model(checkpoints, family, case):
    if case in ADDS_TOKENS:
        pytest.skip("added tokens change the function; see the textbook tests")
    model, _ = build(checkpoints[family], case)
    wavs, lens = batch((9600, 5000))
    expected = load_backbone(checkpoints[family])(wavs, lens).hidden
    torch.testing.assert_close(model.eval()(wavs, lens).hidden, expected)


def test_all_that_trains_learns_and_the_rest_stays(checkpoints, family, case):
    # conv_adapter's gate has two units here: for one draw a ReLU may be dead
    seeds = (1, 2, 3, 4) if case == "conv_adapter" else ()
    reached = set()
    for seed in seeds:
        reached |= trained(*build(checkpoints[family], case, seed), steps=2)
    model, head = build(checkpoints[family], case)
    names = set(model.trained_parameters()) | set(dict(head.named_parameters()))
    ids = {id(p) for p in model.trained_parameters().values()}
    frozen = {
        n: p.clone() for n, p in model.backbone.named_parameters() if id(p) not in ids
    }
    buffers = {n: b.clone() for n, b in model.backbone.named_buffers()}
    assert not names - trained(model, head, steps=2) - reached
    trained(model, head, steps=8)
    after = dict(model.backbone.named_parameters())
    assert all(torch.equal(tensor, after[name]) for name, tensor in frozen.items())
    after = dict(model.backbone.named_buffers())
    assert all(torch.equal(tensor, after[name]) for name, tensor in buffers.items())
    requires = {id(p) for p in model.parameters() if p.requires_grad}
    assert requires == {id(p) for p in model.trained_parameters().values()}


def test_training_changes_the_output(checkpoints, family, case):
    if (family, case) == ("sew", "linear"):
        pytest.skip("it ends in no norm, so that the head trains alone")
    model, head = build(checkpoints[family], case)
    wavs, lens = batch()
    before = model.eval()(wavs, lens).hidden
    trained(model, head)
    after = model.eval()(wavs, lens).hidden
    assert before.shape == after.shape and (before - after).abs().max() > 1e-4


def test_frozen_modules_are_pinned_to_eval(checkpoints, family, case):
    model, _ = build(checkpoints[family], case)
    model.train()
    assert model.backbone.training == (case == "full")
    assert all(m.training for m in model.petl.modules())
    model.eval()
    assert not any(m.training for m in model.modules())


def test_saved_and_loaded_gives_equal_outputs(checkpoints, family, case, tmp_path):
    model, head = build(checkpoints[family], case, load=load_backbone)
    trained(model, head)
    save_adapter(tmp_path, model, head, {"labels": ["a", "b", "c"]})
    loaded = read_adapter(tmp_path)
    assert loaded.info == {"labels": ["a", "b", "c"]}
    wavs, lens = batch((9600, 5000), seed=5)
    expected = head.eval()(model.eval()(wavs, lens))
    assert torch.equal(loaded.head(loaded.model(wavs, lens)), expected)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_padding_does_not_count(checkpoints, family, case, mode):
    if mode == "train" and case in ("full", "conformer"):
        pytest.skip("dropout and batch statistics depend on the batch by definition")
    model, head = build(checkpoints[family], case)
    trained(model, head)
    model.train(mode == "train")
    wavs, lens = batch((9600, 4321, 7000))
    together = model(wavs, lens)
    for row, length in enumerate((9600, 4321, 7000)):
        alone = model(wavs[row : row + 1, :length])
        hidden = together.hidden[row][together.mask[row]]
        assert hidden.shape == alone.hidden[0].shape
        torch.testing.assert_close(hidden, alone.hidden[0], atol=3e-5, rtol=1e-4)
        torch.testing.assert_close(
            head.read(together)[0][row], head.read(alone)[0][0], atol=3e-5, rtol=1e-4
        )


def test_merged_gives_equal_outputs_without_modules(checkpoints, family, case):
    model, head = build(checkpoints[family], case)
    trained(model, head)
    wavs, lens = batch((9600, 5000))
    expected = model.eval()(wavs, lens).hidden
    if CASES[case][0] not in MERGE or (case == "scale" and family in BIASLESS):
        with pytest.raises(UserError, match="cannot be merged"):
            model.merge()
        return
    model.merge()
    plain = fresh(checkpoints[family])
    plain.load_state_dict(model.backbone.state_dict())
    torch.testing.assert_close(model(wavs, lens).hidden, expected)
    torch.testing.assert_close(plain(wavs, lens).hidden, expected)
    model.unmerge()
    assert torch.equal(model(wavs, lens).hidden, expected)


def test_layers_restrict_the_method(checkpoints, family, case):
    if case in ("full", "linear", "conv_front"):
        pytest.skip("acts on all layers, or on none")
    name, knobs = CASES[case]
    backbone = fresh(checkpoints[family])
    model = AdaptedModel(backbone, make_method(name, **knobs, layers=[-1]))
    keys = [k for k in model.trained_parameters() if not k.startswith("last_norm")]
    last = f"layer{backbone.num_layers - 1}_"
    assert keys and all(key.startswith(last) for key in keys)
    wavs, lens = batch()
    seen = []
    first = backbone.points.layers[0].module
    first.register_forward_hook(lambda m, args, out: seen.append(out))
    model(wavs, lens).hidden.sum().backward()
    out = seen[0] if isinstance(seen[0], torch.Tensor) else seen[0][0]
    assert not out.requires_grad  # backward stops at the lowest trained layer


def test_weighted_sum_and_cached_features_equal_the_plain_pass(checkpoints, family):
    model, head = build(checkpoints[family], "linear")
    wavs, lens = batch((9600, 5000))
    sums = ({}, {"weighted_sum": True, "num_layers": 2})
    sums = (*sums, {**sums[1], "normalize_layers": True})
    adapters = {"layer_adapters": 8, "num_layers": 2}
    if family == "htsat":  # whose layers have several sizes
        sums, adapters = ({},), {}
    cases = [*product((ClassificationHead, CTCHead), (*sums, adapters))]
    cases += [(ClassificationHead, {"attentive": True})]
    for kind, options in cases:
        head = kind(32, 3, **options)
        weighted = head.weighted_sum
        assert weighted == ("num_layers" in options)
        if weighted:
            torch.nn.init.normal_(head.layer_weights)
        for parameter in model.trained_parameters().values():  # of the last norm
            torch.nn.init.normal_(parameter)
        expected = head(model(wavs, lens, all_layers=weighted))
        features = model.features(wavs, lens, head)
        actual = model.head_from_features(*features, head)
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert model.frozen_below_head


def test_heads_that_read_every_step_leave_padding_out(checkpoints, family, tmp_path):
    model, _ = build(checkpoints[family], "linear")
    options = {"layer_adapters": 8, "num_layers": 2} if family != "htsat" else {}
    head = ClassificationHead(32, 3, **options, attentive=True)
    wavs, lens = batch((9600, 4321, 7000))
    save_adapter(tmp_path, model, head, {"labels": ["a", "b", "c"]})
    loaded = read_adapter(tmp_path)
    for model_, head_ in ((model.eval(), head.eval()), (loaded.model, loaded.head)):
        together = head_(model_(wavs, lens, all_layers=True))
        for row, length in enumerate((9600, 4321, 7000)):
            alone = model_(wavs[row : row + 1, :length], all_layers=True)
            torch.testing.assert_close(
                together[row], head_(alone)[0], atol=3e-5, rtol=1e-4
            )


@pytest.mark.parametrize("kind", [ClassificationHead, CTCHead])
def test_a_sum_of_normalised_layers_hears_them_alike(kind):
    torch.manual_seed(0)
    hidden, mask = torch.randn(3, 2, 5, 32), torch.ones(2, 5, dtype=torch.bool)
    for normalised in (True, False):
        options = {"weighted_sum": True, "num_layers": 2}
        head, outputs = kind(32, 4, **options, normalize_layers=normalised), []
        for loud in (1.0, 1000.0):
            layers = [Tokens(layer, mask) for layer in hidden * loud]
            layers[-1] = Tokens(hidden[-1], mask)  # the model's norm saw to it
            output = head(replace(layers[-1], layers=tuple(layers)))
            outputs.append(output if kind is ClassificationHead else output[0])
        assert torch.allclose(*outputs, atol=1e-4) == normalised


def test_methods_compose(checkpoints, family):
    def methods():
        between = "scale" if family == "htsat" else "prompt"
        knobs = {"lora": {"rank": 2}, between: {}, "bottleneck": {"rank": 2}}
        return [make_method(name, **knobs[name]) for name in knobs]

    torch.manual_seed(0)
    model = AdaptedModel(load_backbone(checkpoints[family]), methods())
    head = ClassificationHead(32, 3)
    assert set(model.trained_parameters()) <= trained(model, head, steps=2) | {
        n for n in model.trained_parameters() if n.startswith("last_norm")
    }
    model2 = AdaptedModel(load_backbone(checkpoints[family]), methods())
    model2.load_trained_state(model.trained_state())
    wavs, lens = batch()
    expected = model.eval()(wavs, lens).hidden
    assert torch.equal(model2.eval()(wavs, lens).hidden, expected)
