"""Judge a trained adapter on labelled recordings, with the metrics of training.

`petl evaluate ADAPTER [DATA]`: DATA is a folder with one folder of clips per class, a
manifest in JSON, or a table with the columns path and label (or labels, or text).
Without it, the run's own test clips are taken, or those of --split. An adapter of
speaker verification is judged by --trials, a list of pairs in VoxCeleb's format, whose
paths are in the folder DATA.
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
    Verification,
)
from petl_modules.tasks.heads import CTCHead, OwnHead, SpeakerHead, TagHead
from petl_modules.tts.head import VoiceHead
from petl_modules.use.adapter_file import Adapter, read_adapter
from petl_modules.use.labelled import (
    add_recordings,
    batches_of,
    dataset_of,
    entries_of,
    entries_of_list,
)

# What a recording must have for a task to judge by, if not a text
NEEDED = {"classification": "label", "tags": "labels", "verification": "trials"}


def main(argv: list[str] | None = None) -> int:
    """Print the metrics; returns the exit status."""
    parser = Parser(__doc__)
    add_recordings(parser, "Labelled recordings.")
    add = parser.add_argument
    trials = "A list of trials: 1 (one speaker) or 0 (two), and two paths in DATA."
    add("--trials", type=Path, help=trials)
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
        trials=options.trials,
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
    trials: str | Path | None = None,
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
    trials : str or Path or None
        A list of trials to judge speaker verification by, whose paths are in `data`.

    Returns
    -------
    dict
        The number of clips, the loss where there is one, and the task's metrics.

    Raises
    ------
    UserError
        For an adapter or data that cannot be used, or a label that the adapter does not
        know.
    """
    device = known_device(device)
    if output is not None:
        make_folder(output)
    if trials is None:
        entries = entries_of(folder, data, split)
    else:
        entries = entries_of_list(trials, data)
    adapter = read_adapter(folder, source=source)
    task = task_of(adapter, folder)
    if trials is not None and not isinstance(task, Verification):
        raise UserError(
            f"The adapter {folder} is not of speaker verification: leave out --trials."
        )
    longest = adapter.max_duration if task.cuts else None
    dataset = dataset_of(entries, adapter.model.backbone.sample_rate, longest)
    refuse_unlabelled(entries, task)
    task.add_targets(dataset)
    dataset.set_output_keys(["id", "wav", *task.sound, task.target])
    model = TaskModel(adapter.model, adapter.head).to(device).eval()
    task.start(final=True)
    total = 0.0
    bar = progress_bar(total=len(dataset), desc="clips", shown=progress)
    for batch in batches_of(dataset, batch_size, adapter.model.backbone):
        batch = batch.to(device)
        predictions = model(**task.inputs(batch))
        total += float(task.loss(predictions, batch)) * len(batch.id)
        task.collect(predictions, batch)
        bar.update(len(batch.id))
    bar.close()
    loss = {"loss": total / len(dataset)} if task.held_out_loss else {}
    metrics = {"clips": len(dataset), **loss, **task.metrics()}
    if output is not None:
        task.write(output)
    return metrics


def task_of(adapter: Adapter, folder: str | Path) -> Task:
    """The task that an adapter was trained for, without what only training needs."""
    head, labels = adapter.head, adapter.info.get("labels") or []
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
    if isinstance(head, SpeakerHead):
        return Verification(labels)
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
    needed = NEEDED.get(task.name, "text")
    for key, entry in entries.items():
        if needed not in entry:
            hint = ": name a list of them by --trials." if needed == "trials" else "."
            raise UserError(f"The recording {key} has no {needed} to judge by{hint}")
