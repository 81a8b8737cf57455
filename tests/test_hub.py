"""Adapters go to a hub and come from one: two files that run no code, and a card."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from test_inference import saved

from petl_modules.errors import UserError
from petl_modules.use import hub, push
from petl_modules.use.inference import load_adapter


@pytest.fixture
def adapter(checkpoints, tmp_path):
    methods = [("bottleneck", {"rank": 2})]
    return saved(checkpoints["wav2vec2"], tmp_path / "run", methods, ["no", "yes"])


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that stands for the hub."""
    shelf = tmp_path / "hub"

    class Api:
        def create_repo(self, name, private, exist_ok):
            (shelf / name).mkdir(parents=True, exist_ok=exist_ok)

        def create_commit(self, name, operations, commit_message):
            for operation in operations:
                target = shelf / name / operation.path_in_repo
                shutil.copy(operation.path_or_fileobj, target)

    def download(name, file, revision=None):
        path = shelf / name / file
        if revision not in (None, "v1") or not path.exists():
            raise OSError(f"404 {name} {revision}")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return shelf


def test_an_adapter_goes_there_and_comes_back(adapter, shelf, checkpoints, capsys):
    (adapter / "secret.pt").write_text("no part of an adapter")
    push.main([str(adapter), "ann/keywords", "--source=facebook/wav2vec2-base"])
    assert "ann/keywords" in capsys.readouterr().out
    there = {path.name for path in (shelf / "ann/keywords").iterdir()}
    assert there == {"adapter.json", "adapter.safetensors", "README.md"}
    card = (shelf / "ann/keywords/README.md").read_text()
    assert "base_model: facebook/wav2vec2-base" in card and "no, yes" in card
    wavs = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    ours = load_adapter(adapter).classify_batch(wavs)
    for name in ("ann/keywords", "ann/keywords@v1"):
        theirs = load_adapter(name, source=str(checkpoints["wav2vec2"]))
        assert torch.equal(theirs.classify_batch(wavs), ours)


def test_what_is_not_there_is_said(adapter, shelf, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="neither here nor on the hub"):
        load_adapter("ann/nothing")
    # a folder that is here is looked into here alone
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    with pytest.raises(UserError, match="There is no adapter at"):
        load_adapter("run/nothing")
    assert hub.located(Path("ann/x")) == Path("ann/x")


def test_a_backbone_that_nobody_has_is_not_named_to_others(adapter, shelf):
    with pytest.raises(UserError, match="nobody else has"):
        push.push(adapter, "ann/keywords")
    with pytest.raises(UserError, match="is no id of a hub"):
        push.push(adapter, "keywords", source="facebook/wav2vec2-base")
    assert not shelf.exists()
