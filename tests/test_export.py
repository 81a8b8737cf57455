"""An ONNX file computes what PyTorch computes, for any number of clips and samples."""

import json
import runpy

import pytest
import torch
from conftest import tone
from test_merge import saved
from tiny import tiny_writer

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.data.reading import read_clip
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks.heads import OwnHead, SlotHead, SpeakerHead
from petl_modules.use import export
from petl_modules.use.adapter_file import save_adapter
from petl_modules.use.inference import load_adapter
from petl_modules.use.verify import verify

onnxruntime = pytest.importorskip("onnxruntime")


def intents(size):
    return SlotHead([1, 3], hidden_size=size)


# one of each kind of features and attention
@pytest.mark.parametrize(
    ("family", "head"), [("ast", intents), ("whisper", None), ("wavlm", None)]
)
def test_probabilities_are_pytorchs(checkpoints, family, head, tmp_path, capsys):
    adapter = saved(checkpoints[family], tmp_path / "adapter", "bottleneck", head=head)
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


def voices(size):
    return SpeakerHead(size, 3, weighted_sum=True, num_layers=2, attentive=True)


def test_voices_are_compared_as_petl_does_and_cut_as_in_training(checkpoints, tmp_path):
    adapter = saved(
        checkpoints["wav2vec2"], tmp_path / "adapter", max_duration=0.5, head=voices
    )
    export.export(adapter, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    assert facts.keys() == {"sample_rate", "max_duration", "threshold"}
    assert (facts["max_duration"], facts["threshold"]) == ("0.5", "0.25")
    assert [output.name for output in session.get_outputs()] == ["embeddings"]
    files = [tmp_path / f"{number}.wav" for number in range(2)]
    for number, path in enumerate(files):
        tone(path, 300 * 4**number, 1.25, subtype="FLOAT")
    wavs = torch.stack([read_clip(path, 16000) for path in files])
    (vectors,) = session.run(None, {"wavs": wavs.numpy()})
    score = verify(adapter, *files)["score"]
    assert vectors[0] @ vectors[1] == pytest.approx(score, abs=1e-5) != 1
    (cut,) = session.run(None, {"wavs": wavs[:, :8000].numpy()})
    torch.testing.assert_close(torch.from_numpy(vectors), torch.from_numpy(cut))


@pytest.mark.parametrize("method", ["lora", "prefix"])
@pytest.mark.parametrize("language", [None, "en"])
def test_a_whisper_writes_by_onnxruntime_alone(tmp_path, method, language, capsys):
    source = tiny_writer(tmp_path / "source", language=language)
    if language is None:  # as OpenAI's checkpoints of English alone
        path = source / "generation_config.json"
        settings = json.loads(path.read_text())
        settings.pop("lang_to_id")
        path.write_text(json.dumps(settings))
    torch.manual_seed(1)
    model = AdaptedModel(load_backbone(source, decoder=True), make_method(method))
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    save_adapter(tmp_path / "adapter", model, OwnHead(language), {})
    export.main([str(tmp_path / "adapter"), str(tmp_path / "onnx")])
    assert "within" in capsys.readouterr().out
    script = runpy.run_path(str(tmp_path / "onnx" / "transcribe.py"))
    write, adapter = script["Transcriber"](tmp_path / "onnx"), tmp_path / "adapter"
    for number, seconds in enumerate((0.4, 1.9)):
        path = tmp_path / f"{number}.wav"
        tone(path, 200 * 3**number, seconds)
        expected = load_adapter(adapter).transcribe_file(path)
        assert len(expected) > 5
        assert write(script["read"](path, 16000)) == expected


def test_what_onnxruntime_alone_cannot_read_is_one_sentence(tmp_path):
    from petl_modules.use.onnx_transcribe import read

    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.wav").touch()
    tone(tmp_path / "slow.wav", 300, rate=8000)
    for name in ("text.wav", "empty.wav", "slow.wav", "none.wav"):
        with pytest.raises(SystemExit) as end:
            read(tmp_path / name, 16000)
        said = "No such file" if name == "none.wav" else "16-bit samples at 16000 Hz"
        assert name in end.value.code and said in end.value.code


def test_refusals(checkpoints, tmp_path, monkeypatch):
    adapter = saved(checkpoints["whisper"], tmp_path / "adapter", "bottleneck")
    with pytest.raises(UserError, match="no folder"):
        export.export(adapter, tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(UserError, match="is a folder: name a file"):
        export.export(adapter, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match="onnxruntime is not installed"):
        export.export(adapter, tmp_path / "model.onnx")
