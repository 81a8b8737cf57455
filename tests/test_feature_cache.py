"""The cache of features keeps what was computed, through kills and damage."""

import json

import pytest
import torch

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.data import feature_cache
from petl_modules.data.datasets import make_dataset
from petl_modules.data.feature_cache import cached_features
from petl_modules.methods import make_method
from petl_modules.tasks.heads import ClassificationHead


class Killed(Exception):
    pass


@pytest.fixture
def cached(checkpoints, class_folders, tmp_path, monkeypatch):
    """A function that caches six clips in `tmp_path / name`, and the list of the batch
    sizes that were computed."""
    monkeypatch.setattr(feature_cache, "PART_SECONDS", -1.0)  # a part a batch
    backbone = load_backbone(str(checkpoints["whisper"]))
    model = AdaptedModel(backbone, make_method("linear"))
    head = ClassificationHead(backbone.hidden_size, 3)
    wavs = sorted(class_folders.rglob("*.wav"))[:6]
    clips = enumerate(map(str, wavs))
    entries = {str(n): {"wav": wav, "duration": 0.4} for n, wav in clips}
    (tmp_path / "clips.json").write_text(json.dumps(entries))
    dataset = make_dataset(tmp_path / "clips.json", backbone.sample_rate)
    dataset.set_output_keys(["id", "wav", "sig"])
    computed, compute = [], model.features

    def features(wavs, lens, head):
        if sum(computed) == cached.kill_at:
            raise Killed
        computed.append(len(wavs))
        return compute(wavs, lens, head)

    def cached(name):
        folder = tmp_path / name
        return cached_features(folder, model, head, dataset, 2, "cpu", progress=False)

    cached.kill_at = None
    monkeypatch.setattr(model, "features", features)
    return cached, computed


def test_a_killed_run_goes_on_where_it_was(cached):
    cached, computed = cached
    whole = cached("whole")
    computed.clear()
    cached.kill_at = 4
    with pytest.raises(Killed):
        cached("killed")
    cached.kill_at = None
    computed.clear()
    resumed = cached("killed")
    assert computed == [2]  # of six
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[wav], whole[wav]) for wav in whole)


def test_a_damaged_part_is_computed_again(cached, tmp_path, caplog):
    cached, computed = cached
    whole = cached("whole")
    part = next((tmp_path / "whole").rglob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-9])
    computed.clear()
    again = cached("whole")
    assert computed == [2] and "damaged" in caplog.text
    assert all(torch.equal(again[wav], whole[wav]) for wav in whole)
