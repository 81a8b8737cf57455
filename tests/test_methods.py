"""Fast forms equal textbook forms; modules equal their definitions and counts."""

import pytest
import torch
import torch.nn.functional as F
from tiny import FAMILIES, tiny_checkpoint
from torch import nn

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.methods import (
    Bottleneck,
    Conformer,
    ConvAdapter,
    Convpass,
    DenseMoA,
    LoRA,
    Prefix,
    Prompt,
    SoftMoA,
    make_method,
    method_table,
)
from petl_modules.methods.adapters import MaskedBatchNorm, SameConv1d, quick_gelu

D, N, R = 32, 5, 3


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def randomised(module):
    """The module with random numbers in the place of its zeros."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return module


def padded_batch(lengths=(11, 7)):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    x = torch.randn(len(lengths), max(lengths), D)
    return x.requires_grad_(), mask


def assert_equal_with_gradients(fast, textbook, x, parameters):
    """Outputs and gradients to 1e-5."""
    weights = torch.randn_like(fast)
    wanted = [x, *parameters]
    torch.testing.assert_close(fast, textbook, atol=1e-5, rtol=1e-4)
    got = torch.autograd.grad((fast * weights).sum(), wanted, retain_graph=True)
    expected = torch.autograd.grad((textbook * weights).sum(), wanted)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kernel_size", [8, 16])
def test_wide_even_convolutions_are_exact_in_bfloat16_on_cpus(kernel_size):
    # CPUs with AMX compute them wrongly; here, what is rounded tells the ways apart
    torch.manual_seed(0)
    conv, x = SameConv1d(12, 12, kernel_size), torch.randn(2, 40, 12)
    exact = conv(x)
    (wanted,) = torch.autograd.grad(exact.sum(), conv.weight)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(x)
    assert found.dtype == torch.bfloat16 and torch.equal(found, exact.bfloat16())
    (gradient,) = torch.autograd.grad(found.float().sum(), conv.weight)
    assert torch.allclose(gradient, wanted, atol=1e-3)
    held, narrow = conv.to(torch.bfloat16), x.bfloat16()
    found = held(narrow)
    exact = held.float()(narrow.float())
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize("expert", ["bottleneck", "convpass"])
def test_dense_moa_equals_n_stacked_experts(expert):
    module = randomised(DenseMoA(D, N, rank=R, expert=expert)).eval()
    x, mask = padded_batch()
    downs, router = module.down.weight.split([N * R, N])
    bias, router_bias = module.down.bias.split([N * R, N])
    gates = F.linear(x, router, router_bias).softmax(-1)
    outputs = []
    for n in range(N):
        own = slice(n * R, (n + 1) * R)
        narrow = F.linear(x, downs[own], bias[own])
        if expert == "convpass":
            conv = SameConv1d(R, R, 3)
            conv.weight = nn.Parameter(module.conv.weight[own].detach())
            conv.bias = nn.Parameter(module.conv.bias[own].detach())
            narrow = quick_gelu(conv(quick_gelu(narrow), mask))
        else:
            narrow = F.gelu(narrow)
        outputs.append(narrow @ module.up[own] + module.up_bias[n])
    textbook = (torch.stack(outputs, 2) * gates.unsqueeze(-1)).sum(2)
    shared = [module.down.weight, module.down.bias, module.up, module.up_bias]
    assert_equal_with_gradients(module(x, mask), textbook, x, shared)


@pytest.mark.parametrize("expert", ["bottleneck", "convpass"])
@pytest.mark.parametrize("normalize", [False, True])
def test_soft_moa_equals_a_loop_over_clips_and_experts(normalize, expert):
    module = SoftMoA(D, N, 2, rank=R, normalize=normalize, expert=expert)
    module = randomised(module).eval()
    x, mask = padded_batch()
    rows = []
    for clip, valid in zip(x, mask, strict=True):
        slots = module.slots
        tokens = clip
        if normalize:
            tokens = clip / clip.norm(dim=-1, keepdim=True)
            slots = module.scale * slots / slots.norm(dim=0)
        logits = torch.einsum("td,dnp->tnp", tokens, slots)
        dispatch = logits[valid].softmax(0)
        combine = logits.flatten(1).softmax(-1).view_as(logits)
        output = 0
        for n in range(N):
            inputs = torch.einsum("tp,td->pd", dispatch[:, n], clip[valid])
            narrow = inputs @ module.down[n] + module.down_bias[n]
            if expert == "convpass":
                own = slice(n * R, (n + 1) * R)
                weight, bias = module.conv.weight[own], module.conv.bias[own]
                narrow = quick_gelu(narrow).T.unsqueeze(0)
                narrow = F.conv1d(narrow, weight, bias, padding=1)[0].T
                narrow = quick_gelu(narrow)
            else:
                narrow = F.gelu(narrow)
            output = output + combine[:, n] @ (
                narrow @ module.up[n] + module.up_bias[n]
            )
        rows.append(output)
    textbook = torch.stack(rows)
    assert_equal_with_gradients(module(x, mask), textbook, x, list(module.parameters()))


@pytest.mark.parametrize("family", ["ast", "wav2vec2", "wavlm", "whisper"])
def test_prefix_under_fused_attention_equals_eager_attention(family, tmp_path):
    backbone = load_backbone(tiny_checkpoint(family, tmp_path))
    model = AdaptedModel(backbone, make_method("prefix", prompt_length=6))
    randomised(model.petl)
    wavs, lens = torch.randn(2, 9600) * 0.1, torch.tensor([1.0, 0.6])
    fast = model(wavs, lens).hidden
    parameters = list(model.petl.parameters())
    fast_grads = torch.autograd.grad(fast.square().sum(), parameters)
    original, F.scaled_dot_product_attention = (
        F.scaled_dot_product_attention,
        eager_attention,
    )
    try:
        textbook = model(wavs, lens).hidden
    finally:
        F.scaled_dot_product_attention = original
    torch.testing.assert_close(fast, textbook, atol=1e-5, rtol=1e-4)
    grads = torch.autograd.grad(textbook.square().sum(), parameters)
    for a, b in zip(fast_grads, grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    plain = load_backbone(tmp_path)(wavs, lens).hidden
    assert (fast - plain).abs().max() > 1e-2


def eager_attention(query, key, value, attn_mask=None, scale=None, **unused):
    assert key.shape[2] == query.shape[2] + 3  # three learned keys
    scores = query @ key.transpose(-1, -2) * scale
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value


def test_prefix_is_concatenated_keys_and_values(tmp_path):
    """By hand: one attention layer whose keys and values are extended."""
    backbone = load_backbone(tiny_checkpoint("ast", tmp_path))
    model = AdaptedModel(backbone, make_method("prefix", prompt_length=4, layers=[0]))
    randomised(model.petl)
    attention = backbone.points.layers[0].sites["mhsa"].module
    x = torch.randn(2, 9, 32)
    keys, values = model.petl["layer0_mhsa_prefix"]()

    def heads(t):
        return t.unflatten(-1, (4, 8)).transpose(1, 2)

    k = torch.cat([keys.expand(2, -1, -1), attention.k_proj(x)], 1)
    v = torch.cat([values.expand(2, -1, -1), attention.v_proj(x)], 1)
    scores = heads(attention.q_proj(x)) @ heads(k).transpose(-1, -2) / 8**0.5
    expected = (scores.softmax(-1) @ heads(v)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(x)[0], attention.o_proj(expected))


def test_prompts_are_tokens_after_the_special_ones(tmp_path):
    wavs = torch.randn(2, 9600) * 0.1
    backbone = load_backbone(tiny_checkpoint("ast", tmp_path))
    counts = torch.tensor([9600, 9600])
    embedded = backbone.embed(wavs, counts).hidden
    model = AdaptedModel(backbone, make_method("prompt", prompt_length=3))
    first, second = (model.petl[f"layer{i}_input_prompt"].tokens for i in (0, 1))
    layers = backbone.model.layers
    hidden = torch.cat([embedded[:, :2], first.expand(2, -1, -1), embedded[:, 2:]], 1)
    hidden = layers[0](hidden)
    hidden = torch.cat([hidden[:, :2], second.expand(2, -1, -1), hidden[:, 5:]], 1)
    expected = backbone.model.layernorm(layers[1](hidden))
    tokens = model(wavs)
    torch.testing.assert_close(tokens.hidden, expected)
    assert (tokens.special, tokens.prompts) == (2, 3)


def test_lora_equals_peft(tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import Wav2Vec2Model

    folder = tiny_checkpoint("wav2vec2", tmp_path)
    model = AdaptedModel(
        load_backbone(folder), make_method("lora", rank=2, alpha=8, targets=["q", "v"])
    )
    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    reference = peft.get_peft_model(Wav2Vec2Model.from_pretrained(folder), config)
    randomised(model.petl)
    with torch.no_grad():
        for i, layer in enumerate(reference.base_model.model.encoder.layers):
            for target in "qv":
                theirs = getattr(layer.attention, f"{target}_proj")
                ours = model.petl[f"layer{i}_{target}_lora"]
                theirs.lora_A["default"].weight.copy_(ours.a.weight)
                theirs.lora_B["default"].weight.copy_(ours.b.weight)
    wav = torch.randn(1, 9600)
    normal = (wav - wav.mean()) / torch.sqrt(wav.var(correction=0) + 1e-7)
    expected = reference.eval()(normal).last_hidden_state
    torch.testing.assert_close(model(wav).hidden, expected, atol=1e-4, rtol=1e-3)


def test_lora_acts_on_wavlm(tmp_path):
    folder = tiny_checkpoint("wavlm", tmp_path)
    for target in ("q", "k", "v", "o"):
        model = AdaptedModel(
            load_backbone(folder), make_method("lora", rank=2, targets=[target])
        )
        wav = torch.randn(1, 9600)
        before = model(wav).hidden
        randomised(model.petl)
        assert (model(wav).hidden - before).abs().max() > 1e-3


def test_conformer_batch_statistics_are_of_valid_frames():
    x, mask = padded_batch()
    norm = MaskedBatchNorm(D)
    out = norm(x, mask)
    frames = x[mask]
    expected = (frames - frames.mean(0)) / torch.sqrt(
        frames.var(0, correction=0) + norm.eps
    )
    torch.testing.assert_close(out[mask], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_mean, 0.1 * frames.mean(0))
    assert not out[~mask].any()


def test_conformer_is_its_definition():
    module = randomised(Conformer(D, rank=R, kernel_size=4))
    x = torch.randn(2, 9, D)
    narrow = F.glu(module.down(module.norm(x)), -1).transpose(1, 2)
    narrow = F.conv1d(
        F.pad(narrow, (1, 2)), module.conv.weight, module.conv.bias, groups=R
    )
    narrow = F.silu(
        nn.BatchNorm1d(R)(narrow) * module.batch_norm.weight[:, None]
        + module.batch_norm.bias[:, None]
    )
    expected = module.up(narrow.transpose(1, 2))
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-4)


def test_placements_follow_their_definitions(tmp_path):
    folder = tiny_checkpoint("ast", tmp_path)
    x = torch.randn(1, 6, 32)
    for knobs, expected in (
        ({}, lambda f, a: f(x) + a(x)),
        ({"placement": "sequential"}, lambda f, a: f(x) + a(f(x))),
        ({"placement": "sequential", "residual": False}, lambda f, a: a(f(x))),
        (
            {"placement": "sequential", "position": "before"},
            lambda f, a: f(x + a(x)),
        ),
    ):
        plain = load_backbone(folder).model.layers[0].mlp
        backbone = load_backbone(folder)
        method = make_method("bottleneck", site="ffn", rank=2, **knobs)
        model = AdaptedModel(backbone, method)
        adapter = randomised(model.petl["layer0_ffn_bottleneck"])
        actual = backbone.model.layers[0].mlp(x)
        torch.testing.assert_close(actual, expected(plain, adapter))


@pytest.mark.parametrize("name", ["conv_adapter", "bottleneck", "soft_moa"])
def test_at_the_block_adapters_read_its_output_with_the_residual(name, tmp_path):
    for family in ("ast", "wav2vec2", "wavlm", "whisper"):
        folder = tiny_checkpoint(family, tmp_path / family)
        backbone = load_backbone(folder)
        plain = load_backbone(folder).points.layers[0].module
        method = make_method(name, site="block", layers=[0])
        model = AdaptedModel(backbone, method)
        adapter = randomised(model.petl[f"layer0_ffn_{name}"])
        sums = []
        adapter.register_forward_hook(
            lambda m, args, out, seen=sums: seen.append((args[0], out))
        )
        x = torch.randn(1, 6, 32)
        bias = {"position_bias": torch.zeros(4, 6, 6)} if family == "wavlm" else {}
        layer = backbone.points.layers[0].module
        if family == "wavlm":
            plain = load_backbone(folder).points.layers[0].module
        out = layer(x, attention_mask=None, **bias)
        reference = plain(x, attention_mask=None, **bias)
        out, reference = (o if torch.is_tensor(o) else o[0] for o in (out, reference))
        h, delta = sums[0]
        if backbone.points.layers[0].post_norm:
            torch.testing.assert_close(plain.final_layer_norm(h), reference)
            torch.testing.assert_close(plain.final_layer_norm(h + delta), out)
        else:
            torch.testing.assert_close(h, reference)
            torch.testing.assert_close(h + delta, out)


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (lambda: Bottleneck(hidden_size=768, rank=12), 19_212),
        (lambda: Bottleneck(hidden_size=768, reduction_rate=64), 19_212),
        (lambda: Conformer(hidden_size=768, rank=8, kernel_size=31), 21_024),
        (lambda: ConvAdapter(hidden_size=1024), 141_824),
        (lambda: LoRA(hidden_size=768, rank=6), 9_216),
        (lambda: Prefix(hidden_size=768, prompt_length=24), 18_432),
        (lambda: Prompt(hidden_size=768, prompt_length=25), 19_200),
        (lambda: DenseMoA(hidden_size=768, num_adapters=7, rank=6), 75_313),
        (lambda: SoftMoA(hidden_size=768, num_adapters=7, num_slots=1, rank=6), 75_306),
        (lambda: Convpass(hidden_size=768, rank=12, kernel_size=3), 19_656),
    ],
)
def test_modules_have_the_published_sizes(module, count):
    assert sum(p.numel() for p in module().parameters()) == count


@pytest.mark.parametrize(
    ("name", "knobs", "words"),
    [
        ("botleneck", {}, "There is no method"),
        ("bottleneck", {"rnak": 3}, "no use for rnak"),
        ("lora", {"site": "ffn"}, "no use for site"),
        ("bottleneck", {"rank": 3, "reduction_rate": 2}, "not both"),
        ("bottleneck", {"rank": 0}, "from 1 to"),
        ("bottleneck", {"site": "attn"}, "must be mhsa"),
        ("bottleneck", {"position": "before"}, "placement=sequential"),
        ("bottleneck", {"residual": False}, "residual"),
        ("bottleneck", {"site": "block", "position": "before"}, "no meaning there"),
        ("bottleneck", {"layers": [7]}, "0 to 1"),
        ("bottleneck", {"layers": []}, "layers"),
        ("lora", {"targets": ["query"]}, "must be a list of q, k"),
        ("prefix", {"prompt_length": 3}, "even"),
        ("prompt", {"prompt_length": 0}, "from 1 to"),
        ("dense_moa", {"expert": "conformer"}, "must be bottleneck"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, knobs, words, tmp_path):
    with pytest.raises(UserError, match=words):
        AdaptedModel(
            load_backbone(tiny_checkpoint("ast", tmp_path)), make_method(name, **knobs)
        )


def test_weight_decay_spares_biases_norms_and_prompts(tmp_path):
    folder = tiny_checkpoint("wav2vec2", tmp_path)
    for name in method_table():
        knobs = {"rank": 4} if name == "ssvd" else {}
        model = AdaptedModel(load_backbone(folder), make_method(name, **knobs))
        for key, parameter in model.trained_parameters().items():
            spared = key.endswith(("bias", "tokens", "vectors")) or "norm." in key
            if name != "full" and spared:
                assert not model.decays(key, parameter), key
            if key.endswith(("down.weight", "a.weight", "up.weight", "slots")):
                assert model.decays(key, parameter), key


def test_full_trains_some_layers_alone_and_the_rest_stays_as_it_is(tmp_path):
    folder = tiny_checkpoint("xlsr", tmp_path)
    model = AdaptedModel(load_backbone(folder), make_method("full", layers=[-1]))
    places = {name.split(".")[0] for name in model.trained_parameters()}
    assert places == {"backbone", "last_norm"}
    layers = model.backbone.model.encoder.layers
    trained = {id(p) for p in model.trained_parameters().values()}
    assert {id(p) for p in layers[1].parameters()} <= trained
    assert not {id(p) for p in layers[0].parameters()} & trained
    assert layers[1].training and not layers[0].training
    model.eval()
    assert not layers[1].training


def test_full_keeps_the_convolutions_that_read_the_waveform(tmp_path):
    folder = tiny_checkpoint("wav2vec2", tmp_path)
    for freeze in (True, False):
        method = make_method("full", freeze_feature_encoder=freeze)
        model = AdaptedModel(load_backbone(folder), method)
        convolutions = model.backbone.model.feature_extractor
        trains = [p.requires_grad for p in convolutions.parameters()]
        assert set(trains) == {not freeze} and convolutions.training != freeze
        rest = model.backbone.model.feature_projection
        assert all(p.requires_grad for p in rest.parameters()) and rest.training


# Where prompts and prefixes start


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_prompts_and_prefixes_start_uniform_as_in_visual_prompt_tuning(name, tmp_path):
    method = make_method(name, start="uniform", prompt_length=500)
    model = AdaptedModel(load_backbone(tiny_checkpoint("ast", tmp_path)), method)
    bound = (6 / (3 * 16 * 16 + 32)) ** 0.5
    for parameter in model.petl.parameters():
        assert 0.98 * bound < parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_and_prefixes_start_as_silence(checkpoints, family):
    backbone = load_backbone(checkpoints[family])
    inputs, keys = [], []
    for layer in backbone.points.layers:
        layer.module.register_forward_pre_hook(
            lambda _, args, kwargs: inputs.append(
                args[0] if args else kwargs["hidden_states"]
            ),
            with_kwargs=True,
        )
        layer.projections["k"].module.register_forward_hook(
            lambda *args: keys.append(args[2])
        )
    special = backbone(torch.zeros(1, 16000)).special
    # the last of their tokens is that of the clip, but for a little noise
    for method, name, seen in (
        ("prompt", "tokens", inputs),
        ("prefix", "vectors", keys),
    ):
        if (family, method) == ("htsat", "prompt"):
            with pytest.raises(UserError, match="no room for learned tokens"):
                AdaptedModel(backbone, make_method(method))
            continue
        for start, near in (("silence", True), ("random", False)):
            fresh = load_backbone(checkpoints[family])
            model = AdaptedModel(fresh, make_method(method, start=start))
            rows = [p for n, p in model.petl.named_parameters() if n.endswith(name)]
            for row, expected in zip(rows, seen, strict=True):
                row = row[[0, -1], : expected.shape[-1]]
                distance = (row - expected[0, [special, -1]]).abs().max()
                assert (distance < 0.15) == near


def test_batch_norm_over_valid_frames_is_torch_s_of_those_frames():
    torch.manual_seed(0)
    ours, theirs = MaskedBatchNorm(6), torch.nn.BatchNorm1d(6)
    mask = torch.arange(50) < torch.tensor([50, 31, 7]).unsqueeze(1)
    for mode in (True, True, False):
        ours.train(mode), theirs.train(mode)
        x = (3 * torch.randn(3, 50, 6) + 1).requires_grad_()
        expected = theirs(x[mask])
        (gradient,) = torch.autograd.grad(expected.square().sum(), x)
        output = ours(x, mask)[mask]
        torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-6)
        (own,) = torch.autograd.grad(output.square().sum(), x)
        torch.testing.assert_close(own, gradient, atol=1e-5, rtol=1e-4)
        for name in ("running_mean", "running_var"):
            pair = getattr(ours, name), getattr(theirs, name)
            torch.testing.assert_close(*pair, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", ["ast", "whisper", "wav2vec2"])
def test_what_acts_beside_a_block_reads_what_is_put_before_it(family, checkpoints):
    knobs = {"site": "ffn", "rank": 2, "train_norm": False}
    before = {**knobs, "placement": "sequential", "position": "before"}
    order = [("bottleneck", knobs), ("convpass", before)]
    outputs, weights = [], None
    for methods in (order, order[::-1]):
        backbone = load_backbone(checkpoints[family])
        model = AdaptedModel(backbone, [make_method(n, **k) for n, k in methods])
        weights = weights or randomised(model.petl).state_dict()
        model.petl.load_state_dict(weights)
        generator = torch.Generator().manual_seed(0)
        clip = torch.randn(1, 9000, generator=generator) * 0.1
        outputs.append(model.eval()(clip).hidden)
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("family", ["w2v_bert", "wav2vec2_conformer", "parakeet"])
@pytest.mark.parametrize("site", ["ffn1", "conv", "ffn"])
def test_what_is_added_beside_a_conformers_half_step_is_added_whole(
    checkpoints, family, site
):
    backbone = load_backbone(checkpoints[family])
    model = AdaptedModel(
        backbone, make_method("bottleneck", rank=4, site=site, layers=[-1])
    ).eval()
    block = backbone.points.layers[-1]
    (adapter,) = model.petl.values()
    torch.nn.init.normal_(adapter.up.weight)
    seen = {}
    outputs = {"ffn1": block.norms["mhsa"], "ffn": block.block_norm}
    if site == "conv":
        outputs["conv"] = block.norms["ffn"]
    outputs[site].register_forward_pre_hook(
        lambda module, args: seen.__setitem__("after", args[0])
    )
    entry = block.sites[site].module
    entry.register_forward_pre_hook(lambda module, args: seen.__setitem__("z", args[0]))
    wav = torch.randn(1, 9600) * 0.1
    with torch.no_grad():
        model(wav)
        adapted = seen["after"]
        backbone.serve(None)
        backbone(wav)
        torch.testing.assert_close(
            adapted - seen["after"], adapter(seen["z"]), rtol=1e-3, atol=1e-4
        )


def test_a_block_that_a_family_lacks_is_refused(checkpoints):
    with pytest.raises(UserError, match="have no such block, but mhsa, ffn"):
        AdaptedModel(
            load_backbone(checkpoints["ast"]), make_method("bottleneck", site="conv")
        )
