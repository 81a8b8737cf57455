"""Speech synthesis: text, judging, voices at run time, and what is refused."""

import contextlib
import json
import re
import runpy
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, tone
from speechbrain.dataio.dataset import DynamicItemDataset
from test_fastspeech2 import build, trained
from tiny import tiny_checkpoint, tiny_speech_base

from petl_modules.errors import UserError
from petl_modules.files import SHIPPED
from petl_modules.tasks.metrics import lower_is_better, unit
from petl_modules.train.config import load_config
from petl_modules.train.refusals import refuse_unasked_trust
from petl_modules.tts.corpora import chosen_speakers, hold_out
from petl_modules.tts.features import SpeechFeatures, hertz
from petl_modules.tts.head import VoiceHead
from petl_modules.tts.made_voice import made_voice, other_voice
from petl_modules.tts.metrics import f0_error, mel_cepstral_distortion, time_warping
from petl_modules.tts.recognise import load_recogniser, word_error_rate
from petl_modules.tts.speaker_encoder import load_encoder, mean_embeddings
from petl_modules.tts.synthesize import Synthesizer, main
from petl_modules.tts.text import SYMBOLS, symbols_of
from petl_modules.tts.vocoder import GriffinLimVocoder, load_vocoder
from petl_modules.use.adapter_file import save_adapter
from petl_modules.use.inference import load_adapter
from petl_modules.use.merge import merge

FEATURES = {
    "sample_rate": 22050,
    "hop_length": 256,
    "win_length": 1024,
    "n_fft": 1024,
    "n_mels": 80,
    "f_min": 0.0,
    "f_max": 8000.0,
}


# Text


def test_words_become_phones():
    spoken = " ".join(symbols_of("Hello \u2013 it\u2019s a CAF\u00c9!", "arpabet"))
    assert spoken == "  HH AH L OW   ,   IH T S   AH   K AH F EY !  "
    given = symbols_of("hello {W ER1 L D}", "arpabet")
    assert given == [" ", "HH", "AH", "L", "OW", " ", "W", "ER", "L", "D", " "]


def test_words_that_no_dictionary_has_are_spelt(caplog):
    phones = [s for s in symbols_of("vrooshing", "arpabet") if s != " "]
    assert phones == ["V", "R", "UW", "SH", "IH", "NG"]
    assert "vrooshing" in caplog.text


@pytest.mark.parametrize("kind", SYMBOLS)
def test_what_cannot_be_spoken_is_named(kind):
    for text in ("", "  ", "?!", "'"):
        with pytest.raises(UserError, match="is empty"):
            symbols_of(text, kind)
    with pytest.raises(UserError, match="holds '3', which has no symbol"):
        symbols_of("3 dogs", kind)
    with pytest.raises(UserError, match="\u597d"):
        symbols_of("\u597d", kind)
    with pytest.raises(UserError, match=r"QQ|arpabet"):
        symbols_of("{QQ}", kind)


# Features and judging


def test_pitch_and_energy_are_those_of_a_tone(tmp_path):
    tone(tmp_path / "a.wav", 220, 1.0, rate=22050)
    wav = torch.from_numpy(soundfile.read(tmp_path / "a.wav")[0]).float()
    features = SpeechFeatures(**FEATURES)
    pitch, mel, energy = features.pitch(wav), features.mel(wav), features.energy(wav)
    assert mel.shape == (87, 80) and pitch.shape == energy.shape == (87,)
    voiced = hertz(pitch[pitch != 0])
    assert len(voiced) > 60 and (voiced - 220).abs().median() < 2
    silence = features.pitch(torch.zeros(22050))
    assert (silence == 0).all() and features.energy(torch.zeros(22050)).isfinite().all()


def test_distortion_by_hand():
    frames, bins = 6, np.arange(80)
    rng = np.random.default_rng(0)
    mel = rng.normal(size=(frames, 80))
    assert mel_cepstral_distortion(mel, mel)[0] == pytest.approx(0, abs=1e-9)
    # one cosine of height 0.5 in every frame: c_3 differs by 0.5
    other = mel + 0.5 * np.cos(np.pi * 3 * (bins + 0.5) / 80)
    distortion, pairs = mel_cepstral_distortion(mel, other)
    assert distortion == pytest.approx(10 / np.log(10) * np.sqrt(2) * 0.5)
    assert pairs.tolist() == [[i, i] for i in range(frames)]
    # loudness (c_0), and detail beyond c_13, do not count
    louder = mel + 2.0 + np.cos(np.pi * 20 * (bins + 0.5) / 80)
    assert mel_cepstral_distortion(mel, louder)[0] == pytest.approx(0, abs=1e-9)
    # a slower speaker is compared frame by frame too
    slow, pairs = mel_cepstral_distortion(np.repeat(mel, 2, axis=0), mel)
    assert slow == pytest.approx(0, abs=1e-9)
    assert [j for _, j in pairs] == np.repeat(range(frames), 2).tolist()


def test_warping_finds_the_least_sum():
    """Against a search of all paths."""
    rng = np.random.default_rng(1)
    distances = rng.random((4, 5))

    def least(i, j):
        if i == j == 0:
            return distances[0, 0]
        steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        return distances[i, j] + min(least(*s) for s in steps if min(s) >= 0)

    pairs = time_warping(distances)
    assert sum(distances[i, j] for i, j in pairs) == pytest.approx(least(3, 4))
    assert pairs[0].tolist() == [0, 0] and pairs[-1].tolist() == [3, 4]


def test_pitch_error_is_over_frames_voiced_in_both():
    pairs = np.array([[0, 0], [1, 1], [2, 2], [2, 3]])
    f0, other = np.array([100.0, 120, 0]), np.array([103.0, 116, 90, 0])
    assert f0_error(f0, other, pairs) == (pytest.approx(12.5**0.5), 2)


def test_errors_of_speech_are_shown_in_their_own_units():
    for metric in ("mcd", "f0_rmse", "duration_error"):
        assert lower_is_better(metric) and unit(metric) == metric
    assert lower_is_better("word_error_rate") and "%" in unit("word_error_rate")


def test_word_error_rate_by_hand():
    said = [["go", "on"], ["no"]]
    assert word_error_rate(said, [["go", "now", "on"], ["no"]]) == pytest.approx(1 / 3)


def test_sphinx_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(UserError, match="pip install pocketsphinx"):
        load_recogniser("pocketsphinx")


def test_another_voice_is_lower_and_has_other_formants():
    time = np.arange(12000) / 16000
    parts = [np.sin(2 * np.pi * 220 * n * time) * np.exp(-n / 4) for n in range(1, 30)]
    wav = torch.from_numpy(0.2 * np.sum(parts, 0)).float()
    made = other_voice(wav, 16000)
    features = SpeechFeatures(**{**FEATURES, "sample_rate": 16000})
    pitch = features.pitch(torch.from_numpy(made))
    found = float(hertz(pitch[pitch != 0]).median())
    assert abs(found - 0.62 * 220) < 4 and abs(len(made) - len(wav)) < 100


def test_a_made_voice_is_a_table_of_recordings(monkeypatch, tmp_path):
    monkeypatch.setattr("petl_modules.tts.made_voice.SENTENCES", ("Go on.",))
    table = made_voice(tmp_path / "voice")
    assert table.read_text() == "path,text\n01.wav,Go on.\n"
    sound, _ = soundfile.read(table.with_name("01.wav"))
    assert 0.3 < len(sound) / 16000 < 3 and np.abs(sound).max() > 0.05
    before = table.stat().st_mtime_ns
    assert made_voice(tmp_path / "voice") == table
    assert table.stat().st_mtime_ns == before  # nothing is made again


def test_griffin_lim_gives_the_tone_back():
    time = torch.arange(22050) / 22050
    wav = 0.3 * torch.sin(2 * torch.pi * 440 * time)
    features = SpeechFeatures(**FEATURES)
    vocoder, mel = GriffinLimVocoder(features), features.mel(wav)
    spoken = vocoder(mel)
    assert abs(len(spoken) - len(wav)) <= 256 and spoken.abs().max() <= 1
    assert abs(int(torch.fft.rfft(spoken[:22016]).abs().argmax()) - 440) < 25
    assert torch.equal(spoken, vocoder(mel))


HIFIGAN = """
generator: !new:speechbrain.lobes.models.HifiGAN.HifiganGenerator
    in_channels: 80
    out_channels: 1
    resblock_type: "1"
    resblock_dilation_sizes: [[1, 3, 5]]
    resblock_kernel_sizes: [3]
    upsample_kernel_sizes: [16, 16, 4, 4]
    upsample_initial_channel: 16
    upsample_factors: [8, 8, 2, 2]
    inference_padding: 0
modules:
    generator: !ref <generator>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
"""


def test_a_hifigan_folder_is_taken(tmp_path, caplog):
    (tmp_path / "hyperparams.yaml").write_text(HIFIGAN)
    caplog.set_level("INFO")
    vocoder = load_vocoder(str(tmp_path), SpeechFeatures(**FEATURES), True)
    sound = vocoder(torch.randn(9, 80))
    assert sound.shape == (9 * 256,) and sound.isfinite().all()
    assert f"HiFi-GAN of {tmp_path}" in caplog.text


ECAPA = """
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 20
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 20
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    lin_neurons: 12
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 12
    out_neurons: 2
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
"""


def test_embeddings_of_speakers_come_from_a_speaker_model(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "hyperparams.yaml").write_text(ECAPA)
    data = {}
    for speaker, pitch in (("a", 150), ("b", 300)):
        for i in range(2):
            path = tmp_path / f"{speaker}{i}.wav"
            tone(path, pitch + i, 1.0)
            data[f"{speaker}{i}"] = {"wav": str(path), "speaker": speaker}
    dataset = DynamicItemDataset(data)
    head = VoiceHead(32, ["a", "b"], embedding_size=12)
    mean_embeddings(str(tmp_path), dataset, ["a", "b"], head, True)
    assert head.table.std(1).min() > 0 and not torch.equal(*head.table)
    vectors = head(torch.tensor([0, 1, 0]))
    assert vectors.shape == (3, 32) and torch.equal(vectors[0], vectors[2])
    assert "table" not in dict(head.named_parameters())
    with pytest.raises(UserError, match="gives 12 numbers, the base takes 5"):
        small = VoiceHead(32, ["a"], 5)
        mean_embeddings(str(tmp_path), dataset, ["a", "b"], small, True)
    with pytest.raises(UserError, match="No speaker encoder can be loaded"):
        load_encoder(str(tmp_path / "nowhere"), True)


# Splits


def entries(speakers="ab", prompts=6):
    return {
        f"{s}{i}": {"speaker": s, "prompt": str(i)}
        for s in speakers
        for i in range(prompts)
    }


def test_a_prompt_is_held_out_of_every_speaker():
    splits = hold_out(entries(), 1, 2, seed=0)
    prompts = [{e["prompt"] for e in part.values()} for part in splits.values()]
    assert [len(part) for part in splits.values()] == [6, 2, 4]
    assert not prompts[0] & prompts[1] and not prompts[0] & prompts[2]
    assert hold_out(dict(reversed(entries().items())), 1, 2, seed=0) == splits
    assert hold_out(entries(), 1, 2, seed=1) != splits
    with pytest.raises(UserError, match="valid_sentences=3"):
        hold_out(entries(), 3, 3, seed=0)


def test_every_speaker_is_judged():
    clips = [f"{name}{i}" for name in "abc" for i in range(4)]
    own = {clip: {"speaker": clip[0]} for clip in clips}
    splits = hold_out(own, 3, 6, seed=0)
    said = {split: sorted(key[0] for key in part) for split, part in splits.items()}
    assert said == {"train": [*"abc"], "valid": [*"abc"], "test": [*"aabbcc"]}
    assert hold_out(own, 3, 6, seed=1) != splits


def test_speakers_are_chosen_by_name():
    assert chosen_speakers(["b", "a", "84"], [84, "a"]) == ["84", "a"]
    assert chosen_speakers(["b", "a"], None, "a") == ["b"]
    with pytest.raises(UserError, match="no speaker c in the data, but a, b"):
        chosen_speakers(["b", "a"], ["c"])
    with pytest.raises(UserError, match="No speaker is left"):
        chosen_speakers(["a"], None, ["a"])


# Voices at run time


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_speech_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapters(base, tmp_path_factory):
    """Three voices on one base, each by another method."""
    folders = {}
    for case in ("lora", "prefix", "conformer"):
        folders[case] = tmp_path_factory.mktemp(case)
        voice_model = build(base, case, besides=["durations"])
        trained(voice_model)
        info = {"task": "tts"}
        save_adapter(folders[case], voice_model.model, voice_model.head, info)
    return folders


def test_swapped_voices_equal_fresh_ones(adapters):
    fresh = {
        name: Synthesizer(folder).spectrogram("Go on!", "eve")
        for name, folder in adapters.items()
    }
    assert not torch.equal(fresh["lora"], fresh["prefix"])
    swapped = Synthesizer(adapters["conformer"])
    for name in ("lora", "prefix", "lora", "conformer", "prefix", "conformer"):
        swapped.use(adapters[name])
        assert torch.equal(swapped.spectrogram("Go on!", "eve"), fresh[name]), name


def test_a_base_speaks_by_its_own_voices(base, adapters):
    synthesizer = Synthesizer(base)
    assert synthesizer.speakers == ["ann", "bob"]
    before = synthesizer.spectrogram("Go on!", "bob")
    synthesizer.use(adapters["lora"])
    synthesizer.use(base)
    assert torch.equal(synthesizer.spectrogram("Go on!", "bob"), before)
    slow = synthesizer.spectrogram("Go on!", "bob", pace=3.0)
    assert len(slow) > len(before)


def test_a_merged_voice_is_a_base(adapters, tmp_path):
    merge(adapters["lora"], tmp_path / "merged")
    merged = Synthesizer(tmp_path / "merged")
    assert merged.speakers == ["ann", "eve"]
    torch.testing.assert_close(
        merged.spectrogram("Go on!", "eve"),
        Synthesizer(adapters["lora"]).spectrogram("Go on!", "eve"),
        atol=1e-4,
        rtol=0,
    )
    with pytest.raises(UserError, match="cannot be merged"):
        merge(adapters["prefix"], tmp_path / "other")


def test_the_command_line_writes_sounds(adapters, tmp_path):
    lora, prefix = map(str, (adapters["lora"], adapters["prefix"]))
    main([lora, "Go on", "--speaker=ann", f"--out={tmp_path / 'x.wav'}"])
    sound, rate = soundfile.read(tmp_path / "x.wav")
    assert rate == 22050 and len(sound) > 256 and abs(sound).max() > 0
    out = tmp_path / "sounds"
    main([lora, "Go on", "No", f"--adapter={prefix}", "--speaker=ann", f"--out={out}"])
    names = ["voice1_text1", "voice1_text2", "voice2_text1", "voice2_text2"]
    assert sorted(path.stem for path in out.iterdir()) == names
    assert (soundfile.read(out / "voice1_text1.wav")[0] == sound).all()


def test_the_packages_voice_speaks():
    synthesizer = Synthesizer("kathleen", vocoder="griffin-lim")
    mel = synthesizer.spectrogram("There is that magnificent Bob.")
    assert 1.0 < len(mel) * 0.016 < 4.0 and synthesizer.speakers == ["kathleen"]
    # formants: the bands of a voice differ by much more than those of noise
    assert float(mel.std(1).mean()) > 1.0
    sizes = [path.stat().st_size for path in SHIPPED["kathleen"].rglob("*")]
    assert sum(sizes) < 8e6


def test_a_page_has_every_voice_and_sentence(adapters, tmp_path):
    lora, prefix = map(str, (adapters["lora"], adapters["prefix"]))
    out = tmp_path / "page"
    main([lora, "Go on", "No & no", f"--adapter={prefix}", "--page", f"--out={out}"])
    page = (out / "index.html").read_text()
    assert page.count("<audio") == page.count("<img") == 2 * 2 * 2
    for name in re.findall('src="([^"]*)"', page):
        assert (out / name).stat().st_size > 500
    assert "No &amp; no" in page and "eve" in page
    assert soundfile.info(out / "voice1_text1.ogg").samplerate == 22050


# Refusals


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["Go on", "3 dogs", "--speaker=ann"], "holds '3'"),
        (["Go on", " ", "--speaker=ann"], "is empty"),
        (["Go on"], "Say which speaker .* ann, eve"),
        (["Go on", "--speaker=zoe"], "No speaker zoe .* ann, eve"),
        (["Go on", "--speaker=ann", "--vocoder=."], r"no hyperparams\.yaml"),
        (["a" * 3000, "--speaker=ann"], "give it in sentences"),
        (["Go on", "--speaker=ann", "--pace=1e9"], "a number, from 0.1 to 10"),
    ],
)
def test_refused_requests_leave_nothing(adapters, tmp_path, arguments, match):
    out = tmp_path / "sounds"
    with pytest.raises(UserError, match=match):
        main([str(adapters["lora"]), *arguments, f"--out={out}"])
    assert not out.exists()


def test_one_file_for_several_sounds_is_refused(adapters, tmp_path):
    with pytest.raises(UserError, match="must be a folder"):
        main([str(adapters["lora"]), "a", "b", f"--out={tmp_path / 'x.wav'}"])


def test_adapters_of_other_bases_and_tasks_are_refused(base, adapters, tmp_path):
    other = tiny_speech_base(tmp_path / "other", seed=3)
    with pytest.raises(UserError, match="fingerprints differ"):
        Synthesizer(adapters["lora"], source=other)
    with pytest.raises(UserError, match="speaks, and has no answer"):
        load_adapter(adapters["lora"])
    settings = json.loads((adapters["lora"] / "adapter.json").read_text())
    settings["head"]["type"] = "CTCHead"
    (tmp_path / "adapter.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="no synthesiser"):
        Synthesizer(tmp_path)
    with pytest.raises(UserError, match="no adapter at"):
        Synthesizer(tmp_path / "nowhere")


def test_a_refused_voice_leaves_the_one_before(base, adapters, tmp_path):
    synthesizer = Synthesizer(adapters["lora"])
    expected = synthesizer.spectrogram("Go on", "ann")
    with pytest.raises(UserError, match="no adapter at"):
        synthesizer.use(tmp_path / "nowhere")
    assert synthesizer.adapter == adapters["lora"]
    assert torch.equal(synthesizer.spectrogram("Go on", "ann"), expected)


def test_no_code_is_run_unless_it_is_trusted(tmp_path):
    ran = tmp_path / "ran"
    attack = f"x: !apply:os.system ['touch {ran}']\n"
    (tmp_path / "hyperparams.yaml").write_text(attack)
    with pytest.raises(UserError, match=r"can run code.*--trust_code=True"):
        load_vocoder(str(tmp_path), SpeechFeatures(**FEATURES))
    with pytest.raises(UserError, match=r"can run code.*--trust_code=True"):
        load_encoder(str(tmp_path))
    assert not ran.exists()
    with contextlib.suppress(UserError):
        load_vocoder(str(tmp_path), SpeechFeatures(**FEATURES), trust_code=True)
    assert ran.exists()  # it would have been run


def test_a_saved_config_cannot_ask_for_trust(tmp_path):
    folder, saved = ROOT / "recipes" / "VCTK" / "TTS", tmp_path / "saved.yaml"
    prepare = runpy.run_path(str(folder / "vctk_prepare.py"))["prepare_speech"]
    arguments = ["--trust_code=True", "--data_folder=x"]
    config = load_config(folder / "hparams" / "adapter.yaml", arguments, prepare)
    refuse_unasked_trust(config)
    saved.write_text(config.text())
    with pytest.raises(UserError, match="counts on the command line alone"):
        refuse_unasked_trust(load_config(saved, [], prepare))


def test_damaged_vocoders_and_recognisers_are_refused(tmp_path):
    features = SpeechFeatures(**FEATURES)
    (tmp_path / "hyperparams.yaml").write_text("generator: 3\n")
    with pytest.raises(UserError, match="No HiFi-GAN can be loaded"):
        load_vocoder(str(tmp_path), features, True)
    with pytest.raises(UserError, match="No Whisper can be loaded"):
        load_recogniser(str(tmp_path))
    with pytest.raises(UserError, match="No Whisper can be loaded"):
        load_recogniser(str(tiny_checkpoint("wav2vec2", tmp_path / "w")))
