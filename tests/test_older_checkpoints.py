"""Older Whispers, and HuBERTs that normalise their positions, are read as they are."""

import json

import pytest
import torch
from tiny import CONVOLUTIONS, SIZES, save, tiny_writer
from transformers import HubertConfig, HubertModel

from petl_modules.backbones import load_backbone
from petl_modules.errors import UserError

# Whisper


def test_a_language_without_a_token_is_refused(tmp_path):
    backbone = load_backbone(tiny_writer(tmp_path, language="zh"), decoder=True)
    assert list(backbone.languages) == ["en", "zh"]
    with pytest.raises(UserError, match=r"language=yue: .* of en, zh"):
        backbone.refuse_language("yue")


def test_older_settings_of_generation_are_completed(tmp_path):
    folder = tiny_writer(tmp_path, language="zh")
    backbone = load_backbone(folder, decoder=True)
    sound = torch.randn(2, 100, 32)
    texts = backbone.write(sound, language="zh")
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    for key in ("lang_to_id", "task_to_id", "no_timestamps_token_id"):
        settings.pop(key)
    path.write_text(json.dumps(settings))
    older = load_backbone(folder, decoder=True)
    assert older.write(sound, language="zh") == texts
    path.unlink()
    oldest = load_backbone(folder, decoder=True)
    assert len(oldest.write(sound, language="zh")) == 2


# HuBERT


@pytest.fixture
def hubert(tmp_path):
    """One that normalises what its positions are computed of."""
    torch.manual_seed(0)
    config = HubertConfig(**SIZES, **CONVOLUTIONS, conv_pos_batch_norm=True)
    model = HubertModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for name, buffer in model.named_buffers():
            if "running_mean" in name:
                buffer.copy_(torch.randn_like(buffer) * 0.3)
    save(model, "hubert", tmp_path)
    return model.eval(), tmp_path


def test_hubert_with_batch_norm_hears_no_padding(hubert):
    model, folder = hubert
    backbone = load_backbone(folder).eval()
    wav, others = torch.randn(1, 6000), torch.randn(2, 12000)
    others[0] = torch.nn.functional.pad(wav[0], (0, 6000))
    alone = backbone(wav).hidden[0]
    batch = backbone(others, torch.tensor([0.5, 1.0])).hidden[0, : len(alone)]
    torch.testing.assert_close(batch, alone, atol=1e-5, rtol=0)
    mean, std = wav.mean(), wav.var(correction=0).add(1e-7).sqrt()
    theirs = model((wav - mean) / std).last_hidden_state[0]
    torch.testing.assert_close(alone, theirs, atol=1e-4, rtol=0)


def test_hubert_keeps_its_statistics_in_training(hubert):
    backbone = load_backbone(hubert[1]).train()
    before = {n: b.clone() for n, b in backbone.model.named_buffers()}
    backbone(torch.randn(2, 8000), torch.tensor([0.5, 1.0]))
    assert all(b.equal(before[n]) for n, b in backbone.model.named_buffers())
