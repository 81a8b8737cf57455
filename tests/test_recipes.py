"""Every recipe, from its official layout to its results, through its command line.

A new recipe adds a maker to `layouts` and a row to RECIPES.
"""

import json
from dataclasses import dataclass

import layouts
import pytest
from conftest import run, run_here
from tiny import FAMILIES


@dataclass(frozen=True)
class Recipe:
    """A recipe's row: what to run, and what must come out of its miniature tree.

    Attributes
    ----------
    folder : str
        Under `recipes/`.
    labels : list of str
    clips : tuple of int
        Of train, valid and test.
    left_out : int
        Broken and missing clips.
    arguments : tuple of str
        Beside those that all recipes get.
    metric, leaves : str
        A number in results.json, and a file for a person.
    """

    folder: str
    labels: list
    clips: tuple
    left_out: int
    arguments: tuple = ()
    metric: str = "weighted_f1"
    leaves: str = "confusion_matrix.png"


RECIPES = (
    Recipe("ESC50", ["cow", "rooster"], (22, 8, 8), 2, ("--fold=1",)),
    Recipe("AudioFolder", ["brünn", "zürich"], (14, 5, 5), 1),
    Recipe(
        "UrbanSound8K", ["air_conditioner", "gun_shot"], (62, 8, 8), 2, ("--fold=10",)
    ),
    Recipe("SpeechCommands", ["off", "stop", "up"], (18, 3, 3), 2),
    Recipe(
        "FluentSpeechCommands",
        ["activate lights none", "increase heat kitchen"],
        (14, 4, 4),
        2,
    ),
    Recipe(
        "FluentSpeechCommands",
        [
            f"{action} | {thing} | {place}"
            for action in ("activate", "increase")
            for thing in ("heat", "lights")
            for place in ("kitchen", "none")
        ],
        (14, 4, 4),
        2,
        ("--slots=True",),
    ),
    Recipe(
        "IEMOCAP", ["angry", "happy", "neutral", "sad"], (78, 10, 10), 2, ("--fold=2",)
    ),
    Recipe("ESD", ["Angry", "Sad"], (15, 8, 8), 1),
    Recipe("ESD", ["0011", "0012"], (15, 8, 8), 1, ("--task=speaker",)),
    Recipe("MELD", ["joy", "neutral"], (17, 3, 4), 2),
    Recipe("VCTK", ["p225", "p280"], (31, 4, 4), 1),
    Recipe(
        "LibriSpeech/phonemes",
        ["<blank>", "AE", "AH", "B", "IY", "K", "UW"],
        (16, 2, 2),
        2,
        metric="phone_error_rate",
        leaves="alignments.txt",
    ),
    Recipe(
        "LibriSpeech/ASR",
        ["<blank>", *"ABE\u2581"],
        (17, 2, 2),
        2,
        metric="word_error_rate",
        leaves="wer.txt",
    ),
    Recipe(
        "FLEURS",
        ["<blank>", *"abe\u2581"],
        (16, 2, 2),
        2,
        metric="character_error_rate",
        leaves="cer.txt",
    ),
    Recipe(
        "CommonVoice/ASR",
        ["<blank>", *"abe\u2581"],
        (16, 2, 2),
        2,
        ("--language=en",),
        metric="word_error_rate",
        leaves="wer.txt",
    ),
    Recipe(
        "ESD/ASR",
        ["<blank>", *"abe\u2581"],
        (15, 8, 8),
        1,
        metric="word_error_rate",
        leaves="wer.txt",
    ),
    Recipe(
        "MELD/ASR",
        ["<blank>", *"abe\u2581"],
        (17, 3, 4),
        2,
        metric="word_error_rate",
        leaves="wer.txt",
    ),
    Recipe(
        "SNIPS",
        [
            "<blank>",
            *("<B-city>", "<B-food>", "<E-city>", "<E-food>"),
            *("<intent=Eat>", "<intent=Go>"),
            *"ABCDN\u2581",
        ],
        (16, 2, 2),
        2,
        ("--train_speakers=[Ivy]", "--valid_speakers=[Amy]", "--test_speakers=[Emma]"),
        metric="slot_value_cer",
        leaves="wer.txt",
    ),
)
# but for that whose texts are as FLEURS's
SPELLING = [
    r for r in RECIPES if "<blank>" in r.labels and r.folder != "CommonVoice/ASR"
]
EPOCHS = {"MELD/ASR": 30}  # some of its clips are films, whose sound is compressed
# every backbone with another method
METHODS = {
    "ast": "conformer",
    "wav2vec2": "lora",
    "xlsr": "bottleneck",
    "hubert": "prefix",
    "wavlm": "dense_moa",
    "whisper": "prompt",
}
# and those that came later, in one recipe of each kind
LATER = {
    "data2vec": "convpass",
    "unispeech_sat": "soft_moa",
    "moonshine": "bottleneck",
    "wav2vec2_conformer": "lora",
    "w2v_bert": "conformer",
    "parakeet": "bottleneck",
    "speecht5": "prefix",
    "sew": "lora",
    "htsat": "mamba",
}
ONE_OF_EACH_KIND = ("ESC50", "LibriSpeech/ASR")


def name_of(recipe):
    return recipe.folder + "".join(
        a for a in recipe.arguments if "task" in a or "slots" in a
    )


def cases():
    """Recipes with the families that they run on."""
    return [
        pytest.param(recipe, family, id=f"{name_of(recipe)}-{family}")
        for recipe in RECIPES
        for family in METHODS | LATER
        if family in METHODS or recipe.folder in ONE_OF_EACH_KIND
        if family != "htsat" or recipe not in SPELLING  # it hears no spelling
    ]


def data_set(recipe):
    return recipe.folder.split("/")[0]


def arguments(recipe, trees, source, output):
    return (
        f"--data_folder={trees / data_set(recipe)}",
        f"--source={source}",
        f"--output_folder={output}",
        "--skip_broken=True",
        "--head_start_epochs=0",
        *recipe.arguments,
    )


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """The miniature trees, in folders with names that are not ASCII."""
    root = tmp_path_factory.mktemp("Hörbücher 音声")
    for name in {data_set(recipe) for recipe in RECIPES}:
        (root / name).mkdir()
        getattr(layouts, name.lower())(root / name)
    return root


def test_every_family_runs_in_recipes():
    assert {*METHODS, *LATER} == set(FAMILIES)


@pytest.mark.parametrize(("recipe", "family"), cases())
def test_a_recipe_runs(recipe, family, trees, checkpoints, tmp_path):
    run_here(
        recipe.folder,
        *arguments(recipe, trees, checkpoints[family], tmp_path),
        f"--method={(METHODS | LATER)[family]}",
        "--number_of_epochs=1",
        "--batch_size=16",
    )
    (path,) = tmp_path.glob("**/results.json")
    result, folder = json.loads(path.read_text()), path.parent
    assert result["left_out"] == recipe.left_out
    assert result["metrics"]["test"][recipe.metric] >= 0
    assert (folder / recipe.leaves).exists()
    adapter = json.loads((folder / "adapter.json").read_text())
    assert adapter["info"]["labels"] == recipe.labels
    splits = ("train", "valid", "test")
    manifests = [
        json.loads((folder / f"data/{name}.json").read_text()) for name in splits
    ]
    assert tuple(map(len, manifests)) == recipe.clips
    wavs = [row["wav"] for manifest in manifests for row in manifest.values()]
    assert len(set(wavs)) == sum(recipe.clips)
    for manifest in manifests:
        labels = {row.get("label") for row in manifest.values()}
        if "--slots=True" in recipe.arguments:  # not every combination is spoken
            assert labels == {"activate | lights | none", "increase | heat | kitchen"}
        else:
            assert labels in (set(recipe.labels), {None})


@pytest.mark.parametrize(
    ("recipe", "family"),
    [  # each recipe on one family, and each family in one recipe
        pytest.param(recipe, family, id=f"{name_of(recipe)}-{family}")
        for recipe in SPELLING
        for family in METHODS
        if family == "wav2vec2" or recipe.folder == "LibriSpeech/ASR"
    ],
)
def test_a_recipe_that_spells_learns_its_texts(
    recipe, family, trees, checkpoints, tmp_path
):
    done = run(
        recipe.folder,
        *arguments(recipe, trees, checkpoints[family], tmp_path),
        "--method=conv_adapter",
        "--train_norm=True",
        f"--number_of_epochs={EPOCHS.get(recipe.folder, 20)}",
        "--batch_size=1",
        "--lr=0.01",
        "--warmup=0.1",
        "--head_dropout=0",
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("**/results.json")
    test = json.loads(path.read_text())["metrics"]["test"]
    assert test[recipe.metric] <= 0.05


@pytest.mark.parametrize("mib", [1024, 0])
@pytest.mark.parametrize("family", ["ast", "hubert", "whisper"])
def test_a_probe_of_steps_is_the_same_from_cached_features(
    family, mib, trees, checkpoints, tmp_path
):
    (recipe,) = (r for r in RECIPES if r.folder == "LibriSpeech/phonemes")
    losses = []
    for cache in (True, False):
        run_here(
            recipe.folder,
            *arguments(recipe, trees, checkpoints[family], tmp_path / str(cache)),
            "--method=linear",
            "--number_of_epochs=3",
            "--lr=0.01",
            "--batch_size=5",
            "--head_dropout=0",
            f"--feature_cache={cache}",
            f"--audio_cache_mib={mib}",
        )
        (path,) = (tmp_path / str(cache)).glob("**/results.json")
        metrics = json.loads(path.read_text())["metrics"]
        losses.append([metrics[split]["loss"] for split in ("valid", "test")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert (tmp_path / "True" / "feature_cache").exists() == bool(mib)  # if they fit
    assert not (tmp_path / "False" / "feature_cache").exists()


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_a_broken_clip_is_named(recipe, trees, checkpoints, tmp_path):
    done = run(
        recipe.folder,
        f"--data_folder={trees / data_set(recipe)}",
        f"--source={checkpoints['ast']}",
        f"--output_folder={tmp_path}",
        *recipe.arguments,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert f"{trees / data_set(recipe)}" in error and "--skip_broken" in error
    assert not list(tmp_path.glob("**/results.json"))
