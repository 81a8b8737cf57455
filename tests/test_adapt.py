"""Our methods on Transformers that are not ours."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from tiny import few_steps
from torch import nn
from transformers import BertConfig, BertModel

import petl_modules
from petl_modules import Family, Part, adapt
from petl_modules.core.access_points import Site
from petl_modules.core.hooks import Hooks
from petl_modules.errors import UserError

METHODS = {
    "lora": {"rank": 2, "targets": ["q", "k", "v", "o", "ffn"]},
    "bottleneck": {"rank": 4, "site": "both"},
    "conformer": {"rank": 4, "kernel_size": 3},
    "prefix": {"prompt_length": 6},
    "prompt": {"prompt_length": 3},
    "soft_moa": {"num_adapters": 3, "rank": 2},
    "bitfit": {},
    "conv_adapter": {"train_norm": True},
}
ADDS_TOKENS = ("prefix", "prompt")
MERGED = ("lora", "bitfit")
BERT = Family(
    layers="encoder.layer",
    mhsa=("attention.self", "attention.output.dense"),
    mhsa_norm="attention.output.LayerNorm",
    ffn=("intermediate", "output.dense"),
    ffn_norm="output.LayerNorm",
    block_norm="output.LayerNorm",
    q="attention.self.query",
    k="attention.self.key",
    v="attention.self.value",
    o="attention.output.dense",
    fc1="intermediate.dense",
    fc2="output.dense",
    mask="attention_mask",
)


def torch_encoder(norm_first, batch_first=True):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        32, 4, 48, dropout=0.1, norm_first=norm_first, batch_first=batch_first
    )
    norm = nn.LayerNorm(32) if norm_first else None
    encoder = nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=not norm_first)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder.eval()


@pytest.fixture(params=["post", "pre", "post-time", "pre-time"])
def kind(request):
    return request.param


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


def build(kind, method, seed=0):
    norm, _, time = kind.partition("-")
    encoder = torch_encoder(norm == "pre", batch_first=not time)
    torch.manual_seed(seed)
    return encoder, adapt(encoder, None, method, **METHODS[method])


def batch(lengths=(9, 9, 9), seed=1):
    torch.manual_seed(seed)
    x = torch.randn(len(lengths), max(lengths), 32)
    return x, torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]


def run(model, kind, x, padding=None):
    """The output of a module whose batches may come second."""
    if kind.endswith("time"):
        return model(x.transpose(0, 1), src_key_padding_mask=padding).transpose(0, 1)
    return model(x, src_key_padding_mask=padding)


def trained(model, kind, steps=2):
    x, padding = batch((9, 6, 4))
    model.train()
    reached = few_steps(
        model.trained_parameters(),
        lambda: (run(model, kind, x, padding)[~padding] - 1).square().sum(),
        steps,
    )
    model.eval()
    return reached


@pytest.mark.parametrize("grad", [True, False])
def test_step_0_is_the_model_as_it_was(kind, method, grad):
    x, padding = batch((9, 5))
    norm, _, time = kind.partition("-")
    expected = run(torch_encoder(norm == "pre", not time), kind, x, padding)
    _, model = build(kind, method)
    with torch.set_grad_enabled(grad):
        output = run(model.eval(), kind, x, padding)
    assert output.shape == expected.shape
    same = torch.allclose(output[~padding], expected[~padding], atol=1e-5)
    assert same == (method not in ADDS_TOKENS)


def test_all_that_trains_learns_and_the_rest_stays(kind, method):
    encoder, model = build(kind, method)
    reached = set()
    for seed in (1, 2, 3) if method == "conv_adapter" else ():  # its gate's ReLUs die
        reached |= trained(build(kind, method, seed)[1], kind)
    ids = {id(p) for p in model.trained_parameters().values()}
    frozen = {n: p.clone() for n, p in encoder.named_parameters() if id(p) not in ids}
    assert frozen and set(model.trained_parameters()) == trained(model, kind) | reached
    trained(model, kind, steps=8)
    after = dict(encoder.named_parameters())
    assert all(torch.equal(tensor, after[name]) for name, tensor in frozen.items())


def test_in_eval_mode_without_gradients_what_was_learnt_acts(kind, method):
    # where PyTorch's fused layers would pass by all that is hooked in
    _, model = build(kind, method)
    x, padding = batch((9, 5))
    trained(model, kind, steps=3)
    expected = run(model, kind, x, padding)
    with torch.no_grad():
        output = run(model, kind, x, padding)
    torch.testing.assert_close(output[~padding], expected[~padding])
    norm, _, time = kind.partition("-")
    before = run(torch_encoder(norm == "pre", not time), kind, x, padding)
    assert (output - before)[~padding].abs().max() > 1e-3


def test_padding_does_not_count(kind, method):
    _, model = build(kind, method)
    trained(model, kind)
    x, padding = batch((9, 5, 7))
    together = run(model, kind, x, padding)
    for row, length in enumerate((9, 5, 7)):
        alone = run(model, kind, x[row : row + 1, :length])
        torch.testing.assert_close(
            together[row, :length], alone[0], atol=2e-5, rtol=1e-4
        )


def test_saved_and_loaded_gives_equal_outputs(kind, method, tmp_path):
    _, model = build(kind, method)
    trained(model, kind)
    model.save(tmp_path)
    x, padding = batch((9, 5))
    loaded = build(kind, method, seed=7)[1].load(tmp_path).eval()
    expected = run(model, kind, x, padding)
    assert torch.equal(run(loaded, kind, x, padding), expected)


def test_merged_gives_equal_outputs_from_the_plain_module(kind, method):
    encoder, model = build(kind, method)
    trained(model, kind)
    x, padding = batch((9, 5))
    expected = run(model, kind, x, padding)
    if method not in MERGED:
        with pytest.raises(UserError, match="cannot be merged"):
            model.merge()
        return
    model.merge()
    norm, _, time = kind.partition("-")
    plain = torch_encoder(norm == "pre", not time)
    plain.load_state_dict(encoder.state_dict())
    output = run(plain, kind, x, padding)
    torch.testing.assert_close(output[~padding], expected[~padding])
    model.unmerge()
    assert torch.equal(run(model, kind, x, padding), expected)


def test_attention_is_pytorchs_with_masks_weights_and_without(kind):
    norm, _, time = kind.partition("-")
    plain, ours = (torch_encoder(norm == "pre", not time) for _ in range(2))
    adapt(ours, None, "linear" if norm == "pre" else "bitfit")
    x, padding = batch((9, 5))
    x = x.transpose(0, 1) if time else x
    causal = nn.Transformer.generate_square_subsequent_mask(9)
    mine, theirs = ours.layers[0].self_attn, plain.layers[0].self_attn
    per_head = causal.repeat(8, 1, 1)
    for options in (
        {"key_padding_mask": padding},
        {"attn_mask": causal, "is_causal": True, "need_weights": False},
        {"attn_mask": per_head, "average_attn_weights": False},
        {"attn_mask": causal.isinf(), "key_padding_mask": padding},
    ):
        output, weights = mine(x, x, x, **options)
        expected, expected_weights = theirs(x, x, x, **options)
        torch.testing.assert_close(output, expected)
        assert (weights is None) == (expected_weights is None)
        if weights is not None:
            torch.testing.assert_close(weights, expected_weights)
    queries = x + 1
    torch.testing.assert_close(mine(queries, x, x * 2), theirs(queries, x, x * 2))
    assert ours.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_transformers_that_is_not_ours(method):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
    )
    bert = BertModel(config, add_pooling_layer=False).eval()
    text = torch.randint(0, 20, (2, 9))
    mask = (torch.arange(9) < torch.tensor([[9], [5]])).long()
    expected = bert(text, attention_mask=mask).last_hidden_state
    model = adapt(bert, BERT, method, **METHODS[method]).eval()
    hidden = model(text, attention_mask=mask).last_hidden_state
    same = torch.allclose(hidden[mask == 1], expected[mask == 1], atol=1e-5)
    assert same == (method not in ADDS_TOKENS)

    def loss():
        output = model(text, attention_mask=mask).last_hidden_state
        return (output[mask == 1] - 1).square().sum()

    parameters = model.trained_parameters()
    reached = few_steps(parameters, loss, 2)
    names = {n for n in parameters if "embeddings" not in n}
    assert names - reached <= (
        {"layer0_ffn_conv_adapter.squeeze.weight"} if 0 else set()
    )
    together = model.eval()(text, attention_mask=mask).last_hidden_state
    alone = model(text[1:, :5]).last_hidden_state
    torch.testing.assert_close(together[1, :5], alone[0], atol=2e-5, rtol=1e-4)


class Fused(nn.Module):
    """A pre-norm layer whose queries, keys and values are one product, as timm's."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attn = nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(32, 96), nn.Linear(32, 32)
        self.attn.forward = self.attend
        self.mlp = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 32))

    def attend(self, x):
        parts = self.attn.qkv(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        output = nn.functional.scaled_dot_product_attention(*parts)
        return self.attn.proj(output.transpose(1, 2).flatten(2))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


FUSED = Family(
    layers="0",
    last_norm="1",
    mhsa="attn",
    mhsa_norm="norm1",
    ffn="mlp",
    ffn_norm="norm2",
    q=Part("attn.qkv", 0),
    k=Part("attn.qkv", 1),
    v=Part("attn.qkv", 2),
    o="attn.proj",
    fc1="mlp.0",
    fc2="mlp.2",
)


def fused():
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(Fused(), Fused()), nn.LayerNorm(32)).eval()


def test_parts_of_a_fused_projection_learn_each_for_itself():
    module, x = fused(), torch.randn(2, 5, 32)
    model = adapt(module, FUSED, "lora", rank=2, targets=["q", "v"])
    assert few_steps(
        model.trained_parameters(), lambda: model(x).square().sum(), 2
    ) == set(model.trained_parameters())
    before = module[0][0].attn.qkv.weight.clone()
    expected = model.eval()(x)
    model.merge()
    torch.testing.assert_close(module(x), expected)
    changed = (module[0][0].attn.qkv.weight != before).any(1)
    assert changed[:32].all() and not changed[32:64].any() and changed[64:].all()
    model.unmerge()
    assert torch.equal(module[0][0].attn.qkv.weight, before)


def test_what_is_added_at_a_half_step_counts_whole():
    block, x = nn.Linear(4, 4), torch.randn(2, 3, 4)
    plain = x + 0.5 * block(x)  # a Conformer's layer adds half of what its block gives
    Site(Hooks(), block, gain=0.5).add(lambda z, out, mask: torch.ones_like(out))
    torch.testing.assert_close(x + 0.5 * block(x), plain + 1)


def test_what_cannot_act_is_refused_in_a_sentence():
    with pytest.raises(UserError, match="takes no learned keys"):
        adapt(fused(), FUSED, "prefix")
    with pytest.raises(UserError, match=r"say where its parts are"):
        adapt(fused(), None, "lora")
    with pytest.raises(UserError, match="does not fit"):
        adapt(fused(), BERT, "lora")
    with pytest.raises(UserError, match="add_bias_kv"):
        encoder = torch_encoder(True)
        encoder.layers[0].self_attn = nn.MultiheadAttention(32, 4, add_bias_kv=True)
        adapt(encoder, None, "lora")


def test_a_model_without_a_last_norm_has_nothing_for_linear():
    layer = nn.TransformerEncoderLayer(32, 4, 48, norm_first=True, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    with pytest.raises(UserError, match="has no last norm, and linear adds nothing"):
        adapt(encoder, None, "linear")
    assert adapt(encoder, None, "bitfit").trained_parameters()


def test_another_method_or_model_is_refused(tmp_path):
    encoder = torch_encoder(True)
    adapt(encoder, None, "lora", rank=2).save(tmp_path)
    with pytest.raises(UserError, match="methods"):
        adapt(torch_encoder(True), None, "lora", rank=3).load(tmp_path)
    other = torch_encoder(True)
    with torch.no_grad():
        other.layers[0].norm1.weight += 1
    with pytest.raises(UserError, match="fingerprint"):
        adapt(other, None, "lora", rank=2).load(tmp_path)


@pytest.mark.parametrize("method", ["lora", "prompt", "conv_adapter"])
def test_a_model_that_nobody_holds_is_gone_at_once(method):
    encoder, model = build("pre", method)
    run(model, "pre", batch()[0]).sum().backward()
    module, adapted = weakref.ref(encoder), weakref.ref(model)
    gc.disable()
    try:
        del model
        assert adapted() is None
        del encoder
        assert module() is None
    finally:
        gc.enable()


def test_the_api_is_typed_lazy_and_whole():
    assert (Path(petl_modules.__file__).parent / "py.typed").exists()
    for name in petl_modules.__all__:
        assert getattr(petl_modules, name).__name__ == name
    with pytest.raises(AttributeError):
        petl_modules.nothing_of_the_kind  # noqa: B018
    code = "import sys, petl_modules; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
