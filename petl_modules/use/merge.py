"""Fold an adapter into its backbone.

`petl merge ADAPTER FOLDER`: FOLDER gets a plain transformers checkpoint, for methods
that can be merged (LoRA, BitFit, linear probes, full fine-tuning), and beside it the
last LayerNorm and the head as an adapter file of the method linear: FOLDER can be used,
adapted further and moved like any adapter and like any checkpoint. A Whisper with its
decoder has a head of its own, and is whole as a checkpoint; with --ctranslate2 FOLDER
is in the format of CTranslate2, which faster-whisper reads. Of a synthesiser FOLDER is
a base with its voices.
"""

import json
import tempfile
from importlib.util import find_spec
from pathlib import Path

from petl_modules.backbones import Backbone, load_backbone, save_checkpoint
from petl_modules.console import Parser, missing
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.files import whole_folder, write_json
from petl_modules.methods import make_method
from petl_modules.tts.head import VoiceHead
from petl_modules.use.adapter_file import (
    HERE,
    Adapter,
    read_adapter,
    save_adapter,
)


def merge(
    adapter: str | Path,
    folder: str | Path,
    source: str | None = None,
    ctranslate2: bool = False,
) -> None:
    """Write a merged checkpoint.

    Arguments
    ---------
    adapter : str or Path
        A run's folder.
    folder : str or Path
        New or empty.
    source : str or None
        Where the backbone is now, if not where the adapter says.
    ctranslate2 : bool
        Whether a Whisper is written in CTranslate2's format.

    Raises
    ------
    UserError
        For a method that cannot be merged, or a folder that holds something or cannot
        be written to.
    """
    with whole_folder(folder) as partial:
        loaded = read_adapter(adapter, source=source)
        loaded.model.merge()
        if ctranslate2:
            refuse_other_writers(loaded.model.backbone)
            write_ctranslate2(loaded.model.backbone, partial)
        else:
            write(loaded, partial)


def write(loaded: Adapter, folder: Path) -> None:
    """Write the checkpoint of a merged adapter, and its head."""
    if isinstance(loaded.head, VoiceHead):
        speakers = loaded.head.settings["speakers"]
        loaded.model.backbone.save(folder, speakers, loaded.head.state_dict())
        return
    save_checkpoint(loaded.model.backbone, folder)
    say_labels(folder, loaded.info.get("labels"))
    if loaded.model.backbone.has_head:
        return
    # its fingerprint is that of the weights as they are now
    backbone = load_backbone(folder, max_duration=loaded.max_duration)
    plain = AdaptedModel(backbone, make_method("linear"))
    save_adapter(folder, plain, loaded.head, loaded.info, source=HERE)


def refuse_other_writers(backbone: Backbone) -> None:
    """Raise a UserError for what CTranslate2's format is not written for, or if the
    library is not installed."""
    if not backbone.has_head or backbone.family != "whisper":
        raise UserError(
            "CTranslate2's format is written for a Whisper with its decoder alone."
        )
    if find_spec("ctranslate2") is None:
        raise UserError(missing("ctranslate2", "export"))


def write_ctranslate2(backbone: Backbone, folder: Path) -> None:
    """Write a Whisper in CTranslate2's format, with what faster-whisper reads."""
    from ctranslate2.converters import TransformersConverter

    with tempfile.TemporaryDirectory() as whole:
        save_checkpoint(backbone, whole)
        beside = ("tokenizer.json", "preprocessor_config.json")
        there = [name for name in beside if (Path(whole) / name).exists()]
        converter = TransformersConverter(whole, copy_files=there)
        converter.convert(str(folder), force=True)  # which is known to be empty


def say_labels(folder: Path, labels: list[str] | None) -> None:
    """Give a checkpoint's config the classes, and its files the usual modes, which
    safetensors makes the user's alone."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if labels:
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
    write_json(path, config)
    usual = path.stat().st_mode
    for file in filter(Path.is_file, folder.iterdir()):
        file.chmod(usual)


def main(argv: list[str] | None = None) -> None:
    """Merge, and say where."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("adapter", metavar="ADAPTER", help="The folder of a run.")
    add("folder", metavar="FOLDER", help="A new folder for the checkpoint.")
    add("--source", help="The backbone, if it is not where the adapter says.")
    other = "Write a Whisper in CTranslate2's format."
    add("--ctranslate2", action="store_true", help=other)
    options = parser.parse_args(argv)
    merge(options.adapter, options.folder, options.source, options.ctranslate2)
    beside = "for CTranslate2" if options.ctranslate2 else "with the head beside it"
    print(f"Merged, {beside}: {options.folder}")
