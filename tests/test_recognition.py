"""Error rates of texts, slots and phones: by hand, and by other implementations."""

import random
import re
from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer
from speechbrain.dataio.batch import PaddedData
from speechbrain.dataio.dataset import DynamicItemDataset
from tiny import IN_TIME
from torchaudio.functional import edit_distance

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.data.units import with_units
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks import CTC, SlotFilling, SpeechRecognition
from petl_modules.tasks.heads import CTCHead
from petl_modules.tasks.slots import slot_type_f1, slot_value_cer, slots

SPACE = "\u2581"


def saying(labels, *paths):
    """Logits that are certain of these symbols, step by step, and the steps."""
    rows = [10.0 * torch.eye(len(labels))[[labels.index(s) for s in p]] for p in paths]
    counts = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), counts


def known(task, *texts):
    """The batch of some texts, which the task has seen."""
    entries = {str(i): {"wav": f"{i}.wav", "text": t} for i, t in enumerate(texts)}
    splits, _ = with_units({"train": entries})
    task.add_targets(DynamicItemDataset(splits["train"]))
    wavs = [entry["wav"] for entry in entries.values()]
    return SimpleNamespace(id=list(entries), wav=wavs)


# Words and characters


def test_words_and_characters_by_hand(tmp_path):
    task = SpeechRecognition(["<blank>", "A", "B", SPACE])
    batch = known(task, "AB A", "B")
    task.start(final=True)
    # A A for AB A: one word and one letter wrong; B B for B: a word and two letters
    task.collect(saying(task.labels, "A" + SPACE + "A", "B" + SPACE + "B"), batch)
    rates = task.metrics()
    assert rates["word_error_rate"] == pytest.approx(2 / 3)
    assert rates["character_error_rate"] == pytest.approx(3 / 5)
    task.write(tmp_path)
    assert "AB ; A\n" in (tmp_path / "wer.txt").read_text()
    assert "B ; <eps> ; <eps>\n" in (tmp_path / "cer.txt").read_text()


def test_after_an_epoch_only_the_metric_that_chooses_is_worked_out():
    task = SpeechRecognition(["<blank>", "A"], metric="character_error_rate")
    batch = known(task, "A")
    task.start()
    task.collect(saying(task.labels, "A"), batch)
    assert task.metrics() == {"character_error_rate": 0.0}
    with pytest.raises(UserError, match="metric=cer is unknown"):
        SpeechRecognition(["<blank>", "A"], metric="cer")


def test_what_training_lacks_counts_as_an_error():
    task = SpeechRecognition(["<blank>", "A", "B"])
    entries = {"x": {"wav": "x.wav", "text": "AÉ", "units": "A"}}
    task.add_targets(DynamicItemDataset(entries))
    task.start(final=True)
    batch = SimpleNamespace(id=["x"], wav=["x.wav"])
    task.collect(saying(task.labels, "A"), batch)
    assert task.metrics() == {"word_error_rate": 1.0, "character_error_rate": 0.5}


# Beam search


def test_a_beam_sums_paths_that_the_best_step_by_step_overlooks():
    # A is spelt by three paths of 0.24 + 0.24 + 0.16, nothing by one of 0.36
    logits = torch.tensor([[[0.6, 0.4], [0.6, 0.4], [9.0, -9.0]]]).clamp(1e-3, 1).log()
    task = SpeechRecognition(["<blank>", "A"], beam_size=5)
    batch = known(task, "A")
    texts = []
    for final in (False, True):
        task.start(final=final)
        texts += task.guesses((logits, torch.tensor([2])))
        task.collect((logits, torch.tensor([2])), batch)
    assert texts == ["", "A"]
    assert task.metrics()["word_error_rate"] == 0.0


ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-2\t<unk>\t0
0\t<s>\t-1
-1\t</s>\t0
-3\tAB\t-1
-0.1\tBA\t-1

\\2-grams:
-0.1\t<s> BA
-0.1\tBA </s>

\\end\\
"""


def test_a_language_model_tips_the_balance(tmp_path):
    pytest.importorskip("kenlm")
    pytest.importorskip("pygtrie")
    model = tmp_path / "words.arpa"
    model.write_text(ARPA)
    labels = ["<blank>", "A", "B", SPACE]
    near = torch.tensor([[[0.0, 0.51, 0.49, 0], [0, 0.49, 0.51, 0]]]).clamp(min=1e-4)
    said = []
    for path in (None, str(model)):
        task = SpeechRecognition(labels, beam_size=8, language_model=path)
        task.start(final=True)
        said += task.guesses((near.log(), torch.tensor([2])))
    assert said == ["AB", "BA"]


def test_a_damaged_language_model(tmp_path):
    pytest.importorskip("kenlm")
    pytest.importorskip("pygtrie")
    (tmp_path / "words.arpa").write_text("no model")
    with pytest.raises(UserError, match=r"words\.arpa cannot be read"):
        SpeechRecognition(
            ["<blank>", "A"], "word_error_rate", 8, f"{tmp_path}/words.arpa"
        )


def test_a_language_model_that_cannot_be_used(tmp_path, monkeypatch):
    labels, model = ["<blank>", "A"], tmp_path / "words.arpa"
    with pytest.raises(UserError, match=r"no language_model .*words\.arpa"):
        SpeechRecognition(labels, beam_size=8, language_model=str(model))
    model.write_text(ARPA)
    with pytest.raises(UserError, match="needs a beam search"):
        SpeechRecognition(labels, language_model=str(model))
    monkeypatch.setattr("petl_modules.tasks.recognition.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install kenlm pygtrie"):
        SpeechRecognition(labels, beam_size=8, language_model=str(model))


@pytest.mark.parametrize("family", IN_TIME)
def test_texts_do_not_depend_on_the_batch(checkpoints, family):
    torch.manual_seed(0)
    model = AdaptedModel(load_backbone(checkpoints[family]), make_method("bottleneck"))
    labels = ["<blank>", *"ABCD", SPACE]
    head = CTCHead(model.points.hidden_size, len(labels))
    model.eval()
    torch.nn.init.normal_(head.linear.weight)
    torch.nn.init.constant_(head.linear.bias[:1], -20.0)  # so that something is heard
    wavs = [torch.randn(n) * 0.1 for n in (12000, 7000, 3300)]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    lengths = torch.tensor([len(wav) / 12000 for wav in wavs])
    for beam_size in (None, 5):
        task = SpeechRecognition(labels, beam_size=beam_size)
        task.start(final=True)
        with torch.no_grad():
            together = task.guesses(head(model(padded, lengths)))
            alone = [task.guesses(head(model(wav[None])))[0] for wav in wavs]
        assert together == alone and any(together)


# Phones


def test_phone_errors_are_those_of_another_implementation():
    draw, labels = random.Random(0), ["<blank>", "AA", "B", "K", "IY"]
    task, edits, total = CTC(labels, "phone_error_rate"), 0, 0
    task.start()
    for _ in range(40):
        path = draw.choices(range(5), k=draw.randint(1, 12))
        truth = draw.choices(range(1, 5), k=draw.randint(1, 8))
        logits = 10.0 * torch.eye(5)[path].unsqueeze(0)
        symbols = PaddedData(torch.tensor([truth]), torch.ones(1))
        batch = SimpleNamespace(id=[str(total)], symbols=symbols)
        task.collect((logits, torch.tensor([len(path)])), batch)
        runs = re.sub(r"(.)\1+", r"\1", "".join(map(str, path))).replace("0", "")
        edits += edit_distance(runs, "".join(map(str, truth)))
        total += len(truth)
    assert task.metrics() == {"phone_error_rate": pytest.approx(edits / total)}


# Slots


def test_slots_by_hand():
    truth = "PLAY <B-artist> ABBA <E-artist> IN <B-city> ROME <E-city> <intent=Play>"
    assert slots(truth) == {"artist": ["ABBA"], "city": ["ROME"]}
    # marks inside a value, a mark that is not closed, an empty value, a name within
    # another's
    assert slots("<B-a> X <B-b> Y <E-a> <B-b> Z") == {"a": ["X Y"]}
    assert slots("<B-a> <E-a> X <E-a> <B-a> Y <E-ab>") == {"a": ["X"]}
    guess = "PLAY <B-artist> ABA <E-artist> IN <B-state> ROME <E-state> <intent=Play>"
    # one type of two right on both sides; one letter of ABBA and all of ROME missed
    assert slot_type_f1([guess], [truth]) == pytest.approx(0.5)
    assert slot_value_cer([guess], [truth]) == pytest.approx(5 / 8)
    assert slot_type_f1(["A"], ["B"]) == 1.0 and slot_type_f1(["A"], [truth]) == 0.0
    # the nearest of two values of a type counts
    twice = "<B-artist> U <E-artist> <B-artist> ABBA <E-artist>"
    assert slot_value_cer([twice], ["<B-artist> ABBA <E-artist>"]) == 0.0


def pairs_of(text):
    """The slots of a marked text, by one expression."""
    found = re.findall(r"<B-(\w+)> (?=\S+ )(\S.*?) <E-\1>", text)
    return [(kind, " ".join(re.sub("<[^>]+>", "", v).split())) for kind, v in found]


def test_slots_are_those_of_another_implementation():
    draw = random.Random(0)
    words = ["X", "YY", "<B-a>", "<E-a>", "<B-b>", "<E-b>"]
    texts = [" ".join(draw.choices(words, k=draw.randint(2, 12))) for _ in range(600)]
    guesses, truths = texts[::2], texts[1::2]
    found, there = ([pairs_of(text) for text in part] for part in (guesses, truths))
    kinds = MultiLabelBinarizer(classes=["a", "b"])
    binary = [kinds.fit_transform([dict(p) for p in part]) for part in (there, found)]
    f1 = f1_score(*binary, average="samples", zero_division=1.0)
    assert slot_type_f1(guesses, truths) == pytest.approx(f1) and 0.1 < f1 < 0.9
    wrong, total = 0, 0
    for ours, theirs in zip(found, there, strict=True):
        for kind, value in theirs:
            rivals = [v for k, v in ours if k == kind] or [""]
            wrong += min(edit_distance(value, rival) for rival in rivals)
            total += len(value)
    assert slot_value_cer(guesses, truths) == pytest.approx(wrong / total)


def test_intents_and_alignments_of_commands(tmp_path):
    labels = ["<blank>", "A", "<B-x>", "<E-x>", "<intent=Go>", "<intent=Eat>"]
    task = SlotFilling(labels)
    batch = known(task, "A <intent=Go>", "<B-x> A <E-x> <intent=Go>")
    task.start()
    paths = ["A", "<intent=Go>"], ["<B-x>", "A", "<E-x>", "<intent=Eat>"]
    task.collect(saying(labels, *paths), batch)
    metrics = task.metrics()
    assert metrics == {"slot_type_f1": 1, "slot_value_cer": 0, "intent_accuracy": 0.5}
    assert task.error(metrics, 0.0) == 0.0
    task.write(tmp_path)
    assert "<E-x> ; <intent=Eat>" in (tmp_path / "wer.txt").read_text()
    by_value = SlotFilling(labels, metric="slot_value_cer")
    assert by_value.error({"slot_value_cer": 0.25}, 0.0) == 0.25
