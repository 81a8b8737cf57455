"""Durations that are found before training."""

import math
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch

from petl_modules.errors import UserError
from petl_modules.tts.durations import Durations
from petl_modules.tts.forced_alignment import (
    Chain,
    ForcedAligner,
    Spoken,
    best_paths,
    load_aligner,
)
from petl_modules.tts.text import SYMBOLS

RATE, HOP = 16000, 256
HZ = {"a": 300, "o": 900, "e": 2500}  # what the letters sound like here


def spoken(folder, name, word, seed):
    """A clip that "speaks" letters as tones of random lengths, with silence before and
    after; returns it and its letters' ends in seconds."""
    rng = np.random.default_rng(seed)
    seconds = rng.uniform(0.08, 0.25, len(word))
    parts = [np.zeros(int(0.2 * RATE))]
    for letter, length in zip(word, seconds, strict=True):
        time = np.arange(int(length * RATE)) / RATE
        parts.append(0.3 * np.sin(2 * np.pi * HZ[letter] * time))
    sound = np.concatenate([*parts, np.zeros(int(0.1 * RATE))])
    sound += 0.001 * rng.standard_normal(len(sound))
    path = folder / f"{name}.wav"
    soundfile.write(path, sound, RATE)
    ends = np.cumsum([len(part) for part in parts]) / RATE
    return Spoken(str(path), "ann", (" ", *word, ".", " ")), ends, len(sound)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tones")
    words = ["aoe", "eoa", "oae", "aeo", "oeaoe", "eaoae"] * 3
    return [spoken(folder, i, word, i) for i, word in enumerate(words)]


def test_tones_are_found_where_they_are(clips):
    aligner = ForcedAligner(SYMBOLS["graphemes"][1:], RATE, HOP)
    aligner.fit([clip for clip, _, _ in clips], progress=False)
    found = aligner.durations([clip for clip, _, _ in clips], progress=False)
    errors = []
    for clip, ends, samples in clips:
        frames = found[clip.wav]
        assert frames.sum() == samples // HOP + 1 and (frames[1:-2] > 0).all()
        assert frames[-2] > 0 and frames[-1] == 0  # the silence is the mark's
        # a frame is centred at its number: the first one begins half a hop early
        found_ends = (frames.cumsum(0)[: len(ends)] - 0.5) * HOP / RATE
        errors.append(abs(found_ends - ends))
    # an onset belongs to the sound, whose cepstra's differences see it 32 ms ahead
    assert np.concatenate(errors).max() < 0.035


def test_a_pause_that_is_not_made_lasts_no_frame(clips):
    clip, _, _ = clips[4]
    aligner = ForcedAligner(SYMBOLS["graphemes"][1:], RATE, HOP)
    aligner.fit([clip for clip, _, _ in clips], progress=False)
    apart = Spoken(clip.wav, "ann", (" ", "o", "e", " ", "a", "o", "e", ".", " "))
    (frames,) = aligner.durations([apart], progress=False).values()
    assert frames[3] == 0 and frames.sum() == aligner.durations([clip])[clip.wav].sum()


def test_paths_are_the_best_of_all():
    """Against a search of all paths; the middle symbol is a pause."""
    rng = np.random.default_rng(0)
    silent = np.repeat([False, True, False], 3)
    chain = Chain(np.arange(9), np.repeat(np.arange(3), 3), silent, 3)
    scores = rng.normal(size=(11, 9)).astype(np.float32)

    def best(look, state):
        if look == 0:
            return scores[0, 0] if state == 0 else -math.inf
        before = [state, state - 1] + ([state - 4] if state == 6 else [])
        return scores[look, state] + max(best(look - 1, s) for s in before if s >= 0)

    ((path, likelihood),) = best_paths([scores], [chain])
    assert likelihood == pytest.approx(best(10, 8), abs=1e-4)
    assert likelihood == pytest.approx(scores[range(11), path].sum(), abs=1e-4)
    assert path[0] == 0 and path[-1] == 8
    assert all(b - a in (0, 1) or (a, b) == (2, 6) for a, b in pairwise(path))


def test_clips_beside_it_change_no_path(clips):
    aligner = ForcedAligner(SYMBOLS["graphemes"][1:], RATE, HOP)
    every = [clip for clip, _, _ in clips]
    aligner.fit(every, progress=False)
    together = aligner.durations(every, progress=False)
    alone = aligner.durations(every[3:4], progress=False)
    assert torch.equal(alone[every[3].wav], together[every[3].wav])


def test_what_was_found_is_kept_and_serves_another_voice(clips, tmp_path, caplog):
    caplog.set_level("INFO")
    every = [clip for clip, _, _ in clips]
    letters = SYMBOLS["graphemes"][1:]
    aligner = ForcedAligner(letters, RATE, HOP)
    first = Durations(aligner, tmp_path, progress=False).of(every)
    assert "are aligned" in caplog.text
    caplog.clear()
    again = ForcedAligner(letters, RATE, HOP)
    kept = Durations(again, tmp_path, progress=False).of(every)
    assert "are aligned" not in caplog.text
    assert all(torch.equal(first[wav], kept[wav]) for wav in first)
    assert torch.equal(again.means, aligner.means)
    aligner.save(tmp_path / "aligner.safetensors")
    base = load_aligner(tmp_path / "aligner.safetensors")
    assert base.key() == aligner.key()
    few = [Spoken(clip.wav, "bob", clip.symbols) for clip in every[:3]]
    found = Durations(base, tmp_path, progress=False).of(few)
    assert all((found[c.wav] - first[c.wav]).abs().max() <= 1 for c in few)
    (tmp_path / "aligner.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        load_aligner(tmp_path / "aligner.safetensors")
