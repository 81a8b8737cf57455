"""Moonshine with its decoder: transformers' own before training, whatever clips share a
batch, and a recipe of Whisper's by another source."""

import json

import layouts
import pytest
import torch
from conftest import run_here
from tiny import few_steps, tiny_moonshine_writer
from transformers import MoonshineForConditionalGeneration

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.use.inference import load_adapter

CROSS = ["q", "v", "cross_q", "cross_v"]
CASES = {
    "full": ("full", {}),
    "bitfit": ("bitfit", {}),
    "lora": ("lora", {"rank": 2, "targets": CROSS, "alpha": 4}),
    "bottleneck": ("bottleneck", {"rank": 4, "site": "both"}),
    "prefix": ("prefix", {"prompt_length": 6}),
    "conformer-encoder": ("conformer", {"rank": 4, "parts": ["encoder"]}),
}
LENGTHS = (30000, 17000, 8000)
RATE = 16000


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return tiny_moonshine_writer(tmp_path_factory.mktemp("writer"))


def build(folder, case):
    torch.manual_seed(0)
    name, knobs = CASES[case]
    return AdaptedModel(load_backbone(folder, decoder=True), make_method(name, **knobs))


def batch():
    """Sound, its relative lengths, and a text for each clip."""
    generator = torch.Generator().manual_seed(1)
    wavs = torch.zeros(len(LENGTHS), max(LENGTHS))
    for row, length in zip(wavs, LENGTHS, strict=True):
        row[:length] = torch.randn(length, generator=generator) * 0.1
    text = torch.randint(3, 250, (len(LENGTHS), 7), generator=generator)
    text[:, 0] = 1
    return wavs, torch.tensor(LENGTHS) / max(LENGTHS), text


def trained(model):
    """A few steps of training; returns which parameters ever got a gradient."""
    wavs, lens, text = batch()
    model.train()

    def loss():
        logits = model(wavs, lens, text=text[:, :-1]).logits
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), text[:, 1:].flatten()
        )

    reached = few_steps(model.trained_parameters(), loss)
    model.eval()
    return reached


@torch.no_grad()
def test_step_0_is_transformers_own(writer):
    backbone = load_backbone(writer, decoder=True)
    theirs = MoonshineForConditionalGeneration.from_pretrained(writer).eval()
    wavs, _, text = batch()
    for wav, length, row in zip(wavs, LENGTHS, text, strict=True):
        clip, given = wav[None, :length], row[None]
        expected = theirs(clip, decoder_input_ids=given).logits
        written = backbone(clip, text=given)
        torch.testing.assert_close(written.logits, expected)
        most = 1 + -(-int(written.counts) * 6.5 * 384 // RATE)  # 384 samples a step
        numbers = theirs.generate(clip, max_length=min(60, int(most)))
        assert backbone.write(written.sound) == backbone.spelt(numbers)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_clip_alone_is_the_clip_in_a_batch(writer, case):
    model = build(writer, case)
    with torch.enable_grad():
        reached = trained(model)
    assert reached == set(model.trained_parameters())
    wavs, lens, text = batch()
    together = model(wavs, lens, text=text)
    texts = model.backbone.write(together.sound, together.counts)
    assert len(set(texts)) > 1
    for row, length in enumerate(LENGTHS):
        alone = model(wavs[row : row + 1, :length], text=text[row : row + 1])
        torch.testing.assert_close(
            alone.logits[0], together.logits[row], rtol=1e-4, atol=1e-4
        )
        assert model.backbone.write(alone.sound, alone.counts) == [texts[row]]


def test_a_text_is_its_tokens_between_start_and_end(writer):
    backbone = load_backbone(writer, decoder=True)
    numbers = backbone.numbers(" Hé, you. ")
    assert numbers[0] == 1 and numbers[-1] == 2
    assert backbone.spelt([numbers]) == ["Hé, you."]
    with pytest.raises(UserError, match="English only"):
        backbone.refuse_language("fr")


def test_the_recipe_of_whisper_teaches_it_to_write(writer, tmp_path):
    layouts.librispeech(tmp_path)
    # little but the frozen head can be learnt by a random model: full, not an adapter
    run_here(
        "LibriSpeech/whisper",
        f"--data_folder={tmp_path}",
        f"--source={writer}",
        f"--output_folder={tmp_path / 'out'}",
        "--skip_broken=True",
        "--method=full",
        "--lr=0.004",
        "--number_of_epochs=16",
        "--batch_size=1",
    )
    (path,) = tmp_path.glob("out/**/results.json")
    metrics = json.loads(path.read_text())["metrics"]
    assert metrics["test"]["word_error_rate"] == 0
    clips = sorted(tmp_path.glob("test-clean/**/*.flac"))
    answers = load_adapter(path.parent).answer_files(clips, batch_size=2)
    assert [answer["text"] for answer in answers] == ["Abba.", "Bee abba."]
