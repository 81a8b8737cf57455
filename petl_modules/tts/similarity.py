"""How alike two voices are, by the speaker encoder that the resemblyzer package ships
(Wan et al., arXiv 1710.10467; Apache-2.0): only its weights are taken."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from petl_modules.data.reading import resampler
from petl_modules.errors import UserError

RATE = 16000
BINS, SIZE, LAYERS = 40, 256, 3
WINDOW, STEP = 160, 77  # frames of 10 ms that the network hears at once, and between
LOUDNESS = 10 ** (-30 / 20)  # root mean square that quiet sounds are raised to


class SpeakerSimilarity(nn.Module):
    """Embeddings of voices, and their cosine.

    Raises
    ------
    UserError
        Without the package resemblyzer.
    """

    def __init__(self) -> None:
        super().__init__()
        package = find_spec("resemblyzer")
        if package is None or not package.submodule_search_locations:
            raise UserError(
                "Speaker similarity needs the weights in the package resemblyzer: pip "
                "install resemblyzer."
            )
        weights = Path(package.submodule_search_locations[0]) / "pretrained.pt"
        self.spectrum = MelSpectrogram(
            RATE, 400, hop_length=160, n_mels=BINS, norm="slaney", mel_scale="slaney"
        )
        self.lstm = nn.LSTM(BINS, SIZE, LAYERS, batch_first=True)
        self.linear = nn.Linear(SIZE, SIZE)
        state = torch.load(weights, "cpu", weights_only=True)["model_state"]
        names = [name for name in state if name.split(".")[0] in ("lstm", "linear")]
        self.load_state_dict({name: state[name] for name in names}, strict=False)
        self.eval()

    @torch.no_grad()
    def embedding(self, wav: Tensor, rate: int) -> Tensor:
        """A sound `(samples,)` at `rate` Hz to a vector of length 1, `(256,)`."""
        wav = wav if rate == RATE else resampler(rate, RATE)(wav)
        loudness = wav.square().mean().sqrt().clamp(min=1e-8)
        mel = self.spectrum(wav * (LOUDNESS / loudness).clamp(min=1)).T
        mel = nn.functional.pad(mel, (0, 0, 0, max(0, WINDOW - len(mel))))
        windows = mel.unfold(0, WINDOW, STEP).mT
        _, (hidden, _) = self.lstm(windows)
        heard = nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=1)
        return nn.functional.normalize(heard.mean(0), dim=0)

    def forward(self, wav: Tensor, other: Tensor, rate: int) -> float:
        """The cosine of two sounds' embeddings, up to 1."""
        return float(self.embedding(wav, rate) @ self.embedding(other, rate))
