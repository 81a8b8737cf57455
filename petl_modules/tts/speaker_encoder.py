"""Embeddings of speakers: x-vectors or ECAPA-TDNN, from SpeechBrain's checkpoints."""

from typing import Any

import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from petl_modules.console import progress_bar
from petl_modules.data import read_clip
from petl_modules.errors import UserError
from petl_modules.tts.head import VoiceHead
from petl_modules.tts.vocoder import from_speechbrain

RATE = 16000  # Hz, of SpeechBrain's speaker models


def mean_embeddings(
    source: str,
    dataset: DynamicItemDataset,
    speakers: list[str],
    head: VoiceHead,
    trust_code: bool = False,
) -> None:
    """Fill a head's table with the mean embedding of every speaker's clips.

    Arguments
    ---------
    source : str
        Folder or hub id of a speaker model in SpeechBrain's layout, such as
        speechbrain/spkrec-ecapa-voxceleb.
    dataset : DynamicItemDataset
        With wav and speaker; every speaker must be in it.
    speakers : list of str
    head : petl_modules.tasks.heads.VoiceHead
    trust_code : bool
        Whether the model may run code, as `load_vocoder` has it.
    """
    encoder, sums = load_encoder(source, trust_code), {name: [] for name in speakers}
    for entry in progress_bar(dataset.data.values(), desc="speakers"):
        wav = read_clip(entry["wav"], RATE).unsqueeze(0)
        with torch.no_grad():
            sums[entry["speaker"]].append(encoder.encode_batch(wav)[0, 0].cpu())
    for i, name in enumerate(speakers):
        if not sums[name]:
            raise UserError(f"The speaker {name} has no training clips.")
        mean = torch.stack(sums[name]).mean(0)
        if mean.shape != head.table[i].shape:
            raise UserError(
                f"The speaker encoder {source} gives {len(mean)} numbers, the base "
                f"takes {head.table.shape[1]}."
            )
        head.table[i] = mean


def load_encoder(source: str, trust_code: bool = False) -> Any:
    """SpeechBrain's speaker model."""
    from speechbrain.inference.speaker import EncoderClassifier

    what = "speaker encoder"
    return from_speechbrain(EncoderClassifier, source, what, trust_code).eval()
