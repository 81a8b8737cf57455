"""Mamba's scan and block are what their definitions say."""

import pytest
import torch
import torch.nn.functional as F

from petl_modules.methods import Mamba
from petl_modules.methods.mamba import MambaBlock
from petl_modules.methods.scan import PIECE, fused, selective_scan


def sequential(u, step, a, b, c):
    """Step by step, as the definition has it."""
    h, outputs = torch.zeros(len(u), *a.shape, dtype=u.dtype), []
    for t in range(u.shape[1]):
        h = (step[:, t, :, None] * a).exp() * h
        h = h + (step[:, t] * u[:, t]).unsqueeze(-1) * b[:, t].unsqueeze(1)
        outputs.append((h * c[:, t].unsqueeze(1)).sum(-1))
    return torch.stack(outputs, 1)


def inputs(time, channels=6, states=4, device="cpu"):
    torch.manual_seed(0)
    u, step = torch.randn(2, time, channels), torch.rand(2, time, channels)
    a = -torch.rand(channels, states) * 3
    b, c = torch.randn(2, time, states), torch.randn(2, time, states)
    return [t.to(device).requires_grad_() for t in (u, step, a, b, c)]


def compared(ours, theirs, wanted, atol=1e-5):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-4)
    weights = torch.randn_like(ours)
    pairs = [
        torch.autograd.grad((y * weights).sum(), wanted, retain_graph=True)
        for y in (ours, theirs)
    ]
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, atol=10 * atol, rtol=1e-3)


@pytest.mark.parametrize("time", [1, PIECE - 1, PIECE, 5 * PIECE + 3])
def test_the_scan_in_pieces_is_the_recurrence(time):
    given = inputs(time)
    compared(selective_scan(*given), sequential(*given), given)


def test_long_steps_overflow_nothing():
    u, step, a, b, c = (t.detach() for t in inputs(4 * PIECE))
    given = u, step * 1e4, a, b, c
    found = selective_scan(*given)
    assert found.isfinite().all()
    torch.testing.assert_close(found, sequential(*given), rtol=1e-4, atol=1e-2)


@pytest.mark.gpu
def test_the_kernel_computes_the_same():
    pytest.importorskip("mamba_ssm")
    given = inputs(40, device="cuda")
    apart = [t.detach().cpu().requires_grad_() for t in given]
    torch.testing.assert_close(
        fused(*given).cpu(), sequential(*apart), atol=1e-4, rtol=1e-3
    )


def test_the_block_is_its_definition():
    torch.manual_seed(0)
    block = MambaBlock(8, d_state=4, d_conv=3, expand=2)
    x = torch.randn(2, 21, 8, requires_grad=True)
    read, gate = block.enter(x).chunk(2, -1)
    read = F.conv1d(read.mT, block.conv.weight, block.conv.bias, padding=2, groups=16)
    read = F.silu(read[..., :21]).mT
    low, b, c = block.select(read).split([1, 4, 4], -1)
    y = sequential(read, F.softplus(block.step(low)), -block.a_log.exp(), b, c)
    expected = block.leave((y + block.skip * read) * F.silu(gate))
    compared(block(x), expected, [x, *block.parameters()])


def test_what_is_padded_changes_no_state():
    torch.manual_seed(0)
    block = MambaBlock(8, d_state=4, d_conv=1, expand=2)
    x, mask = torch.randn(1, 30, 8), torch.ones(1, 30, dtype=torch.bool)
    mask[:, 10:17] = False
    kept = torch.cat([x[:, :10], x[:, 17:]], 1)
    torch.testing.assert_close(block(x, mask)[mask], block(kept)[0])


def test_steps_begin_between_their_bounds():
    block = MambaBlock(64, d_state=4, d_conv=3, expand=2)
    steps = F.softplus(block.step.bias)
    assert 0.99e-3 < steps.min() < steps.max() < 1.01e-1
    assert Mamba(768).gate.item() == pytest.approx(0.1)
