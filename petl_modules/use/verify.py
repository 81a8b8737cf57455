"""Say whether two recordings are of one speaker.

`petl verify ADAPTER FIRST SECOND`: ADAPTER is the folder of a run of speaker
verification. Printed are the cosine of the two voices, up to 1, and whether it is that
of one speaker: at least the threshold at which the run's validation trials had as many
errors of one kind as of the other.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from petl_modules.console import Parser
from petl_modules.data.reading import read_clip
from petl_modules.errors import UserError
from petl_modules.tasks.heads import SpeakerHead
from petl_modules.use.adapter_file import read_adapter
from petl_modules.use.embeddings import vectors_of


def main(argv: list[str] | None = None) -> int:
    """Print the answer; returns the exit status."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("adapter", metavar="ADAPTER", help="The folder of a run.")
    add("first", metavar="FIRST", help="A recording.")
    add("second", metavar="SECOND", help="Another.")
    add("--source", help="The backbone, if it is not where the adapter says.")
    add("--json", action="store_true", help="Print one object.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, help="Where to compute (%(default)s).")
    options = parser.parse_args(argv)
    found = verify(
        options.adapter, options.first, options.second, options.source, options.device
    )
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        answer = "one speaker" if found["same"] else "two speakers"
        least = f"one speaker from {found['threshold']:.4f} on"
        print(f"{answer}: score {found['score']:.4f}, {least}")
    return 0


def verify(
    folder: str | Path,
    first: str | Path,
    second: str | Path,
    source: str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Whether two recordings are of one speaker.

    Arguments
    ---------
    folder : str or Path
        Of a run of speaker verification.
    first, second : str or Path
        Recordings.
    source : str or None
        Where the backbone is now, if not where the adapter says.
    device : str

    Returns
    -------
    dict
        score (the cosine, from -1 to 1), threshold, and same, whether the score
        reaches it.

    Raises
    ------
    UserError
        For an adapter of another task, or a recording that cannot be read, or in which
        nobody is heard.
    """
    adapter = read_adapter(folder, source=source)
    threshold = adapter.info.get("threshold")
    if not (isinstance(adapter.head, SpeakerHead) and isinstance(threshold, float)):
        raise UserError(
            f"The adapter {folder} is not of speaker verification: train one by the "
            "recipe VoxCeleb."
        )
    for path in (first, second):  # of two silences any score would be said
        clip = read_clip(path, adapter.model.backbone.sample_rate, adapter.max_duration)
        if clip.min() == clip.max():
            raise UserError(f"The clip {path} is silent: there is no voice to compare.")
    entries = {str(path): {"wav": str(path)} for path in (first, second)}
    _, vectors = vectors_of(adapter, entries, batch_size=1, device=device)
    score = float(F.cosine_similarity(vectors[0], vectors[-1], dim=0))
    return {"score": score, "threshold": threshold, "same": score >= threshold}
