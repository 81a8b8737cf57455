"""Whole runs on data that is odd: each ends in an answer or in one sentence."""

import json
import os
import sys

import layouts
import numpy as np
import pytest
import soundfile
import torch
from conftest import run, run_here, tone
from fuzz import fuzz
from tiny import tiny_speech_base

from petl_modules.tts.features import SpeechFeatures
from petl_modules.tts.task import to_numpy

SHORT = ("--number_of_epochs=1", "--device=cpu", "--noprogressbar=True")
LJ = {"sample_rate": 22050, "hop_length": 256, "win_length": 1024, "n_fft": 1024}
LJ |= {"n_mels": 80, "f_min": 0.0, "f_max": 8000.0}


@pytest.mark.parametrize("method", ["linear", "lora"])
def test_a_probe_of_texts_reads_cached_features(checkpoints, tmp_path, method):
    (tmp_path / "data").mkdir()
    layouts.librispeech(tmp_path / "data")
    run_here(
        "LibriSpeech/ASR", f"--data_folder={tmp_path / 'data'}", *SHORT,
        f"--output_folder={tmp_path / 'out'}", f"--source={checkpoints['wav2vec2']}",
        f"--method={method}", "--head_start_epochs=1", "--skip_broken=True",
    )  # fmt: skip
    folder = tmp_path / "out" / method / "run_seed0"
    metrics = json.loads((folder / "results.json").read_text())["metrics"]["test"]
    assert metrics["word_error_rate"] > 0 and (folder / "wer.txt").exists()
    assert list((tmp_path / "out").rglob("*.safetensors"))


def test_names_that_no_encoding_has(tmp_path):
    for label, pitch in (("é", 300), ("b", 2000)):
        for i in range(6):
            tone(tmp_path / "data" / label / f"{i}.wav", pitch, 0.3, seed=i)
    odd = os.fsdecode(b"caf\xe9.wav")
    os.rename(tmp_path / "data" / "b" / "0.wav", tmp_path / "data" / "b" / odd)
    arguments = (
        f"--data_folder={tmp_path / 'data'}", f"--output_folder={tmp_path / 'out'}",
        "--method=linear", *SHORT,
    )  # fmt: skip
    done = run("AudioFolder", *arguments)
    assert done.returncode == 0, done.stderr
    manifests = (tmp_path / "out" / "linear" / "run_seed0" / "data").glob("t*.json")
    assert any(f"b/{odd}" in json.loads(path.read_text()) for path in manifests)


def test_a_terminal_that_has_no_letters_but_ascii(monkeypatch, tmp_path):
    from petl_modules.console import quiet

    with open(tmp_path / "out.txt", "w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        quiet()
        print("é", os.fsdecode(b"\xe9"))
    assert (tmp_path / "out.txt").read_text() == "\\xe9 \\udce9\n"


# Speech synthesis


@pytest.mark.parametrize("samples", [1, 441, 512, 513])
def test_a_moment_of_sound_has_features_of_equal_lengths(samples):
    features, wav = SpeechFeatures(**LJ), 0.1 * torch.randn(samples)
    frames = {
        len(features.mel(wav)),
        len(features.energy(wav)),
        len(features.pitch(wav)),
    }
    assert frames == {samples // 256 + 1}


def test_synthesis_is_judged_in_half_precision_and_of_moments(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    layouts.l2arctic(data)
    (data / "YKWK/wav/arctic_b0001.wav").unlink()
    soundfile.write(data / "ABA/wav/arctic_a0002.wav", np.zeros(441), 22050)
    run_here(
        "L2ARCTIC/TTS", f"--data_folder={data}", f"--output_folder={tmp_path / 'out'}",
        f"--source={tiny_speech_base(tmp_path / 'base')}", *SHORT, "--method=lora",
        "--valid_sentences=1", "--test_sentences=2", "--samples=0",
        "--eval_precision=bf16", "--skip_broken=True",
    )  # fmt: skip
    results = tmp_path / "out" / "lora" / "run_seed0" / "results.json"
    assert json.loads(results.read_text())["metrics"]["test"]["mcd"] > 0
    assert to_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32


def test_odd_command_lines_and_data_end_in_a_sentence(tmp_path):
    for odd, found in fuzz(10, seed=7, root=tmp_path):
        assert found in ("answered", "refused"), f"{odd}: {found}"
