"""Pretrain a small AST by distilling Whisper's encoder into it.

`petl pretrain --teacher=FOLDER --speech=FOLDER --output=FOLDER`: a clip is a
formula-made scene, speech, or both, or a remix of two such clips. The student's patches
span the whole band, and one begins every 160 ms; each token predicts principal
components of the teacher's hidden states in the middle of its patch, the special tokens
predict their mean over the clip, and the mean token predicts which sources sound in the
scene. With a second teacher, a classifier of sounds, tokens and special tokens predict
its logits' principal components too, and so does the mean token. The predictors are
thrown away afterwards. Inputs are masked and change in level, targets do not. The run
takes up where it was killed.
"""

import time
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers import ASTFeatureExtractor, ASTModel

from petl_modules.console import Parser, above_zero, command, positive, share
from petl_modules.embedded.clips import make_clips
from petl_modules.embedded.networks import RATE, STEP
from petl_modules.embedded.training import feature_statistics, train
from petl_modules.embedded.yamnet import PATCH
from petl_modules.errors import UserError, known_device
from petl_modules.files import make_folder, writing


def main(argv: list[str] | None = None) -> None:
    """Make the clips, train, and save the model."""
    options = parse(argv)
    torch.manual_seed(options.seed)
    output = Path(options.output)
    cache = Path(options.cache or output / "pretraining")
    make_folder(output)
    make_folder(cache)
    started = time.time()
    with writing(output):
        clips = make_clips(options, cache)
        student = train(options, cache, clips)
        save(student, clips, output)
    print(f"{output}: done, {time.time() - started:.0f} s in this process")


def parse(argv: list[str] | None) -> Namespace:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    teacher = "The Whisper checkpoint that is distilled: a folder or hub id."
    add("--teacher", required=True, help=teacher)
    speech = "Folders of speech, which are searched for audio."
    add("--speech", nargs="+", action="extend", default=[], help=speech)
    second = (
        "A second teacher: a folder with YAMNet's weights (docs/convert_yamnet.py)."
    )
    add("--second_teacher", help=second)
    weight = "Weight of the second teacher's losses (%(default)s)."
    add("--second_weight", type=positive, default=1.0, help=weight)
    sounds = "Folders of recorded sounds, of which events are made."
    add("--sounds", nargs="+", action="extend", default=[], help=sounds)
    add("--output", required=True, help="The folder for the model.")
    cache = "A folder for clips and checkpoints (OUTPUT/pretraining)."
    add("--cache", help=cache)
    part = "The share of clips with speech (%(default)s)."
    add("--speech_share", type=share, default=0.3, help=part)
    part = "The share of other clips whose events are made of speech (%(default)s)."
    add("--voice_share", type=share, default=0.2, help=part)
    part = "The share of other clips whose events are recorded sounds (%(default)s)."
    add("--sound_share", type=share, default=0.35, help=part)
    part = "The share of clips that are others, remixed (%(default)s)."
    add("--remixes", type=share, default=0.0, help=part)
    layers = "The teacher's layers whose states are predicted (2 3 4)."
    taken = {"type": above_zero, "nargs": "+", "default": [2, 3, 4]}
    add("--teacher_layers", **taken, help=layers)
    for name, default, what in (
        ("clips", 20000, "How many clips are made"),
        ("hidden_size", 192, "Width of the model"),
        ("layers", 6, "Layers of the model"),
        ("heads", 3, "Heads of each attention"),
        ("mel_bins", 64, "Mel bands, and frames of a patch"),
        ("max_length", 512, "Frames of 10 ms in a clip"),
        ("target_size", 256, "Principal components of the teacher's states to predict"),
        ("second_size", 128, "Principal components of the second teacher's logits"),
        ("epochs", 36, "Passes over the clips"),
        ("batch_size", 32, "Clips in a batch, or crops of half the length"),
    ):
        help = f"{what} (%(default)s)."
        add(f"--{name}", type=above_zero, default=default, help=help)
    add("--lr", type=positive, default=1e-3, help="Learning rate (%(default)s).")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, help="Where to compute (%(default)s).")
    add("--seed", type=int, default=0, help="Of clips and weights (%(default)s).")
    options = parser.parse_args(argv)
    patch, length = options.mel_bins, options.max_length
    if patch % (2 * STEP) or length % (2 * STEP) or length < 2 * patch:
        raise UserError(
            f"--mel_bins={patch} and --max_length={length}: both must be multiples of "
            f"{2 * STEP}, and the length two patches of {patch} frames or more."
        )
    if options.hidden_size % options.heads:
        raise UserError(
            f"--hidden_size={options.hidden_size} must be a multiple of "
            f"--heads={options.heads}."
        )
    if options.max_length < PATCH and options.second_teacher:
        raise UserError(
            f"--max_length={options.max_length}: a second teacher needs {PATCH} frames."
        )
    if options.remixes == 1:
        raise UserError("--remixes=1 leaves no clips to remix: give less.")
    if options.seed < 0:
        raise UserError(f"--seed={options.seed} must be 0 or more.")
    options.device = known_device(options.device)
    return options


def save(student: ASTModel, clips: dict[str, Tensor], output: Path) -> None:
    """Writes the model (float16) and its preprocessor's settings, each file whole or
    not at all."""
    mean, deviation = feature_statistics(clips["features"])
    extractor = ASTFeatureExtractor(
        sampling_rate=RATE,
        num_mel_bins=student.config.num_mel_bins,
        max_length=student.config.max_length,
        mean=mean,
        std=deviation,
    )
    with TemporaryDirectory(dir=output, prefix=".") as partial:
        student.half().save_pretrained(partial)
        extractor.save_pretrained(partial)
        for path in Path(partial).iterdir():
            path.replace(output / path.name)


if __name__ == "__main__":
    command("petl_modules.embedded.pretrain")
