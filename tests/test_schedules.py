"""Learning rates at every step, and training that is counted and judged in steps."""

import math

import pytest
import torch
from transformers import (
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from petl_modules.errors import UserError
from petl_modules.train.periods import Periods, Plan
from petl_modules.train.schedules import make_schedule

STEPS = 200


def curve(schedule):
    """The learning rate before every step, and after the last."""
    rates = []
    for _ in range(STEPS + 1):
        rates.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return rates


def sgd():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("cosine", get_cosine_schedule_with_warmup),
        ("linear", get_linear_schedule_with_warmup),
    ],
)
@pytest.mark.parametrize(
    ("knobs", "rise"), [({}, 0), ({"warmup": 0.1}, 20), ({"warmup_steps": 33}, 33)]
)
def test_curves_are_those_of_transformers(name, reference, knobs, rise):
    ours = curve(make_schedule(sgd(), STEPS, name, **knobs))
    assert ours == curve(reference(sgd(), rise, STEPS))


def test_cosine_without_warmup_is_that_of_pytorch():
    ours = curve(make_schedule(sgd(), STEPS))
    theirs = curve(torch.optim.lr_scheduler.CosineAnnealingLR(sgd(), STEPS))
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(
    ("knobs", "rise", "hold"),
    [
        ({"warmup_steps": 30}, 30, 0.4),  # recognition: so many steps, held to 40 %
        ({"warmup": 0.1, "hold": 0.5}, 20, 0.5),  # slot filling
    ],
)
def test_hold_is_the_schedule_of_sure(knobs, rise, hold):
    fall = math.ceil(STEPS * hold)
    expected = [
        0.3 * min(step / rise, 1.0, (STEPS - step) / (STEPS - fall))
        for step in range(STEPS + 1)
    ]
    ours = curve(make_schedule(sgd(), STEPS, "hold", **knobs))
    assert ours == pytest.approx(expected, abs=1e-12)
    assert ours[rise] == ours[fall] == 0.3 and ours[-1] == 0


def test_a_schedule_that_falls_before_it_has_risen_is_refused():
    with pytest.raises(UserError, match="before it has risen for 150 steps"):
        make_schedule(sgd(), STEPS, "hold", warmup_steps=150)


class Batches:
    """Four batches, named by epoch and place."""

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 4

    def __iter__(self):
        return iter([[(self.epoch, place)] for place in range(4)])


def test_periods_part_the_stream_of_epochs():
    plan = Plan.of(epoch=2, number_of_epochs=99, number_of_steps=7, evaluate_every=3)
    assert plan == Plan(steps=7, period=3) and plan.periods == 3
    periods, seen = Periods(Batches(), plan, factor=2), []
    for period in (1, 2, 3):
        periods.set_epoch(period)
        own = list(periods)
        assert len(own) == len(periods) == {1: 6, 2: 6, 3: 2}[period]
        seen += own
    stream = [[(epoch, place)] for epoch in (1, 2, 3, 4) for place in range(4)]
    assert seen == stream[:14]
    periods.set_epoch(2)  # as when a run goes on
    assert list(periods) == stream[6:12]


def test_without_steps_a_period_is_an_epoch():
    plan = Plan.of(epoch=5, number_of_epochs=3)
    assert (plan.steps, plan.period, plan.periods) == (15, 5, 3)
