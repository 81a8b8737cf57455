"""The splits of the recipes are those of their protocols."""

import layouts
import pytest
from test_prepare import prepare_function

from petl_modules.errors import UserError


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The miniature tree of a data set, made once."""
    made = {}

    def tree(recipe):
        if recipe not in made:
            made[recipe] = tmp_path_factory.mktemp(recipe)
            getattr(layouts, recipe.lower())(made[recipe])
        return made[recipe]

    return tree


def prepare(tree, recipe, **knobs):
    return prepare_function(recipe)(tree(recipe), **knobs)


def test_urbansound8k_parts_no_recording(tree):
    for fold in (1, 10):
        splits, labels = prepare(tree, "UrbanSound8K", fold=fold)
        assert labels == ["air_conditioner", "gun_shot"]
        assert {key.split("/")[0] for key in splits["test"]} == {f"fold{fold}"}
        sources = {n: {e["group"] for e in part.values()} for n, part in splits.items()}
        assert not sources["train"] & sources["valid"]
        assert not sources["test"] & (sources["train"] | sources["valid"])
        assert 0.05 < len(splits["valid"]) / 72 < 0.2
    other = prepare(tree, "UrbanSound8K", fold=10, seed=1)[0]
    assert other["valid"].keys() != splits["valid"].keys()
    assert other["test"] == splits["test"]


def test_speech_commands_follows_the_lists(tree):
    splits, labels = prepare(tree, "SpeechCommands")
    assert labels == ["off", "stop", "up"]
    assert {entry["speaker"] for entry in splits["valid"].values()} == {"2c"}
    # the list of tests names a clip that is not there
    assert {entry["speaker"] for entry in splits["test"].values()} == {"3d", "9f"}
    # other takes of these speakers are in no list, and train
    assert "up/3d_nohash_1.wav" in splits["train"]
    assert not any("noise" in key for part in splits.values() for key in part)


def test_speech_commands_takes_any_words(tree):
    # yaml reads an unquoted off as False
    splits, labels = prepare(tree, "SpeechCommands", words=[False, "up"])
    assert labels == ["off", "up"]
    assert {e["label"] for part in splits.values() for e in part.values()} == {
        "off",
        "up",
    }
    with pytest.raises(UserError, match="no folder for yes"):
        prepare(tree, "SpeechCommands", words=["up", "yes"])


def test_speech_commands_lists_share_no_clip(tmp_path):
    layouts.speechcommands(tmp_path)
    with open(tmp_path / "testing_list.txt", "a") as stream:
        stream.write("up/2c_nohash_0.wav\n")
    with pytest.raises(UserError, match=r"both name up/2c_nohash_0\.wav"):
        prepare_function("SpeechCommands")(tmp_path)


def test_fluent_speech_commands_keeps_text_and_speaker(tree):
    splits, labels = prepare(tree, "FluentSpeechCommands")
    assert labels == ["activate lights none", "increase heat kitchen"]
    entry = splits["test"]["wavs/speakers/f/test10.wav"]
    assert entry["text"] == "Heat up, the kitchen"
    assert (entry["label"], entry["speaker"]) == (labels[1], "f")


def test_fluent_speech_commands_tells_the_parts_of_an_intent_apart(tree):
    splits, labels = prepare(tree, "FluentSpeechCommands", slots=True)
    assert len(labels) == 2 * 2 * 2 and labels == sorted(labels)
    entry = splits["test"]["wavs/speakers/f/test10.wav"]
    assert entry["label"] == "increase | heat | kitchen" and entry["label"] in labels
    seen = {e["label"] for part in splits.values() for e in part.values()}
    assert len(seen) == 2


def test_iemocap_by_session(tree):
    splits, _ = prepare(tree, "IEMOCAP", fold=0)
    sessions = {n: {int(key[3:5]) for key in part} for n, part in splits.items()}
    assert sessions == {"train": {1, 2, 3}, "valid": {4}, "test": {5}}


@pytest.mark.parametrize("fold", range(1, 11))
def test_iemocap_holds_a_session_out(tree, fold):
    splits, _ = prepare(tree, "IEMOCAP", fold=fold)
    session, tested = (fold + 1) // 2, "F" if fold % 2 else "M"
    speakers = {n: {e["speaker"] for e in part.values()} for n, part in splits.items()}
    other = "M" if tested == "F" else "F"
    assert speakers["test"] == {f"Ses{session:02d}{tested}"}
    assert speakers["valid"] == {f"Ses{session:02d}{other}"}
    assert len(speakers["train"]) == 8
    assert all(int(name[3:5]) != session for name in speakers["train"])
    # hap and exc are one class; fru and xxx are left out
    assert [len(splits[n]) for n in ("train", "valid", "test")] == [80, 10, 10]


def test_esd_takes_english_speakers_and_others_by_knob(tree):
    splits, labels = prepare(tree, "ESD", task="speaker")
    assert labels == ["0011", "0012"]
    assert all("/evaluation/" in e["wav"] for e in splits["valid"].values())
    assert prepare(tree, "ESD", task="speaker", speakers=[1, "0012"])[1] == [
        "0001",
        "0012",
    ]
    with pytest.raises(UserError, match="does not hold the speaker 0005"):
        prepare(tree, "ESD", speakers=[5])
    with pytest.raises(UserError, match="task=age is none"):
        prepare(tree, "ESD", task="age")


def test_esd_without_part_folders_is_split_by_number(tmp_path):
    for speaker in ("0011", "0012"):
        for emotion in ("Happy", "Neutral"):
            for number in range(1, 61):
                path = tmp_path / speaker / emotion / f"{speaker}_{number:06d}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    splits, _ = prepare_function("ESD")(tmp_path)
    numbers = {
        name: {int(key[-10:-4]) for key in part if key.startswith("0011")}
        for name, part in splits.items()
    }
    assert numbers["valid"] == set(range(1, 21))
    assert numbers["test"] == set(range(21, 51))
    assert numbers["train"] == set(range(51, 61))


def test_meld_reads_films_or_sound_in_their_place(tree):
    splits, labels = prepare(tree, "MELD")
    assert labels == ["joy", "neutral"]
    suffixes = {n: {e["wav"][-4:] for e in p.values()} for n, p in splits.items()}
    assert suffixes == {
        "train": {".mp4", ".wav"},
        "valid": {".mp4"},
        "test": {".wav"},
    }
    assert splits["train"]["dia0_utt0"]["text"] == "Abba!"


def test_vctk_splits_each_speakers_sorted_utterances(tree):
    splits, labels = prepare(tree, "VCTK")
    assert labels == ["p225", "p280"]
    for speaker in labels:
        numbers = [
            sorted(int(key.split("_")[1]) for key in part if key.startswith(speaker))
            for part in splits.values()
        ]
        assert numbers == [list(range(1, 17)), [17, 18], [19, 20]]
    # p280 has no second microphone
    assert prepare(tree, "VCTK", microphone="mic2")[1] == ["p225"]


def test_vctk_takes_some_speakers(tree):
    assert prepare(tree, "VCTK", speakers=["p280"])[1] == ["p280"]
    splits, labels = prepare(tree, "VCTK", without=["p280"])
    assert labels == ["p225"]
    assert all(key.startswith("p225") for part in splits.values() for key in part)
    with pytest.raises(UserError, match="no speaker p999"):
        prepare(tree, "VCTK", speakers=["p999"])


def test_vctk_in_the_older_release(tmp_path):
    for number in range(1, 12):
        path = tmp_path / "wav48" / "p225" / f"p225_{number:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    splits, _ = prepare_function("VCTK")(tmp_path)
    assert [len(splits[n]) for n in ("train", "valid", "test")] == [9, 1, 1]


@pytest.mark.parametrize(
    ("recipe", "knobs", "words"),
    [
        ("UrbanSound8K", {"fold": 1}, "no metadata/UrbanSound8K.csv.*urbansound"),
        ("SpeechCommands", {}, "no testing_list.txt.*tensorflow"),
        ("FluentSpeechCommands", {}, "no data/train_data.csv.*fluent.ai"),
        ("IEMOCAP", {"fold": 1}, "no Session1.*usc.edu"),
        ("ESD", {}, "any English speaker.*hltsingapore"),
        ("MELD", {}, "no train_sent_emo.csv.*affective-meld"),
        ("VCTK", {}, "no wav48.*datashare.ed"),
    ],
)
def test_a_wrong_folder_is_told_the_layout(tmp_path, recipe, knobs, words):
    with pytest.raises(UserError, match=words):
        prepare_function(recipe)(tmp_path, **knobs)


LIBRISPEECH = {
    "train_sets": ["train-clean-100"],
    "valid_set": "dev-clean",
    "test_set": "test-clean",
}


def test_librispeech_phones_have_no_stress(tree, caplog):
    prepare = prepare_function("LibriSpeech", "prepare_phonemes")
    splits, labels = prepare(tree("LibriSpeech"), **LIBRISPEECH)
    assert labels == ["<blank>", "AE", "AH", "B", "IY", "K", "UW"]
    phones = [entry["units"] for _, entry in sorted(splits["valid"].items())]
    assert phones == ["AE B AE", "B IY AE B AE"]
    assert [len(splits[n]) for n in ("train", "valid", "test")] == [18, 2, 2]
    # the utterance with an unknown word is left out, and said so
    assert "Left out of train: 1 of 19 utterances" in caplog.text
    assert "such as BABE" in caplog.text
    with pytest.raises(UserError, match="no test-other"):
        prepare(tree("LibriSpeech"), **{**LIBRISPEECH, "test_set": "test-other"})
    with pytest.raises(UserError, match=r"gone\.txt is missing"):
        prepare(tree("LibriSpeech"), **LIBRISPEECH, lexicon="gone.txt")


def test_librispeech_phones_with_stress(tree):
    prepare = prepare_function("LibriSpeech", "prepare_phonemes")
    splits, labels = prepare(tree("LibriSpeech"), **LIBRISPEECH, stress=True)
    assert labels == ["<blank>", "AE0", "AE1", "AH0", "B", "IY1", "K", "UW1"]
    assert (
        splits["valid"]["dev-clean/11/1100/11-1100-0001.flac"]["units"]
        == "B IY1 AE1 B AE0"
    )


def test_librispeech_words_that_the_lexicon_lacks_can_be_looked_up(tree, caplog):
    prepare = prepare_function("LibriSpeech", "prepare_phonemes")
    lexicon = tree("LibriSpeech") / "wider.txt"
    lexicon.write_text("ABBA AE B AE\nBEE B IY\nHAY HH EY1\n")
    splits, _ = prepare(tree("LibriSpeech"), **LIBRISPEECH, lexicon=lexicon, g2p=True)
    assert (
        splits["train"]["train-clean-100/10/1000/10-1000-0018.flac"]["units"]
        == "B EY B"
    )
    assert "Left out" not in caplog.text


SPELT = {"tokens": "char", "vocab_size": 0}


def test_librispeech_text(tree):
    prepare = prepare_function("LibriSpeech", "prepare_text")
    splits, labels = prepare(tree("LibriSpeech"), **LIBRISPEECH, **SPELT)
    assert labels == ["<blank>", *"ABE\u2581"]
    entry = splits["valid"]["dev-clean/11/1100/11-1100-0001.flac"]
    assert entry["text"] == "BEE ABBA" and entry["units"] == "B E E \u2581 A B B A"


def test_esd_reads_texts_in_both_encodings(tree, tmp_path, caplog):
    prepare = prepare_function("ESD", "prepare_text")
    splits, labels = prepare(tree("ESD"), speakers=None, **SPELT)
    assert labels == ["<blank>", *"abe\u2581"]
    for speaker in ("0011", "0012"):  # in UTF-16 and in UTF-8
        keys = (
            f"{speaker}/{emotion}/test/{speaker}_{number:06d}.wav"
            for emotion, number in (("Angry", 7), ("Sad", 357))
        )
        texts = [splits["test"][key]["text"] for key in keys]
        assert texts == ["abba", "bee abba"]
    wav = tmp_path / "0011/Sad/train/0011_000400.wav"
    wav.parent.mkdir(parents=True)
    wav.touch()
    (tmp_path / "0011/0011.txt").write_text("0011_000399\tGone.\tSad\n")
    prepare(tmp_path, speakers=[11], **SPELT)
    assert "1 utterances without a text, such as 0011_000400" in caplog.text


def test_fleurs_is_read_by_language(tree, tmp_path):
    prepare = prepare_function("FLEURS")
    splits, labels = prepare(tree("FLEURS"), language="en_us", **SPELT)
    assert labels == ["<blank>", *"abe\u2581"]
    assert [e["text"] for e in splits["valid"].values()] == ["abba", "bee abba"]
    unspaced, _ = prepare(tree("FLEURS"), language="th_th", **SPELT)
    assert [e["text"] for e in unspaced["valid"].values()] == ["abba", "beeabba"]
    (tmp_path / "train").mkdir()
    (tmp_path / "train.tsv").write_text("0\tx.wav\thello\n")
    with pytest.raises(UserError, match=r"train\.tsv has a line with 3 columns"):
        prepare(tmp_path, language=None, **SPELT)


def test_common_voice_is_read_by_its_lists(tree, tmp_path):
    sentences, units = (
        prepare_function("CommonVoice", name)
        for name in ("prepare_sentences", "prepare_units")
    )
    folder = tree("CommonVoice")
    splits, labels = sentences(folder)
    assert labels is None and [len(splits[s]) for s in splits] == [18, 2, 2]
    said = [entry["text"] for entry in splits["valid"].values()]
    assert said == ["\u201cAbba!\u201d", 'Bee, "abba".']
    splits, labels = units(folder, language="en", **SPELT)
    assert labels == ["<blank>", *"abe\u2581"]
    assert [e["text"] for e in splits["valid"].values()] == ["abba", "bee abba"]
    wider, _ = sentences(folder, train_list="validated")
    assert not set(wider["train"]) & {*wider["valid"], *wider["test"]}
    assert len(wider["train"]) == 18
    (tmp_path / "clips").mkdir()
    for rows, message in (
        ("path\tsentence\na.mp3\t\n", "line 2 has no sentence"),
        ("path\tsentence\na.mp3\tGo.\na.mp3\tGo.\n", "line 3 repeats a.mp3"),
        ("path\ntext\n", "lacks the columns sentence"),
    ):
        (tmp_path / "train.tsv").write_text(rows)
        with pytest.raises(UserError, match=message):
            sentences(tmp_path)


def test_snips_marks_slots_and_intents(tree, tmp_path):
    prepare = prepare_function("SNIPS")
    voices = {"valid_speakers": ["Amy"], "test_speakers": ["Emma"], **SPELT}
    splits, _ = prepare(tree("SNIPS"), train_speakers=["Ivy"], **voices)
    assert [entry["text"] for entry in splits["valid"].values()] == [
        "A <B-food> B AND A <E-food> <intent=Eat>",
        "<B-city> CAB <E-city> DA <intent=Go>",
    ]
    assert {key.split("-")[0] for key in splits["train"]} == {"Ivy"}
    splits, _ = prepare(tree("SNIPS"), train_speakers=["all"], **voices)
    assert {key.split("-")[0] for key in splits["train"]} == {"Ivy", "Aditi"}
    with pytest.raises(UserError, match="no train utterances of Joey"):
        prepare(tree("SNIPS"), train_speakers=["Ivy", "Joey"], **voices)
    (tmp_path / "all.iob.snips.txt").write_text("Ivy-snips-train-0 BOS GO EOS\tO O\n")
    with pytest.raises(UserError, match="entry 1, is no id, words, a tab"):
        prepare(tmp_path, train_speakers=["Ivy"], **voices)


def test_meld_keeps_what_is_said(tree, tmp_path, caplog):
    prepare = prepare_function("MELD", "prepare_text")
    splits, labels = prepare(tree("MELD"), **SPELT)
    assert labels == ["<blank>", *"abe\u2581"]
    spoken = {e["text"] for part in splits.values() for e in part.values()}
    assert spoken == {"abba", "bee abba"}
