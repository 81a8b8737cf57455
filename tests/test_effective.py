"""What a run used is written down, so that another default changes no old run."""

from pathlib import Path

import pytest

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.counts import effective
from petl_modules.methods import make_method
from petl_modules.train.checkpoints import Belongs
from petl_modules.train.config import load_config


def recipe_of(folder, text=""):
    path = folder / "adapter.yaml"
    path.write_text(f"recipe: Own\ndataset: Own\nsource: ast\nnum_classes: 2\n{text}")
    return path


def test_a_saved_config_says_the_rate_that_nobody_said(tmp_path):
    config = load_config(recipe_of(tmp_path), ["--method=lora"])
    assert (config["rank"], config["reduction_rate"]) == (None, 128)
    saved = tmp_path / "hyperparams.yaml"
    saved.write_text(f"# rank: 6 was used\n{config.text()}")
    assert "reduction_rate: 128" in saved.read_text()
    assert load_config(saved).settings() == config.settings()
    # as earlier versions left it
    saved.write_text(config.text().replace("rate: 128.0", "rate: null"))
    assert load_config(saved).settings() == config.settings()


def test_a_rank_leaves_no_rate_beside_it(tmp_path):
    path = recipe_of(tmp_path, "rank: 8\n")
    config = load_config(path, ["--method=bottleneck"])
    assert (config["rank"], config["reduction_rate"]) == (8, None)
    saved = tmp_path / "hyperparams.yaml"
    saved.write_text(config.text())
    assert load_config(saved).settings() == config.settings()


def test_convpass_experts_say_what_they_take():
    knobs = make_method("dense_moa", expert="convpass", dropout=0.2).knobs
    assert (knobs["kernel_size"], knobs["dropout"]) == (3, 0.2)
    assert "kernel_size" not in make_method("dense_moa").knobs


@pytest.mark.parametrize(
    "method, knobs, rank",
    [
        ("lora", {}, 1),
        ("lora", {"targets": ["q", "fc2"], "reduction_rate": 8}, [4, 6]),
        ("conformer", {"rank": 5}, 5),
        ("soft_moa", {"reduction_rate": 4}, 8),
        ("bitfit", {}, None),
    ],
)
def test_the_rank_that_was_used_is_known(checkpoints, method, knobs, rank):
    model = AdaptedModel(
        load_backbone(checkpoints["ast"]), make_method(method, **knobs)
    )
    assert effective(model).get("rank") == rank


def test_what_an_earlier_version_left_unsaid_is_no_difference():
    ours = Belongs({"reduction_rate": 128, "few_shot": 5}, {}, "w")
    theirs = {"settings": {"reduction_rate": None, "few_shot": 5}, "manifests": {}}
    where = Path("run")
    assert ours.difference({**theirs, "backbone": "w"}, where) is None
    theirs["settings"]["few_shot"] = None
    assert "few_shot=None" in ours.difference({**theirs, "backbone": "w"}, where)
