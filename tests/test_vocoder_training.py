"""A vocoder that trains here, and its folder."""

import json

import pytest
import torch
from card import OnCard, card
from conftest import tone

from petl_modules.errors import UserError
from petl_modules.tts.config import FastSpeech2Config
from petl_modules.tts.features import SpeechFeatures
from petl_modules.tts.hifigan import HifiganConfig
from petl_modules.tts.vocoder import load_vocoder
from petl_modules.tts.vocoder_training import (
    Recordings,
    VocoderTrainer,
    VocoderTraining,
)

SETTINGS = FastSpeech2Config(sample_rate=16000).features
SIZES = HifiganConfig(
    SETTINGS, channels=16, block_kernels=(3,), block_dilations=((1, 2),)
)
TINY = {"batch_size": 2, "segment": 8, "checkpoint_steps": 1000, "lr": 2e-3}


class Judge(torch.nn.Module):
    """Scores and layers as SpeechBrain's discriminators give them, in no time."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv1d(1, 4, 15, 4)

    def forward(self, sound):
        layer = self.layer(sound).relu()
        return [layer.mean(1)], [[layer]]


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    monkeypatch.setattr("petl_modules.tts.vocoder_training.HifiganDiscriminator", Judge)
    for i, pitch in enumerate((220, 330)):
        tone(tmp_path / f"{i}.wav", pitch, 1.0, rate=16000)
    features = SpeechFeatures(**SETTINGS)
    wavs = [str(tmp_path / f"{i}.wav") for i in range(2)]
    return Recordings(wavs, features, "cpu", TINY["segment"], progress=False)


def trainer(device="cpu", **training):
    return VocoderTrainer(SIZES, VocoderTraining(**TINY | training), device)


def test_segments_are_those_of_their_spectrograms(recordings):
    mel, sound = recordings.draw(3, 4)
    assert mel.shape == (4, 80, 8) and sound.shape == (4, 1, 8 * 256)
    assert torch.equal(mel, recordings.draw(3, 4)[0])
    assert not torch.equal(mel, recordings.draw(4, 4)[0])
    # the frames inside see only samples of the segment
    again = SpeechFeatures(**SETTINGS).mel(sound[0, 0]).T
    torch.testing.assert_close(again[:, 3:6], mel[0, :, 3:6], atol=0.02, rtol=0)


def test_spectra_come_nearer(recordings, tmp_path):
    training = trainer(steps=40, spectral_steps=40)
    batch = recordings.draw(0, 2)
    before = training.spectral(training.generator(batch[0]), batch[1])
    assert training.fit(recordings, tmp_path / "out", None)
    after = training.spectral(training.generator(batch[0]), batch[1])
    assert after < 0.8 * before


def test_a_run_that_was_stopped_ends_with_the_same_tensors(recordings, tmp_path):
    whole = trainer(steps=6, spectral_steps=3)
    whole.fit(recordings, tmp_path / "whole", None)
    first = trainer(steps=6, spectral_steps=3)
    assert not first.fit(recordings, tmp_path / "parts", 0.0)
    for _ in range(4):
        first._step(*recordings.draw(first._seed(), first._size))
    first.save(tmp_path / "parts")
    second = trainer(steps=6, spectral_steps=3)
    second.take_up(tmp_path / "parts")
    assert second.step == 4 and second.fit(recordings, tmp_path / "parts", None)
    for ours, theirs in (
        (whole.generator, second.generator),
        (whole.judge, second.judge),
    ):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
    assert all(torch.equal(whole.mean[n], second.mean[n]) for n in whole.mean)
    with pytest.raises(UserError, match="holds a run with steps=6"):
        trainer(steps=7, spectral_steps=3).take_up(tmp_path / "parts")


def test_a_run_goes_on_on_a_gpu_without_asking_it_for_counts(recordings, tmp_path):
    first = trainer(steps=2, spectral_steps=0)
    first.fit(recordings, tmp_path, None)
    with card():
        second = trainer("cuda", steps=2, spectral_steps=0)
        second.take_up(tmp_path)
        states = [s for o in second.optimizers for s in o.state.values()]
        assert states and all(isinstance(s["exp_avg"], OnCard) for s in states)
        assert not any(isinstance(s["step"], OnCard) for s in states)
        assert all(isinstance(tensor, OnCard) for tensor in second.mean.values())


def test_the_folder_is_a_vocoder(recordings, tmp_path):
    trainer(steps=1).fit(recordings, tmp_path / "out", None)
    features = SpeechFeatures(**SETTINGS)
    vocoder = load_vocoder(str(tmp_path / "out"), features)
    sound = vocoder(torch.randn(9, 80))
    assert sound.shape == (9 * 256,) and sound.isfinite().all()
    other = SpeechFeatures(**SETTINGS | {"sample_rate": 22050})
    with pytest.raises(UserError, match="sample_rate=16000, the voice makes them"):
        load_vocoder(str(tmp_path / "out"), other)
    config = json.loads((tmp_path / "out/config.json").read_text())
    (tmp_path / "out/config.json").write_text(json.dumps(config | {"channels": 32}))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_vocoder(str(tmp_path / "out"), features)
