"""What leaves the package computes the same elsewhere: merged checkpoints, PEFT."""

import json
import os
import runpy
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny import FAMILIES
from transformers import AutoFeatureExtractor, AutoModel

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks.heads import ClassificationHead
from petl_modules.use import merge, peft_format
from petl_modules.use.adapter_file import read_adapter, save_adapter
from petl_modules.use.inference import load_adapter

SAMPLES = 9600
TARGETS = ["q", "v", "fc2"]


def saved(source, folder, method="lora", max_duration=None, head=None, **knobs):
    torch.manual_seed(0)
    model = AdaptedModel(
        load_backbone(source, max_duration=max_duration), make_method(method, **knobs)
    )
    make = head or (lambda size: ClassificationHead(size, 3))
    head = make(model.points.hidden_size)
    with torch.no_grad():
        for parameter in (*model.trained_parameters().values(), *head.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    save_adapter(folder, model, head, {"labels": ["a", "b", "c"], "threshold": 0.25})
    return folder


def lora(source, folder, **settings):
    return saved(source, folder, rank=2, alpha=6, targets=TARGETS, **settings)


def umask():
    os.umask(found := os.umask(0))
    return found


def clip():
    return torch.randn(1, SAMPLES, generator=torch.Generator().manual_seed(1)) * 0.1


def features(wav, folder):
    """What the preprocessor of a checkpoint makes of a clip."""
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    return extractor(wav[0].numpy(), sampling_rate=16000, return_tensors="pt")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lora", "bitfit"])
def test_a_merged_folder_is_a_checkpoint_and_an_adapter(
    checkpoints, family, method, tmp_path
):
    make = lora if method == "lora" else saved
    source = shutil.copytree(checkpoints[family], tmp_path / "source")
    knobs = {} if method == "lora" else {"method": method}
    adapter = make(source, tmp_path / "adapter", **knobs)
    expected = load_adapter(adapter).classify_batch(clip())
    tokens = read_adapter(adapter).model(clip()).hidden
    merge.main([str(adapter), str(tmp_path / "merged")])
    shutil.rmtree(source)
    moved = (tmp_path / "merged").rename(tmp_path / "moved")
    again = load_adapter(moved)
    torch.testing.assert_close(again.classify_batch(clip()), expected)
    assert "sdpa_with_prefix" not in (moved / "config.json").read_text()
    if family != "whisper":
        config = json.loads((moved / "config.json").read_text())
        assert config["id2label"] == {"0": "a", "1": "b", "2": "c"}
    modes = {path.stat().st_mode & 0o777 for path in moved.iterdir()}
    assert modes == {0o666 & ~umask()}
    # transformers alone finds every weight
    (kind,) = json.loads((moved / "config.json").read_text())["architectures"]
    kind = getattr(transformers, kind)
    theirs, info = kind.from_pretrained(moved, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    if family in ("wav2vec2", "hubert", "xlsr"):  # others pad the clip to some length
        hidden = theirs.eval()(**features(clip(), moved)).last_hidden_state
        torch.testing.assert_close(hidden, tokens, atol=1e-4, rtol=1e-3)


def test_a_stretched_position_table_goes_with_it(checkpoints, tmp_path):
    adapter = lora(checkpoints["ast"], tmp_path / "adapter", max_duration=2.0)
    merge.merge(adapter, tmp_path / "merged")
    wavs = torch.randn(1, 32000) * 0.1
    expected = load_adapter(adapter).classify_batch(wavs)
    actual = load_adapter(tmp_path / "merged").classify_batch(wavs)
    torch.testing.assert_close(actual, expected)
    theirs = AutoModel.from_pretrained(tmp_path / "merged")
    theirs(**features(wavs, tmp_path / "merged"))  # table and preprocessor fit


def test_what_cannot_be_merged_is_refused(checkpoints, tmp_path):
    adapter = saved(checkpoints["ast"], tmp_path / "adapter", "bottleneck")
    with pytest.raises(UserError, match="bottleneck cannot be merged"):
        merge.merge(adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    with pytest.raises(UserError, match="holds something already"):
        merge.merge(adapter, adapter)


@pytest.mark.parametrize("family", ["ast", "wav2vec2", "xlsr", "whisper"])
def test_peft_computes_the_same_both_ways(checkpoints, family, tmp_path):
    peft = pytest.importorskip("peft")
    source = checkpoints[family]
    adapter = lora(source, tmp_path / "adapter", layers=[0, 1])
    peft_format.main([str(adapter), str(tmp_path / "peft")])
    ours = read_adapter(adapter).model
    theirs = peft.PeftModel.from_pretrained(
        AutoModel.from_pretrained(source), tmp_path / "peft"
    )
    wav = torch.randn(1, 16000) * 0.1
    # the layers alone: what comes before them is padded in other ways
    tokens = torch.randn(2, 9, 32)
    for i, layer in enumerate(ours.points.layers):
        path = peft_format.paths_of(ours.backbone)[layer.module]
        expected = layer.module(tokens, attention_mask=None)
        actual = theirs.base_model.model.get_submodule(path)(tokens, None)
        first = [x if isinstance(x, torch.Tensor) else x[0] for x in (expected, actual)]
        torch.testing.assert_close(*first, atol=1e-5, rtol=1e-4)
        assert f"layer{i}_q_lora" in ours.petl
    again = peft_format.from_peft(tmp_path / "peft", load_backbone(source))
    assert torch.equal(again(wav).hidden, ours(wav).hidden)
    # PEFT's own file comes in too
    theirs.save_pretrained(tmp_path / "own")
    again = peft_format.from_peft(tmp_path / "own", load_backbone(source))
    assert torch.equal(again(wav).hidden, ours(wav).hidden)


@pytest.mark.parametrize("family", ["wav2vec2", "xlsr"])
@pytest.mark.parametrize("method", ["ia3", "vera", "norms", "adalora"])
def test_peft_computes_other_methods_both_ways(checkpoints, family, method, tmp_path):
    peft = pytest.importorskip("peft")
    source, wav = checkpoints[family], clip()
    knobs = {"rank": 6, "targets": ["q", "fc1"]} if method == "vera" else {}
    adapter = saved(source, tmp_path / "adapter", method, **knobs)
    ours = read_adapter(adapter).model
    peft_format.to_peft(ours, tmp_path / "peft")
    theirs = peft.PeftModel.from_pretrained(
        AutoModel.from_pretrained(source), tmp_path / "peft"
    ).eval()
    expected = theirs(**features(wav, source)).last_hidden_state
    plain = AutoModel.from_pretrained(source).eval()
    before = plain(**features(wav, source)).last_hidden_state
    assert (before - expected).abs().max() > 1e-2
    torch.testing.assert_close(ours(wav).hidden, expected, atol=1e-4, rtol=1e-3)
    theirs.save_pretrained(tmp_path / "own")
    for folder in ("peft", "own"):
        again = peft_format.from_peft(tmp_path / folder, load_backbone(source))
        torch.testing.assert_close(again(wav).hidden, ours(wav).hidden)


def test_what_peft_has_otherwise_is_refused(checkpoints, tmp_path):
    source = checkpoints["wav2vec2"]
    shifted = saved(source, tmp_path / "shifted", "scale")
    with pytest.raises(UserError, match="knows no shifts"):
        peft_format.to_peft(read_adapter(shifted).model, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    vera = saved(source, tmp_path / "vera", "vera", rank=3)
    peft_format.to_peft(read_adapter(vera).model, tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"projection_prng_key": 5}))
    with pytest.raises(UserError, match="drawn otherwise"):
        peft_format.from_peft(tmp_path / "peft", load_backbone(source))


@pytest.mark.parametrize("family", ["wav2vec2", "whisper"])
def test_the_script_beside_a_lora_runs_without_us(checkpoints, family, tmp_path):
    pytest.importorskip("peft")
    adapter = lora(checkpoints[family], tmp_path / "adapter", max_duration=0.5)
    peft_format.main([str(adapter), str(tmp_path / "peft")])
    script = runpy.run_path(str(tmp_path / "peft" / "classify.py"))
    assert script["LABELS"] == ["a", "b", "c"]
    wav = clip()
    theirs = script["classify"](wav[0].numpy())
    ours = load_adapter(adapter).classify_batch(wav)[0]
    said = (tmp_path / "peft" / "README.md").read_text()
    if family == "whisper":  # it hears the silence up to 30 s
        assert "filled up with silence" in said and theirs.sum() == pytest.approx(1)
    else:
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)


def test_other_things_in_pefts_format_are_refused(checkpoints, tmp_path):
    source = checkpoints["wav2vec2"]
    adapter = lora(source, tmp_path / "adapter")
    peft_format.to_peft(read_adapter(adapter).model, tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    config = json.loads(path.read_text())
    for change, said in (
        ({"use_dora": True}, "missing"),
        ({"peft_type": "LOHA"}, "holds LOHA"),
        ({"r": 3}, "shape"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=said):
            peft_format.from_peft(tmp_path / "peft", load_backbone(source))
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="is for no part"):
        peft_format.from_peft(tmp_path / "peft", load_backbone(checkpoints["ast"]))
    with pytest.raises(UserError, match="WavLM"):
        peft_format.from_peft(tmp_path / "peft", load_backbone(checkpoints["wavlm"]))
    other = saved(source, tmp_path / "other", "bottleneck")
    with pytest.raises(UserError, match="alone, not bottleneck"):
        peft_format.to_peft(read_adapter(other).model, tmp_path / "new")


def lora_of_peft(peft, source, folder, **settings):
    """A LoRA that PEFT trained, more or less, and what it makes of some tokens."""
    torch.manual_seed(1)
    targets = settings.pop("target_modules", ["q_proj", "v_proj"])
    settings = {"r": 4, "lora_alpha": 6, "target_modules": targets, **settings}
    model = peft.get_peft_model(
        AutoModel.from_pretrained(source), peft.LoraConfig(**settings)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return model.base_model.model.eval()


@pytest.mark.parametrize("variant", ["rslora", "dora", "pissa", "lora_fa"])
def test_peft_computes_the_variants_of_lora_both_ways(checkpoints, variant, tmp_path):
    peft = pytest.importorskip("peft")
    source = checkpoints["wav2vec2"]
    adapter = lora(source, tmp_path / "adapter", variant=variant)
    ours = read_adapter(adapter).model
    peft_format.to_peft(ours, tmp_path / "peft")
    theirs = peft.PeftModel.from_pretrained(
        AutoModel.from_pretrained(source), tmp_path / "peft"
    )
    wav = clip()
    theirs.eval()
    expected = theirs(**features(wav, source)).last_hidden_state
    torch.testing.assert_close(ours(wav).hidden, expected, atol=1e-4, rtol=1e-3)
    again = peft_format.from_peft(tmp_path / "peft", load_backbone(source))
    torch.testing.assert_close(again(wav).hidden, ours(wav).hidden)
    theirs.save_pretrained(tmp_path / "own")  # PEFT's own file comes in too
    again = peft_format.from_peft(tmp_path / "own", load_backbone(source))
    torch.testing.assert_close(again(wav).hidden, ours(wav).hidden)


@pytest.mark.parametrize("settings", [{"use_rslora": True}, {"use_dora": True}])
def test_variants_that_peft_trained_come_in(checkpoints, settings, tmp_path):
    peft = pytest.importorskip("peft")
    source = checkpoints["wav2vec2"]
    theirs = lora_of_peft(peft, source, tmp_path / "peft", **settings)
    ours = peft_format.from_peft(tmp_path / "peft", load_backbone(source))
    wav = clip()
    torch.testing.assert_close(
        ours(wav).hidden,
        theirs(**features(wav, source)).last_hidden_state,
        atol=1e-4,
        rtol=1e-3,
    )


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"init_lora_weights": "pissa"}, "started by pissa"),
        ({"init_lora_weights": "pissa_niter_4"}, "started by pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "started by olora"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"bias": "all"}, "bias=all"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"modules_to_save": ["feature_projection"]}, "extra"),
        ({"target_modules": ["projection", "q_proj"]}, "extra"),
    ],
)
def test_loras_of_peft_that_ours_is_not_are_refused(
    checkpoints, tmp_path, settings, said
):
    peft = pytest.importorskip("peft")
    source = checkpoints["wav2vec2"]
    lora_of_peft(peft, source, tmp_path / "peft", **settings)
    with pytest.raises(UserError, match=said) as caught:
        peft_format.from_peft(tmp_path / "peft", load_backbone(source))
    assert "\n" not in str(caught.value)


def test_unknown_settings_of_peft_are_refused_and_huge_ranks_cost_nothing(
    checkpoints, tmp_path
):
    source = checkpoints["wav2vec2"]
    adapter = lora(source, tmp_path / "adapter")
    peft_format.to_peft(read_adapter(adapter).model, tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    config = json.loads(path.read_text())
    for change, said in (
        ({"tomorrows_lora": 3}, "tomorrows_lora=3"),
        ({"r": 3_000_000}, "its r is 3000000"),
        ({"r": "4"}, "r=4"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=said):
            peft_format.from_peft(tmp_path / "peft", load_backbone(source))
    path.write_text(json.dumps(config | {"tomorrows_lora": None}))
    peft_format.from_peft(tmp_path / "peft", load_backbone(source))
    tensors = load_file(tmp_path / "peft" / peft_format.TENSORS)
    for dtype, said in ((torch.complex64, "C64"), (torch.int64, "I64")):
        odd = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        save_file(odd, tmp_path / "peft" / peft_format.TENSORS)
        with pytest.raises(UserError, match=f"has the type {said}"):
            peft_format.from_peft(tmp_path / "peft", load_backbone(source))


def test_parts_and_layers_that_differ_come_back(checkpoints, tmp_path):
    source = checkpoints["whisper"]  # two layers that hear, one that writes
    model = AdaptedModel(load_backbone(source, decoder=True), make_method("lora"))
    peft_format.to_peft(model, tmp_path / "whole")
    again = peft_format.from_peft(
        tmp_path / "whole", load_backbone(source, decoder=True)
    )
    assert again.petl.keys() == model.petl.keys()
    methods = [
        make_method("lora", rank=2, targets=["q", "v"], layers=[0]),
        make_method("lora", rank=2, targets=["fc1"], layers=[1]),
    ]
    model = AdaptedModel(load_backbone(source), methods)
    peft_format.to_peft(model, tmp_path / "parts")
    again = peft_format.from_peft(tmp_path / "parts", load_backbone(source))
    assert again.petl.keys() == model.petl.keys()
    assert torch.equal(again(clip()).hidden, model.eval()(clip()).hidden)
