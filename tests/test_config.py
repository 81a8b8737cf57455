"""A recipe's yaml over petl.yaml: keys, types, knobs, and saved configs."""

import contextlib

import pytest
from conftest import ROOT

from petl_modules.errors import UserError
from petl_modules.grid.jobs import as_text
from petl_modules.methods import method_table
from petl_modules.train.config import SHARED, load_config, recipe_config

ESC50 = ROOT / "recipes" / "ESC50" / "hparams" / "adapter.yaml"
AUDIOFOLDER = ROOT / "recipes" / "AudioFolder" / "hparams" / "adapter.yaml"
RECIPES = sorted((ROOT / "recipes").glob("**/hparams/adapter.yaml"))
KNOBS = recipe_config(ESC50).knobs


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe's yaml; gives its path."""

    def write(text, name="recipe.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(path, *arguments):
    with pytest.raises(UserError) as refusal:
        load_config(path, arguments)
    return str(refusal.value)


# Overlay


def test_a_recipe_is_laid_over_what_all_share(recipe):
    config = load_config(recipe("recipe: Own\nbatch_size: 5\nown_key: 7\n"))
    assert (config["recipe"], config["batch_size"], config["own_key"]) == ("Own", 5, 7)
    shared = recipe_config(SHARED)
    assert config["number_of_epochs"] == shared["number_of_epochs"]
    assert set(config.tree) == {*shared.tree, "own_key"}


def test_a_recipe_is_laid_over_one_beside_it(tmp_path):
    base, small = tmp_path / "base.yaml", tmp_path / "small.yaml"
    base.write_text("recipe: Own\nbatch_size: 5\nnumber_of_epochs: 3\n")
    small.write_text("over: base.yaml\nbatch_size: 2\n")
    config = load_config(small)
    assert (config["batch_size"], config["number_of_epochs"]) == (2, 3)
    base.write_text("over: small.yaml\nrecipe: Own\n")
    assert "over=small.yaml" in refused(small)  # round and round


def test_an_object_can_be_replaced(recipe):
    text = "opt_class: !name:torch.optim.SGD\n    lr: !ref <lr>\n"
    config = load_config(recipe(text), ["--lr=0.25"])
    assert "!name:torch.optim.SGD" in config.text()
    assert "AdamW" not in config.text()


def a_value(key):
    """A value that a knob may have, other than its default, and its method."""
    own = ("mhsa", True, 0.4, [0.5, 0.5], [3], 6, 0.05, "word", ["encoder"], ["k"])
    others = (
        "cls",
        "bf16",
        "offline",
        "macro_f1",
        "gloo",
        "lora",
        "linear",
        "last",
        "first",
    )
    start = ("first", "sequential", "after", "random", "relu", "convpass")
    methods = [name for name, e in method_table().items() if key in e.knobs]
    if key == "tuner_settings":
        return '{"r": 2}', "peft"
    for value in (*own, *others, *start):
        with contextlib.suppress(UserError):
            return KNOBS[key].check(value), (methods or ["lora"])[0]
    raise AssertionError(f"{key} takes none of the values")


@pytest.mark.parametrize("key", [k for k in KNOBS if k != "method"])
def test_every_knob_can_be_set(key):
    value, method = a_value(key)
    config = load_config(ESC50, [f"--{key}={as_text(value)}", f"--method={method}"])
    assert config[key] == value
    assert config.given >= {key}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parts[-3])
def test_every_knob_is_explained(path):
    for knob in recipe_config(path).knobs.values():
        if knob.section != "Recipe":
            assert knob.help[:1].isupper() and knob.help.endswith("."), knob.name
            assert knob.described != "a yaml value", knob.name


# Saved configs


@pytest.mark.parametrize("path", [ESC50, AUDIOFOLDER], ids=["ESC50", "AudioFolder"])
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--method=lora", "--targets=[q,k,ffn]", "--rank=3", "--lr=1e-3"],
        ["--method=soft_moa", "--layers=[-1]", "--normalize=True"],
        ["--method=linear", "--data_folder=/a b/ü: #1", "--few_shot=5"],
    ],
    ids=["default", "lora", "soft_moa", "linear"],
)
def test_a_saved_config_gives_itself(recipe, path, arguments):
    config = load_config(path, arguments).replace(run_folder="results/run")
    saved = recipe(config.text())
    again = load_config(saved)
    assert again.text() == config.text()
    assert again.settings() == config.settings()


def test_a_saved_config_takes_changes_but_no_other_method(recipe):
    config = load_config(ESC50, ["--method=lora", "--rank=3"])
    saved = recipe(config.replace(run_folder="results/run").text())
    again = load_config(saved, ["--seed=4", "--method=lora"])
    assert (again["seed"], again["rank"]) == (4, 3)
    sentence = refused(saved, "--method=bottleneck")
    assert "method=lora" in sentence and "recipe's own yaml" in sentence


# Command line


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("--lr=1e-3", "lr", 0.001),
        ("--lr=1", "lr", 1.0),
        ("--lr=2.5E-4", "lr", 0.00025),
        ("--weight_decay=0", "weight_decay", 0.0),
        ("--layers=[0, -1]", "layers", [0, -1]),
        ("--betas=[0.8,0.9]", "betas", [0.8, 0.9]),
        ("--skip_broken", "skip_broken", True),
        ("--skip_broken=False", "skip_broken", False),
        ("--few_shot=null", "few_shot", None),
        ("--data_folder=a=b", "data_folder", "a=b"),
        ("--data_folder=2024", "data_folder", "2024"),
        ("--data_folder=take #1", "data_folder", "take #1"),
        ("--source=[x]/y: {z}", "source", "[x]/y: {z}"),
        ("--layers=-1", "layers", [-1]),
        ("--folds=1,2", "folds", [1, 2]),
    ],
)
def test_values_are_yaml_in_the_type_of_the_key(argument, key, value):
    found = load_config(ESC50, [argument])[key]
    assert found == value and isinstance(found, type(value))


def test_a_value_may_follow_its_key():
    config = load_config(ESC50, ["--seed", "3", "--skip_broken", "--lr", "1e-3"])
    assert (config["seed"], config["skip_broken"], config["lr"]) == (3, True, 0.001)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--rnak=3", "no option --rnak. Did you mean --rank?"),
        ("--number_of_epoch=3", "Did you mean --number_of_epochs?"),
        ("--zzzzzz=3", "no option --zzzzzz. --help lists all"),
        ("--model=x", "no option --model"),
        ("--opt_class=x", "no option --opt_class"),
        ("--run_folder=x", "no option --run_folder"),
        ("--seed=1.5", "--seed=1.5 must be a whole number"),
        ("--seed=True", "must be a whole number"),
        ("--lr=fast", "--lr=fast must be a number"),
        ("--lr=True", "must be a number"),
        ("--skip_broken=1", "must be True or False"),
        ("--wandb=7", "online or offline"),
        ("--rank=[3]", "must be a whole number"),
        ("--lr=0", "lr=0 must be a number, above 0"),
        ("--batch_size=-1", "batch_size=-1 must be a whole number, 1 or more"),
        ("--layers=[0", "no yaml value"),
        ("--layers=" + "[" * 9999, "no yaml value"),
        ("--rank", "--rank has no value: --rank=a whole number"),
        ("--data_folder", "--data_folder has no value"),
        ("seed=3", "seed=3 is not understood"),
        ("--method=loar", "no method loar"),
    ],
)
def test_mistakes_are_named(argument, words):
    assert words in refused(ESC50, argument)


def test_a_file_that_is_no_config(recipe, tmp_path):
    assert "gone.yaml" in refused(tmp_path / "gone.yaml")
    assert "is no yaml" in refused(recipe("a: [1\nb: 2\n"))
    assert "holds no keys" in refused(recipe("- 1\n- 2\n"))


# Methods


@pytest.mark.parametrize(
    "arguments",
    [
        ["--method=linear", "--rank=3"],
        ["--method=lora", "--site=ffn"],
        ["--method=bottleneck", "--kernel_size=3"],
        ["--method=prompt", "--projection=8"],
    ],
)
def test_a_knob_that_the_method_has_no_use_for(arguments):
    method, knob = arguments[0].split("=")[1], arguments[1].split("=")[0]
    assert f"{method} has no use for {knob}" in refused(ESC50, *arguments)


def test_method_defaults_are_applied_and_overridden(recipe):
    path = recipe(
        "method_defaults:\n"
        "    lora: {alpha: 16, lr: 0.0007, weight_decay: 0.3}\n"
        "    prefix: {prompt_length: 40}\n"
    )
    config = load_config(path, ["--method=lora"])
    found = (config["alpha"], config["lr"], config["weight_decay"])
    assert found == (16, 0.0007, 0.3)
    assert config["prompt_length"] is None
    config = load_config(path, ["--method=lora", "--alpha=2", "--weight_decay=0.0"])
    found = (config["alpha"], config["lr"], config["weight_decay"])
    assert found == (2, 0.0007, 0.0)
    assert load_config(path, ["--method=bottleneck"])["weight_decay"] == 0.1
    assert not config["method_defaults"]


def test_method_defaults_of_an_unknown_key(recipe):
    path = recipe("method_defaults:\n    lora: {rnak: 3}\n")
    assert "unknown key rnak" in refused(path, "--method=lora")


def test_rank_and_reduction_rate_take_each_others_place(recipe):
    by_rate = recipe("method_defaults:\n    conformer: {reduction_rate: 96}\n")
    arguments = ["--method=conformer", "--rank=8"]
    config = load_config(by_rate, arguments)
    assert (config["rank"], config["reduction_rate"]) == (8, None)
    by_rank = recipe("method: conformer\nrank: 8\n", "rank.yaml")
    config = load_config(by_rank, ["--reduction_rate=64"])
    assert (config["rank"], config["reduction_rate"]) == (None, 64)
    assert "not both" in refused(by_rate, *arguments, "--reduction_rate=64")


@pytest.mark.parametrize("method", method_table())
def test_every_method_has_its_own_learning_rate(recipe, method):
    config = load_config(recipe("recipe: Own\n"), [f"--method={method}"])
    assert config["lr"] == method_table()[method].lr
    config = load_config(recipe("lr: 0.5\n"), [f"--method={method}"])
    assert config["lr"] == 0.5


def test_a_linear_probe_does_not_mask_unless_told_to():
    path = ROOT / "recipes" / "UrbanSound8K" / "hparams" / "adapter.yaml"
    masks = load_config(path, ["--method=bottleneck"])
    assert (masks["spec_augment_freq"], masks["spec_augment_time"]) == (24, 80)
    linear = load_config(path, ["--method=linear", "--spec_augment_freq=9"])
    assert (linear["spec_augment_freq"], linear["spec_augment_time"]) == (9, 0)


def test_checkpoints_by_steps_turn_those_by_minutes_off():
    config = load_config(ESC50, ["--ckpt_interval_steps=5"])
    assert (config["ckpt_interval_steps"], config["ckpt_interval_minutes"]) == (5, 0)


def test_steps_are_gentle_after_a_head_start(recipe):
    path = recipe("recipe: Own\n")
    entry = method_table()["bottleneck"]
    fresh = load_config(path, ["--method=bottleneck"])
    started = load_config(path, ["--method=bottleneck", "--head_start_epochs=5"])
    assert (fresh["lr"], started["lr"]) == (entry.lr, entry.lr_after_head_start)
    assert started["lr"] < fresh["lr"]


# What a config may name


@pytest.mark.parametrize(
    "text",
    [
        "own: !apply:os.system [touch RAN]",
        "own: !new:subprocess.Popen\n    args: [touch, RAN]",
        "own: !name:builtins.exec",
        "own: {deep: [!module:os]}",
        "own: !!python/object/apply:os.system [touch RAN]",
        "own: !<tag:yaml.org,2002:python/object/apply:os.system> [touch RAN]",
        "opt_class: !name:torch.optim.AdamW\n    lr: !apply:os.system [touch RAN]",
        "own: !apply:petl_modules.files.write_text\n    path: RAN\n    text: x",
        "own: !include:other.yaml",
        "? !apply:os.system [touch RAN]\n: 3",
    ],
)
def test_no_config_runs_code(recipe, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    sentence = refused(recipe(text))
    assert "recipe.yaml" in sentence
    assert not (tmp_path / "RAN").exists()


def test_names_of_earlier_versions_are_understood(recipe):
    text = "model: !new:petl_modules.adapted.AdaptedModel\n"
    text += "    backbone: !ref <backbone>\n    method: !ref <petl>\n"
    config = load_config(recipe(text))
    assert "!new:petl_modules.core.adapted.AdaptedModel" in config.text()


def test_a_new_synthesiser_of_an_earlier_version_is_built(recipe):
    base = ROOT / "recipes/LJSpeech/TTS/hparams/base.yaml"
    today = load_config(base, ["--hidden_size=32"]).text()
    head, config, rest = today.partition(
        "\n  config: !new:petl_modules.tts.config.FastSpeech2Config"
    )
    assert config
    sizes = [line[2:] for line in rest.splitlines() if line.startswith("    ")]
    others = [line for line in rest.splitlines() if not line.startswith("    ")]
    earlier = recipe("\n".join([head, *sizes, *others]) + "\n")
    assert "\n  hidden_size: !ref <hidden_size>\n" in earlier.read_text()
    built = load_config(earlier).objects(["backbone"])["backbone"]
    assert built.hidden_size == 32
