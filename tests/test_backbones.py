"""Backbones are what transformers makes of the same checkpoint."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny import FAMILIES, HTSAT, SIZES, save, tiny_checkpoint
from transformers import (
    ASTFeatureExtractor,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    ClapAudioConfig,
    ClapAudioModel,
    ClapConfig,
    ClapModel,
    ParakeetForCTC,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    SpeechT5ForSpeechToText,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)

from petl_modules.backbones import load_backbone, save_checkpoint
from petl_modules.backbones.features import KaldiFilterbank, Memory, SpecAugment
from petl_modules.errors import UserError
from petl_modules.use.peft_format import paths_of

RATE = 16000


def noise(samples, batch=1, seed=0):
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


WAVEFORM = ["wav2vec2", "xlsr", "hubert", "wavlm", "data2vec", "unispeech_sat"]
WAVEFORM += ["wav2vec2_conformer"]


@pytest.mark.parametrize("family", WAVEFORM)
def test_waveform_encoders_equal_transformers(checkpoints, family):
    reference = AutoModel.from_pretrained(checkpoints[family]).eval()
    backbone = load_backbone(checkpoints[family])
    wav = noise(12000) + 0.3
    normalised = (wav - wav.mean()) / torch.sqrt(wav.var(correction=0) + 1e-7)
    expected = reference(normalised, output_hidden_states=True)
    tokens = backbone(wav, all_layers=True)
    torch.testing.assert_close(tokens.hidden, expected.last_hidden_state, **CLOSE)
    assert len(tokens.layers) == len(expected.hidden_states)
    for layer, hidden in zip(tokens.layers[:-1], expected.hidden_states, strict=False):
        torch.testing.assert_close(layer.hidden, hidden, **CLOSE)


@pytest.mark.parametrize("samples", [12000, 12300])  # frames with and without a pair
def test_sew_equals_transformers(checkpoints, samples):
    reference = AutoModel.from_pretrained(checkpoints["sew"]).eval()
    wav = noise(samples)
    normalised = (wav - wav.mean()) / torch.sqrt(wav.var(correction=0) + 1e-7)
    expected = reference(normalised, output_hidden_states=True)
    tokens = load_backbone(checkpoints["sew"])(wav, all_layers=True)
    steps = tokens.hidden.shape[1]
    assert steps == expected.last_hidden_state.shape[1] // 2 * 2
    torch.testing.assert_close(
        tokens.hidden, expected.last_hidden_state[:, :steps], **CLOSE
    )
    for layer, hidden in zip(tokens.layers[:-1], expected.hidden_states, strict=False):
        for frame in (0, 1):
            torch.testing.assert_close(layer.hidden[:, frame::2], hidden, **CLOSE)


@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
def test_htsat_equals_transformers(checkpoints, tmp_path, padding, truncation):
    source = shutil.copytree(checkpoints["htsat"], tmp_path / "htsat")
    path = source / "preprocessor_config.json"
    said = json.loads(path.read_text()) | {"padding": padding, "truncation": truncation}
    path.write_text(json.dumps(said))
    reference = ClapAudioModel.from_pretrained(source).eval()
    extractor = AutoFeatureExtractor.from_pretrained(source)
    lengths = (32000, 12300, 7000)
    wavs = [noise(length, seed=length)[0] * 0.1 for length in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(wavs, True)
    tokens = load_backbone(source)(batch, torch.tensor(lengths) / max(lengths))
    assert tokens.bands == 2 and tokens.in_time()[1].tolist() == [8] * 3
    for wav, hidden in zip(wavs, tokens.hidden, strict=True):
        mel = extractor(wav.numpy(), sampling_rate=RATE, return_tensors="pt")
        expected = reference(mel.input_features[:, :1]).last_hidden_state
        torch.testing.assert_close(hidden, expected[0].flatten(1).mT, **CLOSE)


def test_the_encoder_of_a_whole_clap(tmp_path):
    text = {**SIZES, "vocab_size": 50}
    torch.manual_seed(0)
    model = ClapModel(ClapConfig(text_config=text, audio_config=HTSAT)).eval()
    backbone = load_backbone(save(model, "htsat", tmp_path))
    features = torch.randn(1, 1, 63, 16)
    expected = model.audio_model(features).last_hidden_state
    torch.testing.assert_close(backbone.model(features).last_hidden_state, expected)
    # where PEFT's format finds its parts in the model that is loaded there
    path = paths_of(backbone)[backbone.points.last_norm]
    assert torch.equal(
        model.get_submodule(path).weight, backbone.points.last_norm.weight
    )
    save_checkpoint(backbone, tmp_path / "alone")
    again = load_backbone(tmp_path / "alone").state_dict()
    assert all(torch.equal(t, again[n]) for n, t in backbone.state_dict().items())


@pytest.mark.parametrize(
    "change, said",
    [
        ({"enable_fusion": True}, "clap-htsat-unfused"),
        ({"window_size": 3}, "do not divide the 8 x 8"),
        ({"spec_size": 16}, "room for 16 frames of the 63"),
    ],
)
def test_htsats_that_are_built_otherwise_are_refused(tmp_path, change, said):
    model = ClapAudioModel(ClapAudioConfig(**HTSAT | change))
    with pytest.raises(UserError, match=said):
        load_backbone(save(model, "htsat", tmp_path))


def test_moonshine_equals_transformers(checkpoints):
    reference = AutoModel.from_pretrained(checkpoints["moonshine"]).encoder.eval()
    wav = noise(12000) * 0.1
    expected = reference(wav).last_hidden_state
    hidden = load_backbone(checkpoints["moonshine"])(wav).hidden
    torch.testing.assert_close(hidden, expected, **CLOSE)


@pytest.mark.parametrize("positions", ["rotary", "relative", "relative_key", None])
def test_w2v_bert_equals_transformers(checkpoints, tmp_path, positions):
    source = changed(checkpoints["w2v_bert"], tmp_path, positions)
    reference = AutoModel.from_pretrained(source).eval()
    extractor = AutoFeatureExtractor.from_pretrained(source)
    wav = noise(12000) * 0.1
    features = extractor(wav[0].numpy(), sampling_rate=RATE, return_tensors="pt")
    expected = reference(**features).last_hidden_state[:, : 73 // 2]
    hidden = load_backbone(source)(wav).hidden
    torch.testing.assert_close(hidden, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["parakeet", "speecht5"])
def test_encoders_of_larger_models_equal_transformers(checkpoints, family):
    source = checkpoints[family]
    kind = {"parakeet": ParakeetForCTC, "speecht5": SpeechT5ForSpeechToText}[family]
    reference = kind.from_pretrained(source).eval()
    extractor = AutoFeatureExtractor.from_pretrained(source)
    encoder = reference.encoder if family == "parakeet" else reference.speecht5.encoder
    lengths = (12000, 7000)
    wavs = [noise(length)[0] * 0.1 for length in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(wavs, True)
    tokens = load_backbone(source)(batch, torch.tensor(lengths) / max(lengths))
    name = "raw_speech" if family == "parakeet" else "audio"
    for wav, hidden, mask in zip(wavs, tokens.hidden, tokens.mask, strict=True):
        given = {name: wav.numpy(), "sampling_rate": RATE, "return_tensors": "pt"}
        features = {k: v for k, v in extractor(**given).items() if "length" not in k}
        expected = encoder(**features).last_hidden_state[0, : mask.sum()]
        torch.testing.assert_close(hidden[mask], expected, **CLOSE)


def changed(folder, path, positions):
    """A w2v-BERT whose layers know positions in another way."""
    config = AutoConfig.from_pretrained(folder)
    config.position_embeddings_type = positions
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(path)
    shutil.copy(folder / "preprocessor_config.json", path)
    return path


def test_whisper_equals_transformers_on_30_seconds(checkpoints):
    reference = AutoModel.from_pretrained(checkpoints["whisper"]).encoder.eval()
    backbone = load_backbone(checkpoints["whisper"])
    wav = noise(2 * RATE)  # the tiny model's table of 100 positions ends at 2 s
    extractor = WhisperFeatureExtractor(feature_size=20, chunk_length=30)
    mel = extractor(wav[0].numpy(), sampling_rate=RATE, return_tensors="pt")
    expected = reference(mel.input_features[:, :, :200]).last_hidden_state
    # the convolutions' very last frame sees silence here, the clip's end there
    torch.testing.assert_close(
        backbone.embed(wav, torch.tensor([2 * RATE])).hidden[:, :-1],
        embedded_by(reference, mel.input_features[:, :, :200])[:, :-1],
        **CLOSE,
    )
    assert backbone(wav).hidden.shape == expected.shape


def embedded_by(encoder, mel):
    hidden = torch.nn.functional.gelu(encoder.conv1(mel))
    hidden = torch.nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
    return hidden + encoder.embed_positions.weight


def test_ast_equals_transformers_at_its_length(checkpoints):
    reference = AutoModel.from_pretrained(checkpoints["ast"]).eval()
    backbone = load_backbone(checkpoints["ast"])
    samples = 400 + 127 * 160  # 128 frames
    wav = noise(samples) * 0.1
    extractor = ASTFeatureExtractor.from_pretrained(checkpoints["ast"])
    features = extractor(wav[0].numpy(), sampling_rate=RATE, return_tensors="pt")
    expected = reference(features.input_values).last_hidden_state
    torch.testing.assert_close(backbone(wav).hidden, expected, **CLOSE)


def test_ast_positions_are_the_checkpoints_and_cut_to_the_clip(checkpoints):
    backbone = load_backbone(checkpoints["ast"])
    table = AutoModel.from_pretrained(checkpoints["ast"]).embeddings.position_embeddings
    kept = backbone.model.embeddings.position_embeddings
    assert torch.equal(kept, table) and kept.abs().max() > 0
    silence, frames = torch.zeros(1, 400 + 47 * 160), 48
    tokens = backbone.embed(silence, torch.tensor([silence.shape[1]]))
    freq, time = backbone.grid
    columns = (frames - 16) // 10 + 1
    assert tokens.hidden.shape[1] == 2 + freq * columns
    # silence: every patch is equal, so that differences are those of the positions
    patches = tokens.hidden[0, 2:].view(freq, columns, -1)
    grid = table[0, 2:].view(freq, time, -1)[:, :columns]
    moved = patches[:, 1:] - patches[:, :-1]
    torch.testing.assert_close(moved, grid[:, 1:] - grid[:, :-1], **CLOSE)


def test_ast_positions_are_stretched_for_longer_clips(checkpoints):
    backbone = load_backbone(checkpoints["ast"], max_duration=3.0)
    assert backbone(noise(3 * RATE)).hidden.shape[1] == 2 + 4 * backbone.grid[1]
    assert backbone.grid[1] > 12
    positions = backbone.model.embeddings.position_embeddings
    assert positions[:, 2:].abs().sum(-1).min() > 0


@pytest.mark.parametrize("family", ["ast", "whisper", "htsat"])
def test_too_long_a_clip_is_refused(checkpoints, family):
    with pytest.raises(UserError, match="max_duration"):
        load_backbone(checkpoints[family])(noise(4 * RATE))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("samples", [1, 300, 700])
def test_very_short_clips_have_a_token(checkpoints, family, samples):
    tokens = load_backbone(checkpoints[family])(noise(samples))
    assert tokens.mask.any() and tokens.hidden.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_spec_augment_acts_in_training_only(checkpoints, family):
    backbone = load_backbone(checkpoints[family], spec_freq=10, spec_time=40)
    wav = noise(12000, batch=4)
    plain = backbone(wav).hidden
    assert torch.equal(plain, backbone(wav).hidden)
    backbone.augment = True
    torch.manual_seed(0)
    assert torch.equal(plain, backbone(wav).hidden) == (backbone.spec_augment is None)


def test_spec_augment_fills_with_zero_or_each_clips_floor():
    torch.manual_seed(0)
    loud = torch.rand(3, 20, 50) + torch.tensor([1.0, 5.0, 9.0]).view(3, 1, 1)
    for fill, floors in ((0.0, [0.0] * 3), (None, loud.amin((1, 2)).tolist())):
        masked = SpecAugment(8, 20, fill)(loud)
        for clip, plain, floor in zip(masked, loud, floors, strict=True):
            changed = clip != plain
            assert changed.any() and (clip[changed] == floor).all()


def test_random_weights_are_said_loudly_and_keep_positions(caplog):
    backbone = load_backbone("ast", pretrained=False)
    assert "RANDOM" in caplog.text
    assert backbone.model.embeddings.position_embeddings.std() > 0.01


def test_a_fingerprint_is_of_the_weights(checkpoints, tmp_path):
    same = load_backbone(checkpoints["ast"]).fingerprint()
    assert same == load_backbone(checkpoints["ast"]).fingerprint()
    other = tiny_checkpoint("ast", tmp_path / "other", seed=1)
    assert same != load_backbone(other).fingerprint()


def test_sources_that_are_no_checkpoint_are_refused(checkpoints, tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        load_backbone(tmp_path)
    for other in ("bert", "sew-d"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": other}))
        with pytest.raises(UserError, match=f"is a {other} model; the backbones are"):
            load_backbone(tmp_path)


def test_an_incomplete_checkpoint_is_refused(checkpoints, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny_checkpoint("ast", tmp_path / "ast")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("layers.1.mlp.fc1.weight", None)
    left = {n: t for n, t in tensors.items() if "1.mlp.fc1" not in n}
    left = {n: t for n, t in left.items() if "layer.1.intermediate" not in n}
    assert len(left) < len(load_file(folder / "model.safetensors"))
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks"):
        load_backbone(folder)


def test_half_precision_checkpoints_are_run_in_single_precision(tmp_path):
    folder = tiny_checkpoint("whisper", tmp_path / "w")
    model = AutoModel.from_pretrained(folder).half()
    model.save_pretrained(folder)
    backbone = load_backbone(folder)
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    assert np.isfinite(backbone(noise(8000)).hidden.detach().numpy()).all()


CLOSE = {"atol": 2e-4, "rtol": 1e-3}


def test_a_filterbank_that_remembers_computes_each_clip_once():
    bank, computed = KaldiFilterbank(16000, 24), []
    compute = bank.computed
    bank.computed = lambda wavs: computed.append(len(wavs)) or compute(wavs)
    wavs = torch.randn(5, 8000)
    expected = bank(wavs)
    bank.memory = Memory(5 * expected[0].nbytes / 2**20 * 0.7)  # of three clips
    for order in ([0, 1, 2], [2, 0, 1], [3, 0, 4], [4, 1, 3]):
        assert torch.equal(bank(wavs[order]), expected[order])
    assert computed == [5, 3, 2, 2]


@pytest.mark.parametrize(
    ("config", "kind", "whole"),
    [
        (Qwen2AudioConfig, "qwen2_audio", Qwen2AudioForConditionalGeneration),
        (VoxtralConfig, "voxtral", VoxtralForConditionalGeneration),
    ],
)
def test_the_ears_of_audio_language_models(config, kind, whole, tmp_path):
    ear = {
        "num_mel_bins": 128,
        "max_source_positions": 100,
        "activation_function": "gelu",
    }
    names = ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim")
    if kind == "voxtral":
        names = tuple(SIZES)
    ear |= dict(zip(names, (32, 2, 4, 48), strict=True))
    text = {**SIZES, "vocab_size": 50, "num_key_value_heads": 4, "head_dim": 8}
    torch.manual_seed(0)
    model = whole(config(audio_config=ear, text_config=text)).eval()
    model.save_pretrained(tmp_path)
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=2)
    extractor.save_pretrained(tmp_path)
    reference = getattr(model, "model", model).audio_tower
    backbone = load_backbone(tmp_path)
    wav = noise(2 * RATE)
    mel = extractor(wav[0].numpy(), sampling_rate=RATE, return_tensors="pt")
    hidden = backbone.embed(wav, torch.tensor([2 * RATE])).hidden
    # the last frame sees silence here, the clip's end there
    theirs = embedded_by(reference, mel.input_features)
    torch.testing.assert_close(hidden[:, :-1], theirs[:, :-1], **CLOSE)
    for layer in reference.layers:
        hidden = layer(hidden, None)
    expected = reference.layer_norm(hidden)
    torch.testing.assert_close(backbone(wav).hidden, expected, **CLOSE)
    save_checkpoint(backbone, tmp_path / "alone")
    again = load_backbone(tmp_path / "alone")
    assert torch.equal(again(wav).hidden, backbone(wav).hidden)
