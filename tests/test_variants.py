"""Variants of methods: their definitions, their counts, PEFT's as reference."""

import json

import pytest
import torch
from conftest import ROOT
from tiny import few_steps, tiny_checkpoint

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks.pooling import AttentiveStatistics
from petl_modules.train import describe


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_checkpoint("wav2vec2", tmp_path_factory.mktemp("wav2vec2"))


def adapted(source, name, seed=0, **knobs):
    torch.manual_seed(seed)
    return AdaptedModel(load_backbone(source), make_method(name, **knobs))


def standardised(wav):
    return (wav - wav.mean()) / torch.sqrt(wav.var(correction=0) + 1e-7)


RECIPE = str(ROOT / "recipes" / "ESC50" / "hparams" / "adapter.yaml")
# What issue papers and the definitions give on AST-base, 12 layers of 768
COUNTS = {
    # 2,016 of the rotation, 64 singular values and a gate, 24 times
    ("ssvd",): 49_944,
    # 12 rows of 768, 12 values and 12 columns of 768, 24 times
    ("adalora",): 442_656,
    # 25,360 of the shared projections, 12 blocks of 3,232 with a gate each
    ("mamba",): 64_156,
    ("lora", "--rank=8"): 294_912,
    ("lora", "--rank=8", "--variant=rslora"): 294_912,
    ("lora", "--rank=8", "--variant=dora"): 313_344,
    ("lora", "--rank=8", "--variant=pissa"): 294_912,
    ("lora", "--rank=8", "--variant=lora_fa"): 147_456,
    ("scale",): 165_888,
    ("ia3",): 55_296,
    ("norms",): 36_864,
    ("vera",): 24_576,
}


@pytest.mark.parametrize("said", COUNTS, ids=" ".join)
def test_described_counts_on_ast_base(said, capsys):
    name, *options = said
    options = [f"--method={name}", *options, "--pretrained=False", "--json"]
    describe.main([RECIPE, "--source=ast", *options])
    assert json.loads(capsys.readouterr().out)["petl"] == COUNTS[said]


def test_layer_adapters_have_the_published_size(capsys):
    options = ["--source=ast", "--pretrained=False", "--json", "--layer_adapters=512"]
    describe.main([RECIPE, *options, "--method=linear"])
    head = json.loads(capsys.readouterr().out)["head"]
    assert head == 12 * (768 * 512 + 3 * 512) + 12 + 512 * 50 + 50
    assert 12 * (768 * 512 + 3 * 512) == 4_737_024


def test_attentive_statistics_are_their_definition():
    torch.manual_seed(0)
    pool = AttentiveStatistics(6)
    steps, counts = torch.randn(2, 9, 6), torch.tensor([9, 4])
    found = pool(steps, counts)
    for row, count in enumerate(counts):
        clip = steps[row, :count]
        weights = pool.score(torch.tanh(pool.hear(clip))).softmax(0)
        mean = (weights * clip).sum(0)
        spread = (weights * clip.square()).sum(0) - mean.square()
        expected = torch.cat([mean, spread.sqrt()])
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)


def test_scales_of_lora_and_rank_stabilised_lora(source):
    for variant, scale in (("lora", 12 / 4), ("rslora", 12 / 2)):
        model = adapted(source, "lora", rank=4, alpha=12, variant=variant)
        assert {m.scale for m in model.petl.values()} == {scale}


@pytest.mark.parametrize("start", ["dora", "pissa"])
def test_training_follows_peft_step_by_step(source, start):
    """Equal losses over ten steps: where it starts, and what its gradients are."""
    peft = pytest.importorskip("peft")
    from transformers import Wav2Vec2Model

    given = {"use_dora": True} if start == "dora" else {"init_lora_weights": "pissa"}
    targets = ["q_proj", "v_proj", "intermediate_dense"]
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=targets, **given)
    theirs = peft.get_peft_model(Wav2Vec2Model.from_pretrained(source), config).eval()
    named = ["q", "v", "fc1"]
    ours = adapted(source, "lora", rank=2, alpha=6, variant=start, targets=named)
    layers = theirs.base_model.model.encoder.layers
    if start == "dora":  # whose A is drawn
        for i, layer in enumerate(layers):
            for path, target in zip(
                (
                    "attention.q_proj",
                    "attention.v_proj",
                    "feed_forward.intermediate_dense",
                ),
                named,
                strict=True,
            ):
                a = layer.get_submodule(path).lora_A["default"].weight
                a.data.copy_(ours.petl[f"layer{i}_{target}_lora"].a.weight)
    wav = torch.randn(2, 9600, generator=torch.Generator().manual_seed(3)) * 0.1
    normal = torch.cat([standardised(row).unsqueeze(0) for row in wav])
    goal = torch.randn(2, 32, generator=torch.Generator().manual_seed(4))

    def losses(forward, parameters):
        seen = []

        def loss():
            value = (forward().mean(1) - goal).square().mean()
            seen.append(value.item())
            return value

        few_steps(parameters, loss, 10, 0.01)
        return torch.tensor(seen)

    trained = {n: p for n, p in ours.trained_parameters().items() if "last" not in n}
    own = losses(lambda: ours.eval()(wav).hidden, trained)
    named = {n: p for n, p in theirs.named_parameters() if p.requires_grad}
    expected = losses(lambda: theirs(normal).last_hidden_state, named)
    assert own[-1] < 0.99 * own[0]
    torch.testing.assert_close(own, expected, rtol=2e-3, atol=0)


def test_pissa_begins_as_the_best_approximation_of_its_rank(source):
    model = adapted(source, "lora", rank=3, variant="pissa", targets=["fc1"])
    place = model.points.layers[0].projections["fc1"]
    update = model.petl["layer0_fc1_lora"]
    rest = torch.linalg.svdvals(place.weight - update.scale * update.b0 @ update.a0)
    torch.testing.assert_close(
        rest[:-3], torch.linalg.svdvals(place.weight)[3:], atol=1e-5, rtol=1e-4
    )
    with pytest.raises(UserError, match="singular directions"):
        adapted(source, "lora", rank=33, variant="pissa")


def test_dora_s_norm_is_that_of_the_whole_weight(source):
    model = adapted(source, "lora", rank=3, alpha=5, variant="dora")
    update = model.petl["layer1_v_lora"]
    torch.nn.init.normal_(update.b.weight)
    whole = update.place.weight + update.scale * update.b.weight @ update.a.weight
    torch.testing.assert_close(update.norm(), whole.norm(dim=1))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(update.norm(), whole.norm(dim=1))


def test_ssvd_is_its_definition(source):
    model = adapted(source, "ssvd", rank=5, targets=["fc1"])
    update, place = (
        model.petl["layer0_fc1_ssvd"],
        model.points.layers[0].projections["fc1"],
    )
    for parameter in update.parameters():
        torch.nn.init.normal_(parameter)
    k = torch.zeros(5, 5)
    k[torch.triu(torch.ones(5, 5), 1).bool()] = update.skew
    k, one = k - k.T, torch.eye(5)
    rotation = (one - k) @ torch.linalg.inv(one + k)
    torch.testing.assert_close(rotation @ rotation.T, one, atol=1e-5, rtol=0)
    u, s, v = torch.linalg.svd(place.weight.detach(), full_matrices=False)
    s[:5] += torch.sigmoid(update.gate) * update.stretch
    v[:5] = rotation @ v[:5]
    expected = u @ torch.diag(s) @ v
    torch.testing.assert_close(place.weight + update.delta(), expected)
    with pytest.raises(UserError, match="singular directions"):
        adapted(source, "ssvd")  # 64 of 32


def test_conv_front_is_for_convolutions_that_read_the_waveform(source, tmp_path):
    model = adapted(source, "conv_front", rank=3)
    assert len(model.petl) == 3  # convolutions of 16 channels
    assert all(m.down.weight.shape == (3, 16) for m in model.petl.values())
    with pytest.raises(UserError, match="has no convolutions that read"):
        adapted(tiny_checkpoint("whisper", tmp_path), "conv_front")
