"""PEFT's own tuners on our access points compute what PEFT computes."""

import json

import pytest
import torch
from tiny import few_steps, tiny_checkpoint

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks.heads import ClassificationHead
from petl_modules.use.adapter_file import read_adapter, save_adapter

peft = pytest.importorskip("peft")
TUNERS = {
    "LOHA": {"r": 2},
    "LOKR": {"r": 2},
    "OFT": {"r": 4, "oft_block_size": 0},
    "HRA": {"r": 2},
    "FOURIERFT": {"n_frequency": 20, "init_weights": True},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_checkpoint("wav2vec2", tmp_path_factory.mktemp("wav2vec2"))


def adapted(source, tuner, **settings):
    method = make_method("peft", tuner=tuner, tuner_settings=json.dumps(settings))
    return AdaptedModel(load_backbone(source), method)


def clip():
    return torch.randn(1, 9600, generator=torch.Generator().manual_seed(1)) * 0.1


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_tuner_trains_merges_and_is_peft_s(source, tuner, tmp_path):
    from transformers import Wav2Vec2Model

    torch.manual_seed(0)
    ours, wav = adapted(source, tuner, **TUNERS[tuner]), clip()
    plain = load_backbone(source)(wav).hidden
    torch.testing.assert_close(ours.eval()(wav).hidden, plain, atol=1e-5, rtol=1e-4)
    trained = ours.trained_parameters()
    goal = torch.randn(32)
    loss = lambda: (ours(wav).hidden.mean(1) - goal).square().mean()  # noqa: E731
    assert set(trained) == few_steps(trained, loss, 3, 0.05)
    found = ours.eval()(wav).hidden
    assert (found - plain).abs().max() > 1e-3
    # PEFT itself, with these tensors
    kind = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[tuner]
    config = kind(target_modules=["q_proj", "v_proj"], **TUNERS[tuner])
    theirs = peft.get_peft_model(Wav2Vec2Model.from_pretrained(source), config).eval()
    layers = theirs.base_model.model.encoder.layers
    with torch.no_grad():
        for i, layer in enumerate(layers):
            for target in "qv":
                place = getattr(layer.attention, f"{target}_proj")
                own = ours.petl[f"layer{i}_{target}_peft"].layer.state_dict()
                place.load_state_dict(own, strict=False)
        norm = ours.points.last_norm.state_dict()
        layers[-1].final_layer_norm.load_state_dict(norm)
        normal = (wav - wav.mean()) / torch.sqrt(wav.var(correction=0) + 1e-7)
        expected = theirs(normal).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    # and it is saved, and folded in
    head = ClassificationHead(32, 2)
    save_adapter(tmp_path, ours, head, {"labels": ["a", "b"]})
    assert torch.equal(read_adapter(tmp_path).model(wav).hidden, found)
    state = {n: t.clone() for n, t in ours.backbone.state_dict().items()}
    ours.merge()
    torch.testing.assert_close(ours(wav).hidden, found, atol=1e-4, rtol=1e-3)
    ours.unmerge()
    after = ours.backbone.state_dict()
    assert all(torch.equal(t, after[n]) for n, t in state.items())


@pytest.mark.parametrize(
    "knobs, said",
    [
        ({"tuner": "lora"}, "take the method lora"),
        ({"tuner": "adalora"}, "take the method adalora"),
        ({"tuner": "LOHAH"}, "none of PEFT's"),
        ({"tuner": "PREFIX_TUNING"}, "PREFIX_TUNING"),
        ({"tuner_settings": '{"rr": 3}'}, "rr"),
        ({"tuner_settings": "r=3"}, "JSON"),
    ],
)
def test_what_peft_does_not_have_is_refused(source, knobs, said):
    with pytest.raises(UserError, match=said) as caught:
        AdaptedModel(load_backbone(source), make_method("peft", **knobs))
    assert "\n" not in str(caught.value)
