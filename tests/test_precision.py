"""A frozen base in bfloat16, and layers that the backward pass computes again."""

import copy

import pytest
import torch
from test_invariants import PAIRS, batch, build
from tiny import FAMILIES
from transformers import ASTConfig, ASTModel

from petl_modules.backbones import load_backbone
from petl_modules.backbones.ast import ASTBackbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.measure import saved_activations
from petl_modules.core.precision import base_precision, hold_base
from petl_modules.methods import make_method
from petl_modules.tasks.heads import ClassificationHead


def loss_of(model, head, autocast=False, lengths=(9600, 7000, 4000)):
    wavs, lens = batch(lengths)
    model.train(), head.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = head(model(wavs, lens))
    return torch.nn.functional.cross_entropy(logits.float(), torch.arange(3))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("family, case", PAIRS)
def test_what_trains_stays_in_float32(checkpoints, family, case, autocast):
    model, head = build(checkpoints[family], case)
    expected = loss_of(model, head)
    print_ = model.backbone.fingerprint()
    hold_base(model, "bf16")
    trained = model.trained_parameters()
    frozen = [p for p in model.backbone.model.parameters() if not p.requires_grad]
    held = case != "full"
    assert all(p.dtype == (torch.bfloat16 if held else torch.float32) for p in frozen)
    loss = loss_of(model, head, autocast)
    loss.backward()
    assert all(p.dtype == torch.float32 for p in trained.values())
    gradients = [p.grad for p in (*trained.values(), *head.parameters())]
    assert all(g is None or g.dtype == torch.float32 for g in gradients)
    assert any(g is not None for g in gradients)
    assert loss.item() == pytest.approx(expected.item(), abs=0.1)
    assert model.backbone.fingerprint() == print_
    before = model.trained_state()
    floats = [t for t in before.values() if t.is_floating_point()]  # BatchNorms count
    assert all(t.dtype == torch.float32 for t in floats)


@pytest.mark.parametrize("family, case", PAIRS)
def test_held_and_released_is_what_it_was(checkpoints, family, case):
    model, _ = build(checkpoints[family], case)
    wavs, lens = batch((9600, 5000))
    model.eval()
    expected, state = model(wavs, lens).hidden, copy.deepcopy(model.state_dict())
    hold_base(model, "bf16")
    assert base_precision(model) == ("fp32" if case == "full" else "bf16")
    assert model(wavs, lens).hidden.dtype == torch.float32
    hold_base(model, "fp32")
    after = model.state_dict()
    assert all(torch.equal(t, after[name]) for name, t in state.items())
    assert torch.equal(model(wavs, lens).hidden, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_merging_starts_from_float32(checkpoints, family):
    weights = []
    for precision in ("fp32", "bf16"):
        model, _ = build(checkpoints[family], "lora")
        with torch.no_grad():
            for tensor in model.petl.parameters():
                tensor.fill_(0.01)
        hold_base(model, precision)
        model.merge()
        weights.append(model.backbone.model.state_dict())
    assert all(torch.equal(t, weights[1][name]) for name, t in weights[0].items())


@pytest.mark.parametrize("method", ["lora", "bottleneck"])
def test_a_held_base_keeps_less_for_the_backward_pass(method):
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=384,
        num_mel_bins=48,
        max_length=128,
    )
    kept = {}
    for precision in ("fp32", "bf16"):
        said = {"sampling_rate": 16000, "mean": -4.2, "std": 4.5, "do_normalize": True}
        model = AdaptedModel(
            ASTBackbone(ASTModel(config).eval(), "tiny", said), make_method(method)
        )
        hold_base(model, precision)
        head = ClassificationHead(96, 3)
        with saved_activations(model) as count:
            loss_of(model, head, autocast=True, lengths=(16000, 16000, 16000))
        kept[precision] = count["bytes"]
    assert kept["bf16"] <= 0.62 * kept["fp32"]


@pytest.mark.parametrize("family, case", PAIRS)
def test_layers_computed_again_give_the_same(checkpoints, family, case):
    results = []
    for again in (False, True):
        model, head = build(checkpoints[family], case)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.backbone.checkpointing = again
        with saved_activations(model) as count:
            loss = loss_of(model, head)
        loss.backward()
        results.append((loss, model, count["bytes"]))
    (loss, model, bytes_), (again, other, fewer) = results
    assert torch.equal(loss, again)
    parameters = other.trained_parameters()
    for name, parameter in model.trained_parameters().items():
        torch.testing.assert_close(parameter.grad, parameters[name].grad)
    buffers = dict(other.petl.named_buffers())
    for name, buffer in model.petl.named_buffers():
        assert torch.equal(buffer, buffers[name])
    if case in ("bottleneck", "lora"):
        assert fewer < 0.7 * bytes_


def test_a_base_that_runs_in_float32_alone_is_refused(tmp_path):
    from tiny import tiny_speech_base

    from petl_modules.errors import UserError

    backbone = load_backbone(tiny_speech_base(tmp_path))
    model = AdaptedModel(backbone, make_method("lora"))
    with pytest.raises(UserError, match="float32 alone"):
        hold_base(model, "bf16")


@pytest.mark.parametrize("family", ["ast", "wav2vec2", "wavlm"])
def test_wide_even_convolutions_of_a_base_are_exact_in_bfloat16_on_cpus(
    checkpoints, family
):
    # CPUs with AMX compute them wrongly; here, what is rounded tells the ways apart
    model = load_backbone(str(checkpoints[family])).model
    kinds = torch.nn.Conv1d | torch.nn.Conv2d
    convolutions = [
        m for m in model.modules() if isinstance(m, kinds) and m.kernel_size[0] >= 8
    ]
    assert len(convolutions) == {"ast": 1}.get(family, 3)
    for convolution in convolutions:
        sizes = (128, 48) if isinstance(convolution, torch.nn.Conv2d) else (300,)
        x = torch.randn(2, convolution.in_channels, *sizes)
        with torch.no_grad():
            exact = convolution(x).bfloat16()
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(convolution(x), exact)
