"""Checkpoints as they lie about: nothing of them is run, and what cannot be loaded is
said in a sentence."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import FAMILIES

from petl_modules.backbones import load_backbone
from petl_modules.errors import UserError


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def copy(checkpoints, tmp_path):
    return shutil.copytree(checkpoints["wav2vec2"], tmp_path / "copy")


@pytest.mark.parametrize("own_type", [True, False])
def test_code_that_a_checkpoint_brings_is_neither_run_nor_offered(
    copy, tmp_path, monkeypatch, own_type
):
    ran = tmp_path / "ran"
    (copy / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    brings = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    change_config(copy, auto_map=brings, **({"model_type": "evil"} if own_type else {}))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    if own_type:
        with pytest.raises(UserError, match="evil"):
            load_backbone(copy)
    else:
        load_backbone(copy)
    assert not ran.exists()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_taken_off(checkpoints, tmp_path, family, prefix):
    copy = shutil.copytree(checkpoints[family], tmp_path / "copy")
    path = copy / "model.safetensors"
    tensors = {prefix + name: t for name, t in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    wavs = torch.randn(1, 8000) * 0.1
    expected = load_backbone(checkpoints[family])(wavs).hidden
    assert torch.equal(load_backbone(copy)(wavs).hidden, expected)


def pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\n")


def pickled(copy):
    tensors = load_file(copy / "model.safetensors")
    torch.save(tensors, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda c: pointer(c / "model.safetensors"), "pointer of Git LFS"),
        (pickled, "is a pickle"),
        (lambda c: change_config(c, quantization_config={"a": 1}), "is quantized"),
        (lambda c: (c / "config.json").write_text('{"model_type": '), "No checkpoint"),
        (lambda c: (c / "preprocessor_config.json").write_text('{"a": '), "damaged"),
        (
            lambda c: (c / "preprocessor_config.json").write_text(
                '{"sampling_rate": "x"}'
            ),
            "sampling_rate=x",
        ),
        (lambda c: (c / "model.safetensors").write_bytes(b"\x08" * 99), "cannot be"),
    ],
)
def test_what_cannot_be_loaded_is_said(copy, damage, said):
    damage(copy)
    with pytest.raises(UserError, match=said) as caught:
        load_backbone(copy)
    assert "\n" not in str(caught.value)


def test_attention_that_is_not_installed_does_not_matter(copy):
    change_config(copy, attn_implementation="flash_attention_2")
    load_backbone(copy)
