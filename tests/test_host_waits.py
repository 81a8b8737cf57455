"""No training step makes the CPU wait for the device."""

import math
import warnings

import pytest
import torch
from test_invariants import UNASKED, batch, build
from tiny import IN_TIME
from torch.nn.utils import clip_grad_norm_

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.measure import host_waits
from petl_modules.data.augmentation import mixed, rolled
from petl_modules.methods import make_method
from petl_modules.tasks.heads import ClassificationHead, CTCHead
from petl_modules.train.losses import Losses


def step(model, head, lens, loss):
    """What a whole step waits for, the optimizer's part included."""
    wavs, _ = batch()
    trained = [*model.trained_parameters().values(), *head.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    model.train(), head.train()
    with host_waits() as waits:
        loss(head(model(wavs, lens, all_layers=head.weighted_sum))).backward()
        clip_grad_norm_(trained, 5.0)
        optimizer.step()
    return waits


def cross_entropy(logits):
    return torch.nn.functional.cross_entropy(logits, torch.arange(3))


@pytest.mark.parametrize("family, case", UNASKED)
def test_a_step_waits_for_nothing(checkpoints, family, case):
    model, head = build(checkpoints[family], case)
    for lens in (None, torch.tensor([1.0, 0.7, 0.4]), torch.ones(3)):
        assert step(model, head, lens, cross_entropy) == []


@pytest.mark.parametrize("family", IN_TIME)
def test_nor_does_one_of_steps_with_augmentation(checkpoints, family):
    backbone = load_backbone(
        checkpoints[family], spec_freq=4, spec_time=10, speeds=[0.9, 1.1]
    )
    model = AdaptedModel(backbone, make_method("lora"))
    head = CTCHead(32, 5, weighted_sum=True, num_layers=2, normalize_layers=True)
    lens = torch.tensor([1.0, 0.7, 0.4])

    def loss(predictions):
        logits, counts = predictions
        assert counts.tolist() == backbone.steps(counts_of(backbone)).tolist()
        return torch.nn.functional.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            torch.ones(3, 2, dtype=torch.long),
            counts,
            torch.tensor([2, 2, 1]),
            zero_infinity=True,
        )

    def counts_of(backbone):
        return torch.tensor([9600, 6720, 3840])

    backbone.speed = None
    assert step(model, head, lens, loss) == []
    backbone.perturb_speed([0.9, 1.1])
    found = step(model, ClassificationHead(32, 3), lens, cross_entropy)
    # torchaudio's resampler counts in a tensor that is on the CPU whatever the device
    assert found == ["aten._local_scalar_dense.default"]


def test_nor_does_augmentation_of_waveforms():
    wavs, counts = torch.randn(4, 100), torch.tensor([100, 80, 60, 3])
    with host_waits() as waits:
        mixed(rolled(wavs, counts), counts, 0.4)
    assert waits == []


def test_what_waits_is_counted():
    x = torch.randn(5)
    with host_waits() as waits:
        x[x > 0], float(x.sum()), x.nonzero(), x.masked_select(x > 0)
    assert len(waits) == 4


def test_what_torch_says_of_its_watching_is_no_wait(monkeypatch):
    watching = "Synchronization debug mode does not detect all synchronizing operations"
    waiting = "called a synchronizing CUDA operation"

    def watch(mode):
        warnings.warn(watching, stacklevel=2)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", watch)
    with host_waits("cuda") as waits:
        warnings.warn(waiting, stacklevel=2)
    assert waits == [waiting]


def test_losses_are_refused_one_step_late_and_before_the_end():
    refused = []
    losses = Losses(0.0, lambda step, ids: refused.append((step, ids)))
    losses.add(torch.tensor(4.0), 1, ["a"])
    assert losses.mean == 0.0
    losses.add(torch.tensor(math.nan), 2, ["b"])
    assert losses.mean == 4.0 and not refused
    losses.look()
    assert refused == [(2, ["b"])]


def test_an_epoch_s_mean_is_that_of_all_its_losses():
    losses = Losses(0.0, pytest.fail)
    for place, value in enumerate((1.0, 2.0, 6.0)):
        losses.add(torch.tensor(value), place + 1, [])
    losses.look()
    assert losses.mean == pytest.approx(3.0)


def test_hidden_states_are_kept_for_who_asks(checkpoints):
    backbone = load_backbone(checkpoints["ast"])
    wavs, lens = batch()
    with pytest.raises(TypeError):
        iter(backbone(wavs, lens).layers)
    assert len(backbone(wavs, lens, all_layers=True).layers) == 3
