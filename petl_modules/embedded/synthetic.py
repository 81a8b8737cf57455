"""Sounds made from formulas: a labelled set of kinds that differ in fine structure,
and endless unlabelled mixtures for pretraining. Mono, 16 kHz, float32, seeded.
"""

import json
from pathlib import Path

import numpy as np
import soundfile
from scipy.fft import irfft, next_fast_len, rfft
from tqdm import tqdm

from petl_modules.files import whole, write_json

SAMPLE_RATE = 16000
MANIFEST = "made_by_formula.json"
VERSION = 1


def write_sound_folder(folder, seed=0, clips_per_class=40, sample_rate=SAMPLE_RATE):
    """Writes `folder/<kind>/<number>.wav`, clips of 1 to 2 s, 16 bit.

    A folder that was completed before with the same settings is left as it is, and
    one that was interrupted is completed: every clip has its own seed.

    Arguments
    ---------
    folder : str or Path
    seed : int
    clips_per_class : int
    sample_rate : int
        Hz.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    settings = {
        "version": VERSION,
        "seed": seed,
        "clips_per_class": clips_per_class,
        "sample_rate": sample_rate,
        "kinds": list(KINDS),
    }
    manifest = folder / MANIFEST
    before = json.loads(manifest.read_text()) if manifest.is_file() else {}
    if before != settings:
        # clips of other settings must not be taken for these
        for kind in before.get("kinds", []):
            for path in (folder / kind).glob(f"{kind}_*.wav"):
                path.unlink()
        write_json(manifest, settings)
    missing = [
        (path, kind, number)
        for kind in KINDS
        for number in range(clips_per_class)
        if not (path := folder / kind / f"{kind}_{number:03d}.wav").is_file()
    ]
    for path, kind, number in tqdm(missing, "sounds", disable=not missing):
        rng = np.random.default_rng([seed, list(KINDS).index(kind), number])
        wav = labelled_sound(kind, rng, sample_rate)
        path.parent.mkdir(exist_ok=True)
        with whole(path) as partial:
            write_wav(partial, wav, sample_rate)
    return folder


def labelled_sound(kind, rng, sample_rate=SAMPLE_RATE):
    """One clip of a kind of `KINDS`: 1 to 2 s, varied in pitch, level, timing and
    noise. Returns float32 `(samples,)` within -1 and 1."""
    samples = int(rng.uniform(1.0, 2.0) * sample_rate)
    length = int(rng.uniform(0.75, 1.0) * samples)
    start = rng.integers(0, samples - length + 1)
    clip = np.zeros(samples, np.float32)
    sound = KINDS[kind](rng, length, sample_rate)
    clip[start : start + length] = unit(sound) * fade(length, sample_rate // 100)
    if rng.random() < 0.5:
        clip = reverberate(rng, clip, sample_rate)
    noise = unit(coloured_noise(rng, samples, slope=rng.uniform(-2.0, 0.0)))
    signal_to_noise = rng.uniform(0.0, 20.0)
    clip = unit(clip) + noise * 10 ** (-signal_to_noise / 20)
    return level(clip, peak=10 ** rng.uniform(-1.3, -0.05))


def random_sound(
    rng, seconds, sample_rate=SAMPLE_RATE, return_sources=False, events=None
):
    """A random scene: textures and events, one or layered, once or repeated, through
    a random room and microphone.

    Arguments
    ---------
    rng : numpy.random.Generator
    seconds : float
    sample_rate : int
        Hz.
    return_sources : bool
        Also give the names of what sounds (of `TEXTURES` and `events`).
    events : dict, optional
        Names and functions of (rng, samples, rate) that give one sound; else `EVENTS`.

    Returns
    -------
    numpy.ndarray
        float32 `(samples,)`, within -1 and 1; with `return_sources`, a pair.
    """
    events = events or EVENTS
    samples = round(seconds * sample_rate)
    layers = rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])
    scene = np.zeros(samples, np.float32)
    sources = []
    for _ in range(layers):
        if rng.random() < 0.4:
            name = str(rng.choice(list(TEXTURES)))
            layer = unit(TEXTURES[name](rng, samples, sample_rate))
            if rng.random() < 0.4:
                layer = layer * swell(rng, samples)
        else:
            name = str(rng.choice(list(events)))
            layer = repeated(rng, events[name], samples, sample_rate)
        scene += unit(layer) * 10 ** (rng.uniform(-15, 0) / 20 if sources else 0)
        sources.append(name)
    if rng.random() < 0.4:
        scene = reverberate(rng, scene, sample_rate)
    if rng.random() < 0.5:
        scene = filtered(scene, random_response(rng, depth=8.0), sample_rate)
    if rng.random() < 0.6:
        noise = coloured_noise(rng, samples, slope=rng.uniform(-2.0, 0.5))
        scene = unit(scene) + unit(noise) * 10 ** (rng.uniform(-60, -10) / 20)
    if rng.random() < 0.25:
        # many recordings are cut tightly and filled up with digital silence
        scene[int(samples * rng.uniform(0.2, 1.0)) :] = 0
    scene = level(scene, peak=10 ** rng.uniform(-1.5, 0))
    return (scene, sources) if return_sources else scene


# ---------------------------------------------------------------------------------
# The labelled kinds. Neighbours differ in one thing only: direction, rate, order,
# rhythm, harmonics or formants.


def chirp(rng, n, rate, up):
    low = rng.uniform(250, 700)
    pitch = np.geomspace(low, low * rng.uniform(2.0, 4.0), n, dtype=np.float32)
    return harmonic(pitch if up else pitch[::-1], rng.uniform(0.0, 0.5), rate)


def tremolo(rng, n, rate, low, high):
    tone = harmonic(constant_pitch(rng, n, 300, 900), rng.uniform(0.2, 0.6), rate)
    modulation = sine(rng, n, rng.uniform(low, high), rate)
    return tone * (1 + rng.uniform(0.8, 1.0) * modulation)


def vibrato(rng, n, rate, low, high):
    pitch = constant_pitch(rng, n, 300, 900)
    bend = rng.uniform(0.05, 0.1) * sine(rng, n, rng.uniform(low, high), rate)
    return harmonic(pitch * (1 + bend), rng.uniform(0.2, 0.6), rate)


def harmonics(rng, n, rate, odd_only):
    pitch, richness = constant_pitch(rng, n, 150, 400), rng.uniform(0.7, 0.85)
    tone = harmonic(pitch, richness, rate)
    if odd_only:
        # a wave whose second half period is the first one upside down
        tone = tone - harmonic(pitch, richness, rate, shift=np.pi)
    return tone * decay(n, rng.uniform(0.5, 3.0))


def melody(rng, n, rate, steps):
    base, interval = rng.uniform(300, 700), rng.uniform(1.25, 1.6)
    richness, nepers = rng.uniform(0.1, 0.5), rng.uniform(1.0, 3.0)
    notes = [
        harmonic(np.full(n // len(steps), base * interval**step), richness, rate)
        for step in steps
    ]
    sound = np.concatenate([note * decay(len(note), nepers) for note in notes])
    return np.pad(sound, (0, n - len(sound)))


def rhythm(rng, n, rate, gaps):
    """Knocks whose gaps follow a pattern of relative lengths."""
    beat = rng.uniform(0.14, 0.2) * rate
    knock = EVENTS["knock"](rng, n, rate)
    sound = np.zeros(n + len(knock), np.float32)
    position, index = 0.0, 0
    while position < n:
        start = int(position)
        sound[start : start + len(knock)] += knock * rng.uniform(0.7, 1.0)
        position += beat * gaps[index % len(gaps)] * rng.uniform(0.95, 1.05)
        index += 1
    return sound[:n]


def vowel(rng, n, rate, formants):
    pitch = contour(rng, n, rng.uniform(90, 220), wander=0.1)
    scale = rng.uniform(0.9, 1.12)
    peaks = [(f * scale * rng.uniform(0.95, 1.05), 60 + 0.05 * f) for f in formants]
    return filtered(harmonic(pitch, 0.95, rate), resonances(peaks), rate)


def hiss(rng, n, rate, up):
    """A band of noise that glides up or down."""
    source = white(rng, n)
    low = rng.uniform(500, 1000)
    centres = np.geomspace(low, low * rng.uniform(3.0, 6.0), 4)
    bands = [unit(filtered(source, resonances([(f, 0.3 * f)]), rate)) for f in centres]
    place = np.linspace(0, 3, n, dtype=np.float32)
    return crossfaded(bands if up else bands[::-1], place)


KINDS = {
    "chirp_falling": lambda *a: chirp(*a, up=False),
    "chirp_rising": lambda *a: chirp(*a, up=True),
    "harmonics_all": lambda *a: harmonics(*a, odd_only=False),
    "harmonics_odd": lambda *a: harmonics(*a, odd_only=True),
    "hiss_falling": lambda *a: hiss(*a, up=False),
    "hiss_rising": lambda *a: hiss(*a, up=True),
    "knocks_even": lambda *a: rhythm(*a, gaps=(1,)),
    "knocks_paired": lambda *a: rhythm(*a, gaps=(0.5, 2)),
    "melody_falling": lambda *a: melody(*a, steps=(2, 1, 0)),
    "melody_rising": lambda *a: melody(*a, steps=(0, 1, 2)),
    "tremolo_fast": lambda *a: tremolo(*a, low=9, high=14),
    "tremolo_slow": lambda *a: tremolo(*a, low=3, high=5),
    "vibrato_fast": lambda *a: vibrato(*a, low=9, high=12),
    "vibrato_slow": lambda *a: vibrato(*a, low=3, high=5),
    "vowel_a": lambda *a: vowel(*a, formants=(750, 1250, 2600)),
    "vowel_i": lambda *a: vowel(*a, formants=(300, 2300, 3000)),
}

# ---------------------------------------------------------------------------------
# Sources of the unlabelled scenes: function of (rng, samples, rate). Textures last
# as long as the scene; events are short and repeated.


def noise(rng, n, rate):
    steady = coloured_noise(rng, n, slope=rng.uniform(-2.5, 1.0))
    return filtered(steady, random_response(rng, depth=15.0), rate)


def waves(rng, n, rate):
    """Broad noise that swells and recedes over seconds, brighter when loud."""
    dull = coloured_noise(rng, n, slope=rng.uniform(-2.5, -1.5))
    bright = coloured_noise(rng, n, slope=rng.uniform(-0.8, 0.2))
    breath = (1 + sine(rng, n, rng.uniform(0.08, 0.6), rate)) / 2
    breath = breath ** rng.uniform(1, 4) * smooth_random(rng, n, 6, 0.5, 1.0)
    return unit(dull) * (0.2 + breath) + rng.uniform(0.2, 1.5) * unit(bright) * breath


def wind(rng, n, rate):
    """Noise through a resonance that wanders."""
    low, high = np.sort(np.exp(rng.uniform(np.log(100), np.log(3000), 2)))
    source = coloured_noise(rng, n, slope=-1.0)
    width = rng.uniform(0.05, 0.5)
    bands = [
        unit(filtered(source, resonances([(f, width * f)]), rate))
        for f in np.geomspace(low, high, 4)
    ]
    place = smooth_random(rng, n, rng.integers(3, 12), 0, 3)
    gust = smooth_random(rng, n, rng.integers(3, 12), 0.1, 1.0)
    return gust * crossfaded(bands, place)


def rain(rng, n, rate):
    """Dense drops over a hiss."""
    drops = impulses(rng, n, rng.uniform(100, 4000) / rate, rng.uniform(0.5, 1.5))
    centre = rng.uniform(800, 6000)
    drops = filtered(drops, resonances([(centre, centre * rng.uniform(0.2, 1))]), rate)
    hiss = coloured_noise(rng, n, slope=rng.uniform(-1.0, 0.5))
    return unit(drops) + unit(hiss) * rng.uniform(0.1, 1.5)


def crackle(rng, n, rate):
    """Sparse, uneven snaps over a rumble."""
    snaps = impulses(rng, n, rng.uniform(3, 60) / rate, rng.uniform(1.5, 3))
    kernel = rng.standard_normal(int(rng.uniform(0.001, 0.015) * rate) + 2)
    snaps = convolved(snaps, kernel * decay(len(kernel), 5))
    rumble = coloured_noise(rng, n, slope=rng.uniform(-3.0, -1.0))
    return unit(snaps) + unit(rumble) * 10 ** rng.uniform(-2, 0)


def engine(rng, n, rate):
    """Many harmonics of a low, unsteady pitch, and noise in step with it."""
    pitch = contour(rng, n, np.exp(rng.uniform(np.log(18), np.log(180))), wander=0.2)
    pitch = pitch * (1 + 0.02 * rng.uniform(0, 1) * white(rng, n))
    tone = harmonic(pitch, rng.uniform(0.8, 0.97), rate)
    stroke = np.clip(harmonic(pitch / rng.integers(1, 5), 0.7, rate), 0, None)
    hiss = coloured_noise(rng, n, slope=rng.uniform(-1.5, 0)) * stroke
    tone = filtered(tone, random_response(rng, depth=12.0), rate)
    return unit(tone) + unit(hiss) * rng.uniform(0.05, 1.5)


def rotor(rng, n, rate):
    """Thuds of low noise, 4 to 30 a second."""
    beat = contour(rng, n, np.exp(rng.uniform(np.log(4), np.log(30))), wander=0.05)
    pulse = np.clip(harmonic(beat, rng.uniform(0.3, 0.85), rate), 0, None)
    low = coloured_noise(rng, n, slope=rng.uniform(-3, -1))
    low = filtered(low, random_response(rng, depth=10.0), rate)
    bed = coloured_noise(rng, n, slope=rng.uniform(-2, -0.5))
    return unit(low * pulse) + unit(bed) * rng.uniform(0.02, 0.8)


def hum(rng, n, rate):
    pitch = np.full(n, rng.choice([50, 60, 100, 120, rng.uniform(40, 400)]), np.float32)
    return harmonic(pitch, rng.uniform(0.3, 0.95), rate)


def insects(rng, n, rate):
    carrier = constant_pitch(rng, n, 1500, 6500)
    buzz = harmonic(contour(rng, n, rng.uniform(15, 250), wander=0.1), 0.6, rate)
    gate = sine(rng, n, rng.uniform(0.5, 8), rate) > rng.uniform(-1.5, 0.7)
    return harmonic(carrier, 0.2, rate) * np.clip(buzz, 0, None) * (0.05 + gate)


def bubbles(rng, n, rate):
    return scattered(rng, EVENTS["drop"], n, rate, rng.uniform(4, 40))


def crowd(rng, n, rate):
    return scattered(rng, EVENTS["syllable"], n, rate, rng.uniform(6, 15))


def drone(rng, n, rate):
    base = np.exp(rng.uniform(np.log(60), np.log(800)))
    ratios = rng.choice([1, 1.2, 1.25, 1.333, 1.5, 1.6, 2, 2.5, 3], rng.integers(1, 4))
    tones = [
        harmonic(contour(rng, n, base * ratio, wander=0.02), rng.uniform(0, 0.8), rate)
        for ratio in ratios
    ]
    return sum(tones) * smooth_random(rng, n, rng.integers(2, 20), 0.1, 1)


def siren(rng, n, rate):
    swing = sine(rng, n, np.exp(rng.uniform(np.log(0.2), np.log(8))), rate)
    if rng.random() < 0.4:
        swing = np.sign(swing)
    pitch = rng.uniform(400, 1500) * (1 + rng.uniform(0.1, 0.5) * swing)
    return harmonic(pitch, rng.uniform(0.1, 0.8), rate)


def saw(rng, n, rate):
    """A rough tone that races under load."""
    load = smooth_random(rng, n, rng.integers(2, 10), 0.6, 1.3)
    pitch = rng.uniform(60, 300) * load * (1 + 0.05 * white(rng, n))
    tone = harmonic(pitch, rng.uniform(0.85, 0.98), rate)
    tone = filtered(tone, random_response(rng, depth=15.0), rate)
    hiss = coloured_noise(rng, n, slope=rng.uniform(-1, 0.3))
    return unit(tone) + unit(hiss) * rng.uniform(0.1, 1.0) * load


TEXTURES = {
    f.__name__: f
    for f in (noise, waves, wind, rain, crackle, engine, rotor, hum, insects)
    + (bubbles, crowd, drone, siren, saw)
}


def click(rng, n, rate):
    n = int(rng.uniform(0.0005, 0.01) * rate) + 4
    return white(rng, n) * decay(n, rng.uniform(2, 8))


def tick(rng, n, rate):
    """A small, bright, damped knock, sometimes double."""
    n = int(rng.uniform(0.02, 0.12) * rate)
    sound = modes(rng, n, rate, rng.uniform(1000, 6000), 3, rng.uniform(0.002, 0.02))
    if rng.random() < 0.4:
        sound += np.roll(sound, int(rng.uniform(0.1, 0.5) * n)) * rng.uniform(0.2, 0.8)
    return sound


def knock(rng, n, rate):
    n = int(rng.uniform(0.05, 0.3) * rate)
    low = np.exp(rng.uniform(np.log(80), np.log(1500)))
    sound = modes(rng, n, rate, low, rng.integers(2, 7), rng.uniform(0.005, 0.05))
    thump = white(rng, n) * decay(n, rng.uniform(20, 80))
    return unit(sound) + unit(thump) * rng.uniform(0, 0.5)


def bell(rng, n, rate):
    n = int(rng.uniform(0.3, 2.0) * rate)
    low = np.exp(rng.uniform(np.log(200), np.log(3000)))
    return modes(rng, n, rate, low, rng.integers(3, 10), rng.uniform(0.1, 0.8))


def drum(rng, n, rate):
    n = int(rng.uniform(0.1, 0.6) * rate)
    fall = 1 + rng.uniform(0.5, 3) * decay(n, rng.uniform(5, 30))
    skin = harmonic(rng.uniform(40, 250) * fall, 0.2, rate) * decay(n, 6)
    snare = coloured_noise(rng, n, slope=0.0) * decay(n, rng.uniform(4, 30))
    return unit(skin) * rng.uniform(0, 1) + unit(snare) * rng.uniform(0, 1)


def drop(rng, n, rate):
    n = int(rng.uniform(0.03, 0.2) * rate)
    rise = np.linspace(1, rng.uniform(1.0, 1.8), n, dtype=np.float32)
    return harmonic(rng.uniform(300, 3000) * rise, 0.05, rate) * decay(n, 6)


def bark(rng, n, rate):
    """A short rough cry: pitch up and down, formants, noise."""
    n = int(rng.uniform(0.08, 0.45) * rate)
    return voiced(rng, n, rate, rng.uniform(120, 900), rng.uniform(0.1, 0.5), rough=0.6)


def cry(rng, n, rate):
    """A long cry with an arc of pitch."""
    n = int(rng.uniform(0.4, 1.8) * rate)
    return voiced(
        rng, n, rate, rng.uniform(250, 900), rng.uniform(0.05, 0.3), rough=0.1
    )


def crow(rng, n, rate):
    """Several cries tied together, the last one long."""
    pitch = rng.uniform(350, 1100)
    parts = []
    for seconds in (*rng.uniform(0.08, 0.3, rng.integers(1, 4)), rng.uniform(0.4, 1.2)):
        bend, pitch = rng.uniform(0.05, 0.4), pitch * rng.uniform(0.9, 1.25)
        parts.append(voiced(rng, int(seconds * rate), rate, pitch, bend, rough=0.3))
    return np.concatenate(parts)


def whistle(rng, n, rate):
    """A bird's: nearly pure, any contour, sometimes trilled."""
    n = int(rng.uniform(0.05, 0.9) * rate)
    pitch = contour(rng, n, rng.uniform(1000, 6000), wander=rng.uniform(0.02, 0.6))
    if rng.random() < 0.4:
        pitch = pitch * (1 + 0.15 * sine(rng, n, rng.uniform(8, 60), rate))
    return harmonic(pitch, rng.uniform(0, 0.25), rate) * hump(rng, n)


def syllable(rng, n, rate):
    """A consonant's noise and a vowel that glides between two sets of formants."""
    n = int(rng.uniform(0.1, 0.4) * rate)
    pitch = contour(rng, n, rng.uniform(80, 320), wander=0.2)
    source = harmonic(pitch, 0.95, rate) + 0.03 * white(rng, n)
    ends = [unit(filtered(source, vowel_response(rng), rate)) for _ in range(2)]
    glide = np.linspace(0, 1, n, dtype=np.float32)
    sound = (ends[0] * (1 - glide) + ends[1] * glide) * hump(rng, n)
    if rng.random() < 0.6:
        k = int(rng.uniform(0.02, 0.15) * rate)
        centre = rng.uniform(1500, 7000)
        hiss = filtered(white(rng, k), resonances([(centre, 0.3 * centre)]), rate)
        hiss = unit(hiss) * hump(rng, k) * rng.uniform(0.1, 1)
        sound = np.concatenate([hiss, sound] if rng.random() < 0.5 else [sound, hiss])
    return sound


def phrase(rng, n, rate):
    """Two to seven syllables of one voice, some with pauses."""
    parts = []
    for _ in range(rng.integers(2, 8)):
        parts += [syllable(rng, n, rate), np.zeros(int(rng.exponential(0.05) * rate))]
    return np.concatenate(parts)


def whoosh(rng, n, rate):
    n = int(rng.uniform(0.15, 1.2) * rate)
    source = coloured_noise(rng, n, slope=-0.5)
    ends = np.exp(rng.uniform(np.log(200), np.log(6000), 2))
    bands = [unit(filtered(source, resonances([(f, 0.4 * f)]), rate)) for f in ends]
    glide = np.linspace(0, 1, n, dtype=np.float32)
    return (bands[0] * (1 - glide) + bands[1] * glide) * hump(rng, n)


def sneeze(rng, n, rate):
    """A drawn breath, a stop, a burst of noise with or without voice."""
    breath = int(rng.uniform(0.05, 0.5) * rate)
    burst = int(rng.uniform(0.1, 0.5) * rate)
    inhale = coloured_noise(rng, breath, slope=-0.5) * np.linspace(0, 1, breath) ** 2
    blast = coloured_noise(rng, burst, slope=rng.uniform(-1, 0.5))
    blast = filtered(blast, random_response(rng, depth=12.0), rate)
    blast = unit(blast) * decay(burst, rng.uniform(3, 12))
    if rng.random() < 0.6:
        voice = voiced(rng, burst, rate, rng.uniform(120, 450), 0.2, rough=0.3)
        blast = blast * rng.uniform(0.3, 1) + unit(voice) * decay(burst, 4)
    stop = np.zeros(int(rng.uniform(0, 0.06) * rate))
    return np.concatenate([unit(inhale) * rng.uniform(0, 0.4), stop, blast])


def beep(rng, n, rate):
    n = int(rng.uniform(0.05, 0.6) * rate)
    tones = [
        harmonic(constant_pitch(rng, n, 300, 4000), rng.uniform(0, 0.7), rate)
        for _ in range(rng.integers(1, 3))
    ]
    return sum(tones) * fade(n, rate // 200)


def pluck(rng, n, rate):
    n = int(rng.uniform(0.2, 1.2) * rate)
    low = rng.uniform(80, 800)
    partials = low * np.arange(1, 9)
    lengths = rng.uniform(0.1, 0.6) / np.arange(1, 9) ** 0.7
    return damped(rng, n, rate, partials[partials < 7500], lengths)


def shatter(rng, n, rate):
    """A cloud of small bright modes after a bang."""
    n = int(rng.uniform(0.3, 1.2) * rate)
    sound = white(rng, n) * decay(n, 60)
    piece = modes(rng, n // 3, rate, rng.uniform(1500, 5000), 6, 0.03)
    for start in (rng.beta(1, 3, rng.integers(5, 25)) * (n - len(piece))).astype(int):
        sound[start : start + len(piece)] += piece * rng.uniform(0.1, 1)
    return sound


def scrape(rng, n, rate):
    """Stick and slip: a resonant body driven by a rough pulse train."""
    n = int(rng.uniform(0.2, 1.2) * rate)
    pulses = harmonic(contour(rng, n, rng.uniform(30, 500), 0.4), 0.95, rate)
    pulses = pulses * (1 + 0.5 * white(rng, n))
    centres = np.exp(rng.uniform(np.log(300), np.log(6000), 3))
    return filtered(pulses, resonances([(f, 0.05 * f) for f in centres]), rate) * hump(
        rng, n
    )


EVENTS = {
    f.__name__: f
    for f in (click, tick, knock, bell, drum, drop, bark, cry, crow, whistle, syllable)
    + (phrase, whoosh, sneeze, beep, pluck, shatter, scrape)
}

# ---------------------------------------------------------------------------------
# Arranging sounds in time


def repeated(rng, event, n, rate):
    """An event once, in a steady rhythm, in bursts or at random, each time a little
    different (a new draw) or always the same."""
    spacing = rng.choice(
        ["once", "steady", "random", "burst"], p=[0.2, 0.35, 0.25, 0.2]
    )
    gap = np.exp(rng.uniform(np.log(0.12), np.log(1.5))) * rate
    if spacing == "once":
        starts = [rng.uniform(0, 0.7) * n]
    elif spacing == "steady":
        starts = np.arange(rng.uniform(0, gap), n, gap)
    elif spacing == "random":
        starts = rng.uniform(0, n, max(1, rng.poisson(n / gap / 2)))
    else:
        starts = rng.uniform(0, 0.7) * n + gap / 2 * np.arange(rng.integers(2, 6))
    sound = np.zeros(n, np.float32)
    same = rng.random() < 0.6
    one = event(rng, n, rate)
    for start in starts:
        start = int(start)
        if not same and rng.random() < 0.5:
            one = event(rng, n, rate)
        if start < n:
            piece = one[: n - start]
            loudness = 10 ** (rng.uniform(-8, 0) / 20)
            sound[start : start + len(piece)] += unit(piece) * loudness
    return sound


def scattered(rng, event, n, rate, per_second):
    """Many instances of a few draws of an event, at random times."""
    few = [unit(event(rng, n, rate)) for _ in range(6)]
    sound = np.zeros(n, np.float32)
    for start in rng.integers(0, n, 1 + rng.poisson(per_second * n / rate)):
        piece = few[rng.integers(6)][: n - start]
        sound[start : start + len(piece)] += piece * rng.uniform(0.1, 1)
    return sound


def reverberate(rng, wav, rate):
    """A room: exponentially decaying noise, 0.1 to 1.2 s long."""
    n = int(np.exp(rng.uniform(np.log(0.1), np.log(1.2))) * rate)
    tail = coloured_noise(rng, n, slope=rng.uniform(-1.5, 0)) * decay(n, 6.9)
    wet = convolved(wav, tail)
    return unit(wav) + unit(wet) * 10 ** (rng.uniform(-20, 3) / 20)


# ---------------------------------------------------------------------------------
# Sources and envelopes


def harmonic(pitch, richness, rate, shift=0.0):
    """A tone of the given pitch contour (Hz) whose k-th harmonic has the amplitude
    `richness ** (k - 1)`, from the closed form of that sum. Harmonics close to half
    the sample rate are damped by lowering the richness."""
    pitch = np.asarray(pitch, np.float32)
    top = float(np.max(pitch))
    # at most 1 % left of the harmonic at half the sample rate
    richness = min(richness, 0.01 ** (top / (rate / 2)))
    phase = 2 * np.pi * np.cumsum(pitch, dtype=np.float64) / rate + shift
    cosine = np.cos(phase % (2 * np.pi), dtype=np.float64).astype(np.float32)
    if richness < 1e-3:
        return cosine
    denominator = 1 - 2 * richness * cosine + richness**2
    return (cosine - richness) / denominator


def voiced(rng, n, rate, pitch, bend, rough):
    """A voice with formants, a pitch that rises and falls by `bend`, and roughness."""
    arc = 1 + bend * np.sin(np.pi * np.linspace(0, 1, n) ** rng.uniform(0.4, 2.0))
    track = contour(rng, n, pitch, wander=0.05) * arc
    if rng.random() < 0.5:
        track = track * (1 + 0.03 * sine(rng, n, rng.uniform(4, 9), rate))
    track = track * (1 + 0.1 * rough * rng.random() * white(rng, n))
    source = unit(harmonic(track, rng.uniform(0.8, 0.95), rate))
    source = source + rough * rng.random() * white(rng, n)
    return filtered(source, vowel_response(rng), rate) * hump(rng, n)


def modes(rng, n, rate, lowest, count, seconds):
    """Damped inharmonic partials above `lowest` Hz."""
    partials = lowest * np.cumprod(np.r_[1, rng.uniform(1.1, 1.9, count - 1)])
    partials = partials[partials < 0.48 * rate]
    lengths = seconds * rng.uniform(0.4, 1.0, len(partials))
    return damped(rng, n, rate, partials, lengths)


def damped(rng, n, rate, partials, lengths):
    """Sum of exponentially damped sines (Hz, seconds)."""
    lengths = lengths[: len(partials)]
    amplitudes = rng.uniform(0.2, 1, len(partials))
    time = np.arange(n, dtype=np.float32) / rate
    sound = np.zeros(n, np.float32)
    for partial, length, amplitude in zip(partials, lengths, amplitudes, strict=True):
        span = min(n, int(7 * length * rate) + 1)
        swing = np.sin(2 * np.pi * np.float32(partial) * time[:span])
        sound[:span] += amplitude * swing * np.exp(-time[:span] / np.float32(length))
    return sound


def impulses(rng, n, density, exponent):
    """Random spikes, `density` per sample; a high exponent makes few of them loud."""
    spikes = np.zeros(n, np.float32)
    count = 1 + rng.poisson(density * n)
    strength = rng.pareto(4 / exponent, count) + 0.1
    spikes[rng.integers(0, n, count)] = np.minimum(strength, 50) * rng.choice(
        [-1, 1], count
    )
    return spikes


def white(rng, n):
    return rng.standard_normal(n, dtype=np.float32)


def coloured_noise(rng, n, slope):
    """Gaussian noise whose power spectrum goes as frequency ** slope."""
    size = next_fast_len(n, real=True)
    spectrum = rfft(white(rng, size))
    bins = np.arange(1, len(spectrum) + 1, dtype=np.float32)
    # flat below 1/800 of the band, where only rumble would be
    return irfft(spectrum * np.maximum(bins, size / 1600) ** (slope / 2), size)[:n]


def constant_pitch(rng, n, low, high):
    pitch = np.exp(rng.uniform(np.log(low), np.log(high)))
    return np.full(n, pitch, np.float32)


def contour(rng, n, pitch, wander):
    """A smooth random pitch contour around `pitch` Hz."""
    return pitch * np.exp(smooth_random(rng, n, rng.integers(2, 6), -wander, wander))


def smooth_random(rng, n, points, low, high):
    """A random curve through `points` values between low and high."""
    places = np.linspace(0, 1, max(2, points))
    values = rng.uniform(low, high, len(places))
    fine = np.linspace(0, 1, 64)
    smooth = np.interp(fine, places, values)
    smooth = np.convolve(np.pad(smooth, 4, "edge"), np.ones(9) / 9, "valid")
    return np.interp(np.linspace(0, 1, n), fine, smooth).astype(np.float32)


def sine(rng, n, frequency, rate):
    phase = 2 * np.pi * (frequency * np.arange(n) / rate + rng.random())
    return np.sin(phase).astype(np.float32)


def swell(rng, n):
    return smooth_random(rng, n, rng.integers(2, 8), 0.0, 1.0)


def decay(n, nepers):
    return np.exp(-np.linspace(0, nepers, n, dtype=np.float32))


def hump(rng, n):
    """An envelope that rises to its peak and falls."""
    place = np.linspace(0, 1, n, dtype=np.float32)
    attack, release = rng.uniform(0.02, 0.4), rng.uniform(0.1, 0.6)
    rise = np.minimum(place / attack, 1)
    fall = np.minimum((1 - place) / release, 1)
    return rise * fall ** rng.uniform(0.5, 2)


def fade(n, ramp):
    place = np.arange(n, dtype=np.float32)
    return np.clip(np.minimum(place, n - 1 - place) / max(1, ramp), 0, 1)


# ---------------------------------------------------------------------------------
# Filters: functions from frequency (Hz) to gain, applied in the frequency domain


def crossfaded(bands, place):
    """Of several sounds, at each sample, the one or two that `place` lies at."""
    return sum(b * np.clip(1 - abs(place - i), 0, 1) for i, b in enumerate(bands))


def resonances(peaks):
    """Response with a peak of the given (centre, bandwidth) each, all equally high."""

    def response(hertz):
        gain = np.zeros_like(hertz)
        for order, (centre, width) in enumerate(peaks):
            place = (hertz - centre) / np.float32(width)
            gain += 0.6**order / np.sqrt(1 + place * place)
        return gain

    return response


def vowel_response(rng):
    scale = rng.uniform(0.8, 1.6)
    first, second = rng.uniform(250, 900), rng.uniform(800, 2600)
    formants = (first, max(second, first + 200), rng.uniform(2400, 3600))
    return resonances([(scale * f, 50 + 0.06 * f) for f in formants])


def random_response(rng, depth):
    """A smooth random equaliser, up to `depth` dB up and down, over the log scale."""
    places = np.linspace(np.log(60), np.log(8000), 10)
    gains = rng.uniform(-depth, depth, 10)

    def response(hertz):
        decibels = np.interp(np.log(np.maximum(hertz, 1)), places, gains)
        return (10 ** (decibels / 20)).astype(np.float32)

    return response


def filtered(wav, response, rate):
    size = next_fast_len(len(wav), real=True)
    hertz = np.linspace(0, rate / 2, size // 2 + 1, dtype=np.float32)
    spectrum = rfft(np.asarray(wav, np.float32), size)
    return irfft(spectrum * response(hertz), size)[: len(wav)]


def convolved(wav, kernel):
    """Causal convolution, cut to the length of `wav`."""
    size = next_fast_len(len(wav) + len(kernel) - 1, real=True)
    kernel = np.asarray(kernel, np.float32)
    return irfft(rfft(wav, size) * rfft(kernel, size), size)[: len(wav)]


# ---------------------------------------------------------------------------------
# Levels and files


def unit(wav):
    """The sound scaled to an effective value of one; silence stays silence."""
    wav = np.asarray(wav, np.float32)
    return wav / max(float(np.sqrt(np.mean(wav * wav))), 1e-5)


def level(wav, peak):
    wav = np.asarray(wav, np.float32)
    return wav * np.float32(peak / max(float(np.abs(wav).max()), 1e-5))


def write_wav(path, wav, rate):
    soundfile.write(path, wav, rate, subtype="PCM_16", format="WAV")
