"""Decoded clips are kept in memory and in a file, and threads read ahead."""

import os
import threading

import pytest
import torch
from conftest import tone

from petl_modules.data import clip_cache as module
from petl_modules.data.ahead import ahead
from petl_modules.data.clip_cache import ClipFiles, Clips
from petl_modules.data.reading import read_clip


@pytest.fixture
def wavs(tmp_path):
    paths = [tmp_path / f"{i}.wav" for i in range(4)]
    for i, path in enumerate(paths):
        tone(path, 300 + 50 * i, rate=44100, seed=i)
    return [str(path) for path in paths]


@pytest.fixture
def decoded(monkeypatch):
    """The clips that were decoded."""
    found = []

    def read(wav, *args):
        found.append(wav)
        return read_clip(wav, *args)

    monkeypatch.setattr(module, "read_clip", read)
    return found


@pytest.mark.parametrize("mib", [1, 0.03, 0])
def test_a_clip_is_decoded_once_for_all_runs(wavs, decoded, tmp_path, mib):
    first = Clips(16000, mib=mib, folder=tmp_path / "cache")
    for _ in range(3):
        for wav in wavs:
            assert torch.equal(first(wav), read_clip(wav, 16000))
    assert decoded == wavs
    kept = 4 if mib == 0 else 3 if mib == 0.03 else 0  # one of 25 KiB fits
    again = Clips(16000, mib=mib, folder=tmp_path / "cache")
    assert all(torch.equal(again(wav), first(wav)) for wav in wavs)
    assert len(decoded) == 8 - kept


def test_a_changed_clip_is_decoded_again(wavs, decoded, tmp_path):
    Clips(16000, mib=0, folder=tmp_path / "cache")(wavs[0])
    tone(wavs_path := type(tmp_path)(wavs[0]), 999, rate=44100)
    os.utime(wavs_path, (1, 1))
    again = Clips(16000, mib=0, folder=tmp_path / "cache")(wavs[0])
    assert len(decoded) == 2 and torch.equal(again, read_clip(wavs[0], 16000))


def test_cuts_and_rates_are_kept_apart(wavs, tmp_path):
    for rate, seconds in ((16000, None), (16000, 0.1), (8000, 0.1)):
        clips = Clips(rate, seconds, 0, tmp_path / "cache")
        expected = read_clip(wavs[0], rate, seconds)
        assert torch.equal(clips(wavs[0]), expected)
        assert torch.equal(clips(wavs[0]), expected)


def test_what_a_killed_process_left_is_no_clip(wavs, decoded, tmp_path):
    folder = tmp_path / "cache"
    Clips(16000, mib=0, folder=folder)(wavs[0])
    (sound,) = folder.rglob("*.f32")
    sound.write_bytes(sound.read_bytes()[:-8])
    (index,) = folder.rglob("*.index")
    index.write_text(index.read_text() + "half a li")
    clip = Clips(16000, mib=0, folder=folder)(wavs[0])
    assert torch.equal(clip, read_clip(wavs[0], 16000)) and len(decoded) == 2


def test_the_file_grows_to_its_bound(wavs, tmp_path):
    files = ClipFiles(tmp_path / "cache", 0.06)
    for wav in wavs:
        files.add(wav, read_clip(wav, 16000))
    assert sum(files.get(wav) is not None for wav in wavs) == 2
    later = ClipFiles(tmp_path / "cache", 0.06)
    later.add(wavs[3], read_clip(wavs[3], 16000))
    assert later.get(wavs[3]) is None


def test_threads_that_read_ahead_take_no_others():
    # else their teams and the step's are more than the cores, and all are put to sleep
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)

        def own_team(_):
            torch.ones(100_000).sum()  # what would make one
            return torch.get_num_threads()

        assert list(ahead(own_team, range(4), 2)) == [1] * 4
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_read_ahead_in_order(threads):
    seen, main = [], threading.get_ident()

    def square(x):
        seen.append(threading.get_ident())
        return x * x

    assert list(ahead(square, range(20), threads)) == [x * x for x in range(20)]
    assert (main in seen) == (threads == 0)


def test_what_a_thread_raises_is_raised_in_its_turn():
    def fragile(x):
        if x == 3:
            raise ValueError("three")
        return x

    read = ahead(fragile, range(9), 2)
    assert [next(read) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(read)
