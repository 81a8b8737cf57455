"""Sound of any container, rate and length; what is no sound is refused by name."""

import os
import struct
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


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_streams_that_follow_one_another_in_an_ogg_are_all_read(tmp_path, suffix):
    parts = []
    for rate, channels in ((48000, 1), (16000, 2), (16000, 1)):
        path = tmp_path / f"{rate} {channels}.ogg"
        time = np.arange(rate) / rate
        sound = 0.3 * np.sin(2 * np.pi * 500 * time)[:, None].repeat(channels, 1)
        kind = "OPUS" if suffix == ".opus" else "VORBIS"
        soundfile.write(path, sound, rate, kind, format="OGG")
        parts.append(path.read_bytes())
    path = tmp_path / f"chain{suffix}"
    path.write_bytes(b"".join(parts))
    clip = data.read_clip(path, RATE)
    assert abs(len(clip) - 3 * RATE) < 100
    assert reading.duration(path) == pytest.approx(3, abs=0.01)
    assert len(data.read_clip(path, RATE, seconds=1.5)) == 1.5 * RATE
    for second in (clip[2000:14000], clip[18000:30000], clip[34000:46000]):
        pitch = float(torch.fft.rfft(second).abs().argmax()) * RATE / len(second)
        assert abs(pitch - 500) < 5


def wav_header(size, rate=RATE):
    """The header of a wav file of one channel of 16 bits."""
    kind = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate % 2**32, 2, 16)
    data_ = struct.pack("<4sI", b"data", size)
    return struct.pack("<4sI4s", b"RIFF", min(36 + size, 2**32 - 1), b"WAVE") + (
        kind + data_
    )


@pytest.mark.parametrize("size", [0, 99_000, 2**31 - 1, 2**32 - 1])
def test_a_header_that_was_never_completed_hides_no_sound(tmp_path, size):
    sound = np.full(8000, 1000, np.int16).tobytes()
    (tmp_path / "a.wav").write_bytes(wav_header(size) + sound)
    assert len(data.read_clip(tmp_path / "a.wav", RATE)) == 8000


@pytest.mark.parametrize("rate", [1, 99, 2**31 - 1])
def test_rates_that_no_sound_has_are_refused(tmp_path, rate):
    (tmp_path / "a.wav").write_bytes(wav_header(800, rate) + bytes(800))
    with pytest.raises(UserError, match=rf"a\.wav .*{rate} samples a second"):
        data.read_clip(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize("rate", [100, 384_000, 9_999_991])
def test_rates_far_from_a_models_take_little_memory(rate):
    assert reading.resampler(rate, RATE).kernel.numel() < 2e7


@pytest.mark.parametrize("name", ["a.raw", "a.pcm", "a.txt"])
def test_samples_without_a_header_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(800))
    with pytest.raises(UserError, match="cannot be read"):
        data.read_clip(tmp_path / name, RATE)


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
