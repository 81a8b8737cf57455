"""The files that run papers' tables again: the printed sizes, and that they run."""

import dataclasses
import json
import re

import layouts
import pytest
import torch
from conftest import ROOT
from tiny import tiny_checkpoint
from transformers import Wav2Vec2Config

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.grid import benchmark
from petl_modules.grid.benchmark import read
from petl_modules.grid.published import PUBLISHED, Paper, figures
from petl_modules.methods import make_method, method_knobs
from petl_modules.tts.config import FastSpeech2Config
from petl_modules.tts.fastspeech2 import FastSpeech2Backbone

FILES = ROOT / "benchmarks"
PAPERS = (
    *("ast_table1", "ast_few_shot", "ast_wav2vec2", "ast_scaling", "soft_moa"),
    *("sure_classification", "sure_sequence", "sure_tts"),
)
XLSR = {
    **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    **{"intermediate_size": 4096, "conv_bias": True, "feat_extract_norm": "layer"},
    "do_stable_layer_norm": True,
}


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """The papers' backbones as shapes alone."""

    def build(source):
        if source == "$BASE":
            backbone = FastSpeech2Backbone(FastSpeech2Config(), "base")
        elif "xlsr" in source:
            folder = tmp_path_factory.mktemp("xlsr")
            config = Wav2Vec2Config(**XLSR, architectures=["Wav2Vec2Model"])
            config.save_pretrained(folder)
            (folder / "preprocessor_config.json").write_text(
                json.dumps({"sampling_rate": 16000, "do_normalize": True})
            )
            backbone = load_backbone(str(folder), pretrained=False)
        else:
            name = "ast" if "ast-" in source else "wav2vec2"
            backbone = load_backbone(name, pretrained=False)
        backbone._fingerprint = "of shapes alone"
        return backbone

    return build


def size_of(file, name, backbones):
    """What trains beside head and last norm in a row of a file."""
    given = read(FILES / f"{file}.yaml")
    entries = [{"method": m} if isinstance(m, str) else m for m in given["methods"]]
    (entry,) = [e for e in entries if e.get("name", e["method"]) == name]
    knobs = {k: v for k, v in entry.items() if k in method_knobs()}
    with torch.device("meta"):
        backbone = backbones(given["overrides"]["source"])
        model = AdaptedModel(backbone, make_method(entry["method"], **knobs))
    kinds = ("petl", "site_norms", "backbone")
    return sum(group.count for group in model.groups() if group.kind in kinds)


@pytest.mark.parametrize(
    ("file", "name", "count"),
    [
        ("ast_table1", "linear", 0),
        ("ast_table1", "bitfit", 102_144),
        ("ast_table1", "prompt shallow 300", 230_400),
        ("ast_table1", "prompt deep 25", 230_400),
        ("ast_table1", "prefix 24", 221_184),
        ("ast_table1", "lora", 221_184),
        ("ast_table1", "bottleneck Pfeiffer", 248_976),
        ("ast_table1", "bottleneck Houlsby", 497_952),
        ("ast_table1", "conformer Pfeiffer", 270_720),
        ("ast_table1", "conformer Houlsby", 541_440),
        ("ast_few_shot", "conformer Pfeiffer", 270_720),
        ("ast_wav2vec2", "bottleneck", 894_528),
        ("ast_wav2vec2", "conformer", 926_208),
        ("soft_moa", "dense_moa RR 128", 922_188),
        ("soft_moa", "soft_moa RR 128", 922_104),
        ("sure_classification", "bottleneck", 25_202_688),
        ("sure_classification", "lora", 3_538_944),
        ("sure_classification", "prefix", 1_474_560),
        ("sure_classification", "conv_adapter", 3_403_776),
        ("sure_sequence", "bottleneck", 25_202_688),
        ("sure_sequence", "lora", 3_538_944),
        ("sure_tts", "bottleneck", 659_200),
        ("sure_tts", "prefix", 153_600),
        ("sure_tts", "lora", 81_920),
    ],
)
def test_rows_have_the_printed_sizes(file, name, count, backbones):
    assert size_of(file, name, backbones) == count


def test_every_printed_row_of_the_tables_is_run():
    for file in PAPERS:
        given = read(FILES / f"{file}.yaml")
        assert isinstance(given["paper"], Paper)
        entries = [{"method": m} if isinstance(m, str) else m for m in given["methods"]]
        names = {entry.get("name", entry["method"]) for entry in entries}
        for recipe in given["recipes"]:
            for metric in ("accuracy", "weighted_f1", "word_error_rate"):
                for figure in figures(recipe, metric):
                    same = (given["paper"].source, given["paper"].backbone)
                    if (figure.source, figure.backbone) == same and file not in (
                        *("ast_few_shot", "ast_scaling", "soft_moa"),
                    ):
                        assert figure.label in names, (file, figure)


def test_every_figure_says_its_protocol_and_source():
    with open(PUBLISHED, encoding="utf-8") as stream:
        head, *rows = stream.read().splitlines()
    fields = [field.name for field in dataclasses.fields(figures.__globals__["Figure"])]
    assert head.split(",") == fields
    assert all(re.search(r",arXiv \d{4}\.\d{5}$", row) for row in rows)


FOLDERS = {"esc50": "ESC-50", "speechcommands": "speech_commands_v0.02"}


def test_a_table_runs_tiny_and_its_report_has_the_printed_figures(
    tmp_path, monkeypatch, capsys
):
    """Two data sets and four rows of table 1."""
    data = tmp_path / "data"
    for maker in ("esc50", "speechcommands"):
        (data / FOLDERS[maker]).mkdir(parents=True)
        getattr(layouts, maker)(data / FOLDERS[maker])
    monkeypatch.setenv("DATA", str(data))
    source = tiny_checkpoint("ast", tmp_path / "ast")
    whole = (FILES / "ast_table1.yaml").read_text()
    start = whole.index("    - recipe: UrbanSound8K")
    cut = whole[:start] + whole[whole.index("methods:\n    - {method: full") :]
    kept = [
        line
        for line in cut.splitlines()
        if not re.search(r"method: (full|bitfit|lora)|Houlsby, method", line)
    ]
    file = tmp_path / "table1.yaml"
    text = "\n".join(kept)
    text = text.replace(", conformer Houlsby: {kernel_size: 8}", "")
    for name in ("prompt shallow 300", "prefix 24"):
        at = text.index(f"    - name: {name}")
        text = text[:at] + text[text.index("    - ", at + 5) :]
    file.write_text(text)
    arguments = [str(file), "--tiny", f"--with=source={source}"]
    arguments.append(f"--with=output_folder={tmp_path / 'out'}")
    assert benchmark.main(["run", *arguments]) == 0
    capsys.readouterr()
    assert benchmark.main(["report", *arguments]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Printed figures: arXiv 2312.03694, table 1, with AST.")
    assert "Ours differs in:" in out and "--with choose=last" in out
    rows = [line.split(" | ") for line in out.splitlines() if line.startswith("| ")]
    head = next(row for row in rows if "printed accuracy, %" in row)
    printed = head.index("printed accuracy, %")
    found = {row[0].strip("| "): row[printed] for row in rows if len(row) > 4}
    assert found["linear"] == "75.85" and found["bottleneck Pfeiffer"] == "88.38"
    assert found["prompt deep 25"] == "86.52"
