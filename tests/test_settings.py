"""Settings that make no sense are refused before anything is built."""

import pytest
from conftest import ROOT

from petl_modules.errors import UserError
from petl_modules.train.config import load_config, refuse_unread
from petl_modules.train.experiment import refuse_device

ESC50 = ROOT / "recipes" / "ESC50" / "hparams" / "adapter.yaml"


def refused(path, *arguments):
    with pytest.raises(UserError) as refusal:
        refuse_device(load_config(path, arguments))
    return str(refusal.value)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--seed=-1", "from 0 to"),
        ("--seed=null", "seed must have a value"),
        ("--number_of_epochs=", "number_of_epochs must have a value"),
        ("--output_folder=", "output_folder must have a value"),
        ("--lr=.inf", "finite"),
        ("--lr=1e38", "from 0 to"),
        ("--lr=.nan", "finite"),
        ("--weight_decay=-1", "0 or more"),
        ("--spec_augment_time=-1", "0 or more"),
        ("--num_workers=-1", "0 or more"),
        ("--warmup=5", "from 0 to 1"),
        ("--label_smoothing=1.5", "from 0 to 1"),
        ("--dropout=-0.1", "from 0 to 1"),
        ("--betas=0.9", "two numbers"),
        ("--betas=[0.9, 1]", "two numbers"),
        ("--projector_size=0", "above 0"),
        ("--head_start_lr=0", "above 0"),
        ("--precision=bf61", "fp32 or bf16"),
        ("--eval_precision=half", "fp32 or bf16"),
        ("--device=gpu", "no device=gpu"),
    ],
)
def test_values_out_of_range(argument, words):
    assert words in refused(ESC50, "--method=bottleneck", argument)


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        ("conformer", "--kernel_size=0"),
        ("lora", "--alpha=0"),
        ("prefix", "--projection=0"),
        ("dense_moa", "--num_adapters=0"),
        ("soft_moa", "--num_slots=0"),
        ("prompt", "--prompt_dropout=2"),
    ],
)
def test_knobs_out_of_range(method, argument):
    assert argument[2:].split("=")[0] in refused(ESC50, f"--method={method}", argument)


def test_null_asks_for_the_default():
    arguments = ("--method=full", "--lr=null", "--rank=null")
    assert (
        load_config(ESC50, arguments)["lr"] == load_config(ESC50, arguments[:1])["lr"]
    )


def test_a_yaml_is_checked_as_the_command_line_is(tmp_path):
    path = tmp_path / "recipe.yaml"

    def sentence(text):
        path.write_text(f"recipe: Own\nmethod: lora\n{text}\n", encoding="utf-8")
        return refused(path)

    assert "lr=fast" in sentence("lr: fast")
    assert "batch_size must have a value" in sentence("batch_size: null")
    assert "above 0" in sentence("batch_size: 0")
    assert "no method lroa" in sentence("method_defaults: {lroa: {rank: 3}}")
    assert "no use for site" in sentence("method_defaults: {lora: {site: ffn}}")


def test_a_key_that_nothing_reads(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("batch_sise: 3\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"batch_sise, which nothing reads.*batch_size"):
        refuse_unread(load_config(path), ())
    path.write_text(
        "valid_fraction: 0.2\nhalf: 0.5\nown: !new:fractions.Fraction [!ref <half>]\n",
        encoding="utf-8",
    )
    refuse_unread(load_config(path), ("valid_fraction",))
