"""Text for recordings, by an adapted Whisper; on the command line by
`petl_modules.predict`."""

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from petl_modules.adapter_file import load_adapter
from petl_modules.data import read_clip
from petl_modules.errors import UserError


class Transcriber:
    """A trained adapter on its Whisper, for clips of up to 30 s and any rate.

    Arguments
    ---------
    adapter : str or Path
        A run's folder, with adapter.safetensors and adapter.json.
    source : str or None
        Where the backbone is now, if not where the adapter says.
    device : str

    Raises
    ------
    UserError
        For an adapter that is damaged, of another backbone, or writes no text.

    Example
    -------
    >>> transcriber = Transcriber(
    ...     "results/LibriSpeech/whisper/lora/run_seed0"
    ... )  # doctest: +SKIP
    >>> transcriber.transcribe_file("clip.wav")["text"]  # doctest: +SKIP
    'It was so well printed on such good paper.'
    """

    def __init__(self, adapter, source=None, device="cpu"):
        self.model, self.head, _ = load_adapter(adapter, source=source)
        self.backbone = self.model.backbone
        if not self.backbone.has_head:
            raise UserError(f"The adapter {adapter} writes no text.")
        self.device = torch.device(device)
        self.model.to(self.device)

    def transcribe_file(self, path):
        """The answer for one file: file, text."""
        (text,) = self.transcribe_batch(self.read(path).unsqueeze(0))
        return {"file": str(path), "text": text}

    @torch.no_grad()
    def transcribe_batch(self, wavs, wav_lens=None):
        """Texts, a list of str, of waveforms `(batch, samples)` at the backbone's rate,
        with relative lengths `(batch,)`."""
        sound, _ = self.model(wavs.to(self.device), wav_lens).in_time()
        return self.backbone.write(sound, **self.head.settings)

    def transcribe_files(self, paths, batch_size=16, progress=False):
        """Answers for files, in their order.

        Returns
        -------
        list of dict
            As of `transcribe_file`; file and error for what cannot be read, or is
            longer than 30 s.
        """
        answers = []
        bar = tqdm(total=len(paths), desc="clips", leave=False, disable=not progress)
        for start in range(0, len(paths), batch_size):
            batch, clips = [], []
            for path in paths[start : start + batch_size]:
                batch.append({"file": str(path)})
                try:
                    clips.append(self.read(path))
                except UserError as error:
                    batch[-1]["error"] = str(error)
            wavs = pad_sequence(clips, batch_first=True) if clips else None
            texts = iter(self.transcribe_batch(wavs) if clips else [])
            for answer in batch:
                if "error" not in answer:
                    answer["text"] = next(texts)
            answers += batch
            bar.update(len(batch))
        return answers

    def read(self, path):
        """A clip, `(samples,)`.

        Raises
        ------
        UserError
            If it cannot be read, or is longer than Whisper hears at once.
        """
        rate, most = self.backbone.sample_rate, self.backbone.longest_clip
        clip = read_clip(path, rate)
        if len(clip) > most:
            raise UserError(
                f"The clip {path} is {len(clip) / rate:.1f} s long, more than the "
                f"{most / rate:.0f} s that Whisper hears at once: cut it into parts."
            )
        return clip
