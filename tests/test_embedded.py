"""The embedded backbone, and the script that makes it, in miniature."""

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from transformers import (
    ASTFeatureExtractor,
    ASTModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from petl_modules.embedded import MODEL_FOLDER, clips, pretrain, probe
from petl_modules.embedded.remixing import remixed
from petl_modules.embedded.textures import TEXTURES
from petl_modules.embedded.yamnet import WEIGHTS, YamNet, load_yamnet, mel_banks
from petl_modules.errors import UserError


def test_shipped_model_loads():
    assert (MODEL_FOLDER / "model.safetensors").stat().st_size < 8e6
    model, info = ASTModel.from_pretrained(MODEL_FOLDER, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    positions = model.embeddings.position_embeddings
    assert (positions.float().abs().amax(-1) > 1e-3).all()
    grid = model.embeddings.get_shape(model.config)
    late = positions[0, 2:].unflatten(0, grid)[:, -1].float()
    assert late.std() > 1e-2
    preprocessor = ASTFeatureExtractor.from_pretrained(MODEL_FOLDER)
    assert preprocessor.sampling_rate == 16000
    assert preprocessor.num_mel_bins == model.config.num_mel_bins
    assert preprocessor.max_length == model.config.max_length >= 498


def test_shipped_model_tells_sounds_apart():
    """The network is no constant: clips of different sources differ."""
    time = torch.arange(32000) / 16000
    torch.manual_seed(0)
    wavs = [0.3 * torch.sin(2 * torch.pi * 440 * time), 0.3 * torch.randn(32000)]
    tone, noise = probe.embed(str(MODEL_FOLDER), wavs, random=False)
    assert torch.cosine_similarity(tone, noise, 0) < 0.9


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    feeds = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 20}
    tokens = {f"{t}_token_id": 1 for t in ("pad", "bos", "eos", "decoder_start")}
    config = WhisperConfig(**sizes, **heads, **feeds, **tokens)
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture
def command(teacher, tmp_path, monkeypatch):
    """Arguments for a run of two epochs of four steps; the output comes last."""
    speech = tmp_path / "speech"
    speech.mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
    soundfile.write(speech / "a.flac", noise, 8000)
    monkeypatch.setattr(clips, "SHARD", 8)
    settings = (
        f"--teacher={teacher} --speech {speech} --speech_share=0.5 --clips=16 "
        "--teacher_layers 1 2 --hidden_size=16 --layers=2 --heads=2 --mel_bins=32 "
        "--max_length=128 --epochs=2 --batch_size=4 --output"
    )
    return settings.split()


def weights(folder):
    return ASTModel.from_pretrained(folder).state_dict()


def test_pretraining_runs_and_resumes(command, tmp_path, monkeypatch):
    pretrain.main([*command, str(tmp_path / "whole")])
    preprocessor = ASTFeatureExtractor.from_pretrained(tmp_path / "whole")
    assert preprocessor.std > 0 and preprocessor.max_length == 128

    broken = tmp_path / "broken"
    save, saved = torch.save, []

    def dies(content, path):
        saved.append("checkpoint" if "epoch" in content else "shard")
        if len(saved) in (2, 4):  # at the second shard, then in the second epoch
            raise KeyboardInterrupt
        save(content, path)

    monkeypatch.setattr(torch, "save", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pretrain.main([*command, str(broken)])
    pretrain.main([*command, str(broken)])
    assert saved.count("checkpoint") == 3  # one of them died
    whole, resumed = weights(tmp_path / "whole"), weights(broken)
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_second_teacher_changes_the_student(command, tmp_path):
    """Recordings of sounds, remixes and a second teacher, all at once: other weights
    than with a weight of nearly nothing, from the same clips."""
    torch.manual_seed(0)
    save_file(YamNet().state_dict(), tmp_path / WEIGHTS)
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 4000)
    soundfile.write(sounds / "a.wav", noise, 16000)
    both = [f"--second_teacher={tmp_path}", "--sounds", str(sounds), "--remixes=0.25"]
    shared = [*both, f"--cache={tmp_path / 'cache'}", "--epochs=1"]
    pretrain.main([*command, str(tmp_path / "one"), *shared])
    (tmp_path / "cache" / "checkpoint.pt").unlink()
    pretrain.main([*command, str(tmp_path / "two"), *shared, "--second_weight=1e-6"])
    shard = torch.load(tmp_path / "cache" / "clips_0000.pt")
    assert shard["logits"].shape == (8, 7, 521)  # of each token
    assert shard["logits"].float().std() > 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.isfinite(tensor).all() for tensor in one.values())
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_yamnet_hears_the_mel_band_of_a_sine(tmp_path):
    """Its bands are triangles of HTK's mel scale from 125 to 7500 Hz."""
    banks = mel_banks(64, 125.0, 7500.0)
    edges = 700 * np.expm1(np.linspace(np.log1p(125 / 700), np.log1p(7500 / 700), 66))
    for band in (20, 40, 60):
        place = round(edges[band + 1] / 31.25)
        assert banks[place].argmax() == band and banks[place, band] > 0.7
    assert (
        not banks[: int(125 / 31.25)].any() and not banks[int(7500 / 31.25) + 1 :].any()
    )
    with pytest.raises(UserError, match="has no yamnet"):
        load_yamnet(str(tmp_path))


def test_remixes_say_what_is_heard():
    """A clip of one alone does not depend on the other."""
    sounds = np.random.default_rng(0).normal(size=(2, 16000)).astype(np.float32)
    told = set()
    for seed in range(30):
        first, second = (
            remixed(np.random.default_rng(seed), sounds[0], other, 16000)
            for other in (sounds[1], 3 * sounds[1][::-1])
        )
        assert len(first[0]) == 16000 and np.isfinite(first[0]).all()
        assert np.array_equal(first[0], second[0]) != first[1]
        told.add(first[1])
    assert told == {True, False}


def test_refusals(command, tmp_path):
    with pytest.raises(UserError, match="No audio"):
        pretrain.main(
            [*command, str(tmp_path / "out"), "--speech", str(tmp_path / "x")]
        )
    with pytest.raises(UserError, match="layers 1 to 2"):
        pretrain.main([*command, str(tmp_path / "new"), "--teacher_layers", "3"])
    for argument, words in (
        ("--mel_bins=40", "multiples of 32"),
        ("--heads=5", "--hidden_size=.* must be a multiple of --heads=5"),
        ("--epochs=0", "0 is no whole number above 0"),
        ("--lr=nan", "nan is no number above 0"),
        ("--speech_share=1.5", "1.5 is no number from 0 to 1"),
        ("--seed=-1", "must be 0 or more"),
        ("--remixes=1", "leaves no clips to remix"),
        ("--device=nowhere", "no device=nowhere"),
    ):
        with pytest.raises(UserError, match=words):
            pretrain.main([*command, str(tmp_path / "new"), argument])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, "has no table in meta/"),
        ("filename,fold\na.wav,1", "lacks the columns category"),
        ("filename,fold,category\n../a.wav,1,dog", "outside its folder"),
        ("filename,fold,category\nb.wav,1,dog", "b.wav"),
        ("filename,fold,category\na.wav,x,dog", "line 2 has the fold x"),
        ("filename,fold,category\na.wav,1,dog", "two folds and two categories"),
    ],
)
def test_a_probe_refuses_a_bad_data_set(tmp_path, rows, words):
    with pytest.raises(UserError, match="nowhere does not exist"):
        probe.main([f"--data_folder={tmp_path}/nowhere"])
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", np.ones(1600) * 0.1, 16000)
    (tmp_path / "meta").mkdir()
    if rows is not None:
        (tmp_path / "meta" / "clips.csv").write_text(rows)
    with pytest.raises(UserError, match=words):
        probe.main([f"--data_folder={tmp_path}"])


def test_voices_are_speech_at_other_speeds(tmp_path):
    """A scene's cries come from the recordings: each lasts as long as a stretch of
    the sine does, whose pitch alone is another."""
    sine = np.sin(2 * np.pi * 500 * np.arange(32000) / 16000)
    soundfile.write(tmp_path / "a.wav", 0.5 * sine, 16000)
    rng = np.random.default_rng(0)
    pitches = []
    for _ in range(30):
        sound = clips.voice([tmp_path / "a.wav"], rng, 40000, 16000)
        assert 0.09 * 16000 < len(sound) < 1.52 * 16000
        spectrum = np.abs(np.fft.rfft(sound))
        pitches.append(spectrum.argmax() * 16000 / len(sound))
    assert 190 < min(pitches) < 350 and 1000 < max(pitches) < 1510


def test_scene_of_voices(tmp_path):
    """Every event of a scene is a voice when all are asked for."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    soundfile.write(tmp_path / "a.wav", noise, 16000)
    options = pretrain.parse(
        ["--teacher=x", "--output=x", "--speech_share=0", "--voice_share=1"]
    )
    rng = np.random.default_rng(0)
    mixer = clips.Mixer(options, 16000, [tmp_path / "a.wav"], [])
    made = [mixer.clip(rng) for _ in range(20)]
    names = {name for _, sources in made for name in sources}
    assert "voice" in names and names <= {*TEXTURES, "voice"}
    assert all(np.isfinite(clip).all() and clip.any() for clip, _ in made)


def test_probe_tells_classes_apart():
    torch.manual_seed(0)
    labels = torch.arange(100) % 4
    features = torch.randn(100, 8) * 0.1 + torch.eye(4, 8)[labels]
    folds = torch.arange(100) // 4 % 5 + 1
    assert np.mean(probe.five_folds(features, labels, folds)) > 0.95
