"""Every method computes where the model is: nothing is left on the CPU, and nothing in
a step waits for a GPU, as far as a pretended one shows it."""

import pytest
import torch
from card import OnCard, card
from speechbrain.lobes.models.HifiGAN import HifiganGenerator
from test_invariants import CASES, MATRIX, MERGE, batch, build
from test_tts import HIFIGAN
from tiny import tiny_speech_base, tiny_writer

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.precision import hold_base
from petl_modules.core.task_model import TaskModel
from petl_modules.data.batch import Batch
from petl_modules.methods import make_method
from petl_modules.train import brain
from petl_modules.train.processes import SharedBatches
from petl_modules.tts.config import FastSpeech2Config
from petl_modules.tts.head import voice_head
from petl_modules.tts.hifigan import HifiganConfig, new_generator, save_hifigan
from petl_modules.tts.model import VoiceModel
from petl_modules.tts.synthesize import Synthesizer
from petl_modules.tts.task import TTS
from petl_modules.use.adapter_file import save_adapter
from petl_modules.use.engine import Engine

# Every method on one family, and one on all
PAIRS = [(f, c) for f, c in MATRIX if f == "xlsr" or c == "lora"]
LENGTHS = (9600, 7000, 4000)


def hear(model, head):
    """Probabilities, and features where they may be cached."""
    wavs, lens = batch(LENGTHS)
    model.eval(), head.eval()
    with torch.no_grad():
        if model.frozen_below_head:
            model.features(wavs.to("cuda"), lens, head)
        found = head.probabilities(head(model(wavs.to("cuda"), lens)))
    assert isinstance(found, OnCard)
    return found.cpu()


@pytest.mark.parametrize("family, case", PAIRS)
def test_training_and_merging_stay_on_the_card(checkpoints, family, case, tmp_path):
    model, head = build(checkpoints[family], case)
    wavs, lens = batch(LENGTHS)
    model.eval(), head.eval()
    expected = head.probabilities(head(model(wavs, lens))).detach()
    with card() as waits:
        own = TaskModel(model, head).to("cuda")
        torch.testing.assert_close(hear(model, head), expected)
        wavs, labels = wavs.to("cuda"), torch.arange(3, device="cuda")
        optimizer = torch.optim.AdamW(own.parameter_groups(False), foreach=False)
        for base in ("fp32", "bf16"):
            hold_base(model, base)
            own.train()
            waits.clear()
            logits = head(model(wavs, lens)).float()
            torch.nn.functional.cross_entropy(logits, labels).backward()
            own.before_step()
            found = [w for w in waits if CASES[case][0] != "peft"]
            assert found == []
            optimizer.step()
            own.after_step(1, 10)
        own._save(tmp_path / "state")
        own._load(tmp_path / "state", True)
        hold_base(model, "fp32")
        if CASES[case][0] in MERGE:
            expected = hear(model, head)
            model.merge()
            torch.testing.assert_close(hear(model, head), expected)


def test_adapters_are_added_to_a_backbone_on_the_card(checkpoints, tmp_path):
    cases = ("full", "bitfit", "bottleneck", "conformer", "lora", "lora-dora")
    cases += ("lora-pissa", "vera", "ssvd", "prefix", "prompt", "soft_moa")
    for case in cases:
        model, head = build(checkpoints["xlsr"], case, load=load_backbone)
        (tmp_path / case).mkdir()
        save_adapter(tmp_path / case, model, head, {"labels": ["a", "b", "c"]})
    wavs, lens = batch(LENGTHS)
    with card():
        engine = Engine(load_backbone(checkpoints["xlsr"]), "cuda")
        for case in cases:
            engine.add(tmp_path / case, case)
        for case in cases:
            engine.outputs(wavs, lens, [case] * 3)
        mixing = [case for case in cases if engine.loaded[case].mixes]
        assert len(engine.outputs(wavs, lens, mixing[:3])) == 3


def test_text_is_written_on_the_card(tmp_path):
    backbone = load_backbone(tiny_writer(tmp_path), decoder=True)
    model = AdaptedModel(backbone, make_method("lora"))
    wavs, lens = batch(LENGTHS)
    with card():
        model.to("cuda").eval()
        with torch.no_grad():
            sound, counts = model(wavs.to("cuda"), lens).in_time()
            assert len(backbone.write(sound, counts)) == 3


def hifigan_folders(folder):
    """A vocoder as training leaves it, and one in SpeechBrain's layout."""
    config = HifiganConfig(
        FastSpeech2Config().features,
        channels=16,
        block_kernels=(3,),
        block_dilations=((1, 2),),
    )
    (folder / "own").mkdir()
    save_hifigan(folder / "own", config, new_generator(config).state_dict())
    (folder / "speechbrains").mkdir()
    (folder / "speechbrains" / "hyperparams.yaml").write_text(HIFIGAN)
    return [folder / "own", folder / "speechbrains"]


def test_a_vocoder_computes_where_the_voice_is(tmp_path, monkeypatch):
    seen, forward = [], HifiganGenerator.forward
    noted = lambda self, mel: seen.append(type(mel)) or forward(self, mel)  # noqa: E731
    monkeypatch.setattr(HifiganGenerator, "forward", noted)
    base = tiny_speech_base(tmp_path / "base")
    for vocoder in ("griffin-lim", *hifigan_folders(tmp_path)):

        def spoken(device, vocoder=str(vocoder)):
            torch.manual_seed(0)  # SpeechBrain's weights are drawn
            synthesizer = Synthesizer(base, None, vocoder, device, trust_code=True)
            sound = synthesizer.speak("Go on!", "bob")
            assert type(sound) is torch.Tensor
            own = TTS(
                ["bob"], AdaptedModel(synthesizer.base, make_method("linear")), None
            )
            own.vocoder = synthesizer.vocoder
            again = own.played(synthesizer.spectrogram("Go on!", "bob"))
            torch.testing.assert_close(again, sound)
            return sound

        expected = spoken("cpu")
        seen.clear()
        with card():
            torch.testing.assert_close(spoken("cuda"), expected)
        assert seen == ([] if vocoder == "griffin-lim" else [OnCard, OnCard])


@pytest.mark.parametrize("alignment", ["forced", "learned"])
def test_a_step_of_speech_waits_for_a_learned_alignment_alone(alignment, tmp_path):
    base = load_backbone(tiny_speech_base(tmp_path / "base", alignment=alignment))
    model = AdaptedModel(base, make_method("lora"))
    head = voice_head(base, ["ann", "eve"])
    task = TTS(["ann", "eve"], model, head, cache_folder=str(tmp_path))

    def clip(speaker, symbols, frames):
        return {
            "id": str(speaker),
            "speaker_index": speaker,
            "symbols": torch.arange(1, 1 + symbols),
            "mel": torch.randn(frames, 80),
            "pitch": torch.rand(frames),
            "energy": torch.rand(frames),
            "frames": torch.tensor([frames - symbols + 1] + [1] * (symbols - 1)),
        }

    with card() as waits:
        own = VoiceModel(model, head).to("cuda").train()
        batch = Batch([clip(0, 6, 20), clip(1, 4, 11)])
        waits.clear()
        batch = batch.to("cuda", non_blocking=True)
        task.loss(own(**task.inputs(batch)), batch).backward()
        own.before_step()
    # of the learned one: scores, mask and path, and the counts of symbols and frames
    assert len(waits) == (0 if alignment == "forced" else 5)


def test_the_part_of_a_process_is_told_without_a_wait(monkeypatch):
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(1))
    batches = SharedBatches([[0, 1, 2]], 0, 2)
    assert list(batches) == [[0, 2]]
    with card() as waits:
        loss = torch.zeros((), device="cuda")
        waits.clear()
        part = batches.share(1, 2.0, loss)
        assert waits == []
        assert float(part) == pytest.approx(4 / 3)


def test_processes_leave_lengths_on_the_cpu(monkeypatch):
    """DistributedDataParallel moves all that it is given to the GPU that it is told."""
    told = []
    monkeypatch.setattr(
        brain, "DistributedDataParallel", lambda m, **how: told.append(how) or m
    )
    own = brain.PetlBrain.__new__(brain.PetlBrain)
    own.distributed_launch, own.find_unused_parameters = True, True
    own.distributed_backend, own.device = "nccl", "cuda:1"
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    own.modules = torch.nn.ModuleDict({"task": torch.nn.Linear(2, 2), "b": frozen})
    own._wrap_distributed()
    assert told == [{"find_unused_parameters": True}]


def test_tensors_of_the_card_mix_with_no_others():
    with card() as waits:
        here = torch.ones(2, device="cuda")
        for wrong in (
            lambda: here + torch.ones(2),
            lambda: torch.ones(2)[torch.tensor([0], device="cuda")],
            lambda: torch.rand(2, device="cuda", generator=torch.Generator()),
            here.numpy,
        ):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()
        assert float(here.sum() + torch.tensor(1.0)) == 3.0
        assert torch.equal((here * 2).cpu(), torch.full((2,), 2.0))
        assert len(waits) == 3  # one that came, a number and a tensor that went
