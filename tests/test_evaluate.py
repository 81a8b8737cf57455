"""Adapters judged on labelled recordings, and their vectors."""

import csv
import json

import layouts
import numpy as np
import pytest
from conftest import run_here, tone
from sklearn.metrics import accuracy_score
from test_merge import saved

from petl_modules.errors import UserError
from petl_modules.use import embeddings
from petl_modules.use.evaluate import evaluate, main


@pytest.fixture(scope="module")
def trained(class_folders, checkpoints, tmp_path_factory):
    """A run that told three classes apart."""
    root = tmp_path_factory.mktemp("runs")
    run_here(
        "AudioFolder",
        f"--data_folder={class_folders}",
        f"--source={checkpoints['ast']}",
        f"--output_folder={root}",
        "--method=lora",
        "--head_start_epochs=0",
        "--number_of_epochs=2",
        "--batch_size=8",
    )
    (path,) = root.glob("**/results.json")
    return path.parent


def test_the_metrics_are_those_of_training(trained, tmp_path, capsys):
    result = json.loads((trained / "results.json").read_text())
    for split in ("valid", "test"):
        found = evaluate(trained, split=split, batch_size=8)
        theirs = result["metrics"][split]
        assert found.pop("clips") == 6
        assert found == pytest.approx(theirs, abs=1e-5)
    assert main([str(trained), f"--output={tmp_path}", "--batch_size=3"]) == 0
    assert "accuracy" in capsys.readouterr().out
    rows = []
    for folder in (trained, tmp_path):
        with open(folder / "predictions.csv") as stream:
            rows.append(list(csv.DictReader(stream)))
    assert [r["prediction"] for r in rows[0]] == [r["prediction"] for r in rows[1]]


def test_folders_manifests_and_tables_are_one(trained, class_folders, tmp_path):
    whole = evaluate(trained, class_folders)
    assert whole["clips"] == 30
    entries = {
        path.stem: {"wav": str(path), "label": path.parent.name}
        for path in sorted(class_folders.glob("*/*.wav"))
    }
    manifest, table = tmp_path / "clips.json", tmp_path / "clips.csv"
    manifest.write_text(json.dumps(entries))
    with open(table, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["wav", "label"])
        writer.writerows((e["wav"], e["label"]) for e in entries.values())
    for data in (manifest, table):
        assert evaluate(trained, data) == pytest.approx(whole, abs=1e-5)
    entries["low0"]["label"] = "none"
    manifest.write_text(json.dumps(entries))
    with pytest.raises(UserError, match="The label none of the clip low0"):
        evaluate(trained, manifest)
    del entries["low0"]["label"]
    manifest.write_text(json.dumps(entries))
    with pytest.raises(UserError, match="low0 has no label to judge by"):
        evaluate(trained, manifest)
    with pytest.raises(UserError, match="no folders of recordings"):
        evaluate(trained, class_folders / "low")
    with pytest.raises(UserError, match="There is no manifest"):
        evaluate(trained, tmp_path / "gone.json")


def test_a_clip_that_is_too_long_is_named(checkpoints, tmp_path):
    adapter = saved(checkpoints["htsat"], tmp_path / "adapter")
    tone(tmp_path / "data" / "a" / "long.wav", 300, 4.0)
    said = r"The clip a/long\.wav is 4\.0 s long, more than the 2 s that .* at once"
    for judge in (evaluate, embeddings.embeddings):
        with pytest.raises(UserError, match=said):
            judge(adapter, tmp_path / "data")


def test_text_is_judged_by_words(checkpoints, tmp_path):
    tree = tmp_path / "ESD"
    tree.mkdir()
    layouts.esd(tree)
    run_here(
        "ESD/ASR",
        f"--data_folder={tree}",
        f"--source={checkpoints['wav2vec2']}",
        f"--output_folder={tmp_path / 'out'}",
        "--method=bitfit",
        "--number_of_epochs=1",
        "--skip_broken=True",
    )
    (path,) = tmp_path.glob("**/results.json")
    theirs = json.loads(path.read_text())["metrics"]["test"]
    found = evaluate(path.parent, batch_size=4)
    for name in ("word_error_rate", "character_error_rate"):
        assert found[name] == pytest.approx(theirs[name])
    manifest = json.loads((path.parent / "data" / "test.json").read_text())
    for entry in manifest.values():
        del entry["units"]
    own = tmp_path / "own.json"
    own.write_text(json.dumps(manifest))
    assert evaluate(path.parent, own, batch_size=4) == pytest.approx(found)


def test_vectors_are_what_the_classifier_reads(trained, class_folders, tmp_path):
    found = embeddings.embeddings(trained, class_folders, batch_size=7)
    assert found["embeddings"].shape == (30, 32)
    assert sorted(set(found["labels"])) == ["high", "low", "middle"]
    from petl_modules.use.adapter_file import read_adapter

    adapter = read_adapter(trained)
    linear = adapter.head.linear
    logits = found["embeddings"] @ linear.weight.detach().numpy().T
    logits = logits + linear.bias.detach().numpy()
    names = np.array(adapter.info["labels"])[logits.argmax(-1)]
    expected = evaluate(trained, class_folders)["accuracy"]
    assert accuracy_score(found["labels"], names) == pytest.approx(expected)
    for projection in ("pca", "tsne"):
        output = tmp_path / f"{projection}.npz"
        arguments = [str(trained), str(class_folders), f"--output={output}"]
        assert embeddings.main([*arguments, f"--projection={projection}"]) == 0
        saved = np.load(output)
        np.testing.assert_allclose(saved["embeddings"], found["embeddings"], atol=1e-5)
        assert output.with_suffix(".png").stat().st_size > 5000
