"""A frozen base of eight or four bits a weight."""

import copy
import re
import sys

import pytest
import torch
from test_invariants import CASES, batch, build
from test_precision import loss_of
from tiny import FAMILIES

from petl_modules.core.counts import counts
from petl_modules.core.layers import compile_layers
from petl_modules.core.measure import host_waits, saved_activations
from petl_modules.core.precision import base_precision, hold_base
from petl_modules.core.quantised import KINDS, PackedLinear, pack, unpacked
from petl_modules.errors import UserError
from petl_modules.train.settings import Machine
from petl_modules.train.speedups import speed_up, stored_mib


@pytest.fixture(autouse=True)
def library():
    pytest.importorskip("bitsandbytes")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_packed_and_comes_back_as_it_was(checkpoints, family, kind):
    model, head = build(checkpoints[family], "lora")
    wavs, lens = batch((9600, 5000))
    expected, state = model.eval()(wavs, lens).hidden, copy.deepcopy(model.state_dict())
    print_ = model.backbone.fingerprint()
    hold_base(model, kind)
    assert base_precision(model) == kind
    for layer in model.points.layers:
        places = {place.module for place in layer.projections.values()}
        assert places and all(type(place) is PackedLinear for place in places)
    found = model(wavs, lens).hidden
    other, _ = build(checkpoints[family], "lora")
    hold_base(other, "bf16")
    modules = dict(other.backbone.named_modules())
    for name, module in model.backbone.named_modules():
        if type(module) is PackedLinear:
            modules[name].weight.data = unpacked(module)
    same = other.eval()(wavs, lens).hidden
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    assert (found - same).norm() < 0.02 * same.norm()
    loss_of(model, head).backward()
    gradients = [p.grad for p in model.trained_parameters().values()]
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
    assert model.trained_state().keys() <= state.keys() | model.trained_parameters()
    hold_base(model, "fp32")
    assert model.backbone.fingerprint() == print_
    after = model.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(t, after[name]) for name, t in state.items())
    assert torch.equal(model.eval()(wavs, lens).hidden, expected)


@pytest.mark.parametrize("case", [c for c in CASES if c not in ("full", "peft")])
def test_every_method_trains_on_it(checkpoints, case):
    for family in ("wavlm", "ast"):
        model, head = build(checkpoints[family], case)
        expected = loss_of(model, head).item()
        hold_base(model, "int8")
        with host_waits() as waits:
            loss = loss_of(model, head)
            loss.backward()
        assert waits == []
        assert loss.item() == pytest.approx(expected, abs=0.15)
        trained = [*model.trained_parameters().values(), *head.parameters()]
        assert all(p.grad is None or p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_and_no_weight_is_kept_for_them(kind):
    torch.manual_seed(0)
    module = torch.nn.Linear(128, 256).requires_grad_(False)
    module.bias.requires_grad_(True)  # as bitfit trains it
    x = torch.randn(2, 5, 128, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    pack(module, kind, torch.float32)
    assert module.weight.shape == (256, 128) and module.weight.isnan().all()
    plain = torch.nn.functional.linear(y, unpacked(module), module.bias)
    plain.square().sum().backward()
    bias, module.bias.grad = module.bias.grad, None
    with saved_activations(module) as count:
        output = module(x)
    assert count["bytes"] == 0
    torch.testing.assert_close(output, plain)
    output.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(module.bias.grad, bias)


def test_merging_starts_from_float32(checkpoints):
    weights = []
    for precision in ("fp32", "nf4"):
        model, _ = build(checkpoints["ast"], "lora")
        with torch.no_grad():
            for tensor in model.petl.parameters():
                tensor.fill_(0.01)
        hold_base(model, precision)
        model.merge()
        weights.append(model.backbone.model.state_dict())
    assert all(torch.equal(t, weights[1][name]) for name, t in weights[0].items())


def test_layers_are_compiled_whole(checkpoints):
    torch._dynamo.reset()
    model, _ = build(checkpoints["ast"], "lora")
    hold_base(model, "nf4")
    expected = model.eval()(*batch()).hidden
    compile_layers(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(model(*batch()).hidden, expected)


def test_what_trains_the_backbone_is_refused(checkpoints):
    model, _ = build(checkpoints["wav2vec2"], "full")
    with pytest.raises(UserError, match="trains weights of the backbone"):
        hold_base(model, "int8")
    assert base_precision(model) == "fp32"


def test_the_library_is_asked_for_in_a_sentence(checkpoints, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    model, _ = build(checkpoints["ast"], "lora")
    with pytest.raises(UserError, match="pip install"):
        hold_base(model, "nf4")
    assert model.held is None and not model.points.hooks.held


def test_a_run_says_what_a_packed_base_saves_and_changes(checkpoints, caplog):
    model, _ = build(checkpoints["ast"], "lora")
    caplog.set_level("INFO")
    wide = stored_mib(model)
    told = speed_up(model, Machine(base_precision="nf4"), "cpu")
    assert told["base_precision"] == "nf4"
    (line,) = [m for m in caplog.messages if "frozen base" in m]
    assert 0 < float(re.search(r"differs by (\S+) %", line)[1]) < 50
    assert stored_mib(model) < 0.8 * wide
    plain, head = build(checkpoints["ast"], "lora")
    assert counts(model, head) == counts(plain, head)


def test_what_reads_weights_by_itself_is_refused(checkpoints):
    model, _ = build(checkpoints["wavlm"], "peft")
    with pytest.raises(UserError, match="peft reads the weights of projections"):
        hold_base(model, "int8")
    assert base_precision(model) == "fp32"
