"""An adapter file is small, complete, and refused where it does not fit."""

import json
import time
import tracemalloc

import pytest
import torch
from fuzz_adapters import fuzz, seal
from safetensors.torch import load_file, save_file
from tiny import CONVOLUTIONS, SIZES, save, tiny_checkpoint
from transformers import HubertConfig, HubertModel

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.turns import Turns
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks.heads import ClassificationHead
from petl_modules.use.adapter_file import read_adapter, save_adapter

LABELS = ["a", "b", "c"]
VARIANCE = "layer0_mhsa_conformer.batch_norm.running_var"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint("whisper", tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def adapter(checkpoint, tmp_path):
    model = AdaptedModel(load_backbone(checkpoint), make_method("conformer", rank=2))
    model.train()(torch.randn(2, 8000))  # batch statistics leave their start
    save_adapter(tmp_path / "a", model, ClassificationHead(32, 3), {"labels": LABELS})
    return tmp_path / "a"


def test_it_holds_what_trains_and_nothing_of_the_backbone(adapter):
    tensors = load_file(adapter / "adapter.safetensors")
    assert all(n.startswith(("layer", "last_norm", "head")) for n in tensors)
    means = [t for n, t in tensors.items() if n.endswith("running_mean")]
    assert len(means) == 2 and all(mean.abs().max() > 0 for mean in means)
    assert "layer1_mhsa_conformer.conv.weight" in tensors
    settings = json.loads((adapter / "adapter.json").read_text())
    assert settings["methods"][0]["name"] == "conformer"
    assert settings["sample_rate"] == 16000


def change(adapter, function):
    path = adapter / "adapter.safetensors"
    tensors = load_file(path)
    function(tensors)
    save_file(tensors, path)
    seal(adapter)


def test_tensors_too_many_missing_or_misshaped_are_refused(adapter):
    original = load_file(adapter / "adapter.safetensors")
    name = "layer0_mhsa_conformer.batch_norm.running_mean"
    change(adapter, lambda t: t.update(extra=torch.zeros(2)))
    with pytest.raises(UserError, match="extra"):
        read_adapter(adapter)
    change(adapter, lambda t: (t.pop("extra"), t.pop(name)))
    with pytest.raises(UserError, match="missing"):
        read_adapter(adapter)
    change(adapter, lambda t: t.update({**original, name: torch.zeros(7)}))
    with pytest.raises(UserError, match="shape"):
        read_adapter(adapter)


@pytest.mark.parametrize(
    "value, said",
    [
        (torch.tensor([1.0, float("nan")]), "no numbers"),
        (torch.tensor([1.0, float("inf")]), "no numbers"),
        (torch.tensor([1.0, -0.1]), "negative variances"),
        (torch.ones(2, dtype=torch.bool), "has the type BOOL"),
        (torch.ones(2, dtype=torch.complex64), "has the type C64"),
        (torch.ones(2, dtype=torch.float16), "has the type F16"),
    ],
)
def test_tensors_that_hold_no_numbers_are_refused(adapter, value, said):
    change(adapter, lambda t: t.update({VARIANCE: value}))
    with pytest.raises(UserError, match=said):
        read_adapter(adapter)


def set_settings(adapter, change):
    path = adapter / "adapter.json"
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))
    seal(adapter)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda s: s.update(extra=1), "extra"),
        (lambda s: s.pop("head"), "head"),
        (lambda s: s.update(format=99), "update petl_modules"),
        (lambda s: s.update(sample_rate=8000), "hears 8000 Hz"),
        (lambda s: s["info"].update(labels=["a", "b", "a"]), "label a is there twice"),
        (lambda s: s["info"].update(labels=["a", "b"]), "num_classes=3"),
        (lambda s: s["head"].update(hidden_size=64), "hidden_size=64"),
        (lambda s: s["head"].update(pooling=3), "pooling=3"),
        (lambda s: s["head"].update(type="OwnHead"), "OwnHead is no head"),
        (lambda s: s["head"].update(type="os.system"), "has the head os.system"),
        (lambda s: s["methods"][0].update(name="os.system"), "no method os.system"),
        (lambda s: s["methods"][0]["knobs"].update(rank="2"), "rank"),
        (lambda s: s["backbone"].update(max_duration=-1), "max_duration"),
        (lambda s: s["backbone"].update(source="\0"), "source"),
    ],
)
def test_settings_that_no_adapter_has_are_refused(adapter, change, said):
    set_settings(adapter, change)
    with pytest.raises(UserError, match=said):
        read_adapter(adapter)


@pytest.mark.parametrize("knobs", [{"rank": 3_000_000}, {"rank": 60_000}])
def test_a_size_beyond_the_tensors_costs_neither_time_nor_memory(
    adapter, checkpoint, knobs
):
    backbone = load_backbone(checkpoint)

    def change(settings):
        settings["methods"][0]["knobs"].pop("rank")
        settings["methods"][0]["knobs"].update(knobs)

    set_settings(adapter, change)
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"rank=\d+|has the shape"):
        read_adapter(adapter, backbone)
    assert time.perf_counter() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_both_files_are_one_whole(adapter, tmp_path):
    path = adapter / "adapter.json"
    whole = path.read_text()
    path.write_text(whole.replace('"mhsa"', '"ffn"'))
    with pytest.raises(UserError, match="checksum differs"):
        read_adapter(adapter)
    path.write_text(whole)
    name = "head.linear.bias"
    tensors = load_file(adapter / "adapter.safetensors")
    tensors[name] = tensors[name] + 1
    save_file(tensors, adapter / "adapter.safetensors")
    with pytest.raises(UserError, match="checksum differs"):
        read_adapter(adapter)


def test_adapters_of_earlier_versions_still_load(adapter):
    wav = torch.randn(1, 8000)
    expected = read_adapter(adapter).model(wav).hidden
    path = adapter / "adapter.json"
    settings = json.loads(path.read_text())
    del settings["checksum"]
    path.write_text(json.dumps({**settings, "format": 1}))
    assert torch.equal(read_adapter(adapter).model(wav).hidden, expected)
    path.write_text(json.dumps(settings))
    with pytest.raises(UserError, match="lacks its checksum"):
        read_adapter(adapter)


def test_damaged_files_are_refused(adapter, tmp_path):
    with pytest.raises(UserError, match="no adapter"):
        read_adapter(tmp_path / "nowhere")
    path = adapter / "adapter.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut short"):
        read_adapter(adapter)
    path.write_bytes(whole)
    settings = adapter / "adapter.json"
    whole_settings = settings.read_text()
    settings.write_text(whole_settings[:100])
    with pytest.raises(UserError, match="damaged"):
        read_adapter(adapter)
    settings.write_text("[]")
    with pytest.raises(UserError, match="lacks"):
        read_adapter(adapter)
    twice = whole_settings.replace('"format"', '"format": 1, "format"')
    for text in ("[" * 100_000, " " * 2**24, twice):
        settings.write_text(text)
        with pytest.raises(UserError, match="damaged"):
            read_adapter(adapter)


def test_other_backbones_are_refused(adapter, tmp_path):
    other = tiny_checkpoint("whisper", tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="fingerprints differ"):
        read_adapter(adapter, source=other)
    other = tiny_checkpoint("wavlm", tmp_path / "wavlm")
    with pytest.raises(UserError, match="not on a wavlm model"):
        read_adapter(adapter, backbone=load_backbone(other))


@pytest.mark.parametrize("method", ["full", "conformer"])
def test_a_refused_adapter_leaves_the_backbone_as_it_was(checkpoint, method, tmp_path):
    backbone = load_backbone(checkpoint)
    wav = torch.randn(1, 8000)
    before = backbone(wav).hidden
    trained = AdaptedModel(load_backbone(checkpoint), make_method(method))
    save_adapter(tmp_path, trained, ClassificationHead(32, 3), {"labels": LABELS})
    endless = {"head.linear.bias": torch.full((3,), float("inf"))}
    change(tmp_path, lambda t: t.update(endless))
    with pytest.raises(UserError, match="no numbers"):
        read_adapter(tmp_path, backbone)
    assert not backbone.training
    assert not any(module.training for module in backbone.modules())
    assert torch.equal(backbone(wav).hidden, before)


def test_a_slice_of_the_fuzzer(tmp_path):
    problems, outcomes, _ = fuzz(60, seed=1, root=tmp_path)
    assert not problems
    assert sum(outcomes.values()) == 60
    assert sum(n for (_, came), n in outcomes.items() if came == "refused") > 40


def test_statistics_that_full_fine_tuning_gathers_are_kept(tmp_path):
    sizes = {**SIZES, **CONVOLUTIONS, "conv_pos_batch_norm": True}
    save(HubertModel(HubertConfig(**sizes)), "hubert", tmp_path / "hubert")
    model = AdaptedModel(load_backbone(tmp_path / "hubert"), make_method("full"))
    (norm,) = (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d))
    norm.train()(torch.randn(4, norm.num_features, 9) + 1)
    save_adapter(tmp_path / "a", model, ClassificationHead(32, 3), {"labels": LABELS})
    shared = load_backbone(tmp_path / "hubert")
    pretrained = {name: b.clone() for name, b in shared.named_buffers()}
    turns = Turns(shared)
    loaded = read_adapter(tmp_path / "a", shared).model
    assert len(model.statistics()) == 3
    for name, buffer in model.statistics().items():
        assert torch.equal(loaded.statistics()[name], buffer)
    tensors = loaded.backbone_tensors()
    turns.give(None, {})
    assert all(torch.equal(b, pretrained[n]) for n, b in shared.named_buffers())
    turns.give(loaded, tensors)
    (mean,) = (n for n in pretrained if n.endswith("running_mean"))
    assert torch.equal(shared.get_buffer(mean), norm.running_mean)
    # an adapter of an earlier version has none, and what was pretrained stays
    path = tmp_path / "a" / "adapter.json"
    settings = json.loads(path.read_text())
    del settings["checksum"]
    path.write_text(json.dumps({**settings, "format": 1}))
    kept = load_file(tmp_path / "a" / "adapter.safetensors")
    kept = {n: t for n, t in kept.items() if n not in model.statistics()}
    save_file(kept, tmp_path / "a" / "adapter.safetensors")
    again = read_adapter(tmp_path / "a").model.backbone
    assert torch.equal(again.get_buffer(mean), pretrained[mean])
