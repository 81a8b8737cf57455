"""What decides how a run goes and what it leaves: seeds, clocks, losses, locks."""

import errno
import json
import os
import subprocess
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import pytest
import speechbrain as sb
import torch
from conftest import ROOT, run_here, together
from speechbrain.utils.checkpoints import Checkpointer

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.task_model import TaskModel
from petl_modules.data.feature_cache import clip_key, key_of
from petl_modules.errors import Damaged, UserError
from petl_modules.files import lock, write_json, write_text, writing
from petl_modules.methods import make_method
from petl_modules.methods.adapters import MaskedBatchNorm
from petl_modules.tasks.heads import ClassificationHead
from petl_modules.train import provenance
from petl_modules.train.brain import PetlBrain
from petl_modules.train.config import load_config
from petl_modules.train.folds import alone
from petl_modules.train.head_start import probe_of
from petl_modules.train.refusals import (
    refuse_folds,
    refuse_shared_clips,
)
from petl_modules.train.results import (
    FILES,
    finished,
    remove_checkpoints,
    write_results,
)
from petl_modules.train.stopwatch import Stopwatch

ESC50 = ROOT / "recipes" / "ESC50" / "hparams" / "adapter.yaml"
AUDIOFOLDER = ROOT / "recipes" / "AudioFolder" / "hparams" / "adapter.yaml"


# Training


def test_every_batch_has_a_random_state_of_its_own():
    seeds = {
        PetlBrain._batch_seed(
            SimpleNamespace(
                hparams=SimpleNamespace(seed=seed),
                counter=SimpleNamespace(current=epoch),
                step=step,
                rank=rank,
            )
        )
        for seed in range(3)
        for epoch in range(1, 4)
        for step in range(1, 6)
        for rank in range(2)
    }
    assert len(seeds) == 3 * 3 * 5 * 2


@pytest.mark.parametrize(
    ("method", "spared"),
    [("conformer", ()), ("prompt", ("tokens",)), ("prefix", ("vectors",))],
)
def test_weight_decay_leaves_what_it_must_spare(checkpoints, method, spared):
    backbone = load_backbone(str(checkpoints["ast"]))
    model = AdaptedModel(backbone, make_method(method))
    task_model = TaskModel(model, ClassificationHead(backbone.hidden_size, 3))
    optimizer = torch.optim.AdamW(
        task_model.parameter_groups(), lr=0.1, weight_decay=0.5
    )
    names = {**model.trained_parameters()}
    names |= {f"head.{n}": p for n, p in task_model.head.named_parameters()}
    before = {name: p.detach().clone() for name, p in names.items()}
    for parameter in names.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in names.items():
        free = parameter.ndim < 2 or name.rpartition(".")[2] in spared
        moved = not parameter.equal(before[name])
        nothing = not before[name].any()
        assert moved != (free or nothing), name
    (group,) = TaskModel(model, task_model.head).parameter_groups(decay_all=True)
    assert len(group["params"]) == len(names)


def test_a_stopwatch_goes_on_where_it_was(tmp_path):
    first = Stopwatch()
    first.before = 1000.0
    first._save(tmp_path / "seconds")
    again = Stopwatch()
    again._load(tmp_path / "seconds", end_of_epoch=True)
    assert 1000 <= again.total < 1060
    again.taken_up = True  # the best epoch, loaded at the end, turns no clock back
    (tmp_path / "seconds").write_text("5.0")
    again._load(tmp_path / "seconds", end_of_epoch=True)
    assert again.total >= 1000


def test_the_probe_of_a_head_start():
    arguments = ["--method=prompt", "--pooling=prompts", "--mixup=0.3", "--patience=2"]
    arguments += ["--head_start_epochs=7", "--head_start_lr=0.02", "--lr=0.5"]
    probe = probe_of(load_config(ESC50, arguments))
    said = (probe["method"], probe["lr"], probe["number_of_epochs"], probe["pooling"])
    assert said == ("linear", 0.02, 7, "all")
    assert (probe["mixup"], probe["patience"], probe["prompt_length"]) == (
        0,
        None,
        None,
    )


def test_the_loss_of_a_split_is_that_of_its_clips():
    brain, mean = SimpleNamespace(seen=0, weight=0), 0.0
    for brain.weight, loss in ((4, 1.0), (1, 6.0)):
        mean = PetlBrain.update_average(brain, torch.tensor(loss), mean)
    assert mean == pytest.approx(2.0)


@pytest.mark.parametrize("skipped", [True, False])
def test_a_step_that_fp16_skips_does_not_move_the_schedule(skipped):
    scale, moved = [8.0], []
    scaler = SimpleNamespace(
        unscale_=lambda optimizer: None,
        get_scale=lambda: scale[0],
        step=lambda optimizer: None,
        update=lambda: scale.__setitem__(0, 4.0 if skipped else 8.0),
    )
    brain = SimpleNamespace(
        scaler=scaler,
        optimizer=torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1),
        max_grad_norm=0,
        scheduler=SimpleNamespace(step=lambda: moved.append(1), last_epoch=3),
        optimizer_step=0,
        **told_of_steps(seen := []),
    )
    PetlBrain.optimizers_step(brain)
    assert (len(moved), brain.optimizer_step) == ((0, 0) if skipped else (1, 1))
    assert seen == ([] if skipped else [(3, 9)])  # what the methods are told


def told_of_steps(seen):
    """Of a Brain: the methods' part of a step, and how many steps there will be."""
    methods = SimpleNamespace(
        before_step=lambda: None, after_step=lambda *told: seen.append(told)
    )
    return {"task_model": methods, "plan": SimpleNamespace(steps=9)}


def test_of_all_epochs_the_best_and_the_last_are_kept(tmp_path):
    errors = [0.5, 0.2, 0.4, 0.3]
    brain = SimpleNamespace(
        task=SimpleNamespace(
            metrics=lambda: {"accuracy": 0.5},
            error=lambda metrics, loss: loss,
            metric="accuracy",
            held_out_loss=True,
        ),
        progress=SimpleNamespace(stop=lambda: None, epoch=lambda *given: None),
        journal=SimpleNamespace(log_stats=lambda *given, **stats: None),
        counter=SimpleNamespace(
            update_metric=lambda error: None, limit=4, should_stop=False
        ),
        saved=0.0,
        optimizer=torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1),
        hparams=SimpleNamespace(choose="best", average=1),
        train_loss=None,
        right=None,
        checkpointer=Checkpointer(tmp_path, {"layer": torch.nn.Linear(1, 1)}),
    )
    brain._is_worth_keeping = partial(PetlBrain._is_worth_keeping, brain)
    for epoch, error in enumerate(errors, start=1):
        PetlBrain.on_stage_end(brain, sb.Stage.VALID, error, epoch)
    kept = {c.meta["epoch"] for c in brain.checkpointer.list_checkpoints()}
    assert kept == {2, 4}


def test_gradients_of_all_groups_are_clipped_together():
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    for weight in weights:
        weight.grad = torch.full((2,), 5.0)  # together of the length 10
    groups = [{"params": [weight]} for weight in weights]
    brain = SimpleNamespace(
        scaler=torch.amp.GradScaler(enabled=False),
        optimizer=torch.optim.SGD(groups, lr=1.0),
        max_grad_norm=1.0,
        scheduler=SimpleNamespace(step=lambda: None, last_epoch=1),
        optimizer_step=0,
        **told_of_steps([]),
    )
    PetlBrain.optimizers_step(brain)
    for weight in weights:
        assert weight.tolist() == pytest.approx([-0.5, -0.5], abs=1e-4)


def test_a_short_group_of_batches_weighs_as_much_as_a_whole_one():
    weight, steps = torch.nn.Parameter(torch.zeros(())), []
    brain = SimpleNamespace(
        grad_accumulation_factor=3,
        num_batches=4,
        train_sampler=SimpleNamespace(processes=1),
        no_sync=lambda off: nullcontext(),
        training_ctx=nullcontext(),
        compute_forward=lambda batch, stage: weight * 1.0,
        compute_objectives=lambda outputs, batch, stage: outputs,
        scaler=torch.amp.GradScaler(enabled=False),
        losses=SimpleNamespace(add=lambda *given: None, mean=0.0),
        progress=SimpleNamespace(step=lambda loss: None),
    )
    brain.optimizers_step = lambda: (
        steps.append((brain.step, float(weight.grad))),
        weight.grad.zero_(),
    )
    for brain.step in range(1, 5):
        PetlBrain.fit_batch(brain, SimpleNamespace(id=["a"]))
    assert steps == [(3, pytest.approx(1.0)), (4, pytest.approx(1.0))]


def normalise_with_another(rank, folder):
    """One of two processes: the second has only the copy of the first one's clip."""
    torch.distributed.init_process_group(
        "gloo",
        f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    norm = MaskedBatchNorm(4)
    norm.takes_part = rank == 0
    torch.manual_seed(rank)
    out = norm(torch.randn(2, 5, 4))
    if rank == 0:
        torch.distributed.destroy_process_group()
        torch.manual_seed(0)
        alone_ = MaskedBatchNorm(4)
        torch.testing.assert_close(out, alone_(torch.randn(2, 5, 4)))
        torch.testing.assert_close(norm.running_var, alone_.running_var)


def test_an_idle_process_does_not_count_in_batch_statistics(tmp_path):
    together(normalise_with_another, [(rank, tmp_path) for rank in range(2)])


# The cache


def test_features_are_known_by_all_that_they_hang_on(checkpoints, tmp_path):
    backbone = load_backbone(str(checkpoints["whisper"]))
    model = AdaptedModel(backbone, make_method("linear"))
    settings = {"weighted_sum": True, "num_layers": 2}
    keys = {
        key_of(model, ClassificationHead(32, 3, **{**settings, **changed}))
        for changed in ({}, {"normalize_layers": True}, {"pooling": "speech"})
    }
    assert len(keys) == 3
    wav = tmp_path / "a.wav"
    wav.write_bytes(b"a")
    one = {clip_key(str(wav), seconds) for seconds in (None, 1.0, 2.0)}
    wav.write_bytes(b"ab")
    assert len({*one, clip_key(str(wav), None)}) == 4


# What is refused before training


def test_a_clip_that_is_in_two_sets(tmp_path):
    sets = {"train": ["a", "b"], "valid": ["c", "b"], "test": ["d"]}
    for name, wavs in sets.items():
        write_json(tmp_path / f"{name}.json", {w: {"wav": w} for w in wavs})
    prepared = SimpleNamespace(**{name: tmp_path / f"{name}.json" for name in sets})
    with pytest.raises(UserError, match="1 of the 2 valid clips are training clips"):
        refuse_shared_clips(prepared)


def test_folds_that_there_are_not():
    with pytest.raises(UserError, match="has no folds"):
        refuse_folds(load_config(AUDIOFOLDER, ["--fold=1"]))
    with pytest.raises(UserError, match="none of the folds"):
        refuse_folds(load_config(ESC50, ["--fold=9"]))


# What a run leaves


@pytest.fixture
def left(tmp_path):
    """A run's folder and config, as it is left."""
    config = load_config(ESC50, [f"--output_folder={tmp_path}", "--fold=1"])
    folder = tmp_path / "run"
    write_text(folder / FILES[0], config.text())
    for name in FILES[1:]:
        write_text(folder / name, "something")
    keys = ("metrics", "parameters", "seconds", "peak_memory_mib", "epochs")
    write_results(folder, dict.fromkeys(keys, 1))
    return config, folder


def test_a_run_is_done_if_all_of_it_is_whole(left):
    config, folder = left
    assert finished(config, folder)["epochs"] == 1
    (folder / "checkpoints" / "CKPT+x").mkdir(parents=True)
    remove_checkpoints(folder)
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["gone", "empty", "changed"])
def test_a_run_of_which_something_is_lost_is_not_done(left, name, harm):
    config, folder = left
    path = folder / name
    if harm == "gone":
        path.unlink()
    else:
        path.write_text("" if harm == "empty" else path.read_text() + "\n")
    with pytest.raises(Damaged, match=name):
        finished(config, folder)


def test_results_of_earlier_versions_say_no_checksums(left):
    config, folder = left
    path = folder / "results.json"
    said = json.loads(path.read_text())
    del said["files"]
    path.write_text(json.dumps(said))
    assert finished(config, folder)["seconds"] == 1


def test_one_process_owns_a_run(tmp_path, class_folders, capsys):
    folder = tmp_path / "conformer" / "run_seed0"
    folder.mkdir(parents=True)
    given = (f"--data_folder={class_folders}", f"--output_folder={tmp_path}")
    with lock(folder / "run.lock"), pytest.raises(SystemExit) as end:
        run_here("AudioFolder", *given)
    assert end.value.code == 2
    assert "Another process runs in" in capsys.readouterr().err
    with alone(folder):
        pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "Read-only"),
        (RuntimeError("PytorchStreamWriter failed writing file"), "takes no more"),
        (RuntimeError("basic_ios::clear: iostream error"), "takes no more"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_sentence(tmp_path, error, words):
    with pytest.raises(UserError, match=words), writing(tmp_path):
        raise error
    with pytest.raises(RuntimeError, match="else"), writing(tmp_path):
        raise RuntimeError("something else")
    with pytest.raises(UserError, match="deleted"), writing(tmp_path / "gone"):
        raise FileNotFoundError(2, "no such file")


# Where it comes from


def git(folder, *words):
    me = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", *me, *words], cwd=folder, check=True, capture_output=True)


def test_the_commit_is_the_projects_own(tmp_path):
    (tmp_path / "a").write_text("a")
    git(tmp_path, "init")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "x")
    clean = provenance.commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "a").write_text("b")
    assert provenance.commit(tmp_path) == clean + "+"
    inner = tmp_path / "site-packages"
    inner.mkdir()
    assert provenance.commit(inner) is None


def test_a_package_that_says_no_version(monkeypatch):
    def version(name):
        raise provenance.PackageNotFoundError(name)

    monkeypatch.setattr(provenance, "version", version)
    assert provenance.versions()["petl-modules"] is None
