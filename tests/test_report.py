"""Tables and plots of finished runs."""

import csv
import json
from dataclasses import replace

import pytest
from conftest import limited
from PIL import Image

from petl_modules.errors import UserError
from petl_modules.grid import report
from petl_modules.grid.page import page
from petl_modules.grid.plots import trade_off
from petl_modules.grid.rows import tasks_of
from petl_modules.grid.runs import read_run, runs_below
from petl_modules.grid.tables import Table

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


def clips(folder, right):
    """Replace the predictions: clip i of a fold is right if `right[i]`."""
    fold = folder.name.partition("_")[0]
    rows = [f"{fold}-{i},dog,{'dog' if r else 'cat'},0.9" for i, r in enumerate(right)]
    text = "\n".join(["id,label,prediction,probability", *rows])
    (folder / "predictions.csv").write_text(text)


def column(rows, name):
    """The cells of a column, by the row's first cell."""
    return {row[0]: row[rows[0].index(name)] for row in rows[2:]}


def test_folds_and_seeds_spread_apart(tmp_path, capsys):
    """The deviation over folds is not the one over seeds."""
    accuracies = {(1, 0): 0.5, (2, 0): 0.7, (1, 1): 0.54, (2, 1): 0.74}
    for (fold, seed), accuracy in accuracies.items():
        write(tmp_path, "lora", fold, accuracy, seed)
    write(tmp_path, "bitfit", 1, 0.25)
    status, rows, *_ = tables(tmp_path, capsys)
    assert status == 0
    assert column(rows, "test accuracy, %") == {"bitfit": "25.00", "lora": "62.00"}
    assert column(rows, "± folds") == {"bitfit": "", "lora": "14.14"}  # 52 and 72
    assert column(rows, "± seeds") == {"bitfit": "", "lora": "2.83"}  # 60 and 64
    assert column(rows, "valid accuracy, %")["lora"] == "52.00"
    assert column(rows, "runs") == {"bitfit": "1", "lora": "4"}
    for name, cell in (
        ("backbone", "ast"),
        ("trained", "1,023"),
        ("stored, kB", "4"),
        ("seconds a run", "2"),
        ("peak MiB", "102"),
    ):
        assert column(rows, name)["lora"] == cell
    _, rows, *_ = tables(tmp_path, capsys, "weighted_f1")
    assert column(rows, "test weighted_f1, %")["lora"] == "25.00"
    with pytest.raises(UserError, match=r"no metric recall of ESC50, but loss"):
        report.main([str(tmp_path), "recall"])


def test_intervals_are_over_clips_and_differences_are_paired(tmp_path, capsys):
    """Of two methods that are equally sure, the one that is right where the probe is,
    and on six clips more, is above it; its own interval overlaps the probe's."""
    probe = [True] * 60 + [False] * 40
    clips(write(tmp_path, "linear", 1, 0.60), probe)
    clips(write(tmp_path, "lora", 1, 0.66), [True] * 66 + [False] * 34)
    clips(write(tmp_path, "bitfit", 1, 0.60), [False] * 40 + [True] * 60)
    _, rows, *_ = tables(tmp_path, capsys)
    assert column(rows, "95 %")["linear"] == "50.20 to 69.06"  # Wilson's, 60 of 100
    above = column(rows, "above the probe")
    assert above["linear"] == ""
    assert above["lora"].startswith("+6.00 (+2.00 to +1")
    assert above["bitfit"].startswith("+0.00 (-1") and "to +1" in above["bitfit"]


def test_the_probe_is_the_one_without_adapters_in_its_head(tmp_path, capsys):
    for right, method, more in (
        (5, "linear", {}),
        (9, "linear", {"layer_adapters": 512}),
        (7, "lora", {}),
    ):
        folder = write(tmp_path, method, 1, right / 10, **more)
        clips(folder, [True] * right + [False] * (10 - right))
    above = column(tables(tmp_path, capsys)[1], "above the probe")
    assert above["lora"].startswith("+20.00")
    assert above["linear layer_adapters=512"].startswith("+40.00")


def test_ranks_that_training_gave_are_their_mean(tmp_path, capsys):
    for fold, left in enumerate(([4, 1, 0], [2, 2, 2]), start=1):
        path = write(tmp_path, "adalora", fold, 0.5) / "results.json"
        ranks = dict(zip("qkv", left, strict=True))
        sizes = {"effective": {"rank": 4, "ranks": ranks}}
        path.write_text(json.dumps({**json.loads(path.read_text()), **sizes}))
    assert column(tables(tmp_path, capsys)[1], "rank") == {"adalora": "1.83 of 4"}


def test_differences_of_other_metrics_are_paired_by_runs(tmp_path, capsys):
    for seed, (probe, lora) in enumerate([(0.3, 0.4), (0.7, 0.8), (0.5, 0.6)]):
        for method, value in (("linear", probe), ("lora", lora)):
            folder = write(tmp_path, method, 1, 0.5, seed)
            result = json.loads((folder / "results.json").read_text())
            result["metrics"]["test"]["macro_f1"] = value
            result["metrics"]["valid"]["macro_f1"] = value
            (folder / "results.json").write_text(json.dumps(result))
    _, rows, *_ = tables(tmp_path, capsys, "macro_f1")
    assert column(rows, "above the probe")["lora"] == "+10.00 (+10.00 to +10.00)"
    low, _, high = column(rows, "95 %")["lora"].partition(" to ")
    assert float(low) < 15 and float(high) > 100  # Student's, of three seeds


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": {"valid": {"accuracy": 0.5}, "test": {"accuracy": "high"}}},
        {"metrics": {"valid": {"accuracy": 0.5}, "test": {"accuracy": float("nan")}}},
        {"metrics": [0.5]},
        {"metrics": {"test": {"accuracy": 0.5}}},
        {"parameters": {"petl": 3}},
        {"parameters": None},
        {"seconds": "12"},
        {"peak_memory_mib": None},
    ],
)
def test_results_that_were_changed_by_hand_are_named(tmp_path, capsys, change):
    write(tmp_path, "lora", 1, 0.5)
    folder = write(tmp_path, "lora", 2, 0.5)
    result = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**result, **change}))
    status, rows, _, err = tables(tmp_path, capsys)
    assert status == 1 and "results.json was changed by hand" in err
    assert column(rows, "runs") == {"lora": "**1 of 2**"}


def test_runs_of_other_settings_are_not_averaged(tmp_path, capsys):
    write(tmp_path, "lora", 1, 0.5, rank=4)
    write(tmp_path, "lora", 1, 0.7, rank=8)
    write(tmp_path, "lora", 1, 0.3, rank=8, few_shot=2)
    _, rows, *_ = tables(tmp_path, capsys)
    at = rows[0].index("test accuracy, %")
    assert [row[:2] + row[at : at + 1] for row in rows[2:]] == [
        ["lora rank=8", "2", "30.00"],
        ["lora rank=4", "all", "50.00"],
        ["lora rank=8", "all", "70.00"],
    ]


def test_labels_say_only_what_differs_and_shortly(tmp_path, capsys):
    words = [f"word{i}" for i in range(35)]
    for place, root in (("/one/hifi", "a"), ("/another/griffin", "b")):
        settings = {"rank": 4, "words": words, "data_folder": place}
        write(tmp_path / root, "lora", 1, 0.5)
        (run,) = (tmp_path / root).glob("**/hyperparams.yaml")
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in settings.items()]
        run.write_text(run.read_text() + "".join(lines))
    _, rows, *_ = tables(tmp_path, capsys)
    assert [row[0] for row in rows[2:]] == [
        "lora data_folder=griffin",
        "lora data_folder=hifi",
    ]


def test_the_names_of_a_benchmarks_file_are_its_reports(tmp_path, capsys):
    folder = write(tmp_path, "lora", 1, 0.5)
    told = replace(read_run(folder), task="Dogs", name="LoRA, small")
    assert report.write_report([told], tmp_path) == 0
    out = capsys.readouterr().out
    assert out.startswith("## Dogs\n") and "| LoRA, small | ast |" in out


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
    assert column(rows, "runs") == {"lora": "**1 of 4**"}
    assert column(rows, "test accuracy, %") == {"lora": "50.00"}
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


def test_rows_of_two_backbones_are_all_kept(tmp_path, capsys):
    for source, accuracy in (("/a/ast", 0.5), ("/b/whisper", 0.7)):
        for recipe in ("ESC50", "SpeechCommands"):
            write(
                tmp_path / source[1:], "lora", 1, accuracy, recipe=recipe, source=source
            )
    out = tmp_path / "out"
    assert report.main([str(tmp_path), f"--output={out}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("| lora ")][:2] == [
        "| lora ast | 1,020 | 50.00 | 50.00 | 50.00 |",
        "| lora whisper | 1,020 | 70.00 | 70.00 | 70.00 |",
    ]
    drawn = (out / "trade_off.svg").read_text()
    assert "lora ast" in drawn and "lora whisper" in drawn


def test_published_figures_are_marked(tmp_path, capsys):
    write(tmp_path, "lora", 1, 0.5)
    out = tables(tmp_path, capsys)[2]
    row = "| *lora, published, arXiv 2312.03694* | *AST* |  | *86.45* |"
    assert row in out and "*221K*" in out
    # beside ours
    lines = out.splitlines()
    ours = next(i for i, line in enumerate(lines) if line.startswith("| lora |"))
    assert lines[ours + 1].startswith(row)


@pytest.mark.parametrize("count", [10, 50])
def test_printed_figures_stand_beside_runs_of_the_same_data(tmp_path, capsys, count):
    """ESC-10 is a part of ESC-50, in its layout."""
    folder = write(tmp_path, "lora", 1, 0.5)
    said = {"info": {"labels": [str(number) for number in range(count)]}}
    (folder / "adapter.json").write_text(json.dumps(said))
    out = tables(tmp_path, capsys, "--output", tmp_path / "report")[2]
    left_out = "of 50 classes (arXiv 2312.03694) stand here: the runs are of 10."
    assert ("86.45" in out) == (count == 50) and (left_out in out) == (count == 10)
    with open(tmp_path / "report" / "ESC50.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == (1 if count == 10 else 12)
    assert (left_out in (tmp_path / "report" / "report.html").read_text()) == (
        count == 10
    )


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
    assert "<!-- 1k -->" in (output / "trade_off.svg").read_text()  # no powers of ten
    page = (output / "report.html").read_text()
    assert page.count("data:image/png;base64,") == text.count("](")
    assert "://" not in page and "<link" not in page  # nothing from elsewhere
    assert page.count('<tr class="published">') == len(rows) - 6
    assert page.count("<tr>") == 1 + 6


def test_a_full_disk_leaves_the_report_that_was_there(tmp_path, capsys):
    runs, output = tmp_path / "runs", tmp_path / "report"
    write(runs, "lora", 1, 0.5)
    assert tables(runs, capsys, "--output", output)[0] == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    write(runs, "bitfit", 1, 0.4)
    with limited(2**12), pytest.raises(UserError, match="cannot be written: File too"):
        report.main([str(runs), "--output", str(output)])
    after = {path.name: path.read_bytes() for path in output.iterdir()}
    changed = {name for name in after if after[name] != before.get(name)}
    assert after.keys() == before.keys() and changed == {"ESC50.csv"}  # which had room


def test_a_report_of_many_runs_has_room_for_all(tmp_path, capsys):
    runs = tmp_path / "runs"
    for rank in range(40):
        write(runs, "lora", 1, 0.5 + rank / 100, rank=rank + 1, recipe="SpeechCommands")
    for number in range(4):
        write(runs, "lora", 1, 0.5, recipe=f"Data{number}")
    assert tables(runs, capsys)[0] == 0
    tasks = tasks_of(runs_below(runs))
    trade_off(tasks, tmp_path / "trade_off")
    with Image.open(tmp_path / "trade_off.png") as image:
        assert image.width < 2000  # panels below one another, names below them
    drawn = (tmp_path / "trade_off.svg").read_text()
    assert all(f"<!-- lora rank={rank} -->" in drawn for rank in range(1, 41))


def test_names_are_text_in_the_page():
    table = Table("a & b", ["<i>method", "x"], [["*lora |*", ""], ["**1 of 2**", "<"]])
    text = page("<script>alert", [table], ["1 < 2"], [])
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert "<td>lora |</td>" in text and "<td><b>1 of 2</b></td>" in text
    assert "&lt;i&gt;method" in text and "1 &lt; 2" in text
    assert "\\|" in table.markdown()


def test_the_page_says_of_which_protocol_printed_figures_are():
    """A printed figure stands beside no run of another protocol without a word."""
    table = Table("ESC50", ["method"], [["lora"]], "Printed: 50 epochs <AST>.")
    text = page("Runs", [table], [], [], "Ours differs in:\n\n- seeds\n- the head")
    assert "<p>Printed: 50 epochs &lt;AST&gt;.</p>" in text
    assert "<p>Ours differs in:</p>" in text
    assert "<ul><li>seeds</li><li>the head</li></ul>" in text
