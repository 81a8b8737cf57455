"""An adapted synthesiser and its speakers as one module."""

from torch import Tensor

from petl_modules.core.task_model import TaskModel
from petl_modules.tts.speech import Speech, Target


class VoiceModel(TaskModel):
    """Symbols and speakers to speech: an adapted synthesiser and its `VoiceHead`."""

    def forward(
        self,
        symbols: Tensor,
        counts: Tensor,
        speakers: Tensor,
        target: Target | None = None,
    ) -> tuple[Speech, Speech | None]:
        """Speech that follows a target, and while evaluating also as it would be
        without.

        Arguments
        ---------
        symbols : torch.Tensor
            `(batch, symbols)`, numbers.
        counts : torch.Tensor
            `(batch,)`, valid symbols.
        speakers : torch.Tensor
            `(batch,)`, numbers.
        target : petl_modules.tts.speech.Target

        Returns
        -------
        guided, free : petl_modules.tts.speech.Speech
            The second is None in training.
        """
        voice = self.head(speakers)
        guided = self.model(symbols, counts, voice, target)
        guided = self.head.coloured(guided, speakers)
        if self.training:
            return guided, None
        free = self.model(symbols, counts, voice, hurry=True)
        return guided, self.head.coloured(free, speakers)
