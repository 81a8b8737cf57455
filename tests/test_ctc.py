"""CTC: steps of time, lengths, error rates, and clips that cannot spell their text."""

from types import SimpleNamespace

import pytest
import torch
from speechbrain.dataio.batch import PaddedData
from speechbrain.dataio.dataset import DynamicItemDataset
from tiny import IN_TIME

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks import CTC
from petl_modules.tasks.heads import CTCHead

LABELS = ["<blank>", "A", "B", "C"]
LENGTHS = (12000, 7000, 3300)


@pytest.fixture
def task():
    task = CTC(LABELS, "phone_error_rate")
    task.start()
    return task


def batch_of(*targets):
    """A batch with these targets, padded."""
    rows = [torch.tensor(target) for target in targets]
    units = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) / units.shape[1] for row in rows])
    ids = [str(i) for i in range(len(rows))]
    return SimpleNamespace(id=ids, symbols=PaddedData(units, lengths))


def saying(*paths):
    """Logits that are certain of these symbols, step by step, and the steps."""
    rows = [10.0 * torch.eye(len(LABELS))[list(path)] for path in paths]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    padded[..., 3] += 1e-3  # padding would be taken for a C
    return padded, torch.tensor([len(row) for row in rows])


def test_error_rate_by_hand(task):
    # A B C is heard as A B B (one substitution), B as B B (one insertion)
    predictions = saying([1, 1, 0, 2, 0, 2, 2], [0, 2, 0, 2])
    task.collect(predictions, batch_of([1, 2, 3], [2]))
    assert task.metrics() == {"phone_error_rate": pytest.approx(2 / 4)}
    # nothing is heard where C A is said: two deletions
    task.collect(saying([0, 0]), batch_of([3, 1]))
    assert task.metrics() == {"phone_error_rate": pytest.approx(4 / 6)}


def test_alignments_are_left_for_a_person(task, tmp_path):
    task.collect(saying([1, 2]), batch_of([1, 3]))
    task.write(tmp_path)
    text = (tmp_path / "alignments.txt").read_text()
    assert "A ; C" in text and "A ; B" in text


def test_loss_counts_no_padding(task):
    torch.manual_seed(0)
    logits, counts = torch.randn(2, 9, 4), torch.tensor([9, 5])
    loss = task.loss((logits, counts), batch_of([1, 2, 2], [3]))
    alone = [
        task.loss((logits[i : i + 1, :n], counts[i : i + 1]), batch_of(target))
        for i, (n, target) in enumerate(((9, [1, 2, 2]), (5, [3])))
    ]
    assert loss == pytest.approx(float(sum(alone)) / 2, rel=1e-5)
    noise = logits.clone()
    noise[1, 5:] = 100.0
    assert task.loss((noise, counts), batch_of([1, 2, 2], [3])) == loss


def test_a_text_needs_a_step_a_symbol_and_a_blank_between_equal_ones(task):
    def fits(units, steps):
        return task.fits({"units": units}, steps)

    assert fits("A B", 2) and not fits("A B", 1)
    assert fits("A A B", 4) and not fits("A A B", 3)
    assert not fits("", 5)


def test_targets_are_the_places_of_the_symbols(task):
    dataset = DynamicItemDataset({"x": {"units": "B A A"}})
    task.add_targets(dataset)
    dataset.set_output_keys([task.target])
    assert dataset[0]["symbols"].tolist() == [2, 1, 1]
    with pytest.raises(UserError, match="symbol D of y is not known"):
        task.add_targets(DynamicItemDataset({"y": {"units": "D"}}))
    with pytest.raises(UserError, match="first symbol must be <blank>"):
        CTC(LABELS[1:], "phone_error_rate")


@pytest.mark.parametrize("family", IN_TIME)
@pytest.mark.parametrize("weighted_sum", [False, True])
def test_logits_do_not_depend_on_the_batch(checkpoints, family, weighted_sum):
    torch.manual_seed(0)
    model = AdaptedModel(load_backbone(checkpoints[family]), make_method("prompt"))
    head = CTCHead(model.points.hidden_size, 4, weighted_sum, len(model.points.layers))
    model.eval()
    wavs = [torch.randn(n) * 0.1 for n in LENGTHS]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    lengths = torch.tensor([n / LENGTHS[0] for n in LENGTHS])
    with torch.no_grad():
        together, counts = head(model(padded, lengths, all_layers=weighted_sum))
        for row, count, wav in zip(together, counts, wavs, strict=True):
            alone, own = head(model(wav[None], all_layers=weighted_sum))
            assert int(own) == int(count) == alone.shape[1]
            torch.testing.assert_close(alone[0], row[:count], atol=2e-4, rtol=2e-4)
    steps = model.backbone.steps(torch.tensor(LENGTHS))
    assert steps.tolist() == counts.tolist()


def test_bands_are_averaged_at_each_step():
    # two bands of two clips with three and two steps; the value is 10 band + step
    rows = torch.tensor([[7.0, 0, 1, 2, 10, 11, 12], [7.0, 0, 1, 10, 11, -1, -1]])
    mask = rows >= 0
    tokens = Tokens(rows.unsqueeze(-1), mask, special=1, bands=2)
    hidden, counts = tokens.in_time()
    assert counts.tolist() == [3, 2]
    assert hidden[0, :, 0].tolist() == [5.0, 6.0, 7.0]
    assert hidden[1, :2, 0].tolist() == [5.0, 6.0]
