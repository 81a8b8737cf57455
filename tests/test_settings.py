"""Settings that make no sense are refused before anything is built."""

import pytest
from conftest import ROOT

from petl_modules.errors import UserError
from petl_modules.train.config import load_config, refuse_unread
from petl_modules.train.refusals import refuse_device

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
        ("--lr=1e38", "at most 1e+30"),
        ("--lr=.nan", "finite"),
        ("--weight_decay=-1", "from 0 to 1000"),
        ("--spec_augment_time=-1", "0 or more"),
        ("--num_workers=-1", "from 0 to 256"),
        ("--warmup=5", "from 0 to 1"),
        ("--label_smoothing=1", "0 or more and below 1"),
        ("--dropout=-0.1", "0 or more and below 1"),
        ("--dropout=1", "below 1"),
        ("--max_duration=1e-4", "from 0.05"),
        ("--layers=true", "a list of whole numbers"),
        ("--reduction_rate=0.5", "from 1 to"),
        ("--folds=[1,1]", "each once"),
        ("--num_workers=9999", "from 0 to 256"),
        ("--betas=0.9", "exactly 2"),
        ("--betas=[0.9, 1]", "below 1"),
        ("--projector_size=0", "from 1 to"),
        ("--head_start_lr=0", "above 0"),
        ("--precision=bf61", "fp32, bf16 or fp16"),
        ("--precision=fp16", "fp32 or bf16"),
        ("--eval_precision=half", "fp32, bf16 or fp16"),
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
        ("lora", "--alpha=1e38"),
        ("dense_moa", "--kernel_size=5"),
        ("soft_moa", "--dropout=0.1"),
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
    assert "1 or more" in sentence("batch_size: 0")
    assert "no method lroa" in sentence("method_defaults: {lroa: {rank: 3}}")
    assert "no use for site" in sentence("method_defaults: {lora: {site: ffn}}")


def test_a_key_that_nothing_reads(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("batch_sise: 3\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"batch_sise, which nothing reads.*batch_size"):
        refuse_unread(load_config(path), None)
    path.write_text(
        "valid_fraction: 0.2\nhalf: 0.5\nopt_class: !name:torch.optim.SGD\n"
        "    momentum: !ref <half>\n",
        encoding="utf-8",
    )

    def prepare(data_folder, valid_fraction):
        pass

    refuse_unread(load_config(path, (), prepare), prepare)
