"""Metrics by hand, which epoch is the better one, and what is left for a person."""

import csv
import math
from types import SimpleNamespace

import pytest
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from petl_modules.errors import UserError
from petl_modules.tasks import Classification
from petl_modules.tasks.metrics import main_metric

LABELS = ["ant", "bee", "café, noisy"]


@pytest.fixture
def task():
    """Targets a a a b c, of which one a is taken for b and the c for a."""
    task = Classification(LABELS)
    task.start()
    for ids, targets, guesses in (
        (["1", "2", "3"], [0, 0, 0], [0, 0, 1]),
        (["4", "5"], [1, 2], [1, 0]),
    ):
        batch = SimpleNamespace(id=ids, label_index=torch.tensor(targets))
        task.collect(2.0 * torch.eye(3)[guesses], batch)
    return task


def test_metrics_by_hand(task):
    # F1: ant 4/6, bee 2/3, café 0; recalls 2/3, 1, 0
    assert task.metrics() == pytest.approx(
        {
            "accuracy": 3 / 5,
            "macro_f1": (2 / 3 + 2 / 3) / 3,
            "weighted_f1": (3 * 2 / 3 + 2 / 3) / 5,
            "unweighted_recall": (2 / 3 + 1) / 3,
        }
    )


def test_start_forgets(task):
    task.start()
    batch = SimpleNamespace(id=["6", "7"], label_index=torch.tensor([2, 0]))
    task.collect(torch.eye(3)[[2, 0]], batch)
    assert task.metrics()["accuracy"] == 1


def test_loss_is_smoothed_cross_entropy():
    logits = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float16)
    batch = SimpleNamespace(label_index=torch.tensor([0]))
    logs = [x - math.log(math.exp(2) + 2) for x in (2, 0, 0)]
    assert Classification(LABELS).loss(logits, batch).item() == pytest.approx(-logs[0])
    smooth = Classification(LABELS, 0.3).loss(logits, batch)
    assert smooth.item() == pytest.approx(-(0.7 * logs[0] + 0.1 * sum(logs)))


def test_the_better_epoch_is_more_accurate_then_surer():
    def error(accuracy, loss):
        return Classification(LABELS).error({"accuracy": accuracy}, loss)

    assert error(0.8, 0.5) < error(0.8, 0.6)
    assert error(0.81, 100.0) < error(0.8, 0.01)
    assert error(0.81, math.inf) < error(0.8, 0.01)


def test_files_for_a_person(task, tmp_path):
    task.write(tmp_path)
    task.draw(tmp_path, lambda *_: None)
    with open(tmp_path / "predictions.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == list("12345")
    assert [row["prediction"] for row in rows] == ["ant", "ant", "bee", "bee", "ant"]
    assert rows[4]["label"] == "café, noisy"
    sure = math.exp(2) / (math.exp(2) + 2)
    assert all(float(row["probability"]) == round(sure, 4) for row in rows)
    assert (tmp_path / "confusion_matrix.png").read_bytes()[:4] == b"\x89PNG"


def test_a_class_without_clips_is_drawn(tmp_path):
    task = Classification(LABELS)
    task.start()
    batch = SimpleNamespace(id=["1"], label_index=torch.tensor([1]))
    task.collect(torch.tensor([[0.0, 1.0, 0.0]]), batch)
    task.write(tmp_path)
    task.draw(tmp_path, lambda *_: None)
    assert (tmp_path / "confusion_matrix.png").stat().st_size > 1000


# Targets


@pytest.fixture
def dataset():
    rows = {
        key: {"label": label} for key, label in zip("xy", LABELS[1::-1], strict=True)
    }
    return DynamicItemDataset(rows)


def test_targets_are_the_places_of_the_labels(task, dataset):
    task.add_targets(dataset)
    dataset.set_output_keys(["id", task.target])
    assert {row["id"]: row["label_index"] for row in dataset} == {"x": 1, "y": 0}


def test_a_label_that_is_no_class_is_refused(dataset):
    with pytest.raises(UserError, match=r"label bee of the clip x .*classes: ant"):
        Classification(["ant"]).add_targets(dataset)


def test_the_metric_that_chooses_the_epoch_is_a_knob():
    metrics = {"accuracy": 0.5, "weighted_f1": 0.75}
    assert Classification(LABELS, metric="weighted_f1").error(metrics, 0.0) == 0.25
    with pytest.raises(UserError, match="metric=wer is unknown"):
        Classification(LABELS, metric="wer")


def test_what_a_run_is_judged_by():
    known = {"loss": 0.0, "word_error_rate": 0.1, "character_error_rate": 0.2}
    assert main_metric({"metric": "character_error_rate"}, known) == [*known][2]
    assert main_metric({}, known) == "word_error_rate"  # Whisper's recipe has no choice
