"""What a LoRA in PEFT's format needs beside it to say labels: the head's tensors, and a
script that uses them with transformers and PEFT alone."""

from pathlib import Path

from petl_modules.files import write_json, write_tensors, write_text
from petl_modules.tasks.heads import ClassificationHead
from petl_modules.use.adapter_file import Adapter

HEAD, LABELS = "head.safetensors", "labels.json"
SCRIPT, README = "classify.py", "README.md"

CLASSIFY = '''"""Labels of clips, by transformers and PEFT: python classify.py CLIP...

Beside this file lie the LoRA and the head. BASE, if set, is where the backbone is.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModel

HERE = Path(__file__).parent
CONFIG = json.loads((HERE / "adapter_config.json").read_text(encoding="utf-8"))
LABELS = json.loads((HERE / "labels.json").read_text(encoding="utf-8"))
SECONDS = {seconds}  # of a clip that are heard
source = os.environ.get("BASE", CONFIG["base_model_name_or_path"])
extractor = AutoFeatureExtractor.from_pretrained(source)
model = PeftModel.from_pretrained(AutoModel.from_pretrained(source), HERE).eval()
head = load_file(HERE / "head.safetensors")


@torch.no_grad()
def classify(wav):
    """Probabilities `(classes,)` of a clip `(samples,)` at the extractor's rate."""
    if SECONDS is not None:
        wav = wav[: round(SECONDS * extractor.sampling_rate)]
    inputs = extractor(
        wav, sampling_rate=extractor.sampling_rate, return_tensors="pt"
    )
    base = model.get_base_model()
    hidden = {hidden}
    pooled = hidden.mean(1)
    if "projector.weight" in head:
        pooled = F.linear(pooled, head["projector.weight"], head["projector.bias"])
    return F.linear(pooled, head["linear.weight"], head["linear.bias"]).softmax(-1)[0]


if __name__ == "__main__":
    import soundfile

    for path in sys.argv[1:]:
        wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
        if rate != extractor.sampling_rate:
            sys.exit(f"{{path}}: {{rate}} Hz, not {{extractor.sampling_rate}}.")
        chances = classify(wav.mean(1))
        best = int(chances.argmax())
        print(path, LABELS[best], f"{{chances[best]:.4f}}", sep="\\t")
'''
HIDDEN = {
    # all of the clip, as it is
    "waveform": "base(inputs.input_values).last_hidden_state",
    "whisper": (
        "base.encoder(\n"
        "        inputs.input_features[..., : 2 * base.config.max_source_positions]\n"
        "    ).last_hidden_state\n"
        "    # 320 samples a token; the rest is the silence up to 30 s\n"
        "    hidden = hidden[:, : -(-len(wav) // 320)]"
    ),
}
FILLED = {
    "whisper": (
        "transformers' Whisper hears every clip as 30 s, filled up with silence, and "
        "refuses shorter ones. The adapter was trained on clips as long as they are, "
        "with no silence after them: `classify.py` averages the tokens of the clip "
        "alone, but these have heard the silence, so that probabilities differ "
        "slightly, the more the shorter a clip is. `petl predict` and `petl export` "
        "compute what was trained."
    ),
    "audio-spectrogram-transformer": (
        "transformers' AST hears every clip as about 10 s, filled up; the adapter was "
        "trained on clips as long as they are: probabilities differ, the more the "
        "shorter a clip is. `petl predict` and `petl export` compute what was trained."
    ),
}


def write_head(folder: str | Path, adapter: Adapter) -> str | None:
    """Write what a classifier needs beside its LoRA into the same folder.

    Arguments
    ---------
    folder : str or Path
        With the LoRA in PEFT's format.
    adapter : Adapter

    Returns
    -------
    str or None
        Why there is no script: a head that transformers' models leave no words for.
    """
    folder, head, family = Path(folder), adapter.head, adapter.model.backbone.family
    if type(head) is not ClassificationHead:
        return f"its head, {type(head).__name__}, has no form outside of petl"
    write_tensors(folder / HEAD, head.state_dict())
    write_json(folder / LABELS, adapter.info["labels"])
    settings = head.settings
    if settings["weighted_sum"] or settings["pooling"] not in ("all", "speech"):
        return "its head reads other tokens than the mean of the last layer's"
    kind = "whisper" if family == "whisper" else "waveform"
    text = CLASSIFY.format(seconds=adapter.max_duration, hidden=HIDDEN[kind])
    write_text(folder / SCRIPT, text)
    lines = [
        "# A LoRA with its head, for transformers and PEFT",
        "",
        "```sh",
        "pip install torch transformers peft soundfile",
        "python classify.py clip.wav",
        "```",
        "",
        f"The backbone is {adapter.model.backbone.source}, or what BASE names.",
    ]
    if family in FILLED:
        lines += ["", FILLED[family]]
    write_text(folder / README, "\n".join([*lines, ""]))
    return None
