"""Speak texts by trained voices.

`petl synthesize ADAPTER TEXT... --out=x.wav`: one text by one voice makes a file;
several texts, or several adapters on one base (`--adapter=OTHER`, as often as wanted),
fill the folder that --out names. Nothing is written unless everything can be spoken.
With --page the folder is a page to listen to, of all speakers where none is named.
`kathleen` in an adapter's place is the base that comes with the package.
"""

import argparse
import logging
import threading
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from petl_modules.backbones import load_backbone
from petl_modules.console import Parser, positive
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.turns import Turns
from petl_modules.data.spoken_text import verbalized
from petl_modules.errors import UserError, known_device
from petl_modules.files import SHIPPED
from petl_modules.kinds import Range, check
from petl_modules.tts.config import CONFIG
from petl_modules.tts.head import VoiceHead, voice_head
from petl_modules.tts.page import Spoken, write_page
from petl_modules.tts.sounds import write_sound
from petl_modules.tts.text import symbols_of
from petl_modules.tts.vocoder import load_vocoder
from petl_modules.use.adapter_file import load_its_backbone, read_adapter
from petl_modules.use.adapter_schema import SETTINGS, read_settings

logger = logging.getLogger(__name__)

Pace = Annotated[float, Range(0.1, 10)]  # a factor of durations


class Synthesizer:
    """A base that is read once, and the adapters of its voices, swapped at run time.

    The voices take turns on one base in memory (`core.turns.Turns`): what one
    says does not hang on who spoke before. Threads may share an object, whose base
    speaks for one of them at a time; `use` holds for all of them.

    Arguments
    ---------
    adapter : str or Path
        A run's folder, with adapter.safetensors and adapter.json; or a base, which
        speaks by the voices that it was trained on.
    source : str or None
        Where the base is now, if not where the adapter says.
    vocoder : str or None
        Folder or hub id of a HiFi-GAN, or griffin-lim; None for the base's own, and
        for Griffin-Lim where it has none.
    device : str
    trust_code : bool
        Whether a HiFi-GAN in SpeechBrain's layout may run the code that it names.

    Attributes
    ----------
    speakers : list of str
        Of the adapter in use.
    sample_rate : int
        Hz.

    Raises
    ------
    UserError
        For an adapter or vocoder that is damaged, or no synthesiser.

    Example
    -------
    >>> synthesizer = Synthesizer("results/TTS/lora/run_seed0")  # doctest: +SKIP
    >>> wav = synthesizer.speak("How do you do?")  # doctest: +SKIP
    >>> synthesizer.use("results/TTS/prefix/run_seed0")  # doctest: +SKIP
    """

    def __init__(
        self,
        adapter: str | Path,
        source: str | None = None,
        vocoder: str | None = None,
        device: str = "cpu",
        trust_code: bool = False,
    ) -> None:
        self.device = torch.device(known_device(device))
        if is_base(adapter):
            base = load_backbone(str(adapter))
        else:
            refuse_mute(adapter)
            base = load_its_backbone(adapter, source)
        self.base = base.to(self.device)
        self._turns, self._voices = Turns(self.base), {}
        self._lock = threading.RLock()
        self.use(adapter)
        self.sample_rate = self.base.sample_rate
        vocoder = vocoder or self.base.vocoder
        self.vocoder = load_vocoder(vocoder, self.base.features, trust_code)

    def use(self, adapter: str | Path) -> None:
        """Speak by the voices of another adapter of the same base.

        Raises
        ------
        UserError
            If it is of another base, or no synthesiser; the voice stays as it was.
        """
        with self._lock:
            if adapter not in self._voices:
                self._turns.give(None, {})
                self._voices[adapter] = self._load(adapter)
            *_, self.head = self._voices[adapter]
            self.adapter, self.speakers = adapter, self.head.settings["speakers"]

    def _load(self, adapter: str | Path) -> tuple[AdaptedModel | None, dict, VoiceHead]:
        """An adapter's model, its tensors of the base, and its head; no model where the
        base speaks itself."""
        if is_base(adapter):
            head = voice_head(self.base, list(self.base.config.speakers))
            return None, {}, head.to(self.device)
        refuse_mute(adapter)
        found = read_adapter(adapter, backbone=self.base)
        found.model.petl.to(self.device)
        tensors = found.model.backbone_tensors()
        return found.model, tensors, found.head.to(self.device)

    def speak(self, text: str, speaker: str | None = None, pace: float = 1.0) -> Tensor:
        """A text as a waveform `(samples,)`; arguments are those of `spectrogram`."""
        return self.played(self.spectrogram(text, speaker, pace))

    def played(self, mel: Tensor) -> Tensor:
        """What `spectrogram` gave as a waveform `(samples,)`."""
        return self.vocoder(mel.to(self.device))

    def spectrogram(
        self, text: str, speaker: str | None = None, pace: float = 1.0
    ) -> Tensor:
        """A text as a log-mel spectrogram `(frames, n_mels)`.

        Arguments
        ---------
        text : str
        speaker : str or None
            None where there is only one.
        pace : float
            Factor of the durations: 1.2 is slower.

        Raises
        ------
        UserError
            For a text that is empty or has unknown symbols, an unknown speaker, or a
            pace that nobody speaks at.
        """
        check(f"pace={pace}", pace, Pace)
        with self._lock, torch.no_grad():
            model, tensors, _ = self._voices[self.adapter]
            self._turns.give(model, tensors)
            return self._spectrogram(text, speaker, pace)

    def _spectrogram(self, text: str, speaker: str | None, pace: float) -> Tensor:
        numbers = self.base.symbols
        found = [numbers[s] for s in symbols_of(text, self.base.config.text)]
        symbols = torch.tensor([found], device=self.device)
        speakers = torch.tensor([self._place(speaker)], device=self.device)
        count = torch.tensor([len(found)], device=self.device)
        speech = self.base(symbols, count, self.head(speakers), pace=pace)
        return self.head.coloured(speech, speakers).mel[0].cpu()

    def _place(self, speaker: str | None) -> int:
        if speaker is None and len(self.speakers) == 1:
            return 0
        if speaker not in self.speakers:
            given = "Say which speaker" if speaker is None else f"No speaker {speaker}"
            raise UserError(
                f"{given} of {self.adapter}: there are {', '.join(self.speakers)}."
            )
        return self.speakers.index(speaker)


def is_base(folder: str | Path) -> bool:
    """Whether a folder holds a base rather than an adapter."""
    folder = SHIPPED.get(str(folder), Path(folder))
    return (folder / CONFIG).is_file() and not (folder / SETTINGS).is_file()


def refuse_mute(adapter: str | Path) -> None:
    """Raise a UserError for an adapter that does not speak."""
    if read_settings(Path(adapter) / SETTINGS).head.type != VoiceHead.__name__:
        raise UserError(f"The adapter {adapter} does not speak: it is no synthesiser.")


def main(argv: list[str] | None = None) -> None:
    """Write one file, or a folder of them."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("first", metavar="ADAPTER", help="The folder of a run, or of a base.")
    add("texts", nargs="+", metavar="TEXT", help="What is said.")
    add("--out", required=True, help="The file, or a folder for several sounds.")
    other = "Another adapter of the same base; the option may be repeated."
    add("--adapter", action="append", default=[], help=other)
    add("--speaker", help="Who speaks, where an adapter has several voices.")
    add("--source", help="The base, if it is not where the adapter says.")
    add("--vocoder", help="A HiFi-GAN: folder or hub id. Without one, Griffin-Lim.")
    trust = "True lets a HiFi-GAN in SpeechBrain's layout run the code that it names."
    add("--trust_code", choices=("True", "False"), default="False", help=trust)
    pace = "A factor of all durations: 1.2 is slower (%(default)s)."
    add("--pace", type=positive, default=1.0, help=pace)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, help="Where to compute (%(default)s).")
    language = "Write digits and signs as words of this language, such as en."
    add("--verbalize", metavar="LANGUAGE", help=language)
    page = "Write a page with players and spectrograms: --out names its folder."
    add("--page", action="store_true", help=page)
    options = parser.parse_args(argv)
    adapters = [options.first, *options.adapter]
    if options.verbalize:
        options.texts = [verbalized(t, options.verbalize) for t in options.texts]
    if options.page:
        return print_page(options, adapters)
    paths = sound_files(options.out, adapters, options.texts)
    synthesizer = synthesizer_of(options)
    sounds = []
    for adapter in adapters:
        synthesizer.use(adapter)
        for text in options.texts:
            sounds.append(synthesizer.speak(text, options.speaker, options.pace))
    for path, wav in zip(paths, sounds, strict=True):
        write_sound(path, wav, synthesizer.sample_rate)
        print(path)


def synthesizer_of(options: argparse.Namespace) -> Synthesizer:
    """What the command line asks for."""
    return Synthesizer(
        options.first,
        options.source,
        options.vocoder,
        options.device,
        options.trust_code == "True",
    )


def print_page(options: argparse.Namespace, adapters: list[str]) -> None:
    """Write a page of all that was asked for, and print its files."""
    folder = Path(options.out)
    if folder.suffix or folder.is_file():
        raise UserError(f"--out={folder} must be a folder, for a page.")
    synthesizer = synthesizer_of(options)
    spoken = []
    for adapter in adapters:
        synthesizer.use(adapter)
        for speaker in [options.speaker] if options.speaker else synthesizer.speakers:
            for text in options.texts:
                mel = synthesizer.spectrogram(text, speaker, options.pace)
                voice = f"{adapter}: {speaker}"
                spoken.append(Spoken(voice, text, synthesizer.played(mel), mel))
    rate, hop = synthesizer.sample_rate, synthesizer.base.features.hop_length
    for path in write_page(folder, spoken, rate, hop / rate):
        print(path)


def sound_files(out: str | Path, adapters: list, texts: list[str]) -> list[Path]:
    """The files to write: `out` itself, or `voice1_text1.wav` and so on in it."""
    out = Path(out)
    single = len(adapters) == len(texts) == 1
    if single and out.suffix.lower() == ".wav":
        return [out]
    if out.suffix or out.is_file():
        raise UserError(
            f"--out={out} must end in .wav."
            if single
            else f"--out={out} must be a folder: there are several sounds to write."
        )
    voices, lines = range(1, len(adapters) + 1), range(1, len(texts) + 1)
    return [out / f"voice{v}_text{n}.wav" for v in voices for n in lines]
