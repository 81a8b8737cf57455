"""Whisper with its decoder: equal to transformers' own before training, and what every
method must keep to in a decoder."""

import json
from types import SimpleNamespace

import layouts
import pytest
import torch
from conftest import run, run_here, tone
from peft import PeftModel
from speechbrain.dataio.batch import PaddedData
from speechbrain.dataio.dataset import DynamicItemDataset
from tiny import few_steps, tiny_writer
from transformers import (
    EncoderDecoderCache,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks import Transcription
from petl_modules.tasks.heads import OwnHead
from petl_modules.use.adapter_file import read_adapter, save_adapter
from petl_modules.use.inference import load_adapter
from petl_modules.use.merge import merge
from petl_modules.use.peft_format import from_peft, to_peft
from petl_modules.use.predict import main as predict_main

PROJECTIONS = ["q", "k", "v", "o", "ffn", "cross_q", "cross_k", "cross_v", "cross_o"]
SEQUENTIAL = {"placement": "sequential", "site": "both", "rank": 4}
CASES = {
    "full": ("full", {}),
    "bitfit": ("bitfit", {}),
    "lora": ("lora", {"rank": 2, "targets": PROJECTIONS, "alpha": 4}),
    "bottleneck": ("bottleneck", {"rank": 4, "site": "both"}),
    "bottleneck-after": ("bottleneck", SEQUENTIAL),
    "bottleneck-before": ("bottleneck", {**SEQUENTIAL, "position": "before"}),
    "prefix": ("prefix", {"prompt_length": 6}),
    "prefix-projected": ("prefix", {"prompt_length": 6, "projection": 8}),
    "dense_moa": ("dense_moa", {"num_adapters": 3, "rank": 2, "site": "both"}),
    "lora-encoder": ("lora", {"rank": 2, "parts": ["encoder"]}),
    "bitfit-decoder": ("bitfit", {"parts": ["decoder"]}),
    "prompt-encoder": ("prompt", {"prompt_length": 3, "parts": ["encoder"]}),
    "convpass-encoder": ("convpass", {"rank": 4, "dropout": 0.0, "parts": ["encoder"]}),
}
ADDS_TOKENS = ("prefix", "prefix-projected", "prompt-encoder")
LENGTHS = (30000, 17000, 8000)


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A tiny Whisper that hears 2 s and knows English only."""
    return tiny_writer(tmp_path_factory.mktemp("writer"))


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def build(folder, case="lora"):
    torch.manual_seed(0)
    name, knobs = CASES[case]
    return AdaptedModel(load_backbone(folder, decoder=True), make_method(name, **knobs))


def batch(lengths=LENGTHS):
    """Sound, its relative lengths, and a text for each clip."""
    generator = torch.Generator().manual_seed(1)
    wavs = torch.zeros(len(lengths), max(lengths))
    for row, length in zip(wavs, lengths, strict=True):
        row[:length] = torch.randn(length, generator=generator) * 0.1
    text = torch.randint(0, 256, (len(lengths), 7), generator=generator)
    text[:, 0], text[:, 1] = 257, 262
    return wavs, torch.tensor(lengths) / max(lengths), text


def trained(model, steps=3):
    """A few steps of training; returns which parameters ever got a gradient."""
    wavs, lens, text = batch()
    model.train()

    def loss():
        logits = model(wavs, lens, text=text[:, :-1]).logits
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), text[:, 1:].flatten()
        )

    reached = few_steps(model.trained_parameters(), loss, steps)
    model.eval()
    return reached


def logits_of(model, lengths=LENGTHS):
    wavs, lens, text = batch(lengths)
    with torch.no_grad():
        return model(wavs, lens, text=text).logits


def texts_of(model, lengths=LENGTHS, **knobs):
    wavs, lens, text = batch(lengths)
    with torch.no_grad():
        return model.backbone.write(model(wavs, lens, text=text).sound, **knobs)


def test_step_0_is_transformers_own(writer):
    model = build(writer).eval()
    wavs, _, text = batch()
    theirs = WhisperForConditionalGeneration.from_pretrained(writer).eval()
    extractor = WhisperFeatureExtractor(
        feature_size=20, chunk_length=2, sampling_rate=16000
    )
    clips = [wav[:n].numpy() for wav, n in zip(wavs, LENGTHS, strict=True)]
    mel = extractor(clips, sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = theirs(input_features=mel, decoder_input_ids=text).logits
        torch.testing.assert_close(logits_of(model), expected)
        for beams in (1, 3):
            numbers = theirs.generate(mel, num_beams=beams, max_length=30)
            texts = model.backbone.spelt(numbers)
            assert texts_of(model, num_beams=beams) == texts
    assert len(set(texts)) > 1 and all(texts)


def test_step_0_is_the_base_model(writer, case):
    if case in ADDS_TOKENS:
        pytest.skip("added tokens change the function")
    base = load_backbone(writer, decoder=True)
    assert torch.equal(logits_of(build(writer, case).eval()), logits_of(base))


def test_all_that_trains_learns_and_the_rest_stays(writer, case):
    model = build(writer, case)
    names = set(model.trained_parameters())
    parts = CASES[case][1].get("parts", ["encoder", "decoder"])
    for part in ("encoder", "decoder"):
        layer = "layer" if part == "encoder" else "decoder_layer"
        here = any(n.startswith(layer) or f".{part}." in n for n in names)
        assert here == (part in parts)
    ids = {id(p) for p in model.trained_parameters().values()}
    state = model.backbone.named_parameters()
    frozen = {name: p.clone() for name, p in state if id(p) not in ids}
    before = logits_of(model.eval())
    assert trained(model) == names
    after = dict(model.backbone.named_parameters())
    assert all(torch.equal(tensor, after[name]) for name, tensor in frozen.items())
    assert (logits_of(model) - before).abs().max() > 1e-3
    # the pretrained head, tied to the embeddings, and its norm are no part of a method
    if case != "full":
        assert model.backbone.model.proj_out.weight.requires_grad is False
        assert not any(name.startswith("last_norm.weight") for name in names)


def test_a_clip_hangs_on_no_other(writer, case):
    model = build(writer, case)
    trained(model)
    wavs, _, text = batch()
    together, texts = logits_of(model), texts_of(model)
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            alone = model(wavs[row : row + 1, :length], text=text[row : row + 1])
        torch.testing.assert_close(alone.logits[0], together[row], atol=3e-5, rtol=1e-4)
        assert model.backbone.write(alone.sound) == [texts[row]]
    # nor on how far its text is padded
    padded = torch.nn.functional.pad(text, (0, 3), value=9)
    with torch.no_grad():
        longer = model(wavs, text=padded).logits[:, : text.shape[1]]
    torch.testing.assert_close(longer, together, atol=3e-5, rtol=1e-4)


def test_written_token_by_token_equals_all_at_once(writer, case):
    model = build(writer, case)
    trained(model)
    wavs, lens, text = batch()
    decoder, cache = model.backbone.model.model.decoder, None
    with torch.no_grad():
        written = model(wavs, lens, text=text)
        steps = []
        for piece in (text[:, :3], *text[:, 3:].split(1, dim=1)):
            output = decoder(
                input_ids=piece,
                encoder_hidden_states=written.sound,
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            steps.append(output.last_hidden_state)
        logits = model.backbone.model.proj_out(torch.cat(steps, 1))
    assert isinstance(cache, EncoderDecoderCache)
    assert cache.get_seq_length() == text.shape[1]  # a prefix is no part of it
    torch.testing.assert_close(logits, written.logits, atol=3e-5, rtol=1e-4)


def test_a_token_reads_no_later_one(writer, case):
    model = build(writer, case)
    trained(model)
    wavs, lens, text = batch()
    other = text.clone()
    other[:, 4:] = 7
    with torch.no_grad():
        a, b = (model(wavs, lens, text=t).logits for t in (text, other))
    torch.testing.assert_close(a[:, :4], b[:, :4])
    assert (a[:, 4:] - b[:, 4:]).abs().max() > 1e-3


def test_saved_and_loaded_gives_equal_outputs(writer, case, tmp_path):
    model = build(writer, case)
    trained(model)
    head = OwnHead(num_beams=2)
    save_adapter(tmp_path, model, head, {"labels": None})
    loaded = read_adapter(tmp_path)
    assert torch.equal(logits_of(loaded.model), logits_of(model))
    assert loaded.head.settings == head.settings
    if case == "lora":
        with pytest.raises(UserError, match="was loaded as encoder"):
            read_adapter(tmp_path, backbone=load_backbone(writer))
        with pytest.raises(UserError, match="gives no label"):
            load_adapter(tmp_path).classify_file("clip.wav")


def test_merged_gives_equal_outputs_without_modules(writer):
    model = build(writer, "lora")
    trained(model)
    expected, texts = logits_of(model), texts_of(model)
    model.merge()
    plain = load_backbone(writer, decoder=True)
    plain.load_state_dict(model.backbone.state_dict())
    torch.testing.assert_close(logits_of(plain), expected, atol=1e-4, rtol=1e-4)
    assert plain.write(plain(batch()[0], text=batch()[2]).sound) == texts
    model.unmerge()
    assert torch.equal(logits_of(model), expected)


@pytest.mark.parametrize(
    "name, knobs",
    [
        ("prompt", {}),
        ("conformer", {"parts": ["decoder"]}),
        ("convpass", {}),
        ("conv_adapter", {}),
        ("soft_moa", {}),
        ("dense_moa", {"expert": "convpass"}),
    ],
)
def test_what_reads_later_tokens_is_refused_in_a_decoder(writer, name, knobs):
    backbone = load_backbone(writer, decoder=True)
    with pytest.raises(UserError, match=f"{name} does not suit a decoder"):
        AdaptedModel(backbone, make_method(name, **knobs))


def test_what_fits_no_part_is_refused(writer, checkpoints):
    def attach(name, decoder=True, **knobs):
        backbone = load_backbone(writer, decoder=decoder)
        return AdaptedModel(backbone, make_method(name, **knobs))

    with pytest.raises(UserError, match="has as parts encoder here"):
        attach("lora", decoder=False, parts=["decoder"])
    with pytest.raises(
        UserError, match=r"'head'.* must be a list of encoder or decoder"
    ):
        attach("lora", parts=["encoder", "head"])
    with pytest.raises(UserError, match="parts=5 must be a list of encoder or decoder"):
        attach("bitfit", parts=5)
    with pytest.raises(UserError, match="cross_q matches no projection"):
        attach("lora", parts="encoder", targets=["cross_q"])
    with pytest.raises(UserError, match="Nothing would train"):
        attach("linear")
    with pytest.raises(UserError, match="wav2vec2 model, which has no decoder"):
        load_backbone(checkpoints["wav2vec2"], decoder=True)
    with pytest.raises(UserError, match="no tokenizer"):
        _ = load_backbone(checkpoints["whisper"], decoder=True).tokenizer


def test_layers_are_counted_in_each_part(writer):
    backbone = load_backbone(writer, decoder=True)
    model = AdaptedModel(backbone, make_method("lora", layers=[-1]))
    layers = {name.split("_q_")[0].split("_v_")[0] for name in model.petl}
    assert layers == {"layer1", "decoder_layer1"}


def test_spec_augment_masks_the_clip_and_not_the_silence(writer):
    backbone = load_backbone(writer, spec_freq=20, spec_time=40, decoder=True)
    seen = []
    backbone.encoder.conv1.register_forward_pre_hook(
        lambda m, args: seen.append(args[0])
    )
    wavs = batch()[0][2:, :8000]  # half a second
    for augment in (False, True):
        backbone.augment = augment
        torch.manual_seed(3)
        backbone(wavs)
    plain, masked = seen
    assert torch.equal(plain[..., 50:], masked[..., 50:])
    assert not torch.equal(plain[..., :50], masked[..., :50])


def test_longer_clips_are_cut(writer):
    backbone = load_backbone(writer, decoder=True)
    wavs = torch.randn(1, 48000) * 0.1
    with torch.no_grad():
        whole, cut = (backbone(w).hidden for w in (wavs, wavs[:, :32000]))
    assert torch.equal(whole, cut)


def test_a_language_starts_the_text(tmp_path):
    backbone = load_backbone(tiny_writer(tmp_path, language="zh"), decoder=True)
    numbers = backbone.numbers("Aß", language="zh", speech_task="translate").tolist()
    assert numbers[:4] == [257, 259, 260, 262] and numbers[-1] == 256
    assert backbone.spelt([numbers]) == ["Aß"]
    seen = []
    embed = backbone.model.model.decoder.embed_tokens
    embed.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    with torch.no_grad():
        sound = backbone(batch()[0]).hidden
        backbone.write(sound, language="zh", speech_task="translate")
    assert seen[0][0].tolist() == numbers[:4]
    backbone.refuse_language("Chinese")
    for language in (None, "klingon", 3):
        with pytest.raises(UserError, match="say which one"):
            backbone.refuse_language(language)


def test_english_only_takes_no_language(writer):
    with pytest.raises(UserError, match="knows English only"):
        load_backbone(writer, decoder=True).refuse_language("de")


@pytest.fixture
def task(writer):
    task = Transcription(
        None, load_backbone(writer, decoder=True), None, "transcribe", num_beams=1
    )
    task.start()
    return task


def batch_of(task, *texts, wavs=None, lens=None):
    """A batch with these texts, padded, and clips."""
    rows = [task.backbone.numbers(text) for text in texts]
    numbers = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) / numbers.shape[1] for row in rows])
    ids = [str(i) for i in range(len(rows))]
    sig = PaddedData(wavs, lens)
    return SimpleNamespace(id=ids, numbers=PaddedData(numbers, lengths), sig=sig)


def test_words_are_compared_as_whispers_evaluation_does(task, tmp_path):
    heard = ["IT'S twenty dollars", "one two three"]
    task.backbone.write = lambda sound, counts, **spoken: heard
    texts = batch_of(task, "It is, um, $20!", "one too three")
    task.collect(SimpleNamespace(sound=None, counts=None), texts)
    words = len(["it", "is", "$20"]) + 2  # 1 and 3 are one number each
    (rate,) = task.metrics().values()
    assert 0 < rate <= 3 / words
    task.write(tmp_path)
    assert "$20" in (tmp_path / "alignments.txt").read_text()


def test_loss_counts_no_padding(task):
    wavs, lens, _ = batch(LENGTHS[:2])
    texts = "a longer text", "short"
    both = batch_of(task, *texts, wavs=wavs, lens=lens)
    with torch.no_grad():
        loss = task.loss(task.backbone(**task.inputs(both)), both)
        total, count = 0.0, 0
        for row, text in enumerate(texts):
            one = batch_of(task, text, wavs=wavs[row : row + 1])
            alone = task.backbone(**task.inputs(one))
            steps = one.numbers.data.shape[1] - 1
            total, count = total + steps * task.loss(alone, one), count + steps
    torch.testing.assert_close(loss, total / count)


def test_what_is_not_heard_whole_or_has_no_room_does_not_fit(task):
    assert task.fits("a", 100) and not task.fits("a", 101)
    with pytest.raises(UserError, match="text of y is too long: 64 tokens"):
        task.add_targets(DynamicItemDataset({"y": {"text": "a" * 60}}))
    dataset = DynamicItemDataset({"x": {"text": "Ab."}})
    task.add_targets(dataset)
    dataset.set_output_keys([task.target])
    assert dataset[0]["numbers"].tolist() == [257, 262, 220, 32, 65, 13, 256]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("LibriSpeech")
    layouts.librispeech(root)
    return root


RECIPE = "LibriSpeech/whisper"


def arguments(tree, writer, output):
    return (
        f"--data_folder={tree}",
        f"--source={writer}",
        f"--output_folder={output}",
        "--skip_broken=True",
    )


def test_the_recipe_learns_to_write_and_its_adapter_writes(tree, writer, tmp_path):
    # little but the frozen head can be learnt by a random model: full, not an adapter
    knobs = "--method=full", "--lr=0.004", "--number_of_epochs=16", "--batch_size=1"
    done = run(RECIPE, *arguments(tree, writer, tmp_path), *knobs)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "full" / "run_seed0"
    result = json.loads((folder / "results.json").read_text())
    assert result["metrics"]["valid"]["word_error_rate"] == 0
    assert result["metrics"]["test"]["word_error_rate"] == 0
    assert result["left_out"] == 2
    assert "abba" in (folder / "alignments.txt").read_text()
    adapter = load_adapter(folder)
    clips = sorted(tree.glob("test-clean/**/*.flac"))
    answers = adapter.answer_files([*clips, "gone.wav"], batch_size=2)
    assert [answer.get("text") for answer in answers] == ["Abba.", "Bee abba.", None]
    assert "gone.wav is missing" in answers[2]["error"]
    assert adapter.transcribe_file(clips[1]) == answers[1]["text"]


def test_no_epochs_evaluate_the_model_as_loaded(tree, writer, tmp_path, capsys):
    run_here(RECIPE, *arguments(tree, writer, tmp_path), "--number_of_epochs=0")
    folder = tmp_path / "lora" / "run_seed0"
    result = json.loads((folder / "results.json").read_text())
    assert result["epochs"] == 0 and result["metrics"]["test"]["word_error_rate"] >= 0
    model = read_adapter(folder).model
    assert torch.equal(logits_of(model), logits_of(load_backbone(writer, decoder=True)))
    # and on the command line of predict
    clips = sorted(map(str, tree_clips(folder)))
    capsys.readouterr()
    assert predict_main([str(folder), *clips, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [set(answer) for answer in answers] == [{"file", "text"}] * 2


def tree_clips(folder):
    """The clips of a run's test set."""
    manifest = json.loads((folder / "data" / "test.json").read_text())
    return [entry["wav"] for entry in manifest.values()]


def test_adapters_take_turns_in_encoder_and_decoder(writer, tmp_path):
    wavs, lens, _ = batch()
    fresh = {}
    for case in ("lora", "bottleneck", "bitfit"):
        model = build(writer, case)
        trained(model)
        save_adapter(tmp_path / case, model, OwnHead(), {"labels": None})
        fresh[case] = load_adapter(tmp_path / case).transcribe_batch(wavs, lens)
    assert len({tuple(texts) for texts in fresh.values()}) == 3
    adapters = load_adapter(tmp_path / "lora", "lora")
    for case in ("bottleneck", "bitfit"):
        adapters.add(tmp_path / case, case)
    for case in ("bitfit", "lora", "bottleneck", "lora"):
        adapters.use(case)
        assert adapters.transcribe_batch(wavs, lens) == fresh[case]


def test_merged_is_a_whisper_as_any(writer, tmp_path):
    model = build(writer, "lora")
    trained(model)
    save_adapter(tmp_path / "adapter", model, OwnHead(), {"labels": None})
    merge(tmp_path / "adapter", tmp_path / "merged")
    merged = load_backbone(tmp_path / "merged", decoder=True)
    torch.testing.assert_close(logits_of(merged), logits_of(model))
    assert merged.tokenizer.get_vocab() == model.backbone.tokenizer.get_vocab()


def test_ctranslate2_reads_what_merge_writes(writer, tmp_path):
    ctranslate2 = pytest.importorskip("ctranslate2")
    model = build(writer)
    trained(model)
    save_adapter(tmp_path / "adapter", model, OwnHead(), {})
    merge(tmp_path / "adapter", tmp_path / "ct2", ctranslate2=True)
    assert (tmp_path / "ct2" / "tokenizer.json").exists()
    backbone = read_adapter(tmp_path / "adapter").model.backbone
    wav = torch.randn(1, 20000, generator=torch.Generator().manual_seed(2)) * 0.1
    mel = backbone.log_mel(wav, 2 * backbone.model.config.max_source_positions)
    theirs = ctranslate2.models.Whisper(str(tmp_path / "ct2"), intra_threads=1)
    prompt = backbone.tokenizer.convert_ids_to_tokens(backbone.tokenizer.prefix_tokens)
    mel = ctranslate2.StorageView.from_array(mel.numpy())
    (found,) = theirs.generate(mel, [prompt], beam_size=1, max_length=30)
    assert len(found.sequences_ids[0]) > 5


def test_lora_in_encoder_and_decoder_goes_to_peft_and_back(writer, tmp_path):
    model = build(writer, "lora")
    trained(model)
    to_peft(model, tmp_path / "peft")
    again = from_peft(tmp_path / "peft", load_backbone(writer, decoder=True))
    assert torch.equal(logits_of(again), logits_of(model))
    theirs = WhisperForConditionalGeneration.from_pretrained(writer).eval()
    theirs = PeftModel.from_pretrained(theirs, tmp_path / "peft")
    wavs, lens, text = batch()
    with torch.no_grad():
        written = model(wavs, lens, text=text)
        found = theirs(
            encoder_outputs=BaseModelOutput(written.sound), decoder_input_ids=text
        ).logits
    torch.testing.assert_close(found, written.logits, atol=1e-5, rtol=1e-5)


def test_too_long_a_clip_is_named(writer, tmp_path):
    model = build(writer)
    save_adapter(tmp_path, model, OwnHead(), {"labels": None})
    tone(tmp_path / "long.wav", 300, 2.1)
    (answer,) = load_adapter(tmp_path).answer_files([tmp_path / "long.wav"])
    assert "long.wav is 2.1 s long, more than the 2 s" in answer["error"]


def test_the_recipe_refuses_what_is_no_whisper(tree, checkpoints, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_here(RECIPE, *arguments(tree, checkpoints["wav2vec2"], tmp_path))
    assert "give a Whisper or Moonshine checkpoint as source" in capsys.readouterr().err


def test_common_voice_adapts_a_whisper_of_several_languages(tmp_path):
    folder = tmp_path / "en"
    folder.mkdir()
    layouts.commonvoice(folder)
    writer = tiny_writer(tmp_path / "writer", language="en")
    out = tmp_path / "out"
    run_here("CommonVoice", *arguments(folder, writer, out), "--number_of_epochs=1")
    (path,) = out.glob("**/results.json")
    result = json.loads(path.read_text())
    assert result["clips"] == {"train": 16, "valid": 2, "test": 2}
    assert result["metrics"]["test"]["word_error_rate"] >= 0
