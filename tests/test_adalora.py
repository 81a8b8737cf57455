"""AdaLoRA: its definition, and that its ranks are given as PEFT gives them."""

import json

import pytest
import torch
from conftest import run_here
from safetensors.torch import load_file
from tiny import tiny_checkpoint

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.measure import host_waits
from petl_modules.errors import UserError
from petl_modules.methods import AdaLoRAProjections, make_method
from petl_modules.use.peft_format import from_peft

PLACES = {
    "q": "attention.q_proj",
    "v": "attention.v_proj",
    "fc1": "feed_forward.intermediate_dense",
}
STEPS = 20
SCHEDULE = {"budget_warmup": 0.1, "budget_final": 0.25, "budget_interval": 3}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_checkpoint("wav2vec2", tmp_path_factory.mktemp("wav2vec2"))


def adapted(source, **knobs):
    torch.manual_seed(0)
    method = make_method("adalora", rank=4, target_rank=2, **SCHEDULE, **knobs)
    return AdaptedModel(load_backbone(source), method)


def normal(wav):
    mean, spread = wav.mean(1, keepdim=True), wav.var(1, correction=0, keepdim=True)
    return (wav - mean) / torch.sqrt(spread + 1e-7)


def test_it_is_its_definition(source):
    model = adapted(source, alpha=6, targets=["fc1"])
    update = model.petl["layer0_fc1_adalora"]
    torch.nn.init.normal_(update.e)
    x = torch.randn(3, 32)
    delta = 6 / 4 * update.b @ torch.diag(update.e) @ update.a
    torch.testing.assert_close(update.delta(), delta)
    torch.testing.assert_close(update(x), x @ delta.T)


def test_the_pull_is_the_gradient_of_the_regularisation(source):
    model = adapted(source, orthogonality=0.3)
    modules = list(model.petl.values())
    off = [
        torch.linalg.matrix_norm(rows @ rows.T - torch.eye(4))
        for m in modules
        for rows in (m.a, m.b.T)
    ]
    (0.3 * sum(off) / len(off)).backward()
    expected = [p.grad.clone() for m in modules for p in (m.a, m.b)]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    (method,) = model.methods
    method.before_step()
    found = [p.grad for m in modules for p in (m.a, m.b)]
    torch.testing.assert_close(found, expected)


def test_training_and_ranks_are_those_of_peft(source, tmp_path):
    """Equal tensors after all phases of the schedule, and equal outputs of what PEFT
    then saves."""
    peft = pytest.importorskip("peft")
    from transformers import Wav2Vec2Model

    ours = adapted(source, alpha=6, orthogonality=0.3, targets=[*PLACES])
    config = peft.AdaLoraConfig(
        init_r=4,
        target_r=2,
        lora_alpha=6 * (4 + 1e-5) / 4,
        tinit=2,
        tfinal=5,
        deltaT=3,
        total_step=STEPS,
        orth_reg_weight=0.3,
        target_modules=[path.split(".")[1] for path in PLACES.values()],
    )
    theirs = peft.get_peft_model(Wav2Vec2Model.from_pretrained(source), config).eval()
    layers = theirs.base_model.model.encoder.layers
    pairs = [
        (ours.petl[f"layer{i}_{target}_adalora"], layer.get_submodule(path))
        for i, layer in enumerate(layers)
        for target, path in PLACES.items()
    ]
    with torch.no_grad():
        for own, place in pairs:
            place.lora_A["default"].copy_(own.a)
            place.lora_B["default"].copy_(own.b)
    wav = torch.randn(2, 9600, generator=torch.Generator().manual_seed(3)) * 0.1
    goal = torch.randn(2, 32, generator=torch.Generator().manual_seed(4))

    def loss(hidden):
        return (hidden.mean(1) - goal).square().mean()

    ours.eval()
    (method,) = ours.methods
    own = [p for n, p in ours.trained_parameters().items() if "last" not in n]
    named = {n: p for n, p in theirs.named_parameters() if "lora_" in n}
    first, second = (torch.optim.SGD(p, lr=3.0) for p in (own, named.values()))
    budgets = []
    for step in range(1, STEPS + 1):
        first.zero_grad()
        loss(ours(wav).hidden).backward()
        method.before_step()
        first.step()
        method.after_step(step, STEPS)
        budgets.append(sum(m.allocated for m, _ in pairs))
        second.zero_grad()
        rows = [p if "lora_A" in n else p.T for n, p in named.items() if "_E" not in n]
        off = [torch.linalg.matrix_norm(r @ r.T - torch.eye(4)) for r in rows]
        hidden = theirs(normal(wav)).last_hidden_state
        (loss(hidden) + 0.3 * sum(off) / len(off)).backward()
        second.step()
        theirs.base_model.update_and_allocate(step)
    assert budgets[0] == budgets[1] == 24 and budgets[-5:] == [12] * 5
    assert len({m.allocated for m, _ in pairs}) > 1  # some need more than others
    for mine, place in pairs:
        e = place.lora_E["default"].flatten()
        assert torch.equal(mine.e == 0, e == 0)
        torch.testing.assert_close(mine.e.data, e.data, atol=1e-4, rtol=1e-3)
        a, b = place.lora_A["default"], place.lora_B["default"]
        torch.testing.assert_close(mine.a.data, a.data, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(mine.b.data, b.data, atol=1e-4, rtol=1e-3)
    theirs.save_pretrained(tmp_path)  # without the ranks that were taken away
    with torch.no_grad():
        expected = theirs(normal(wav)).last_hidden_state
    found = from_peft(tmp_path, load_backbone(source))
    torch.testing.assert_close(found(wav).hidden, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("final", [0.1, 0.5, 0.89])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_however_few_steps_there_are_the_ranks_that_matter_are_left(
    source, steps, final
):
    method = make_method(
        "adalora", rank=4, target_rank=2, budget_warmup=0.1, budget_final=final
    )
    modules = [*AdaptedModel(load_backbone(source), method).petl.values()]
    for step in range(1, steps + 1):
        for module in modules:
            for parameter in module.parameters():
                parameter.grad = torch.zeros_like(parameter)
            module.e.data.fill_(0.1)
            module.e.grad[[1, 3]] = 1.0
        method.after_step(step, steps)
    assert [module.e.nonzero().flatten().tolist() for module in modules] == [
        [1, 3]
    ] * len(modules)


def test_its_part_of_a_step_waits_for_nothing(source):
    model = adapted(source)
    (method,) = model.methods
    for parameter in model.trained_parameters().values():
        parameter.grad = torch.randn_like(parameter)
    with host_waits() as waits:
        for step in (2, 3, 15, 16):
            method.before_step()
            method.after_step(step, STEPS)
    assert waits == []


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"rank": 4}, "target_rank=8 is more than the rank=4"),
        ({"budget_warmup": 0.6}, "leave no steps between them"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(source, knobs, said):
    with pytest.raises(UserError, match=said):
        AdaptedModel(load_backbone(source), make_method("adalora", **knobs))


def test_a_run_that_was_stopped_comes_to_the_same_ranks(
    source, class_folders, tmp_path, monkeypatch
):
    """Stopped between two allocations: importance is in the checkpoint."""
    arguments = (
        f"--data_folder={class_folders}",
        f"--source={source}",
        "--method=adalora",
        "--rank=8",
        "--target_rank=3",
        "--targets=[q,k,v,o,ffn]",
        "--budget_final=0.25",
        "--budget_interval=2",
        "--budget_betas=[0.99,0.99]",  # which forget nothing of what came before
        "--number_of_epochs=4",
        "--batch_size=4",
        "--choose=last",
        "--max_duration=1",
        "--lr=0.05",
    )
    run_here("AudioFolder", *arguments, f"--output_folder={tmp_path / 'whole'}")
    after = AdaLoRAProjections.after_step

    def stopped(self, step, steps):
        after(self, step, steps)
        if step == 14:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(AdaLoRAProjections, "after_step", stopped)
        run_here("AudioFolder", *arguments, f"--output_folder={tmp_path / 'cut'}")
    run_here("AudioFolder", *arguments, f"--output_folder={tmp_path / 'cut'}")
    folders = [tmp_path / n / "adalora" / "run_seed0" for n in ("whole", "cut")]
    tensors = [load_file(folder / "adapter.safetensors") for folder in folders]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(tensors[0][name].equal(tensors[1][name]) for name in tensors[0])
    assert not any("sensitivity" in name for name in tensors[0])
    result = json.loads((folders[0] / "results.json").read_text())
    info = json.loads((folders[0] / "adapter.json").read_text())["info"]
    assert info["effective"] == result["effective"]
    ranks = result["effective"]["ranks"]
    assert sum(ranks.values()) == 3 * len(ranks) == 36 and len({*ranks.values()}) > 1
    e = {name: int((t != 0).sum()) for name, t in tensors[0].items() if ".e" in name}
    assert {f"{name}.e": rank for name, rank in ranks.items()} == e
