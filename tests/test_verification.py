"""Speaker verification: trials read, learnt for, and judged."""

import csv
import json

import layouts
import numpy as np
import pytest
import soundfile
import torch
from conftest import run_here
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from speechbrain.utils.metric_stats import EER, minDCF
from test_prepare import prepare_function

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.data.batch import Batch
from petl_modules.data.trials import drawn_trials, homes_of, read_trials
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks import Verification
from petl_modules.tasks.heads import ClassificationHead, SpeakerHead
from petl_modules.tasks.verification import equal_error_rate, min_dcf
from petl_modules.use.adapter_file import save_adapter
from petl_modules.use.embeddings import embeddings
from petl_modules.use.evaluate import evaluate
from petl_modules.use.inference import load_adapter
from petl_modules.use.verify import main as verify_main
from petl_modules.use.verify import verify

ONE, OTHER = "id10270/video0/00000.wav", "id10271/video0/00000.wav"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("VoxCeleb")
    layouts.voxceleb(root)
    return root


def prepare(tree, **knobs):
    return prepare_function("VoxCeleb")(str(tree), **{"valid_speakers": 2, **knobs})


# Metrics


def test_metrics_are_those_of_their_definitions():
    same = np.array([1, 1, 1, 0, 0, 0, 0])
    scores = np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.1, 0.0])
    rate, threshold = equal_error_rate(same, scores)
    # from 0.7 on: one of four is taken, one of three refused
    assert rate == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert threshold == pytest.approx(0.5)  # between 0.7 and 0.3
    # a false alarm costs 99 times a miss: none is made, and one of three refused
    assert min_dcf(same, scores) == pytest.approx(1 / 3)
    # where both cost the same, from 0.3 on one of four is taken and none refused
    assert min_dcf(same, scores, p_target=0.5) == pytest.approx(1 / 4)
    assert equal_error_rate(same, -scores)[0] > 0.5
    assert min_dcf(same, -scores) == pytest.approx(1)  # no worse than to refuse all
    assert equal_error_rate(same, np.zeros(7))[0] == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_speechbrains(seed):
    rng = np.random.default_rng(seed)
    same = rng.random(300) < 0.4
    scores = (rng.standard_normal(300) + same).round(seed + 1)  # with ties and without
    kinds = [torch.tensor(scores[same == kind]) for kind in (True, False)]
    assert equal_error_rate(same, scores)[0] == pytest.approx(EER(*kinds)[0], abs=1e-6)
    assert min_dcf(same, scores) == pytest.approx(minDCF(*kinds)[0] / 0.01, rel=1e-5)


def batch_of(labels, ids=None):
    batch = Batch.__new__(Batch)
    batch.id = ids or [str(i) for i in range(len(labels))]
    batch.label_index = torch.tensor(labels)
    return batch


def test_loss_has_a_margin_and_leaves_other_speakers_out():
    torch.manual_seed(0)
    head = SpeakerHead(8, 3)
    embedding, cosines = head.predict(torch.randn(4, 1, 1, 8), torch.ones(4))
    expected = embedding @ head.linear.weight.T
    expected = expected / embedding.norm(dim=1, keepdim=True)
    torch.testing.assert_close(cosines, expected / head.linear.weight.norm(dim=1))
    labels = [0, 2, 1, 1]
    loss = Verification(list("abc"), margin=0.3).loss((None, cosines), batch_of(labels))
    speechbrains = LogSoftmaxWrapper(AdditiveAngularMargin(0.3, 30.0))
    expected = speechbrains(cosines.unsqueeze(1), torch.tensor(labels).unsqueeze(1))
    torch.testing.assert_close(loss, expected)
    assert loss > Verification(list("abc"), 0.0).loss((None, cosines), batch_of(labels))
    nobody = batch_of([-1] * 4)
    assert Verification(list("abc")).loss((None, cosines), nobody) == 0


def test_cosines_are_float32_in_autocast_too():
    torch.manual_seed(0)
    head, vectors = SpeakerHead(8, 3).linear, torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(vectors)
    assert torch.equal(found, head(vectors))


# Lists and splits


def test_no_speaker_of_the_list_trains(tree):
    splits, labels = prepare(tree)
    speakers = {
        name: {key.split("/")[1] for key in entries} for name, entries in splits.items()
    }
    assert speakers["test"] == {"id10270", "id10271"}
    assert len(speakers["valid"]) == 2 and len(labels) == 4
    assert speakers["train"] == set(labels) and not speakers["valid"] & set(labels)
    # each recording once, however many trials it is in
    assert len(splits["test"]) == 7
    trials = sum(len(entry["trials"]) for entry in splits["test"].values())
    assert trials == 7 * 6 / 2
    assert prepare(tree)[0] == splits
    assert len({tuple(prepare(tree, seed=seed)[1]) for seed in range(6)}) > 1


def test_validation_trials_are_of_known_speakers_and_across_videos(tree):
    splits, _ = prepare(tree)
    found = [
        (same, key.split("/"), other.split("/"))
        for key, entry in splits["valid"].items()
        for other, same in entry["trials"]
    ]
    kinds = [same for same, *_ in found]
    assert kinds.count(1) == kinds.count(0) == 2 * 2 * 2  # all pairs across videos
    for same, one, other in found:
        assert (one[1] == other[1]) == bool(same)
        assert not same or one[2] != other[2]
    few, _ = prepare(tree, valid_trials=3)
    assert sum(len(e["trials"]) for e in few["valid"].values()) == 6


def test_trials_of_speakers_with_one_video(tmp_path):
    paths = [tmp_path / f"{i}.wav" for i in range(3)]
    trials = drawn_trials({"a": {"": paths[:2]}, "b": {"": paths[2:]}}, 9, seed=0)
    assert trials[0] == (1, *paths[:2]) and [t[0] for t in trials] == [1, 0]
    with pytest.raises(UserError, match="two speakers or more"):
        drawn_trials({"a": {"": paths}}, 9, seed=0)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"1 {ONE}"], "line 1 has 2 columns"),
        ([f"1 {ONE} {ONE}", "", f"same {ONE} {OTHER}"], "line 3 has the label same"),
        ([f"2 {ONE} {OTHER}"], "must be 1 .one speaker. or 0"),
        ([f"0 {ONE} {ONE}"], "line 1 has two speakers in one recording, id10270"),
        (
            [f"0 {ONE} id10270/video0/9.wav"],
            r"line 1 names id10270/video0/9.wav, which",
        ),
        ([f"0 {ONE} ../veri_test2.txt"], "line 1 names a file outside of the data"),
        ([f"0 {ONE} /etc/hostname"], "line 1 names a file outside of the data"),
        ([f"1 {ONE} {ONE}"] * 2, "have the label 1: an error rate needs both"),
        ([], "lists no trials"),
    ],
)
def test_a_wrong_list_is_refused_with_its_place(lines, said, tree, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=said) as found:
        prepare(tree, trials=str(path))
    assert str(path) in str(found.value)


def test_lists_and_folders_that_are_not_there(tree, tmp_path):
    with pytest.raises(UserError, match=r"none\.txt is missing"):
        prepare(tree, trials=str(tmp_path / "none.txt"))
    with pytest.raises(UserError, match="no wav/ or aac/"):
        prepare(tmp_path)
    with pytest.raises(UserError, match="valid_speakers=5 of 6 speakers"):
        prepare(tree, valid_speakers=5)
    (tmp_path / "wav").symlink_to(tree / "wav")  # a folder elsewhere
    with pytest.raises(UserError, match="has no veri_test2"):
        prepare(tmp_path)
    splits, _ = prepare(tmp_path, trials=str(tree / "veri_test2.txt"))
    assert f"wav/{ONE}" in splits["test"]


# A run, and what its adapter tells


@pytest.fixture(scope="module")
def trained(tree, checkpoints, tmp_path_factory):
    home = tmp_path_factory.mktemp("out")
    run_here(
        "VoxCeleb",
        f"--data_folder={tree}",
        f"--source={checkpoints['wav2vec2']}",
        f"--output_folder={home}",
        "--method=bottleneck",
        "--number_of_epochs=6",
        "--valid_speakers=2",
        "--projector_size=16",
        "--attentive=True",
        "--batch_size=8",
        "--skip_broken=True",
    )
    (path,) = home.glob("**/results.json")
    return path.parent


def test_a_run_says_its_error_rates(trained):
    result = json.loads((trained / "results.json").read_text())
    assert result["left_out"] == 1
    assert result["clips"] == {"train": 16, "valid": 8, "test": 7}
    test = result["metrics"]["test"]
    assert set(test) == {"eer", "min_dcf"}
    assert 0 <= test["eer"] < 0.5 and 0 <= test["min_dcf"] <= 1
    log = (trained / "train_log.txt").read_text()
    assert "valid eer: " in log and "valid loss" not in log
    with open(trained / "scores.csv") as stream:
        rows = list(csv.DictReader(stream))
    same = np.array([int(row["same"]) for row in rows])
    scores = np.array([float(row["score"]) for row in rows])
    assert len(rows) == 21 and abs(scores).max() <= 1 + 1e-5
    assert equal_error_rate(same, scores)[0] == pytest.approx(test["eer"])
    assert (trained / "scores.png").is_file()


def test_evaluate_judges_as_the_run_did(trained, tree, tmp_path):
    theirs = json.loads((trained / "results.json").read_text())["metrics"]["test"]
    for found in (
        evaluate(trained, batch_size=3),
        evaluate(trained, tree, trials=tree / "veri_test2.txt"),
    ):
        assert found == pytest.approx({"clips": 7, **theirs}, abs=1e-6)
    path = tmp_path / "list.txt"
    path.write_text(f"1 {ONE} {ONE}\n0 {ONE} {OTHER}\n")
    assert evaluate(trained, tree / "wav", trials=path)["eer"] == 0
    with pytest.raises(UserError, match="needs DATA"):
        evaluate(trained, trials=path)
    with pytest.raises(UserError, match="no trials to judge by: name a list"):
        evaluate(trained, tree)


def test_two_recordings_are_compared(trained, tree, tmp_path, capsys):
    files = [tree / "wav" / name for name in (ONE, OTHER)]
    found = verify(trained, *files)
    assert not found["same"] or found["score"] >= found["threshold"]
    with open(trained / "scores.csv") as stream:
        rows = {(r["first"], r["second"]): r["score"] for r in csv.DictReader(stream)}
    known = float(rows[f"wav/{ONE}", f"wav/{OTHER}"])
    assert found["score"] == pytest.approx(known, abs=1e-5)
    vectors = embeddings(trained)  # what learned attention pools the tokens to
    assert vectors["embeddings"].shape == (7, 32)
    pair = [vectors["embeddings"][list(vectors["ids"]).index(f"wav/{n}")]
            for n in (ONE, OTHER)]  # fmt: skip
    cosine = pair[0] @ pair[1] / np.prod([np.linalg.norm(v) for v in pair])
    assert found["score"] == pytest.approx(cosine, abs=1e-5)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 16000)
    with pytest.raises(UserError, match=r"silent\.wav is silent: there is no voice"):
        verify(trained, files[0], tmp_path / "silent.wav")
    assert verify_main([str(trained), str(files[0]), str(files[0])]) == 0
    assert capsys.readouterr().out.startswith("one speaker: score 1.0000")
    answer = load_adapter(trained).classify_file(
        files[0]
    )  # whom of training it is like
    assert answer["label"].startswith("id1000")
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_adapters_of_other_tasks_verify_nothing(checkpoints, tree, tmp_path):
    model = AdaptedModel(load_backbone(checkpoints["wav2vec2"]), make_method("linear"))
    save_adapter(tmp_path, model, ClassificationHead(32, 2), {"labels": ["a", "b"]})
    files = [tree / "wav" / name for name in (ONE, OTHER)]
    with pytest.raises(UserError, match="is not of speaker verification: train one"):
        verify(tmp_path, *files)
    with pytest.raises(UserError, match="is not of speaker verification: leave out"):
        evaluate(tmp_path, tree, trials=tree / "veri_test2.txt")


def test_a_list_is_read_wherever_its_folder_is_parted(tmp_path):
    for name in (f"dev/wav/{ONE}", f"test/wav/{OTHER}", f"dev/aac/{ONE[:-3]}m4a"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch()
    lines = (f"1 {ONE} {ONE[:-3]}m4a", f"0 {ONE} {OTHER}")
    (tmp_path / "list.txt").write_text("\n".join(lines))
    trials = read_trials(tmp_path / "list.txt", homes_of(tmp_path))
    assert [path.is_file() for _, *pair in trials for path in pair] == [True] * 4
