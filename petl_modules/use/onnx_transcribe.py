"""Texts of recordings by onnxruntime alone: python transcribe.py CLIP.wav...

Beside this file lie encoder.onnx, decoder.onnx and whisper.json, which `petl export`
wrote. Clips are wav files of 16-bit samples at 16 kHz; of longer ones every 30 s are
written by themselves. It needs numpy and onnxruntime, and nothing else.
"""

import json
import sys
import wave
from pathlib import Path

import numpy as np
import onnxruntime


class Transcriber:
    """An exported Whisper.

    Arguments
    ---------
    folder : str or Path
        With the three files.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        said = json.loads((folder / "whisper.json").read_text(encoding="utf-8"))
        self.samples, self.rate = said["samples"], said["sample_rate"]
        self.begin, self.end = said["begin"], said["end"]
        self.longest, self.state = said["longest"], said["state"]
        self.never, self.not_first = said["never"], said["not_first"]
        self.pieces = [bytes.fromhex(piece) for piece in said["pieces"]]
        cpu = ["CPUExecutionProvider"]
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / name, providers=cpu)
            for name in ("encoder.onnx", "decoder.onnx")
        )

    def __call__(self, wav: np.ndarray) -> str:
        """The text of a clip `(samples,)` of up to 30 s, the best token each time."""
        wavs = np.zeros((1, self.samples), np.float32)
        wavs[0, : len(wav)] = wav[: self.samples]
        cross_keys, cross_values = self.encoder.run(None, {"wavs": wavs})
        sound = {"cross_keys": cross_keys, "cross_values": cross_values}
        layers, heads, size = self.state
        keys = values = np.zeros((layers, 1, heads, 0, size), np.float32)
        tokens, written = list(self.begin), []
        for place in range(len(self.begin) - 1 + self.longest):
            given = {"token": np.array([[tokens[place]]]), **sound}
            given |= {"keys": keys, "values": values}
            logits, keys, values = self.decoder.run(None, given)
            if place + 1 < len(tokens):
                continue
            logits[0, self.never] = -np.inf
            if not written:
                logits[0, self.not_first] = -np.inf
            best = int(logits[0].argmax())
            if best == self.end:
                break
            tokens.append(best)
            written.append(self.pieces[best])
        return b"".join(written).decode("utf-8", "replace").strip()


def read(path: str | Path, rate: int) -> np.ndarray:
    """The sound of a wav file, `(samples,)`, from -1 to 1."""
    needed = f"{path}: a wav file of 16-bit samples at {rate} Hz is needed."
    try:
        with wave.open(str(path)) as file:
            if (file.getframerate(), file.getsampwidth()) != (rate, 2):
                sys.exit(needed)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return samples.reshape(-1, file.getnchannels()).mean(1) / 2**15
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}.")
    except (wave.Error, EOFError):
        sys.exit(needed)


def transcribe(paths: list[str]) -> None:
    """Print each clip's text, with its times where it is longer than 30 s."""
    write = Transcriber(Path(__file__).parent)
    for path in paths:
        wav = read(path, write.rate)
        for start in range(0, max(len(wav), 1), write.samples):
            part = wav[start : start + write.samples]
            times = [f"{at / write.rate:.2f}" for at in (start, start + len(part))]
            print(path, *times, write(part), sep="\t")


if __name__ == "__main__":
    transcribe(sys.argv[1:])
