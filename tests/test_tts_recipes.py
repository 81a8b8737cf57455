"""The recipes of speech synthesis: official layouts; from base training to speech."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import time

import layouts
import pytest
import soundfile
from conftest import ROOT, command, run, tone
from safetensors.torch import load_file
from tiny import epochs_logged, tiny_speech_base, tiny_writer

from petl_modules.errors import UserError
from petl_modules.tts.synthesize import Synthesizer, main

SIZES = (
    "--text=graphemes",
    "--hidden_size=32",
    "--encoder_layers=1",
    "--decoder_layers=1",
    "--ffn_size=32",
    "--kernel_sizes=[3, 1]",
    "--postnet_size=16",
)
SHORT = (
    "--valid_sentences=2",
    "--test_sentences=2",
    "--number_of_epochs=2",
    "--sample_epochs=2",
    "--samples=1",
    "--batch_size=4",
    "--skip_broken=True",
)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("Hörbücher 音声")
    for name in ("l2arctic", "libritts", "ljspeech", "vctk"):
        (root / name).mkdir()
        getattr(layouts, name)(root / name)
    return root


def test_vctk_is_read_with_its_texts(trees):
    held_out = {"valid_sentences": 2, "test_sentences": 2, "seed": 0}
    splits, speakers = prepare("VCTK", trees / "vctk", "mic1", None, [], **held_out)
    assert speakers == ["p225", "p280"]
    entries = {key: e for part in splits.values() for key, e in part.items()}
    assert (
        len(entries) == 39 and "p280/p280_020_mic1.flac" not in entries
    )  # it has no text
    assert entries["p225/p225_001_mic1.flac"]["text"] == layouts.SENTENCES[1]
    assert len(splits["valid"]) == len(splits["test"]) == 2
    _, speakers = prepare("VCTK", trees / "vctk", "mic2", None, [], **held_out)
    assert speakers == ["p225"]
    with pytest.raises(UserError, match="no wav48"):
        prepare("VCTK", trees / "ljspeech", "mic1", None, [], **held_out)


def prepare(recipe, *arguments, **keywords):
    path = ROOT / "recipes" / recipe / f"{recipe.lower()}_prepare.py"
    spec = importlib.util.spec_from_file_location(f"{recipe}_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.prepare_speech(*arguments, **keywords)


def hparams(recipe, name):
    return ROOT / "recipes" / recipe / "hparams" / f"{name}.yaml"


def only_error(done):
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    return error


def test_base_adaptation_and_synthesis(trees, tmp_path):
    done = run(
        "LJSpeech/TTS",
        hparams("LJSpeech/TTS", "base"),
        f"--data_folder={trees / 'ljspeech'}",
        f"--output_folder={tmp_path / 'base'}",
        *SIZES,
        *SHORT,
    )
    assert done.returncode == 0, done.stderr
    base = tmp_path / "base/full/run_seed0/base"
    assert json.loads((base / "config.json").read_text())["speakers"] == ["LJ"]
    done = run(
        "L2ARCTIC/TTS",
        f"--data_folder={trees / 'l2arctic'}",
        f"--output_folder={tmp_path / 'voice'}",
        f"--source={base}",
        "--method=prefix",
        "--speakers=[YKWK]",
        "--besides=[durations]",
        f"--asr={tiny_writer(tmp_path / 'whisper')}",
        *SHORT,
    )
    assert done.returncode == 0, done.stderr
    assert "Griffin-Lim" in done.stderr
    folder = tmp_path / "voice/prefix/run_seed0"
    result = json.loads((folder / "results.json").read_text())
    assert {"mcd", "f0_rmse", "duration_error"} <= result["metrics"]["test"].keys()
    assert result["metrics"]["test"]["mcd"] > 0 and result["left_out"] == 1
    assert result["metrics"]["test"]["word_error_rate"] > 0  # it knows no words
    tensors = load_file(folder / "adapter.safetensors")
    (spectrum,) = (t for name, t in tensors.items() if name.endswith("spectrum"))
    assert spectrum.shape == (1, 80) and spectrum.abs().mean() > 0.1  # of its clips
    assert 0 < result["parameters"]["petl"] < result["parameters"]["backbone"]
    with open(folder / "sentences.csv", newline="", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 2
    for sample in ("epoch1", "epoch2", "test"):
        kinds = sorted(p.suffix for p in (folder / "samples" / sample).iterdir())
        assert kinds == [".png", ".wav", ".wav"]
    assert not (folder / "base").exists()  # most of it is the base's own
    out = tmp_path / "x.wav"
    main([str(folder), "Who is it?", f"--out={out}"])
    assert soundfile.info(out).samplerate == 22050 and soundfile.info(out).frames > 256
    assert Synthesizer(folder).speakers == ["YKWK"]


def test_a_base_that_is_killed_ends_the_same(trees, tmp_path):
    arguments = (
        hparams("LJSpeech/TTS", "base"),
        f"--data_folder={trees / 'ljspeech'}",
        *SIZES,
        *SHORT,
        "--number_of_epochs=4",
        "--valid_epochs=2",
        "--samples=0",
        "--max_batch_seconds=3",
        "--ckpt_interval_steps=1",
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run("LJSpeech/TTS", *arguments, f"--output_folder={whole}")
    assert done.returncode == 0, done.stderr
    line = command("LJSpeech/TTS", *arguments, f"--output_folder={killed}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL)
    folder = killed / "full/run_seed0"
    deadline = time.monotonic() + 600
    while not list(folder.glob("checkpoints/*/WHOLE")) and time.monotonic() < deadline:
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert not (folder / "results.json").exists()
    done = run("LJSpeech/TTS", *arguments, f"--output_folder={killed}")
    assert done.returncode == 0, done.stderr
    for name in ("model", "aligner"):
        path = f"full/run_seed0/base/{name}.safetensors"
        tensors = [load_file(home / path) for home in (whole, killed)]
        assert all(tensors[0][n].equal(tensors[1][n]) for n in tensors[0])
    # validated after the second epoch and the fourth, which is the last
    log = epochs_logged(whole / "full/run_seed0")
    assert [line.split(",")[0] for line in log] == ["epoch: 2", "epoch: 4"]


def test_what_cannot_be_trained_is_said_before_training(trees, tmp_path):
    base = tiny_speech_base(tmp_path / "base")
    arguments = (
        f"--data_folder={trees / 'l2arctic'}",
        f"--output_folder={tmp_path / 'out'}",
        f"--source={base}",
        *SHORT,
    )
    error = only_error(run("L2ARCTIC/TTS", *arguments, "--speakers=[ZZZ]"))
    assert "no speaker ZZZ in the data, but ABA, YKWK" in error
    error = only_error(run("L2ARCTIC/TTS", *arguments, f"--asr={trees}"))
    assert "No Whisper can be loaded" in error
    assert not list(tmp_path.glob("out/**/*.safetensors"))


# Layouts


def test_l2arctic_holds_prompts_out_of_every_speaker(trees):
    splits, labels = prepare(
        "L2ARCTIC", trees / "l2arctic", None, [], valid_sentences=1, test_sentences=2,
        seed=0,
    )  # fmt: skip
    assert labels == ["ABA", "YKWK"]
    prompts = {name: {e["prompt"] for e in s.values()} for name, s in splits.items()}
    assert not prompts["train"] & (prompts["valid"] | prompts["test"])
    assert splits["train"].keys() | splits["valid"].keys() | splits["test"].keys() == {
        *(f"{s}/wav/arctic_a{i:04d}.wav" for s in labels for i in range(1, 7)),
        "YKWK/wav/arctic_b0001.wav",
    }
    entry = {**splits["train"], **splits["valid"], **splits["test"]}[
        "ABA/wav/arctic_a0002.wav"
    ]
    assert entry["text"] == "No, no!" and entry["speaker"] == "ABA"
    assert entry["wav"].endswith("ABA/wav/arctic_a0002.wav")


def test_libritts_reads_normalised_texts_of_chosen_speakers(trees):
    splits, labels = prepare(
        "LibriTTS", trees / "libritts", ["train-clean-100"], [84], [], 1, 1, seed=0
    )
    assert labels == ["84"] and len(splits["train"]) == 5
    entries = {k: e for part in splits.values() for k, e in part.items()}
    assert entries["train-clean-100/84/9/84_9_000003_000000.wav"]["text"] == "He's in"
    _, labels = prepare(
        "LibriTTS", trees / "libritts", ["train-clean-100"], None, ["84"], 1, 1, seed=0
    )
    assert labels == ["174"]
    with pytest.raises(UserError, match="has no dev-clean"):
        prepare("LibriTTS", trees / "libritts", ["dev-clean"], None, [], 1, 1, seed=0)


def test_takes_of_one_prompt_are_held_out_together(tmp_path):
    lines = []
    for prompt in range(6):
        for take, suffix in enumerate((".wav", ".ogg", ".flac")):
            tone(tmp_path / "wavs" / f"p{prompt}_{take}{suffix}", 300, 0.4)
            lines.append(f"p{prompt}_{take}|Prompt {'abcdef'[prompt]}.|Prompt.")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    splits, _ = prepare("LJSpeech", tmp_path, 0, valid_sentences=1, test_sentences=2)
    assert [len(part) for part in splits.values()] == [9, 3, 6]
    prompts = [{key.split("_")[0] for key in part} for part in splits.values()]
    assert not prompts[0] & (prompts[1] | prompts[2]) and len(prompts[2]) == 2
    wavs = [e["wav"] for part in splits.values() for e in part.values()]
    assert {wav[-4:] for wav in wavs} == {".wav", ".ogg", "flac"}


def test_libritts_reads_the_layout_of_librispeech(tmp_path):
    folder = tmp_path / "train-clean-100/84/7"
    for i in range(3):
        tone(folder / f"84-7-000{i}.flac", 300, 0.4)
    lines = [f"84-7-000{i} GO {'ON ' * (i + 1)}".rstrip() for i in range(3)]
    (folder / "84-7.trans.txt").write_text("\n".join(lines) + "\n")
    splits, _ = prepare(
        "LibriTTS", tmp_path, ["train-clean-100"], None, [], 1, 1, seed=0
    )
    texts = sorted(e["text"] for part in splits.values() for e in part.values())
    assert texts == ["go on", "go on on", "go on on on"]
    (folder / "84-7.trans.txt").write_text(lines[0] + "\n")
    with pytest.raises(UserError, match="has no line for"):
        prepare("LibriTTS", tmp_path, ["train-clean-100"], None, [], 1, 1, seed=0)


def test_ljspeech_reads_the_normalised_text(trees, tmp_path):
    splits, labels = prepare(
        "LJSpeech", trees / "ljspeech", 0, valid_sentences=1, test_sentences=2
    )
    assert labels == ["LJ"]
    entries = {k: e for part in splits.values() for k, e in part.items()}
    assert len(entries) == 8 and entries["LJ001-0002"]["text"] == "No, no!"
    (tmp_path / "metadata.csv").write_text("a|b\n")
    with pytest.raises(UserError, match="line 1, has 2 fields"):
        prepare("LJSpeech", tmp_path, 0)
