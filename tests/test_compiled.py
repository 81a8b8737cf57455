"""Layers are compiled whole, with what is hooked into them."""

import pytest
import torch
from test_invariants import UNASKED, batch, build

from petl_modules.core.layers import compile_layers

LENGTHS = ((9600, 7000, 4000), (8000, 8000, 3000), (9000, 5000, 5000))


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.parametrize("family, case", UNASKED)
def test_no_graph_breaks(checkpoints, family, case):
    """Padded in training, and not in use."""
    model, head = build(checkpoints[family], case)
    wavs, lens = batch(LENGTHS[0])
    expected = model.eval()(wavs).hidden, logits(model.train(), head, wavs, lens)
    compile_layers(model, backend="eager", fullgraph=True)
    used = model.eval()(wavs).hidden
    assert graphs() > 0
    torch.testing.assert_close(used, expected[0])
    found = logits(model.train(), head, wavs, lens)
    torch.testing.assert_close(found, expected[1])
    found.sum().backward()


def logits(model, head, wavs, lens):
    """With the same draws each time."""
    torch.manual_seed(0)
    return head(model(wavs, lens))


@pytest.mark.parametrize("case", ["lora", "bottleneck", "conformer", "prompt"])
def test_lengths_and_layers_share_graphs(checkpoints, case):
    model, _ = build(checkpoints["ast"], case)
    compile_layers(model, backend="eager", fullgraph=True)
    for lengths in LENGTHS:
        model(*batch(lengths))
    few = graphs()
    assert few <= 6
    for lengths in ((9300, 8100, 800), (6100, 4400, 3300), (8800, 800, 8800)):
        model(*batch(lengths))
    assert graphs() == few
