"""The files that run papers' tables again: the printed sizes, and that they run."""

import dataclasses
import json
import re

import layouts
import pytest
import tiny
import torch
from conftest import ROOT
from transformers import Wav2Vec2Config

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.counts import counts
from petl_modules.grid.benchmark import load_benchmark, read
from petl_modules.grid.jobs import Job
from petl_modules.grid.published import PUBLISHED, Paper, beside, figures
from petl_modules.grid.report import write_report
from petl_modules.grid.runs import Run, read_job
from petl_modules.grid.schedule import run_here as run_jobs
from petl_modules.methods import make_method, method_knobs
from petl_modules.tasks.heads import ClassificationHead
from petl_modules.tts.config import FastSpeech2Config
from petl_modules.tts.fastspeech2 import FastSpeech2Backbone

FILES = ROOT / "benchmarks"
PAPERS = (
    *("ast_table1", "ast_few_shot", "ast_wav2vec2", "ast_scaling", "soft_moa"),
    *("sure_classification", "sure_sequence", "sure_tts"),
)
# Rows that a paper itself trains otherwise from task to task
DIFFERENT = {"full", "lora"}
# Those of whose rows figures are known
PRINTED = {"ast_table1", "ast_wav2vec2", "sure_classification", "sure_sequence"}
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


def test_full_fine_tuning_has_the_printed_size(backbones):
    millions = size_of("sure_classification", "full", backbones) / 1e6
    assert round(millions) == 315


def test_a_linear_probe_has_the_printed_sizes(backbones):
    """Head and last LayerNorm, of 50 classes and of 10."""
    given = read(FILES / "ast_table1.yaml")
    backbone = backbones(given["overrides"]["source"])
    found = {}
    for recipe in given["recipes"]:
        knobs = {"method": "linear", "source": given["overrides"]["source"]}
        classes = Job(recipe["recipe"], (*knobs.items(),)).config["num_classes"]
        head = ClassificationHead(backbone.hidden_size, classes)
        model = AdaptedModel(backbone, make_method("linear"))
        found[recipe["recipe"]] = counts(model, head)["trainable"]
    assert found["ESC50"] == 39_986 and found["UrbanSound8K"] == 9_226


def test_files_of_one_paper_have_its_methods_alike():
    """What one file says of a row the others say too."""
    for one, other in (
        ("ast_table1", "ast_few_shot"),
        ("sure_classification", "sure_sequence"),
        ("sure_sequence", "sure_tts"),
    ):
        rows = [rows_of(file) for file in (one, other)]
        shared = rows[0].keys() & rows[1].keys() - DIFFERENT
        assert len(shared) >= 2
        for name in shared:
            left, right = ({**row[name], "lr": None} for row in rows)
            assert left == right, (one, other, name)


def rows_of(file):
    """The methods of a file, by the names of the rows."""
    entries = read(FILES / f"{file}.yaml")["methods"]
    return {entry.get("name", entry["method"]): entry for entry in entries}


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


# The miniature tree of each data set, by the folder that the files name
TREES = {
    "ESC-50": "esc50",
    "UrbanSound8K": "urbansound8k",
    "speech_commands_v0.01": "speechcommands",
    "speech_commands_v0.02": "speechcommands",
    "fluent_speech_commands_dataset": "fluentspeechcommands",
    "IEMOCAP_full_release": "iemocap",
    "ESD": "esd",
    "MELD.Raw": "meld",
    "VCTK-Corpus": "vctk",
    "FLEURS/en_us": "fleurs",
    "LibriSpeech": "librispeech",
    "SNIPS": "snips",
    "LibriTTS": "libritts",
    "L2ARCTIC": "l2arctic",
}
MOST_CLIPS = 2  # of a class for few-shot learning, in the smallest tree
# What a file asks for that the trees do not have
ABSENT = {
    "sure_classification": {"words": None, "without": []},
    "sure_tts": {"valid_sentences": 2, "test_sentences": 2},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with all miniature trees."""
    root = tmp_path_factory.mktemp("data")
    for folder, maker in TREES.items():
        (root / folder).mkdir(parents=True)
        getattr(layouts, maker)(root / folder)
    return root


@pytest.fixture(scope="module")
def tiny_bases(tmp_path_factory):
    """A tiny backbone for that of each file, by a part of its name; of four layers, as
    the files count them."""
    root = tmp_path_factory.mktemp("bases")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny.SIZES, "num_hidden_layers", 4)
        own = {"ast-": "ast", "wav2vec2-base": "wav2vec2", "xlsr": "xlsr"}
        made = {n: tiny.tiny_checkpoint(f, root / f) for n, f in own.items()}
    return {"$BASE": tiny.tiny_speech_base(root / "base"), **made}


def one_of_each(jobs, paper):
    """A job of every recipe that a file names, and those of another method in turn; of
    one whose figure is printed where there is one."""
    by_recipe = {}
    for job in jobs:
        few = job.config["few_shot"]
        if few is None or few <= MOST_CLIPS:
            by_recipe.setdefault((job.recipe, job.task, few), []).append(job)
    for place, found in enumerate(by_recipe.values()):
        known = [job for job in found if printed(job, paper) is not None]
        chosen = known or found
        yield chosen[place % len(chosen)]


def printed(job, paper):
    """The figure that stands beside a job, or None."""
    config = job.config
    given = {"recipe": config["recipe"], "task": config.get("task")}
    label = job.name or config["method"]
    metrics = ("accuracy", "weighted_f1", "word_error_rate", "phone_error_rate")
    for metric in (*metrics, "slot_type_f1"):
        found = beside(figures(given, metric), paper, label, config["few_shot"])
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("file", PAPERS)
def test_a_file_runs_tiny_and_its_report_has_the_printed_figures(
    file, data, tiny_bases, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("DATA", str(data))
    # as if the miniature trees had all classes of their data sets
    monkeypatch.setattr(Run, "classes", None)
    path = FILES / f"{file}.yaml"
    asked = read(path)["overrides"]["source"]
    (source,) = [base for name, base in tiny_bases.items() if name in asked]
    more = {"source": str(source), "output_folder": str(tmp_path)}
    whole = load_benchmark(path, {**ABSENT.get(file, {}), **more}, tiny=True)
    jobs = list(one_of_each(whole.jobs, whole.paper))
    assert run_jobs(jobs, tmp_path) == 0, capfd.readouterr().out
    capfd.readouterr()
    assert write_report([read_job(job) for job in jobs], tmp_path, None, None,
                        whole.paper) == 0  # fmt: skip
    out = capfd.readouterr().out
    assert out.startswith(f"Printed figures: {whole.paper.source}, {whole.paper.table}")
    assert "Protocol: " in out and "Ours differs in:" in out
    assert "Which can be switched back:" in out
    expected = [printed(job, whole.paper) for job in jobs]
    values = [figure.value for figure in expected if figure is not None]
    assert all(f"| {value} |" in out for value in values)
    assert bool(values) == (file in PRINTED)
