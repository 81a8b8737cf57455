"""An ONNX file computes what PyTorch computes, for any number of clips and samples."""

import json

import pytest
import torch
from test_merge import saved

from petl_modules.errors import UserError
from petl_modules.use import export
from petl_modules.use.inference import load_adapter

onnxruntime = pytest.importorskip("onnxruntime")


# one of each kind of features and attention
@pytest.mark.parametrize("family", ["ast", "whisper", "wavlm"])
def test_probabilities_are_pytorchs(checkpoints, family, tmp_path, capsys):
    adapter = saved(checkpoints[family], tmp_path / "adapter", "bottleneck")
    export.main([str(adapter), str(tmp_path / "model.onnx")])
    assert "within" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == ["a", "b", "c"]
    assert facts["sample_rate"] == "16000"
    torch.manual_seed(3)
    for shape in ((1, 12345), (3, 8000)):
        wavs = torch.randn(shape) * 0.1
        (theirs,) = session.run(None, {"wavs": wavs.numpy()})
        ours = load_adapter(adapter).classify_batch(wavs)
        torch.testing.assert_close(torch.from_numpy(theirs), ours, atol=1e-5, rtol=0)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["model.onnx"]


def test_long_clips_are_cut_as_in_training(checkpoints, tmp_path):
    adapter = saved(
        checkpoints["wav2vec2"], tmp_path / "adapter", "bottleneck", max_duration=0.5
    )
    export.export(adapter, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_modelmeta().custom_metadata_map["max_duration"] == "0.5"
    wavs = torch.randn(2, 20000) * 0.1
    (theirs,) = session.run(None, {"wavs": wavs.numpy()})
    ours = load_adapter(adapter).classify_batch(wavs)
    torch.testing.assert_close(torch.from_numpy(theirs), ours, atol=1e-5, rtol=0)
    (cut,) = session.run(None, {"wavs": wavs[:, :8000].numpy()})
    torch.testing.assert_close(torch.from_numpy(theirs), torch.from_numpy(cut))


def test_refusals(checkpoints, tmp_path, monkeypatch):
    adapter = saved(checkpoints["whisper"], tmp_path / "adapter", "bottleneck")
    with pytest.raises(UserError, match="no folder"):
        export.export(adapter, tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(UserError, match="is a folder: name a file"):
        export.export(adapter, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match="onnxruntime is not installed"):
        export.export(adapter, tmp_path / "model.onnx")
