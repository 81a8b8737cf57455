"""Backbones that write text: an encoder with a decoder behind it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from petl_modules.backbones.base import Backbone
from petl_modules.core.access_points import AccessPoints
from petl_modules.core.family import Family
from petl_modules.core.masking import valid


@dataclass(frozen=True)
class Written:
    """What a backbone that writes text makes of sound and text.

    Attributes
    ----------
    logits : torch.Tensor
        Of the token after each given one, `(batch, length, vocabulary)`.
    sound : torch.Tensor
        The encoder's hidden states, `(batch, tokens, hidden)`.
    counts : torch.Tensor
        How many of these tokens are sound, `(batch,)`.
    """

    logits: Tensor
    sound: Tensor
    counts: Tensor


class Writer(Backbone):
    """A backbone that writes text; a mixin before that of its encoder.

    The model is one of transformers for conditional generation, which has `model`,
    that has `encoder` and `decoder`, and `proj_out`.

    Attributes
    ----------
    decoder_family : Family
        The access points of its decoder.
    multilingual : bool
        Whether the checkpoint knows more than English.
    text_room : int
        Tokens that the decoder has room for.
    longest_text : int
        Tokens that are written.
    tokenizer : transformers.PreTrainedTokenizerBase
    """

    decoder_family: Family
    has_head = True
    multilingual = False
    text_room: int
    longest_text: int
    tokenizer: Any

    def __init__(self, model: Any, *args: Any) -> None:
        super().__init__(model, *args)
        self.parts["decoder"] = AccessPoints(model.model.decoder, self.decoder_family)

    @property
    def encoder(self) -> Any:
        """Within the model that has a decoder too."""
        return self.model.model.encoder

    def save_more(self, folder: str | Path) -> None:
        """As of every backbone: the tokenizer."""
        self.tokenizer.save_pretrained(folder)

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        all_layers: bool = False,
        text: Tensor | None = None,
    ) -> Any:
        """Hidden states of the encoder, or with a text `Written`.

        Arguments
        ---------
        wavs, wav_lens, all_layers
            As of `Backbone.forward`.
        text : torch.Tensor or None
            Token numbers `(batch, length)` from the start token on, padded on the
            right with any.

        Returns
        -------
        Tokens or Written
        """
        tokens = super().forward(wavs, wav_lens, all_layers)
        if text is None:
            return tokens
        sound, counts = tokens.in_time()
        sound = sound.to(self.model.dtype)
        with self.as_held(sound.device.type):
            states = self.model.model.decoder(
                input_ids=text,
                encoder_hidden_states=sound,
                use_cache=False,
                **self.cross_mask("encoder_attention_mask", sound, counts),
            )
            logits = self.model.proj_out(states.last_hidden_state)
        return Written(logits, sound, counts)

    def write(
        self,
        sound: Tensor,
        counts: Tensor | None = None,
        language: str | None = None,
        speech_task: str = "transcribe",
        num_beams: int = 1,
    ) -> list[str]:
        """The best texts for the encoder's hidden states, a list of str.

        Arguments
        ---------
        sound, counts : torch.Tensor
            Of `Written`; without counts, all of it is sound.
        language, speech_task, num_beams
            As of `petl_modules.tasks.heads.OwnHead`.
        """
        mask = self.cross_mask("attention_mask", sound, counts)
        heard = BaseModelOutput(sound.to(self.model.dtype))
        for name, value in mask.items():
            heard[name] = value
        longest = self.longest_texts(sound, counts)
        with self.as_held(sound.device.type):
            numbers = self.model.generate(
                encoder_outputs=heard,
                num_beams=num_beams,
                max_length=max(longest),
                **mask,
                **self.generation(language, speech_task),
            )
        return self.spelt(row[:n] for row, n in zip(numbers, longest, strict=True))

    def longest_texts(self, sound: Tensor, counts: Tensor | None) -> list[int]:
        """Tokens that may be written for each clip, whatever it is batched with."""
        return [self.longest_text] * len(sound)

    def cross_mask(
        self, name: str, sound: Tensor, counts: Tensor | None
    ) -> dict[str, Tensor]:
        """The mask of the sound, by the name that it is passed on by; nothing where
        silence counts as sound."""
        if self.hears_silence:
            return {}
        if counts is None:
            counts = sound.new_full((len(sound),), sound.shape[1])
        return {name: valid(counts, sound.shape[1])}

    def generation(self, language: str | None, speech_task: str) -> dict[str, Any]:
        """What `generate` is told of what is spoken."""
        return {}

    def numbers(
        self, text: str, language: str | None = None, speech_task: str = "transcribe"
    ) -> Tensor:
        """A text's tokens as the decoder is to write them, `(length,)`: start, text and
        end."""
        raise NotImplementedError

    def spelt(self, numbers: Iterable[Any]) -> list[str]:
        """Rows of token numbers to texts."""
        decode = self.tokenizer.decode
        return [decode(row, skip_special_tokens=True).strip() for row in numbers]

    def refuse_language(self, language: str | None) -> None:
        """Raise a UserError unless the checkpoint knows the language."""
        raise NotImplementedError
