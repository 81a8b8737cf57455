"""What the papers' released code does otherwise, each thing by its switch."""

import layouts
import pytest
import torch
from test_prepare import prepare_function

from petl_modules.core.tokens import Tokens
from petl_modules.data.splits import few_shot
from petl_modules.errors import UserError
from petl_modules.tasks.heads import ClassificationHead


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A miniature UrbanSound8K."""
    root = tmp_path_factory.mktemp("UrbanSound8K")
    layouts.urbansound8k(root)
    return root


def test_nine_folds_may_all_train_and_then_the_last_epoch_comes_out(sounds):
    prepare = prepare_function("UrbanSound8K")
    splits, _ = prepare(sounds, fold=3, valid_fraction=0, choose="last")
    assert splits["valid"] == splits["test"]
    whole, _ = prepare(sounds, fold=3)
    assert splits["train"] == whole["train"] | whole["valid"]
    with pytest.raises(UserError, match="no clips to choose by: set --choose=last"):
        prepare(sounds, fold=3, valid_fraction=0)


def test_the_first_clips_of_a_class_may_be_its_few_shots():
    entries = {
        f"{label}{number}": {"wav": f"{label}{number}", "label": label}
        for number in (3, 1, 2, 5, 4)
        for label in "ba"
    }
    drawn = few_shot(entries, 2, seed=0, whole=lambda given: given, draw="first")
    assert sorted(drawn) == ["a1", "a2", "b1", "b2"]
    other = few_shot(entries, 2, seed=9, whole=lambda given: given, draw="first")
    assert drawn == other


def test_cls_may_be_read_alone():
    hidden = torch.randn(3, 7, 8)
    tokens = Tokens(hidden, torch.ones(3, 7, dtype=torch.bool), special=2)
    features, counts = ClassificationHead(8, 4, pooling="cls").read(tokens)
    assert features.equal(hidden[:, :1]) and counts.tolist() == [1, 1, 1]
