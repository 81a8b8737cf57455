"""An adapter file is small, complete, and refused where it does not fit."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_checkpoint

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks.heads import ClassificationHead
from petl_modules.use.adapter_file import read_adapter, save_adapter


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint("whisper", tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def adapter(checkpoint, tmp_path):
    model = AdaptedModel(load_backbone(checkpoint), make_method("conformer", rank=2))
    model.train()(torch.randn(2, 8000))  # batch statistics leave their start
    save_adapter(tmp_path / "a", model, ClassificationHead(32, 3), {"labels": ["a"]})
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


def test_damaged_files_are_refused(adapter, tmp_path):
    with pytest.raises(UserError, match="no adapter"):
        read_adapter(tmp_path / "nowhere")
    path = adapter / "adapter.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut short"):
        read_adapter(adapter)
    settings = adapter / "adapter.json"
    settings.write_text(settings.read_text()[:100])
    with pytest.raises(UserError, match="damaged"):
        read_adapter(adapter)
    settings.write_text("[]")
    with pytest.raises(UserError, match="lacks"):
        read_adapter(adapter)


def test_other_backbones_are_refused(adapter, tmp_path):
    other = tiny_checkpoint("whisper", tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="fingerprints differ"):
        read_adapter(adapter, source=other)
    other = tiny_checkpoint("wavlm", tmp_path / "wavlm")
    with pytest.raises(UserError, match="not on a wavlm model"):
        read_adapter(adapter, backbone=load_backbone(other))


def test_unknown_methods_in_a_file_are_refused(adapter):
    path = adapter / "adapter.json"
    path.write_text(path.read_text().replace('"conformer"', '"os.system"'))
    with pytest.raises(UserError, match=r"no method os\.system"):
        read_adapter(adapter)
