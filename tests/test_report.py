"""Tables and plots of finished runs."""

import csv
import json

import pytest
from PIL import Image

from petl_modules.errors import UserError
from petl_modules.grid import report

METRICS = {"loss": 1.0, "weighted_f1": 0.25}


def write(root, method, fold, accuracy, seed=0, recipe="ESC50", **settings):
    """One run's folder as a recipe leaves it."""
    knobs = "_".join(f"{key}{value}" for key, value in settings.items())
    folder = root / recipe / method / f"fold{fold}_seed{seed}{knobs}"
    folder.mkdir(parents=True)
    settings = {
        "recipe": recipe,
        "source": "/some/where/ast",
        "method": method,
        "fold": fold,
        "seed": seed,
        "run_folder": str(folder),
        **settings,
    }
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in settings.items()]
    (folder / "hyperparams.yaml").write_text("".join(lines))
    result = {
        "metrics": {
            "valid": {**METRICS, "accuracy": accuracy - 0.1},
            "test": {**METRICS, "accuracy": accuracy},
        },
        "parameters": {"petl": 1000, "norms": 20, "head": 3, "backbone": 9999},
        "seconds": 2.0,
        "peak_memory_mib": 100.0 + fold,
        "epochs": 3,
    }
    (folder / "results.json").write_text(json.dumps(result))
    (folder / "adapter.safetensors").write_bytes(b"0" * 4000)
    rows = ["id,label,prediction,probability", "a,dog,dog,0.9", "b,rain,dog,0.6"]
    (folder / "predictions.csv").write_text("\n".join(rows))
    return folder


def tables(root, capsys, *arguments):
    """The exit status, the cells of what is printed, and the errors."""
    status = report.main([str(root), *map(str, arguments)])
    out, err = capsys.readouterr()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in out.splitlines()
        if line.startswith("|") and "published" not in line
    ]
    return status, rows, out, err


def test_means_and_deviations_over_seeds_and_folds(tmp_path, capsys):
    accuracies = {(1, 0): 0.5, (2, 0): 0.7, (1, 1): 0.6, (2, 1): 0.6}
    for (fold, seed), accuracy in accuracies.items():
        write(tmp_path, "lora", fold, accuracy, seed)
    write(tmp_path, "bitfit", 1, 0.25)
    status, rows, *_ = tables(tmp_path, capsys)
    assert status == 0
    assert rows == [
        [
            "method",
            "backbone",
            "runs",
            "test accuracy, %",
            "valid accuracy, %",
            "trained",
            "stored, kB",
            "seconds a run",
            "peak MiB",
        ],
        ["---"] * 9,
        ["bitfit", "ast", "1", "25.00", "15.00", "1,023", "4", "2", "101"],
        ["lora", "ast", "4", "60.00 ± 8.16", "50.00 ± 8.16", "1,023", "4", "2", "102"],
    ]
    _, rows, *_ = tables(tmp_path, capsys, "weighted_f1")
    assert rows[-1][3] == "25.00 ± 0.00"
    with pytest.raises(UserError, match=r"no metric recall of ESC50, but loss"):
        report.main([str(tmp_path), "recall"])


def test_runs_of_other_settings_are_not_averaged(tmp_path, capsys):
    write(tmp_path, "lora", 1, 0.5, rank=4)
    write(tmp_path, "lora", 1, 0.7, rank=8)
    write(tmp_path, "lora", 1, 0.3, rank=8, few_shot=2)
    _, rows, *_ = tables(tmp_path, capsys)
    assert [row[:2] + row[4:5] for row in rows[2:]] == [
        ["lora rank=8", "2", "30.00"],
        ["lora rank=4", "all", "50.00"],
        ["lora rank=8", "all", "70.00"],
    ]


def test_what_is_missing_is_said_and_the_rest_answered(tmp_path, capsys):
    write(tmp_path, "lora", 1, 0.5)
    cut, failed, unfinished, bare = (
        write(tmp_path, "lora", fold, 0.9) for fold in (2, 3, 4, 5)
    )
    text = (cut / "results.json").read_text()
    (cut / "results.json").write_text(text[: len(text) // 2])
    for folder in (failed, unfinished):
        (folder / "results.json").unlink()
    (failed / "failure.json").write_text('{"reason": "The loss is not finite."}')
    (bare / "hyperparams.yaml").unlink()
    status, rows, out, err = tables(tmp_path, capsys)
    assert status == 1
    assert rows[2][2:4] == ["**1 of 4**", "50.00"]
    reasons = {
        cut: "is damaged: delete it to run this again.",
        failed: "The loss is not finite.",
        unfinished: "It is not finished",
        bare: "There is no hparams file",
    }
    for folder, reason in reasons.items():
        name = str(folder.relative_to(tmp_path))
        for text in (out, err):
            assert any(name in line and reason in line for line in text.splitlines())


def test_a_folder_without_results(tmp_path):
    with pytest.raises(UserError, match=r"There is no results\.json below"):
        report.main([str(tmp_path)])
    folder = write(tmp_path, "lora", 1, 0.5)
    (folder / "results.json").write_text("[]")
    with pytest.raises(UserError, match="There are no finished runs below"):
        report.main([str(tmp_path)])


def test_the_average_needs_all_tasks(tmp_path, capsys):
    for recipe, accuracy in (("ESC50", 0.5), ("SpeechCommands", 0.7)):
        write(tmp_path, "lora", 1, accuracy, recipe=recipe)
    write(tmp_path, "bitfit", 1, 0.9)
    _, rows, out, _ = tables(tmp_path, capsys)
    assert out.startswith("## Average over tasks")
    assert rows[0][2:] == [
        "ESC50, accuracy, %",
        "SpeechCommands, accuracy, %",
        "average",
    ]
    assert rows[2] == ["bitfit", "1,020", "90.00", "", ""]
    assert rows[3] == ["lora", "1,020", "50.00", "70.00", "60.00"]


def test_published_figures_are_marked(tmp_path, capsys):
    write(tmp_path, "lora", 1, 0.5)
    out = tables(tmp_path, capsys)[2]
    row = "| *lora, published, arXiv 2312.03694* | *AST* |  | *86.45* |  | *221K* |"
    assert row in out
    # beside ours
    lines = out.splitlines()
    ours = next(i for i, line in enumerate(lines) if line.startswith("| lora |"))
    assert lines[ours + 1].startswith(row)


def test_csv_and_plots(tmp_path, capsys):
    runs, output = tmp_path / "runs", tmp_path / "report"
    for shots in (1, 2, None):
        write(runs, "lora", 1, 0.5, few_shot=shots)
        damaged = write(runs, "bitfit", 1, 0.4, few_shot=shots)
    (damaged / "predictions.csv").write_text("id,label\na,dog\n")
    status, *_, err = tables(runs, capsys, "--output", output)
    assert status == 0 and "predictions.csv lacks the columns prediction" in err
    with open(output / "ESC50.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    lora = next(r for r in rows if r["method"] == "lora" and r["few_shot"] == "")
    assert float(lora["mean"]) == 50 and lora["source"] == "ours"
    assert lora["stored_bytes"] == "4000" and lora["trained_parameters"] == "1023"
    assert any(row["source"] == "published: arXiv 2312.03694" for row in rows)
    text = (output / "report.md").read_text()
    names = ("trade_off", "few_shot", "confusions_ESC50_lora")
    for name in names:
        with Image.open(output / f"{name}.png") as image:
            assert image.width > 300
        assert "</svg>" in (output / f"{name}.svg").read_text()
        assert f"]({name}.png)" in text
