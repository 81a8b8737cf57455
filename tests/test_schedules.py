"""Learning rates at every step, and training that is counted and judged in steps."""

import json
import math

import pytest
import torch
from conftest import run_here
from tiny import epochs_logged
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_inverse_sqrt_schedule,
    get_linear_schedule_with_warmup,
)

from petl_modules.errors import UserError
from petl_modules.train.config import load_config
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
        ("cosine", lambda of, rise: get_cosine_schedule_with_warmup(of, rise, STEPS)),
        ("linear", lambda of, rise: get_linear_schedule_with_warmup(of, rise, STEPS)),
        ("inverse_sqrt", get_inverse_sqrt_schedule),
        ("constant", get_constant_schedule_with_warmup),
    ],
)
@pytest.mark.parametrize(
    ("knobs", "rise"), [({}, 0), ({"warmup": 0.1}, 20), ({"warmup_steps": 33}, 33)]
)
def test_curves_are_those_of_transformers(name, reference, knobs, rise):
    ours = curve(make_schedule(sgd(), STEPS, name, **knobs))
    assert ours == curve(reference(sgd(), rise))


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


def run(class_folders, source, output, *knobs):
    """The results and the lines of the log of a small run."""
    run_here(
        "AudioFolder",
        f"--data_folder={class_folders}",
        f"--source={source}",
        f"--output_folder={output}",
        "--method=bitfit",
        "--head_start_epochs=0",
        "--batch_size=4",  # of 18 clips: five steps an epoch
        *knobs,
    )
    (path,) = output.glob("**/results.json")
    log = epochs_logged(path.parent)
    return json.loads(path.read_text()), log, path.parent


def test_training_is_counted_and_judged_in_steps(class_folders, checkpoints, tmp_path):
    source = checkpoints["ast"]
    knobs = ("--number_of_steps=7", "--evaluate_every=2", "--scheduler=linear")
    result, log, _ = run(class_folders, source, tmp_path, *knobs)
    assert (result["epochs"], result["steps"], len(log)) == (4, 7, 4)
    rates = [float(line.split("lr: ")[1].split(" ")[0]) for line in log]
    assert rates == pytest.approx([0.005 * left / 7 for left in (5, 3, 1, 0)], rel=0.02)
    assert all("train accuracy: " in line for line in log)


def test_an_epoch_is_a_period_of_its_steps(class_folders, checkpoints, tmp_path):
    found = [
        run(class_folders, checkpoints["ast"], tmp_path / name, *knobs)[0]["metrics"]
        for name, knobs in (
            ("epochs", ("--number_of_epochs=2",)),
            ("steps", ("--number_of_steps=10", "--evaluate_every=5")),
        )
    ]
    assert found[0] == found[1]


def test_patience_counts_validations(class_folders, checkpoints, tmp_path):
    knobs = ("--number_of_steps=40", "--evaluate_every=1", "--patience=2", "--lr=1e-30")
    result, log, _ = run(class_folders, checkpoints["ast"], tmp_path, *knobs)
    assert result["steps"] == result["epochs"] == len(log) == 3


def test_the_last_epoch_comes_out_if_it_is_to(class_folders, checkpoints, tmp_path):
    source, knobs = (
        checkpoints["ast"],
        (
            "--number_of_epochs=4",
            "--lr=2.0",
            "--scheduler=constant",
            "--max_grad_norm=0",
        ),
    )
    best, log, _ = run(class_folders, source, tmp_path / "best", *knobs)
    losses = [float(line.split("valid loss: ")[1].split(",")[0]) for line in log]
    assert best["best_epoch"] < 4 and losses[-1] != min(losses)
    last, _, folder = run(
        class_folders, source, tmp_path / "last", *knobs, "--choose=last"
    )
    assert last["best_epoch"] == 4
    assert last["metrics"]["valid"]["loss"] == pytest.approx(losses[-1], rel=0.01)
    text = (folder / "hyperparams.yaml").read_text()
    assert "choose: last" in text and "scheduler: constant" in text


def test_a_config_of_earlier_versions_names_its_schedule(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(
        "source: embedded\n"
        "scheduler: !name:transformers.get_linear_schedule_with_warmup\n"
    )
    assert load_config(path)["scheduler"] == "linear"
