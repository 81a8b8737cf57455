"""The encoder of Whisper (Radford et al., arXiv 2212.04356)."""

import torch
import torch.nn.functional as F
from transformers import WhisperFeatureExtractor

from petl_modules.access_points import WHISPER
from petl_modules.backbones.base import Backbone, Tokens, valid
from petl_modules.backbones.features import WhisperLogMel
from petl_modules.errors import UserError

FRAMES_PER_TOKEN = 2  # the stride of the second convolution


class WhisperBackbone(Backbone):
    """Whisper's encoder on clips of up to 30 s; the position table is cut to the
    clips instead of the clips padded to 30 s.

    Arguments
    ---------
    model : transformers.WhisperEncoder
    source : str
    preprocessing : dict
        Of WhisperFeatureExtractor: sampling_rate (Hz), n_fft, hop_length.
    spec_augment : callable or None
    """

    def __init__(self, model, source, preprocessing, spec_augment=None):
        rate = preprocessing["sampling_rate"]
        super().__init__(model, WHISPER, source, rate, preprocessing, spec_augment)
        extractor = WhisperFeatureExtractor(
            feature_size=model.config.num_mel_bins,
            sampling_rate=rate,
            hop_length=preprocessing["hop_length"],
            n_fft=preprocessing["n_fft"],
        )
        filters = torch.tensor(extractor.mel_filters, dtype=torch.float32)
        self.log_mel = WhisperLogMel(filters, extractor.n_fft, extractor.hop_length)
        self.token_samples = extractor.hop_length * FRAMES_PER_TOKEN

    def steps(self, samples):
        return (samples + self.token_samples - 1) // self.token_samples

    def capacity(self):
        return self.model.config.max_source_positions * self.token_samples

    def embed(self, wavs, counts):
        lengths = self.steps(counts)
        time = self.steps(wavs.shape[1])
        model = self.model
        if time > model.config.max_source_positions:
            seconds = time * self.token_samples / self.sample_rate
            raise UserError(
                f"A clip of {seconds:.1f} s is longer than Whisper's 30 s: set "
                "max_duration=30 to cut clips."
            )
        # One token more than needed: the convolutions then read silence after the
        # longest clip, as they do after the shorter ones and in Whisper's own 30 s.
        mel = self.augmented(self.log_mel(wavs, (time + 1) * FRAMES_PER_TOKEN))
        hidden = F.gelu(model.conv2(F.gelu(model.conv1(mel))))
        hidden = hidden.transpose(1, 2)[:, :time]
        hidden = hidden + model.embed_positions.weight[:time]
        hidden = F.dropout(hidden, model.dropout, model.training)
        return Tokens(hidden, valid(lengths, time))

    def idle_parameters(self):
        """The sinusoidal positions are fixed."""
        return list(self.model.embed_positions.parameters())
