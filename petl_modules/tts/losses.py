"""The terms of the loss of FastSpeech 2, none of which hangs on what else is in the
batch."""

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.FastSpeech2 import ForwardSumLoss
from torch import Tensor

from petl_modules.core.masking import valid
from petl_modules.tts.speech import Speech, Target

WEIGHTS = {"path": 0.1}  # of the loss's terms, where not 1


def loss_terms(
    speech: Speech, counts: Tensor, target: Target, forward_sum: ForwardSumLoss
) -> dict[str, Tensor]:
    """The terms of the loss by name, each a mean over clips."""
    frames = valid(target.counts, target.mel.shape[1])
    logs = torch.log1p(speech.durations.float())
    mels = {"coarse_mel": speech.coarse_mel, "mel": speech.mel}
    terms = {
        name: over_clips((mel.float() - target.mel).abs().mean(-1), frames)
        for name, mel in mels.items()
    }
    for name, guess, truth in (
        ("durations", speech.log_durations, logs),
        ("pitch", speech.pitch, speech.target_pitch),
        ("energy", speech.energy, speech.target_energy),
    ):
        squares = F.mse_loss(guess.float(), truth.float(), reduction="none")
        terms[name] = over_clips(squares, speech.mask)
    alignment = speech.alignment
    if alignment is None:
        return terms
    # SpeechBrain asks for the lengths clip by clip; a GPU answers once
    asked = counts.cpu(), target.counts.cpu()
    terms["alignment"] = forward_sum(alignment.unsqueeze(1), *asked)
    # -inf at padding is no number to multiply with 0
    on_path = alignment.masked_fill(~speech.mask.unsqueeze(1), 0.0) * speech.path
    terms["path"] = over_clips(-on_path.sum(-1), frames)
    return terms


def over_clips(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over clips of the means over their valid places; both `(batch, time)`."""
    weights = mask.to(values.dtype)
    return ((values * weights).sum(1) / weights.sum(1)).mean()
