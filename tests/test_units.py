"""Text as units: characters, SentencePiece, marks, and what a language's text keeps."""

import pytest

from petl_modules.data.units import joined, normalized, with_units
from petl_modules.errors import UserError

TEXTS = (
    "PLAY <B-artist> AB BA <E-artist> NOW",
    "GO TO <B-city> BA <E-city> <intent=Go>",
)


def entries(*texts):
    return {str(i): {"text": text, "wav": f"{i}.wav"} for i, text in enumerate(texts)}


@pytest.mark.parametrize("tokens", ["char", "bpe"])
def test_units_spell_the_text_again(tokens):
    splits, labels = with_units({"train": entries(*TEXTS)}, tokens, vocab_size=30)
    marks = {"<B-artist>", "<E-artist>", "<B-city>", "<E-city>", "<intent=Go>"}
    assert labels[0] == "<blank>" and marks < set(labels)
    assert tokens == "char" or len(labels) == 30
    for text, entry in zip(TEXTS, splits["train"].values(), strict=True):
        units = entry["units"].split()
        assert set(units) < set(labels) and joined(units) == text
        assert entry["text"] == text


@pytest.mark.parametrize("tokens", ["char", "bpe"])
def test_units_are_learnt_from_the_training_text_alone(tokens, caplog):
    held_out = {"valid": entries("GO ÉA"), "test": entries("AB")}
    alone = with_units({"train": entries(*TEXTS)}, tokens, 30)[1]
    splits, labels = with_units({"train": entries(*TEXTS), **held_out}, tokens, 30)
    assert labels == alone
    # what cannot be spelt is said, and still counts in the text
    assert joined(splits["valid"]["0"]["units"].split()) == "GO A"
    assert splits["valid"]["0"]["text"] == "GO ÉA"
    assert "valid texts" in caplog.text and "É" in caplog.text
    assert "test texts" not in caplog.text


@pytest.mark.parametrize("size", [5, 5000])
def test_a_vocabulary_that_does_not_suit_the_text(size):
    with pytest.raises(UserError, match=f"vocab_size={size} does not suit"):
        with_units({"train": entries(*TEXTS)}, "bpe", size)


@pytest.mark.parametrize(
    ("language", "text", "wanted"),
    [
        (
            "en_us",
            "\u201cDon\u2019t!\u201d (she said) - 'twice'; £3",
            "don't she said twice 3",
        ),
        ("de_de", "Die Straße, Ärger.", "die straße ärger"),
        ("tr_tr", "IŞIK İŞTE", "\u0131ş\u0131k işte"),
        ("hi_in", "हिन्दी में।", "हिन्दी में"),
        ("fa_ir", "می‌خواهم،", "میخواهم"),
        ("cmn_hans_cn", "你好\uff0c 世界。", "你好世界"),
        ("th_th", "สวัสดี ครับ", "สวัสดีครับ"),
    ],
)
def test_a_text_is_normalized_as_its_language_is_written(language, text, wanted):
    assert normalized(text, language) == wanted
