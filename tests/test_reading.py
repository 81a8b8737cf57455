"""Sound of any container, rate and length; what is no sound is refused by name."""

import os
import tracemalloc

import av
import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, tone

from petl_modules import data
from petl_modules.data import media, reading
from petl_modules.data.clip_cache import Clips
from petl_modules.errors import UserError


def noise(path, rate, seconds, channels=1, **options):
    sound = np.random.default_rng(0).standard_normal((round(rate * seconds), channels))
    soundfile.write(path, 0.1 * sound, rate, **options)
    return path


def encode(path, codec, rates, container=None, seconds=0.5):
    """Tones of 500 Hz by FFmpeg, one after the other, each at its rate."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rates[0])
        for rate in rates:
            time = np.arange(round(rate * seconds)) / rate
            sound = (0.3 * np.sin(2 * np.pi * 500 * time)).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(sound, "fltp", "mono")
            frame.rate = rate
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)


@pytest.mark.parametrize("rate", [8000, 22050, 22051, 44100, 48000])
def test_a_long_clip_is_resampled_as_if_at_once(tmp_path, rate, monkeypatch):
    path = noise(tmp_path / "a.wav", rate, 4)
    at_once = data.read_clip(path, RATE)
    monkeypatch.setattr(reading, "PIECE", 5000)
    monkeypatch.setattr(media, "BLOCK", 3000)
    in_pieces = data.read_clip(path, RATE)
    assert in_pieces.shape == at_once.shape
    torch.testing.assert_close(in_pieces, at_once, atol=1e-6, rtol=0)
    beginning = data.read_clip(path, RATE, seconds=1.5)
    assert len(beginning) == 24000
    torch.testing.assert_close(beginning, at_once[:24000], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("rate", "seconds"), [(RATE, 2.0), (44100, 2.0), (44100, 9.0)])
def test_only_the_beginning_that_is_wanted_is_decoded(
    tmp_path, monkeypatch, rate, seconds
):
    path = noise(tmp_path / "a.wav", rate, 8, channels=2)
    monkeypatch.setattr(media, "BLOCK", 4000)
    decoded, blocks = media.decoded, []
    monkeypatch.setattr(
        reading, "decoded", lambda *a: (blocks.append(b) or b for b in decoded(*a))
    )
    clip = data.read_clip(path, RATE, seconds)
    assert len(clip) == min(seconds, 8) * RATE
    heard = sum(block.shape[1] for block, _ in blocks) / rate
    assert heard <= min(seconds + 0.5, 8)


def test_a_long_clip_is_checked_in_little_memory(tmp_path):
    path = noise(tmp_path / "a.wav", 8000, 600, channels=2)
    reading.duration(path)
    tracemalloc.start()
    assert reading.duration(path) == 600
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20  # all of it would take 37 MiB


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("a.wv", "wavpack", "wv"),
        ("a.mka", "aac", "matroska"),
        ("a.wav", "aac", "adts"),  # a name that says something else
        ("a.flac", "libmp3lame", "mp3"),
    ],
)
def test_what_soundfile_does_not_read_ffmpeg_does(tmp_path, name, codec, container):
    encode(tmp_path / name, codec, [RATE], container)
    assert data.is_audio(tmp_path / name)
    clip = data.read_clip(tmp_path / name, RATE)
    assert abs(len(clip) - RATE / 2) < 2500
    loudest = torch.fft.rfft(clip[2000:6000]).abs().argmax()
    assert abs(float(loudest) * 4 - 500) < 10


def test_a_sound_named_as_a_film_is_read(tmp_path):
    tone(tmp_path / "a.wav", 500)
    (tmp_path / "a.wav").rename(tmp_path / "a.m4a")
    assert len(data.read_clip(tmp_path / "a.m4a", RATE)) == 6400


def test_a_rate_that_changes_within_a_file_keeps_pitch_and_length(tmp_path):
    for rate in (16000, 44100):
        tone(tmp_path / f"{rate}.mp3", 500, seconds=1.0, rate=rate)
    parts = [(tmp_path / f"{rate}.mp3").read_bytes() for rate in (16000, 44100)]
    (tmp_path / "both.mp3").write_bytes(b"".join(parts))
    clip = data.read_clip(tmp_path / "both.mp3", RATE)
    assert abs(len(clip) / RATE - 2) < 0.25
    for second in (clip[2000:14000], clip[20000:32000]):
        pitch = float(torch.fft.rfft(second).abs().argmax()) * RATE / len(second)
        assert abs(pitch - 500) < 5


@pytest.mark.parametrize("loud", [3e38, 1e30, -3e9])
def test_numbers_that_are_no_sound_are_refused(tmp_path, loud):
    sound = np.r_[np.zeros(99), loud, loud]
    soundfile.write(tmp_path / "a.wav", np.stack([sound, sound], 1), RATE, "FLOAT")
    with pytest.raises(UserError, match=r"a\.wav holds the value .* within 1 and -1"):
        data.read_clip(tmp_path / "a.wav", RATE)


def test_numbers_of_another_scale_are_sound(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(99, 32767.0), RATE, "FLOAT")
    assert float(data.read_clip(tmp_path / "a.wav", RATE).max()) == 32767.0


def test_a_name_that_is_no_utf8_is_read(tmp_path):
    for suffix in (b".wav", b".mp3"):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9" + suffix)
        tone(tmp_path / f"a{os.fsdecode(suffix)}", 500)
        os.rename(tmp_path / f"a{os.fsdecode(suffix)}", path)
        assert len(data.read_clip(path, RATE)) > 6000


def test_a_decoder_prints_nothing_of_its_own(tmp_path, capfd):
    for suffix in (".mp3", ".ac3"):
        path = tmp_path / (os.fsdecode(b"caf\xe9") + suffix)
        path.touch()
        with pytest.raises(UserError, match=r"cannot be read|no sound|empty"):
            data.read_clip(path, RATE)
    assert "Traceback" not in capfd.readouterr().err


def test_a_file_that_may_not_be_read_or_is_a_list_of_others(tmp_path):
    (tmp_path / "dir.wav").mkdir()
    with pytest.raises(UserError, match=r"dir\.wav is missing"):
        data.read_clip(tmp_path / "dir.wav", RATE)
    tone(tmp_path / "a.wav", 500)
    listed = "#EXTM3U\n#EXTINF:1,\na.wav\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.mp3").write_text(listed)
    with pytest.raises(UserError, match=r"list\.mp3 cannot be read"):
        data.read_clip(tmp_path / "list.mp3", RATE)


def test_the_first_channel_alone_can_be_heard(tmp_path):
    left, right = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 4000))
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right], 1), RATE, "FLOAT")
    found = {
        c: data.read_clip(path, RATE, channel=c).numpy() for c in ("first", "mean")
    }
    assert np.allclose(found["first"], left)
    assert np.allclose(found["mean"], (left + right) / 2)
    folder = tmp_path / "cache"  # where neither is taken for the other
    for channel in ("first", "mean", "first"):
        clips = Clips(RATE, mib=0, folder=folder, channel=channel)
        assert np.allclose(clips(str(path)), found[channel])
