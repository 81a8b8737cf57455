"""Augmentation changes what training hears, by known rules, and nothing else."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from speechbrain.dataio.batch import PaddedData
from tiny import FAMILIES

from petl_modules.backbones import load_backbone
from petl_modules.data.augmentation import mixed, rolled
from petl_modules.tasks import Classification

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def clips(*counts):
    """Noise of so many samples, zero-padded on the right, and the counts."""
    wavs = torch.zeros(len(counts), max(counts))
    for wav, count in zip(wavs, counts, strict=True):
        wav[:count] = torch.randn(count)
    return wavs, torch.tensor(counts)


def test_a_rolled_clip_is_the_same_clip_from_another_place():
    wavs, counts = clips(50, 80, 1, 80)
    result, begins = rolled(wavs, counts), []
    for wav, now, count in zip(wavs, result, counts, strict=True):
        assert not now[count:].any()
        turns = [wav[:count].roll(-begin) for begin in range(count)]
        begins.append([t.equal(now[:count]) for t in turns].index(True))
    assert len(set(begins)) > 2


def test_a_mixture_holds_both_clips_by_their_shares():
    wavs, counts = clips(50, 80, 30, 60)
    result, lengths, shares, partners = mixed(wavs, counts, 0.5)
    assert sorted(partners.tolist()) == [0, 1, 2, 3] and 0 < shares.min() < 1
    for n, (share, other) in enumerate(zip(shares, partners, strict=True)):
        expected = share * wavs[n] + (1 - share) * wavs[other]
        torch.testing.assert_close(result[n], expected, **CLOSE)
        assert lengths[n] == max(counts[n], counts[other])


def test_the_loss_of_a_mixture_is_that_of_both_labels():
    wavs, counts = clips(50, 80, 30, 60)
    labels, logits = torch.tensor([0, 1, 2, 1]), torch.randn(4, 3)
    task = Classification(["a", "b", "c"], label_smoothing=0.1, mixup=0.5)
    lengths = counts / wavs.shape[1]
    batch = SimpleNamespace(sig=PaddedData(wavs, lengths), label_index=labels)
    torch.manual_seed(1)
    _, _, shares, partners = mixed(wavs, counts, 0.5)
    torch.manual_seed(1)
    task.augment(batch)
    losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)
    others = F.cross_entropy(
        logits, labels[partners], reduction="none", label_smoothing=0.1
    )
    expected = (shares * losses + (1 - shares) * others).mean()
    torch.testing.assert_close(task.loss(logits, batch), expected)


def test_without_augmentation_a_batch_stays_as_it_is():
    wavs, counts = clips(50, 80)
    sig, labels = PaddedData(wavs, counts / 80), torch.tensor([0, 1])
    batch = SimpleNamespace(sig=sig, label_index=labels)
    Classification(["a", "b"]).augment(batch)
    assert batch.sig is sig and batch.label_index is labels


@pytest.mark.parametrize("family", FAMILIES)
def test_another_speed_is_heard_in_training_only(checkpoints, family):
    backbone = load_backbone(checkpoints[family], speeds=[2.0])
    wavs, counts = clips(16000, 12000)
    plain = backbone(wavs, counts / 16000)
    half = backbone(wavs[:, ::2].contiguous(), counts / 16000)  # as many samples
    backbone.augment = True
    fast = backbone(wavs, counts / 16000)
    assert fast.hidden.shape == half.hidden.shape
    assert (fast.hidden.shape != plain.hidden.shape) == (family != "htsat")
    assert fast.mask.equal(half.mask)
    alone = backbone(wavs[1:, :12000]).hidden[0]  # not what it is batched with
    torch.testing.assert_close(fast.hidden[1][fast.mask[1]], alone, **CLOSE)


@pytest.mark.parametrize("family", ["ast", "whisper"])
def test_a_slow_clip_is_cut_where_the_position_table_ends(checkpoints, family):
    backbone = load_backbone(checkpoints[family], speeds=[0.5])
    wavs, counts = clips(backbone.capacity(), backbone.capacity() // 4)
    plain = backbone(wavs, counts / wavs.shape[1])
    backbone.augment = True
    slow = backbone(wavs, counts / wavs.shape[1])
    assert slow.hidden.shape == plain.hidden.shape
    assert slow.mask[1].sum() > plain.mask[1].sum()
