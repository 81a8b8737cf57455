"""Several labels a clip: learnt, judged, and told with thresholds of their own."""

import csv
import json

import layouts
import numpy as np
import pytest
import torch
from conftest import run_here
from sklearn.metrics import label_ranking_average_precision_score
from speechbrain.dataio.batch import PaddedData

from petl_modules.data.augmentation import mixed
from petl_modules.data.batch import Batch
from petl_modules.tasks import Tagging
from petl_modules.tasks.tagging import best_threshold, lwlrap
from petl_modules.use.evaluate import evaluate
from petl_modules.use.inference import load_adapter
from petl_modules.use.predict import main as predict
from petl_modules.use.windows import answer_windows

OWN = "OwnData"


def batch_of(tags, ids=None):
    batch = Batch.__new__(Batch)
    batch.id = ids or [str(i) for i in range(len(tags))]
    batch.tags = PaddedData(torch.tensor(tags), torch.ones(len(tags)))
    return batch


def collected(tags, chances, labels="abc"):
    task = Tagging(list(labels))
    task.start()
    logits = torch.tensor(chances).logit()
    task.collect(logits, batch_of(tags))
    return task


# Metrics


def test_metrics_are_those_of_their_definitions():
    tags = [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    chances = [[0.9, 0.2, 0.1], [0.3, 0.8, 0.9], [0.6, 0.1, 0.2], [0.1, 0.7, 0.3]]
    found = collected(tags, chances).metrics()
    # a: ranked 1st and 3rd of all; b: first two; c is nobody's
    precision = ((1 + 2 / 3) / 2 + 1) / 2
    assert found["mean_average_precision"] == pytest.approx(precision)
    # of clips: 1; b at place 2 of 1 right and a at place 3 of 2 right; 1
    assert found["lwlrap"] == pytest.approx((1 + 1 / 2 + 2 / 3 + 1) / 4)
    assert found["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 2 + 1))


def test_lwlrap_weighs_clips_by_their_labels():
    rng = np.random.default_rng(0)
    tags = (rng.random((50, 9)) < 0.3).astype(float)
    chances = rng.random((50, 9))
    weights = tags.sum(1)
    kept = weights > 0
    expected = label_ranking_average_precision_score(
        tags[kept], chances[kept], sample_weight=weights[kept]
    )
    assert lwlrap(tags, chances) == pytest.approx(expected)
    assert lwlrap(np.zeros((3, 2)), chances[:3, :2]) == 0


def test_thresholds_are_chosen_on_the_validation_set():
    rng = np.random.default_rng(1)
    tags = rng.random(200) < 0.2
    chances = np.clip(0.2 * rng.standard_normal(200) + 0.2 + 0.3 * tags, 0.01, 0.99)

    def f1(cut):
        told = chances >= cut
        return 2 * (told & tags).sum() / (told.sum() + tags.sum())

    best = best_threshold(tags, chances)
    assert f1(best) == pytest.approx(max(f1(c) for c in chances))
    assert f1(best) > f1(0.5) + 0.05
    assert best_threshold(np.zeros(4, bool), chances[:4]) == 0.5
    task = collected([[1.0, 0.0, 0.0]] * 2 + [[0.0, 1.0, 0.0]], [[0.3, 0.2, 0.4]] * 2
                     + [[0.1, 0.8, 0.2]])  # fmt: skip
    assert task.metrics()["macro_f1"] == pytest.approx(0.5)  # at 0.5
    task.decide()
    assert task.facts()["thresholds"] == pytest.approx([0.2, 0.5, 0.5], abs=1e-6)
    assert task.metrics()["macro_f1"] == 1.0


# Training


def test_loss_is_the_mean_over_labels():
    logits, tags = torch.randn(5, 3), torch.rand(5, 3).round()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, tags)
    batch = batch_of(tags.tolist())
    torch.testing.assert_close(Tagging(list("abc")).loss(logits, batch), loss)
    smooth = Tagging(list("abc"), label_smoothing=0.2).loss(logits, batch)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, 0.8 * tags + 0.1
    )
    torch.testing.assert_close(smooth, expected)


def test_mixing_clips_mixes_their_labels():
    tags = torch.eye(4)[:, :3]
    batch = batch_of(tags.tolist())
    batch.sig = PaddedData(torch.randn(4, 100), torch.ones(4))
    wavs = batch.sig.data.clone()
    torch.manual_seed(0)
    Tagging(list("abc"), mixup=0.5).augment(batch)
    torch.manual_seed(0)
    expected, _, shares, partners = mixed(wavs, torch.full((4,), 100), 0.5)
    assert batch.sig.data.equal(expected)
    weights = shares.unsqueeze(1)
    torch.testing.assert_close(
        batch.tags.data, weights * tags + (1 - weights) * tags[partners]
    )


class Listed:
    def __init__(self, labels):
        self.data = {str(i): {"labels": own} for i, own in enumerate(labels)}
        self.data_ids = list(self.data)


def test_rare_labels_are_drawn_as_often_as_frequent_ones():
    clips = Listed([["a"]] * 8 + [["b"]] * 2 + [[]])
    assert Tagging(["a", "b"]).draws(clips) is None
    draws = Tagging(["a", "b"], balanced=True).draws(clips)
    assert sum(draws[:8]) == pytest.approx(sum(draws[8:10])) == pytest.approx(1)
    assert draws[10] == draws[0]


# A run, and what its adapter tells


@pytest.fixture(scope="module")
def trained(class_folders, tmp_path_factory):
    """A run on two labels a clip: its pitch, and whether it is high or not; some have
    none of them."""
    root = tmp_path_factory.mktemp("tags")
    table, rows = root / "table.csv", []
    for label, others in (("low", "dark"), ("middle", "dark"), ("high", "")):
        for number in range(10):
            labels = ",".join(filter(None, (label, others)))
            rows.append([class_folders / label / f"{label}{number}.wav", labels])
    rows[-1][1] = ""
    with open(table, "w", newline="") as stream:
        csv.writer(stream).writerows([["path", "labels"], *rows])
    run_here(
        OWN,
        f"--data={table}",
        f"--clip_folder={class_folders}",
        "--task=tags",
        f"--output_folder={root / 'out'}",
        "--method=bitfit",
        "--head_start_epochs=60",
        "--number_of_epochs=2",
        "--balanced=True",
        "--max_duration=1",
    )
    (path,) = root.glob("out/**/results.json")
    return path.parent, table


def test_a_run_learns_several_labels(trained):
    folder, _ = trained
    result = json.loads((folder / "results.json").read_text())
    assert result["metrics"]["test"]["mean_average_precision"] > 0.8
    info = json.loads((folder / "adapter.json").read_text())["info"]
    assert info["labels"] == ["dark", "high", "low", "middle"]
    assert all(0 < t < 1 for t in info["thresholds"])
    with open(folder / "tags.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["label"] for row in rows} <= set(info["labels"])


def test_evaluate_judges_as_the_run_did(trained, class_folders, tmp_path):
    folder, table = trained
    theirs = json.loads((folder / "results.json").read_text())["metrics"]["test"]
    found = evaluate(folder)
    for name, value in theirs.items():
        assert found[name] == pytest.approx(value, abs=1e-4), name
    assert evaluate(folder, table)["clips"] == 30


def test_answers_are_all_labels_above_their_thresholds(trained, class_folders, capsys):
    folder, _ = trained
    adapters = load_adapter(folder, "tags")
    clip = class_folders / "low" / "low3.wav"
    answer = adapters.classify_file(clip)
    info = adapters._loaded["tags"].info
    least = dict(zip(info["labels"], info["thresholds"], strict=True))
    chances = answer["probabilities"]
    assert set(answer["labels"]) == {k for k, v in chances.items() if v >= least[k]}
    assert sum(chances.values()) != pytest.approx(1, abs=0.01)
    assert predict([str(folder), str(clip)]) == 0
    said = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    assert said == answer["labels"]
    assert predict([str(folder), str(clip), "--threshold=0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    (window, *_) = answer_windows(adapters, clip, 0.3)
    assert set(window) >= {"start", "end", "labels", "probabilities"}


# Recipes


@pytest.mark.parametrize(
    ("recipe", "labels", "clips", "left_out"),
    [
        ("FSD50K", ["Bark", "Dog", "Rain"], (10, 6, 6), 2),
        (
            "AudioSet",
            ["Speech", "Male speech, man speaking", "Bark"],
            (None, None, 6),
            1,
        ),
    ],
)
def test_a_recipe_of_tags_runs(recipe, labels, clips, left_out, checkpoints, tmp_path):
    tree = tmp_path / recipe
    tree.mkdir()
    getattr(layouts, recipe.lower())(tree)
    run_here(
        recipe,
        f"--data_folder={tree}",
        f"--source={checkpoints['wav2vec2']}",
        f"--output_folder={tmp_path / 'out'}",
        "--method=bitfit",
        "--number_of_epochs=1",
        "--skip_broken=True",
    )
    (path,) = tmp_path.glob("out/**/results.json")
    result = json.loads(path.read_text())
    assert result["left_out"] == left_out
    assert 0 < result["metrics"]["test"]["lwlrap"] <= 1
    adapter = json.loads((path.parent / "adapter.json").read_text())
    assert adapter["info"]["labels"] == labels
    found = [result["clips"][name] for name in ("train", "valid", "test")]
    assert all(n in (None, m) for n, m in zip(clips, found, strict=True)), found
