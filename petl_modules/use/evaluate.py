"""Judge a trained adapter on labelled recordings, with the metrics of training.

`petl evaluate ADAPTER [DATA]`: DATA is a folder with one folder of clips per class, a
manifest in JSON, or a table with the columns path and label (or labels, or text).
Without it, the run's own test clips are taken, or those of --split.
"""

import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from petl_modules.console import Parser, progress_bar
from petl_modules.core.task_model import TaskModel
from petl_modules.errors import UserError, known_device
from petl_modules.files import make_folder
from petl_modules.tasks import (
    CTC,
    Classification,
    SlotFilling,
    SpeechRecognition,
    Tagging,
    Task,
    Transcription,
)
from petl_modules.tasks.heads import CTCHead, OwnHead, TagHead
from petl_modules.tts.head import VoiceHead
from petl_modules.use.adapter_file import Adapter, read_adapter
from petl_modules.use.labelled import (
    add_recordings,
    batches_of,
    dataset_of,
    entries_of,
)


def main(argv: list[str] | None = None) -> int:
    """Print the metrics; returns the exit status."""
    parser = Parser(__doc__)
    add_recordings(parser, "Labelled recordings.")
    add = parser.add_argument
    add("--output", type=Path, help="A folder for predictions, as a run leaves them.")
    add("--json", action="store_true", help="Print one object of metrics.")
    options = parser.parse_args(argv)
    metrics = evaluate(
        options.adapter,
        options.data,
        options.split,
        options.source,
        options.batch_size,
        options.device,
        options.output,
        progress=True,
    )
    if options.json:
        print(json.dumps(metrics, indent=1))
        return 0
    shown = Table()
    shown.add_column("metric")
    shown.add_column("value", justify="right")
    for name, value in metrics.items():
        shown.add_row(name, str(value) if name == "clips" else f"{value:.4f}")
    Console().print(shown)
    return 0


@torch.no_grad()
def evaluate(
    folder: str | Path,
    data: str | Path | None = None,
    split: str = "test",
    source: str | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    output: Path | None = None,
    progress: bool = False,
) -> dict[str, float]:
    """The metrics of an adapter on labelled recordings.

    Arguments
    ---------
    folder : str or Path
        Of a run, with adapter.safetensors and adapter.json.
    data, split
        As of `petl_modules.use.labelled.entries_of`.
    source : str or None
        Where the backbone is now, if not where the adapter says.
    batch_size : int
    device : str
    output : Path or None
        Where predictions go, if they are wanted.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    dict
        The number of clips, the loss, and the task's metrics.

    Raises
    ------
    UserError
        For an adapter or data that cannot be used, or a label that the adapter does not
        know.
    """
    device = known_device(device)
    if output is not None:
        make_folder(output)
    entries = entries_of(folder, data, split)
    adapter = read_adapter(folder, source=source)
    task = task_of(adapter, folder)
    longest = adapter.max_duration if task.cuts else None
    dataset = dataset_of(entries, adapter.model.backbone.sample_rate, longest)
    refuse_unlabelled(entries, task)
    task.add_targets(dataset)
    dataset.set_output_keys(["id", "wav", *task.sound, task.target])
    model = TaskModel(adapter.model, adapter.head).to(device).eval()
    task.start(final=True)
    total = 0.0
    bar = progress_bar(total=len(dataset), desc="clips", shown=progress)
    for batch in batches_of(dataset, batch_size):
        batch = batch.to(device)
        predictions = model(**task.inputs(batch))
        total += float(task.loss(predictions, batch)) * len(batch.id)
        task.collect(predictions, batch)
        bar.update(len(batch.id))
    bar.close()
    metrics = {"clips": len(dataset), "loss": total / len(dataset), **task.metrics()}
    if output is not None:
        task.write(output)
    return metrics


def task_of(adapter: Adapter, folder: str | Path) -> Task:
    """The task that an adapter was trained for, without what only training needs."""
    head, labels = adapter.head, adapter.info["labels"]
    if isinstance(head, VoiceHead):
        raise UserError(
            f"The adapter {folder} speaks: what it says is judged while it trains."
        )
    if isinstance(head, OwnHead):
        return Transcription(labels, adapter.model.backbone, **head.settings)
    if isinstance(head, TagHead):
        tags = Tagging(labels)
        tags.thresholds = adapter.info.get("thresholds") or tags.thresholds
        return tags
    if not isinstance(head, CTCHead):
        return Classification(labels)
    known = [*next(iter(adapter.info.get("metrics", {}).values()), {})]
    if "slot_type_f1" in known:
        return SlotFilling(labels)
    if "word_error_rate" in known or "character_error_rate" in known:
        return SpeechRecognition(labels)
    return CTC(labels, next((k for k in known if k != "loss"), "symbol_error_rate"))


def refuse_unlabelled(entries: dict, task: Task) -> None:
    """Raise a UserError for a recording of which what the task asks is not said."""
    needed = {"classification": "label", "tags": "labels"}.get(task.name, "text")
    for key, entry in entries.items():
        if needed not in entry:
            raise UserError(f"The recording {key} has no {needed} to judge by.")
