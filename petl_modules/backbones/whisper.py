"""Whisper (Radford et al., arXiv 2212.04356): its encoder, and all of it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import WhisperFeatureExtractor, WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from petl_modules.backbones import registry
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.checkpoint import Checkpoint, with_prefixes
from petl_modules.backbones.features import WhisperLogMel
from petl_modules.backbones.writing import Writer
from petl_modules.core.family import Family
from petl_modules.core.masking import valid
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError

ENCODER = Family(
    layers="layers",
    mhsa="self_attn",
    mhsa_norm="self_attn_layer_norm",
    ffn=("fc1", "fc2"),
    ffn_norm="final_layer_norm",
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    o="self_attn.out_proj",
    fc1="fc1",
    fc2="fc2",
    last_norm="layer_norm",
)
DECODER = replace(
    ENCODER,
    cross=tuple(f"encoder_attn.{name}_proj" for name in ("q", "k", "v", "out")),
)
PREPROCESSING = {"sampling_rate": 16000, "n_fft": 400, "hop_length": 160}
FRAMES_PER_TOKEN = 2  # the stride of the second convolution
MULTILINGUAL = 51865  # tokens that OpenAI's multilingual vocabularies have, or more


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

    part_of: tuple[str, str] | None = ("WhisperModel", "encoder")

    def __init__(
        self,
        model: Any,
        source: str,
        preprocessing: dict[str, Any],
        spec_augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        rate = preprocessing["sampling_rate"]
        super().__init__(model, ENCODER, source, rate, preprocessing, spec_augment)
        extractor = WhisperFeatureExtractor(
            feature_size=model.config.num_mel_bins,
            sampling_rate=rate,
            hop_length=preprocessing["hop_length"],
            n_fft=preprocessing["n_fft"],
        )
        filters = torch.tensor(extractor.mel_filters, dtype=torch.float32)
        self.log_mel = WhisperLogMel(filters, extractor.n_fft, extractor.hop_length)
        self.token_samples = extractor.hop_length * FRAMES_PER_TOKEN

    def steps(self, samples: Any) -> Any:
        return (samples + self.token_samples - 1) // self.token_samples

    def capacity(self) -> int | None:
        return self.model.config.max_source_positions * self.token_samples

    def embed(self, wavs: Tensor, counts: Tensor) -> Tokens:
        lengths = self.steps(counts)
        time = self.steps(wavs.shape[1])
        if time > self.encoder.config.max_source_positions:
            seconds = time * self.token_samples / self.sample_rate
            raise UserError(
                f"A clip of {seconds:.1f} s is longer than Whisper's 30 s: set "
                "max_duration=30 to cut clips."
            )
        # One token more than needed: the convolutions then read silence after the
        # longest clip, as they do after the shorter ones and in Whisper's own 30 s.
        mel = self.augmented(self.log_mel(wavs, (time + 1) * FRAMES_PER_TOKEN))
        return Tokens(self.convolved(mel, time), valid(lengths, time))

    def convolved(self, mel: Tensor, time: int) -> Tensor:
        """Log-mel features to the first `time` tokens of the first layer."""
        encoder = self.encoder
        mel = mel.to(encoder.conv1.weight.dtype)
        hidden = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel))))
        hidden = hidden.transpose(1, 2)[:, :time]
        hidden = hidden + encoder.embed_positions.weight[:time]
        return F.dropout(hidden, encoder.dropout, encoder.training)

    def idle_parameters(self) -> list[nn.Parameter]:
        """The sinusoidal positions are fixed."""
        return list(self.encoder.embed_positions.parameters())


class WhisperWithDecoder(Writer, WhisperBackbone):
    """Whisper with its decoder: sound to text.

    Here every clip is heard in 30 s, filled up with silence: on less, the pretrained
    decoder repeats itself without end. What is longer is cut, as in Whisper's own
    evaluation.

    Arguments
    ---------
    model : transformers.WhisperForConditionalGeneration
    source : str
        Where the tokenizer is found too.
    preprocessing : dict
    spec_augment : callable or None
        Masks the clips, not the silence after them.

    """

    part_of = None
    decoder_family = DECODER
    hears_silence = True

    def __init__(
        self,
        model: Any,
        source: str,
        preprocessing: dict[str, Any],
        spec_augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(model, source, preprocessing, spec_augment)
        config, settings = model.config, model.generation_config
        self.multilingual = getattr(
            settings, "is_multilingual", config.vocab_size >= MULTILINGUAL
        )
        self.text_room = config.max_target_positions
        # as OpenAI's own decoding: half of the text that the decoder has room for
        self.longest_text = self.text_room // 2

    def embed(self, wavs: Tensor, counts: Tensor) -> Tokens:
        time = self.encoder.config.max_source_positions
        wavs = wavs[:, : self.capacity()]
        heard = self.steps(wavs.shape[1]) * FRAMES_PER_TOKEN
        mel = self.log_mel(wavs, time * FRAMES_PER_TOKEN)
        mel = torch.cat([self.augmented(mel[..., :heard]), mel[..., heard:]], -1)
        hidden = self.convolved(mel, time)
        return Tokens(hidden, hidden.new_ones(hidden.shape[:2], dtype=torch.bool))

    def generation(self, language: str | None, speech_task: str) -> dict[str, Any]:
        """What `generate` is told; older checkpoints say little of it."""
        if not self.multilingual:
            return {}
        self.complete_settings()
        return {"language": language, "task": speech_task}

    def numbers(
        self, text: str, language: str | None = None, speech_task: str = "transcribe"
    ) -> Tensor:
        """A text's tokens as the decoder is to write them, `(length,)`: start, text and
        end."""
        if self.multilingual:
            self.tokenizer.set_prefix_tokens(language=language, task=speech_task)
        # Whisper writes a space before its first word
        return torch.tensor(self.tokenizer(f" {text.strip()}").input_ids)

    def refuse_language(self, language: str | None) -> None:
        """Raise a UserError unless the checkpoint knows the language."""
        if not self.multilingual and language is not None:
            raise UserError(
                f"language={language}: {self.source} knows English only, and takes no "
                "language."
            )
        if not self.multilingual:
            return
        name = str(language).lower()
        if TO_LANGUAGE_CODE.get(name, name) not in self.languages:
            raise UserError(
                f"language={language}: {self.source} does not know it; say which one "
                f"is spoken, such as --language=en, of {', '.join(self.languages)}."
            )

    @cached_property
    def languages(self) -> dict[str, int]:
        """The languages that the checkpoint has a token for, `{code: its number}`."""
        number = self.tokenizer.convert_tokens_to_ids
        codes = sorted(set(TO_LANGUAGE_CODE.values()))
        found = {code: number(f"<|{code}|>") for code in codes}
        unknown = self.tokenizer.unk_token_id
        return {c: n for c, n in found.items() if n is not None and n != unknown}

    def complete_settings(self) -> None:
        """Older checkpoints say little of how text is generated; the tokenizer does."""
        settings, number = (
            self.model.generation_config,
            self.tokenizer.convert_tokens_to_ids,
        )
        settings.is_multilingual = True
        settings.lang_to_id = {f"<|{c}|>": n for c, n in self.languages.items()}
        settings.task_to_id = {
            t: number(f"<|{t}|>") for t in ("translate", "transcribe")
        }
        settings.no_timestamps_token_id = number("<|notimestamps|>")

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer.

        Raises
        ------
        UserError
            If there is none, or one for another checkpoint.
        """
        # without files, transformers makes an empty one
        tokenizer = WhisperTokenizer.from_pretrained(self.source)
        start = self.model.generation_config.decoder_start_token_id
        if tokenizer.convert_tokens_to_ids("<|startoftranscript|>") != start:
            raise UserError(
                f"{self.source} has no tokenizer that fits its weights: put the files "
                "that were published with them (tokenizer.json and others) beside them."
            )
        return tokenizer


def load(checkpoint: Checkpoint) -> WhisperBackbone:
    """A Whisper's encoder, or all of it; SpecAugment fills with each clip's own floor,
    where its silence lies."""
    if checkpoint.decoder:
        model = checkpoint.model("WhisperForConditionalGeneration")
    else:
        model = checkpoint.part(WhisperBackbone)
    kind = WhisperWithDecoder if checkpoint.decoder else WhisperBackbone
    return kind(
        with_prefixes(model),
        checkpoint.source,
        checkpoint.preprocessing(PREPROCESSING),
        checkpoint.spec_augment(fill=None),
    )


LARGE = {
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "decoder_layers": 32,
    "decoder_attention_heads": 20,
    "decoder_ffn_dim": 5120,
    "num_mel_bins": 128,
    "vocab_size": 51866,
}
ARCHITECTURES = {
    "whisper": {},
    "openai/whisper-large-v3": LARGE,
    "openai/whisper-large-v3-turbo": {**LARGE, "decoder_layers": 4},
}
registry.register("whisper", load, ARCHITECTURES, writes=True)
