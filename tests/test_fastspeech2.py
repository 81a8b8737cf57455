"""FastSpeech 2 as a backbone: SpeechBrain's numbers, and every method on it."""

from dataclasses import replace

import pytest
import torch
from speechbrain.lobes.models.FastSpeech2 import ForwardSumLoss
from tiny import few_steps, tiny_speech_base

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tts.head import voice_head
from petl_modules.tts.losses import loss_terms
from petl_modules.tts.model import VoiceModel
from petl_modules.tts.network import speechbrain_model
from petl_modules.tts.speech import Target
from petl_modules.use.adapter_file import read_adapter, save_adapter

CASES = {
    "full": ("full", {}),
    "linear": ("linear", {}),
    "bitfit": ("bitfit", {}),
    "bottleneck": ("bottleneck", {"rank": 4, "site": "both"}),
    "bottleneck-before": (
        "bottleneck",
        {"rank": 4, "placement": "sequential", "position": "before"},
    ),
    "conformer": ("conformer", {"rank": 4, "kernel_size": 7}),
    "conv_adapter": ("conv_adapter", {"train_norm": True}),
    "lora": ("lora", {"rank": 2, "targets": ["q", "k", "v", "o"]}),
    "prefix": ("prefix", {"prompt_length": 6}),
    "prompt": ("prompt", {"prompt_length": 4}),
    "soft_moa": ("soft_moa", {"num_adapters": 3, "rank": 2}),
    "dense_moa": ("dense_moa", {"num_adapters": 3, "rank": 2}),
}
ADDS_TOKENS = ("prefix", "prompt")
SYMBOLS, FRAMES = (9, 5), (40, 22)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_speech_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def build(base, case, besides=(), seed=0):
    torch.manual_seed(seed)
    name, knobs = CASES[case]
    backbone = load_backbone(str(base))
    model = AdaptedModel(backbone, make_method(name, **knobs), besides)
    return VoiceModel(model, voice_head(backbone, ["ann", "eve"]))


def batch(seed=1):
    """Two texts with their speakers and sounds, padded."""
    generator = torch.Generator().manual_seed(seed)
    symbols = torch.randint(1, 30, (2, SYMBOLS[0]), generator=generator)
    mel = torch.randn(2, FRAMES[0], 80, generator=generator)
    pitch, energy = torch.rand(2, 2, FRAMES[0], generator=generator)
    target = Target(mel, torch.tensor(FRAMES), pitch, energy)
    for part in (symbols[1, SYMBOLS[1] :], *(x[1, FRAMES[1] :] for x in parts(target))):
        part.zero_()
    return symbols, torch.tensor(SYMBOLS), torch.tensor([0, 1]), target


def parts(target):
    return target.mel, target.pitch, target.energy


def row(inputs, i):
    """One clip of a batch, without padding."""
    symbols, counts, speakers, target = inputs
    mel, pitch, energy = (x[i : i + 1, : FRAMES[i]] for x in parts(target))
    one = slice(i, i + 1)
    alone = Target(mel, target.counts[one], pitch, energy)
    return symbols[one, : SYMBOLS[i]], counts[one], speakers[one], alone


def terms_of(voice_model, inputs):
    guided, _ = voice_model(*inputs)
    return loss_terms(guided, inputs[1], inputs[3], ForwardSumLoss())


def trained(voice_model, steps=3, lr=0.01):
    """A few steps; returns the names of the tensors that got a gradient."""
    parameters = {
        **voice_model.model.trained_parameters(),
        **dict(voice_model.head.named_parameters(prefix="head")),
    }
    voice_model.train()

    def loss():
        return sum(terms_of(voice_model, batch()).values())

    return few_steps(parameters, loss, steps, lr), set(parameters)


# SpeechBrain's numbers


def test_weights_are_named_and_packed_as_speechbrains(base):
    backbone = load_backbone(str(base))
    state = backbone.model.state_dict()
    original = speechbrain_model(backbone.config)
    original.load_state_dict(state)  # strict
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_attention_equals_speechbrains(base):
    backbone = load_backbone(str(base))
    original = speechbrain_model(backbone.config).eval()
    original.load_state_dict(backbone.model.state_dict())
    x, padding = torch.randn(3, 7, 32), torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 4:] = True
    for stack in ("encoder", "decoder"):
        theirs = original.get_submodule(stack).layers[1].self_att
        ours = backbone.model.get_submodule(stack).layers[1].self_att
        expected = theirs(x, x, x, key_padding_mask=padding)[0]
        actual = ours(x, x, x, key_padding_mask=padding)[0]
        torch.testing.assert_close(actual[~padding], expected[~padding])


def test_a_prefix_is_seen_by_every_token(base):
    """Against PyTorch's attention with the prefix among projected keys and values."""
    attention = load_backbone(str(base)).model.encoder.layers[0].self_att
    x, keys, values = torch.randn(2, 5, 32), torch.randn(3, 32), torch.randn(3, 32)
    q, k, v = (getattr(attention, name)(x) for name in attention.packed)
    k = torch.cat([keys.expand(2, -1, -1), k], 1)
    v = torch.cat([values.expand(2, -1, -1), v], 1)
    heads = [part.unflatten(-1, (2, 16)).transpose(1, 2) for part in (q, k, v)]
    weights = (heads[0] @ heads[1].mT / 16**0.5).softmax(-1)
    expected = attention.out_proj((weights @ heads[2]).transpose(1, 2).flatten(2))
    actual = attention(x, x, x, prefix=(keys, values))[0]
    torch.testing.assert_close(actual, expected)


def test_durations_follow_the_text_and_fill_the_clip(base):
    guided, free = build(base, "linear").eval()(*batch())
    for i in range(2):
        durations = guided.durations[i, : SYMBOLS[i]]
        assert durations.min() >= 1 and durations.sum() == FRAMES[i]
        spoken = free.durations[i, : SYMBOLS[i]]
        assert spoken.min() >= 1 and spoken.sum() == free.counts[i]
    assert (guided.path.sum(2)[0] == 1).all()
    steps = guided.path[0].argmax(-1).diff()
    assert set(steps.tolist()) <= {0, 1}


def test_a_short_text_can_be_spoken(base):
    """SpeechBrain's reflecting convolutions refuse what is shorter than their reach."""
    voice_model = build(base, "linear").eval()
    speech = voice_model.model(
        torch.tensor([[3]]), torch.tensor([1]), voice_model.head(torch.tensor([0]))
    )
    assert speech.mel.shape == (1, int(speech.counts), 80)


def test_what_is_half_trained_hurries(base):
    voice_model = build(base, "linear").eval()
    bias = voice_model.model.backbone.model.durPred.linear.w.bias
    with torch.no_grad():
        bias.fill_(8.0)  # some 3,000 frames a symbol
    _, free = voice_model(*batch())
    assert free.counts.max() <= 2500 and free.durations[0].min() >= 1
    with pytest.raises(UserError, match="longer than 29 s"):
        voice_model.model(*batch()[:2], voice_model.head(batch()[2]))


# Methods


def test_step_0_is_the_base(base, case):
    if case in ADDS_TOKENS:
        pytest.skip("added tokens change the function")
    expected = build(base, "linear").eval()(*batch())
    for ours, theirs in zip(build(base, case).eval()(*batch()), expected, strict=True):
        torch.testing.assert_close(ours.mel, theirs.mel)


def test_all_that_trains_learns_and_the_rest_stays(base, case):
    voice_model = build(base, case, besides=["durations", "pitch"])
    parameters = voice_model.model.trained_parameters()
    ids = {id(p) for p in parameters.values()}
    frozen = {
        name: p.clone()
        for name, p in voice_model.model.backbone.named_parameters()
        if id(p) not in ids
    }
    reached, names = trained(voice_model, steps=4)
    if case == "conv_adapter":  # its gate has two units here, whose ReLU may be dead
        reached |= {name for name in names if "squeeze" in name or "excite" in name}
    # keys' biases shift all of a query's scores alike; soft slots may tie
    assert not {n for n in names - reached if "k_proj.bias" not in n}
    after = dict(voice_model.model.backbone.named_parameters())
    assert all(torch.equal(tensor, after[name]) for name, tensor in frozen.items())
    assert any("durPred" in name for name in names)
    assert any("energyPred" in name for name in names) == (case in ("full", "bitfit"))


def test_training_changes_the_speech(base, case):
    voice_model = build(base, case)
    voice = voice_model.head(torch.tensor([0, 1])).detach()
    symbols, counts, _, target = batch()

    def speech():
        with torch.no_grad():
            return voice_model.model.eval()(symbols, counts, voice, target).mel

    before = speech()
    trained(voice_model)
    assert (speech() - before).abs().max() > 1e-4


def test_saved_and_loaded_speaks_the_same(base, case, tmp_path):
    voice_model = build(base, case, besides=["energy"])
    trained(voice_model)
    save_adapter(tmp_path, voice_model.model, voice_model.head, {"task": "tts"})
    loaded = VoiceModel((found := read_adapter(tmp_path)).model, found.head).eval()
    for ours, theirs in zip(
        loaded(*batch()), voice_model.eval()(*batch()), strict=True
    ):
        assert torch.equal(ours.mel, theirs.mel)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_clip_does_not_depend_on_its_batch(base, case, mode):
    if mode == "train" and case in ("full", "conformer"):
        pytest.skip("dropout and batch statistics depend on the batch by definition")
    voice_model = build(base, case)
    trained(voice_model)
    voice_model.train(mode == "train")
    inputs = batch()
    guided, free = voice_model(*inputs)
    terms = terms_of(voice_model, inputs)
    sums = dict.fromkeys(terms, 0.0)
    for i in range(2):
        alone, spoken = voice_model(*row(inputs, i))
        frames = slice(FRAMES[i])
        torch.testing.assert_close(
            alone.mel[0], guided.mel[i, frames], atol=5e-5, rtol=1e-4
        )
        if free is not None:
            mel = free.mel[i, : int(free.counts[i])]
            torch.testing.assert_close(spoken.mel[0], mel, atol=5e-5, rtol=1e-4)
        for name, term in terms_of(voice_model, row(inputs, i)).items():
            sums[name] += term.item() / 2
    for name, term in terms.items():
        assert term.item() == pytest.approx(sums[name], rel=1e-4), name


@pytest.mark.parametrize("case", ["lora", "bitfit"], indirect=True)
def test_merged_speaks_the_same(base, case):
    voice_model = build(base, case)
    trained(voice_model)
    symbols, counts, speakers, _ = batch()
    voice = voice_model.head(speakers)
    expected = voice_model.model.eval()(symbols, counts, voice).mel
    voice_model.model.merge()
    plain = load_backbone(str(base))
    plain.load_state_dict(voice_model.model.backbone.state_dict())
    actual = plain(symbols, counts, voice).mel
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_layers_count_through_encoder_and_decoder(base):
    backbone = load_backbone(str(base))
    method = make_method("bottleneck", rank=2, layers=[1, 2])
    model = AdaptedModel(backbone, method)
    assert {key[:6] for key in model.petl} == {"layer1", "layer2"}
    modules = [points.module for points in backbone.points.layers]
    assert modules == [*backbone.model.encoder.layers, *backbone.model.decoder.layers]


def test_what_does_not_fit_is_refused(base):
    with pytest.raises(UserError, match=r"choose among q, k, v, o\."):
        AdaptedModel(load_backbone(str(base)), make_method("lora", targets="ffn"))
    with pytest.raises(UserError, match="besides=vocoder is unknown"):
        AdaptedModel(load_backbone(str(base)), make_method("linear"), ["vocoder"])


# Files and voices


def test_a_known_speaker_starts_from_its_own_vector(base):
    backbone = load_backbone(str(base))
    head = voice_head(backbone, ["bob", "eve"])
    table = backbone.voices["table"]
    assert torch.equal(head(torch.tensor([0]))[0], table[1])
    torch.testing.assert_close(head(torch.tensor([1]))[0], table.mean(0))


def test_a_base_is_what_was_saved(base, tmp_path):
    backbone = load_backbone(str(base))
    backbone.save(tmp_path / "copy", ["ann", "bob"], backbone.voices)
    copy = load_backbone(str(tmp_path / "copy"))
    assert copy.fingerprint() == backbone.fingerprint()
    assert replace(copy.config) == backbone.config
    other = load_backbone(str(tiny_speech_base(tmp_path / "other", seed=1)))
    assert other.fingerprint() != backbone.fingerprint()


def test_damaged_bases_are_refused(base, tmp_path):
    folder = tiny_speech_base(tmp_path / "base")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"weights of .* cannot be loaded"):
        load_backbone(str(folder))
    with pytest.raises(UserError, match="without weights"):
        load_backbone("fastspeech2")
    config = folder / "config.json"
    config.write_text(config.read_text().replace("ffn_size", "ffn_width"))
    with pytest.raises(UserError, match="ffn_width"):
        load_backbone(str(folder))
