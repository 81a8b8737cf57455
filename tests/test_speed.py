"""The speed script: its textbook forms are what they say, and it runs."""

import gc
from argparse import Namespace

import torch

from petl_modules.core.measure import saved_activations
from petl_modules.grid import steps
from petl_modules.grid.speed import LoopedSoftMoA, PrefixAttention, StackedMoA, main
from petl_modules.grid.whole import whole_model
from petl_modules.methods import DenseMoA, SoftMoA


def test_textbook_forms_compute_what_the_fast_forms_compute():
    torch.manual_seed(0)
    x = torch.randn(2, 9, 32)
    fast, stacked = DenseMoA(32, 3, rank=2), StackedMoA(32, 3, 2)
    with torch.no_grad():
        for n, expert in enumerate(stacked.experts):
            own = slice(2 * n, 2 * n + 2)
            fast.down.weight[own], fast.down.bias[own] = (
                expert[0].weight,
                expert[0].bias,
            )
            fast.up[own], fast.up_bias[n] = expert[2].weight.T, expert[2].bias
        fast.down.weight[6:], fast.down.bias[6:] = (
            stacked.router.weight,
            stacked.router.bias,
        )
    torch.testing.assert_close(fast(x), stacked(x))
    looped = LoopedSoftMoA(32, 3, rank=2)
    torch.nn.init.normal_(looped.up)
    soft = SoftMoA(32, 3, rank=2)
    soft.load_state_dict(looped.state_dict())
    torch.testing.assert_close(soft(x), looped(x))
    fused, eager = PrefixAttention(48, True), PrefixAttention(48, False)
    eager.load_state_dict(fused.state_dict())
    x = torch.randn(2, 9, 48)
    torch.testing.assert_close(fused(x), eager(x), atol=1e-5, rtol=1e-4)


def test_dense_moa_keeps_a_quarter_of_the_activations():
    kept = []
    for module in (DenseMoA(768, 7, rank=6), StackedMoA(768, 7, 6)):
        x = torch.randn(1, 64, 768, requires_grad=True)
        with saved_activations(module) as count:
            module(x)
        kept.append(count["bytes"])
    assert kept[1] > 4 * kept[0]


def test_a_step_has_what_a_method_does_beside_it(checkpoints):
    source = str(checkpoints["wav2vec2"])
    options = Namespace(
        device="cpu", source=source, random=False, seconds=0.3, classes=3
    )
    step, labels = steps.Step(steps.Row("adalora"), options, 2), torch.tensor([0, 1])
    step()
    model, _, other = whole_model("adalora", options)
    other(torch.randn(2, 4800), labels)
    for adapted in (step.model, model):
        known = [m.get_buffer("sensitivity_e") for m in adapted.petl.values()]
        assert all(average.abs().sum() > 0 for average in known)


def test_counting_activations_keeps_none_of_them():
    module = DenseMoA(48, 7, rank=6)
    gc.collect()
    before = live_bytes()
    with saved_activations(module) as count:
        module(torch.randn(2, 64, 48, requires_grad=True))
    gc.collect()
    assert count["bytes"] > 0 and live_bytes() <= before


def live_bytes():
    tensors = [t for t in gc.get_objects() if type(t) is torch.Tensor]
    return sum({t.data_ptr(): t.nbytes for t in tensors if t.numel()}.values())


def test_a_row_that_finds_no_memory_leaves_the_others(monkeypatch, capsys):
    def measured(row, options, batch_size):
        if row.method == "full":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")
        return steps.Measured(0.5, 0.1, 1.0, 2.0, 3, 0, 0)

    monkeypatch.setattr(steps, "measured", measured)
    options = Namespace(device="cpu", source="ast", seconds=1.0)
    rows = [steps.Row("full"), steps.Row("lora")]
    table = steps.step_table(options, 4, rows)
    assert list(table.columns[0].cells) == ["full, fp32", "lora, fp32"]
    assert list(table.columns[1].cells) == ["OutOfMemoryError", "500.0"]
    assert "CUDA out of memory" in capsys.readouterr().out


def test_it_prints_every_method(capsys):
    main(
        ["--repeats=1", "--batch_size=2", "--seconds=0.3", "--tokens=8", "--device=cpu"]
    )
    printed = capsys.readouterr().out
    for word in (
        "dense_moa",
        "soft_moa",
        "prefix",
        "uncached",
        "mixed",
        "conformer",
        "lora, dora takes",
        "mamba takes",
        "full",
    ):
        assert word in printed
