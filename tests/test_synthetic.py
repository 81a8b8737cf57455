"""The formula-made sounds: seeded, audible, and written completely or not at all."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from petl_modules.embedded import synthetic
from petl_modules.embedded.synthetic import (
    EVENTS,
    KINDS,
    TEXTURES,
    labelled_sound,
    random_sound,
    write_sound_folder,
)


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_audible_and_seeded(kind):
    for seed in range(5):
        clip = labelled_sound(kind, np.random.default_rng(seed))
        again = labelled_sound(kind, np.random.default_rng(seed))
        assert np.array_equal(clip, again)
        assert clip.dtype == np.float32 and clip.ndim == 1
        assert 16000 <= len(clip) <= 32000
        assert np.isfinite(clip).all()
        assert np.abs(clip).max() < 1
        assert clip.std() > 1e-3
    other = labelled_sound(kind, np.random.default_rng(99))
    assert len(other) != len(clip) or not np.allclose(other, clip)


def test_there_are_enough_kinds():
    assert len(KINDS) >= 12


@pytest.mark.parametrize("name", [*TEXTURES, *EVENTS])
def test_source_is_finite(name):
    source = {**TEXTURES, **EVENTS}[name]
    for seed in range(5):
        sound = source(np.random.default_rng(seed), 16000, 16000)
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() > 0


def test_scenes_are_seeded_and_varied():
    def scene(seed):
        return random_sound(np.random.default_rng(seed), 1.5, return_sources=True)

    scenes = [scene(seed) for seed in range(30)]
    for seed, (wav, names) in enumerate(scenes):
        assert np.array_equal(wav, scene(seed)[0])
        assert wav.dtype == np.float32 and wav.shape == (24000,)
        assert np.isfinite(wav).all() and np.abs(wav).max() <= 1
        assert names and set(names) <= {*TEXTURES, *EVENTS}
    assert len({name for _, names in scenes for name in names}) > 15


def test_folder_is_complete_and_left_alone(tmp_path):
    write_sound_folder(tmp_path, seed=3, clips_per_class=2)
    files = sorted(tmp_path.rglob("*.wav"))
    assert len(files) == 2 * len(KINDS)
    assert {file.parent.name for file in files} == set(KINDS)
    info = soundfile.info(files[0])
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    assert not list(tmp_path.rglob("*.part"))
    times = [file.stat().st_mtime_ns for file in files]
    write_sound_folder(tmp_path, seed=3, clips_per_class=2)
    assert times == [file.stat().st_mtime_ns for file in files]


def test_half_written_folder_is_completed(tmp_path, monkeypatch):
    whole = write_sound_folder(tmp_path / "whole", clips_per_class=2)
    broken = tmp_path / "broken"
    write, written = synthetic.write_wav, []

    def dies(path, wav, rate):
        written.append(path)
        if len(written) == 7:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        write(path, wav, rate)

    monkeypatch.setattr(synthetic, "write_wav", dies)
    with pytest.raises(KeyboardInterrupt):
        write_sound_folder(broken, clips_per_class=2)
    monkeypatch.undo()
    write_sound_folder(broken, clips_per_class=2)
    names = [file.relative_to(whole) for file in sorted(whole.rglob("*.wav"))]
    assert names == [file.relative_to(broken) for file in sorted(broken.rglob("*.wav"))]
    for name in names:
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def test_processes_that_ask_for_one_folder_write_it_one_after_another(tmp_path):
    """What is there in the end is what one of them asked for, not a mixture."""
    program = (
        "import sys; from petl_modules.embedded.synthetic import write_sound_folder\n"
        "write_sound_folder(sys.argv[1], int(sys.argv[2]), 2)"
    )
    start = [sys.executable, "-c", program, str(tmp_path / "shared")]
    running = [subprocess.Popen([*start, seed]) for seed in ("0", "0", "1")]
    assert [process.wait() for process in running] == [0, 0, 0]

    def clips(folder):
        return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*.wav")}

    asked = [
        clips(write_sound_folder(tmp_path / str(seed), seed, 2)) for seed in (0, 1)
    ]
    assert clips(tmp_path / "shared") in asked


def test_other_settings_write_other_clips(tmp_path):
    write_sound_folder(tmp_path, seed=0, clips_per_class=2)
    before = {f.name: f.read_bytes() for f in tmp_path.rglob("*.wav")}
    write_sound_folder(tmp_path, seed=1, clips_per_class=1)
    after = {f.name: f.read_bytes() for f in tmp_path.rglob("*.wav")}
    assert len(after) == len(KINDS)
    assert all(before[name] != content for name, content in after.items())
