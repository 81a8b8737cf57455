"""Write an adapter and its backbone for ONNX Runtime.

`petl export ADAPTER FILE.onnx`: the file takes waveforms at the backbone's rate, any
number of clips of one length, and gives class probabilities; features, backbone,
adapter and head are inside. Labels and sample rate are in the file's metadata. Of
speaker verification the file gives embeddings of length 1, so that two clips' score is
the product of theirs; the threshold is in the metadata.

`petl export ADAPTER FOLDER` of a Whisper with its decoder: FOLDER gets encoder.onnx,
decoder.onnx (one token more at each call, with what was read before it) and
transcribe.py, which needs onnxruntime alone: python FOLDER/transcribe.py CLIP.wav

What ONNX Runtime computes is compared with PyTorch before it is said to be done.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from petl_modules.console import Parser
from petl_modules.errors import UserError
from petl_modules.files import refuse_folder, whole
from petl_modules.tasks.heads import ClassificationHead, OwnHead, SpeakerHead
from petl_modules.use.adapter_file import read_adapter
from petl_modules.use.adapter_schema import shortened

WAVS, CUT = "wavs", "wavs_cut"
PROBABILITIES, EMBEDDINGS = "probabilities", "embeddings"
SECONDS = 1.0  # of the clips that the graph is traced with
TOLERANCE = 1e-4  # of probabilities, and of numbers of an embedding of length 1


class WholeClips(nn.Module):
    """Class probabilities `(batch, classes)`, or of voices embeddings `(batch, size)`,
    of clips `(batch, samples)` without padding, of which what comes after `longest`
    samples is cut off, as in training."""

    def __init__(
        self, model: nn.Module, head: ClassificationHead, longest: int | None = None
    ) -> None:
        super().__init__()
        self.model, self.head, self.longest = model, head, longest

    def forward(self, wavs: Tensor) -> Tensor:
        """Clips `(batch, samples)` to what the class says."""
        if self.longest is not None:
            wavs = wavs[:, : self.longest]
        tokens = self.model(wavs, all_layers=self.head.weighted_sum)
        if isinstance(self.head, SpeakerHead):
            return normalize(self.head.vector(tokens))
        return self.head.probabilities(self.head(tokens))


def export(adapter: str | Path, path: str | Path, source: str | None = None) -> float:
    """Write an ONNX file.

    Arguments
    ---------
    adapter : str or Path
        A run's folder; of a classifier, of speaker verification, or of a Whisper with
        its decoder.
    path : str or Path
        A file, or for a Whisper a new folder.
    source : str or None
        Where the backbone is now, if not where the adapter says.

    Returns
    -------
    float
        The largest difference of a probability, of a number of an embedding, or of a
        Whisper's logit, between ONNX Runtime and PyTorch.

    Raises
    ------
    UserError
        For an adapter that is no classifier, libraries that are not installed, or
        outputs that are not equal.
    """
    onnx, _ = libraries()
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent} for {path.name}.")
    loaded = read_adapter(adapter, source=source)
    if isinstance(loaded.head, OwnHead):
        from petl_modules.use.export_writer import export_writer

        return export_writer(loaded, path)
    refuse_folder(path)
    if not isinstance(loaded.head, ClassificationHead):
        raise UserError(
            f"The adapter {adapter} gives no labels: only classifiers are exported, "
            "and Whispers that write."
        )
    speakers = isinstance(loaded.head, SpeakerHead)
    rate, seconds = loaded.model.backbone.sample_rate, loaded.max_duration
    longest = None if seconds is None else round(seconds * rate)
    module = WholeClips(loaded.model, loaded.head, longest).eval()
    whole_module = WholeClips(loaded.model, loaded.head).eval()
    # two clips: of one, the exporter would make a graph for one
    wavs = torch.randn(2, round(SECONDS * rate)) * 0.1
    # bounds that spare the exporter what happens outside of them
    samples = torch.export.Dim("samples", min=rate // 10, max=30 * rate)
    sizes = {0: torch.export.Dim("batch", min=1, max=4096), 1: samples}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            whole_module,
            (wavs,),
            dynamo=True,
            dynamic_shapes={WAVS: sizes},
            input_names=[WAVS],
            output_names=[EMBEDDINGS if speakers else PROBABILITIES],
            verbose=False,
        )
    if program is None:
        raise UserError("torch made no graph of this adapter.")
    model = program.model_proto
    facts = {"sample_rate": str(rate)}
    for name in ("threshold",) if speakers else ("labels", "thresholds"):
        if name in loaded.info:
            facts[name] = json.dumps(loaded.info[name])
    if longest is not None:
        cut_clips(onnx, model, longest)
        facts["max_duration"] = str(seconds)
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    with whole(path) as partial:
        onnx.save(model, partial)
        difference = largest_difference(module, partial, wavs, longest)
        if difference > TOLERANCE:
            raise UserError(
                "What ONNX Runtime computes differs from PyTorch's by "
                f"{difference:.1e}: nothing is written."
            )
    return difference


def cut_clips(onnx: Any, model: Any, longest: int) -> None:
    """Let a graph read no more than `longest` samples of each clip. (The exporter would
    ask in vain which of the two lengths is the shorter.)"""
    graph = model.graph
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == WAVS:
                node.input[place] = CUT
    bounds = {f"{CUT}_start": 0, f"{CUT}_end": longest, f"{CUT}_axis": 1}
    for name, value in bounds.items():
        constant = onnx.numpy_helper.from_array(np.array([value], np.int64), name)
        graph.initializer.append(constant)
    graph.node.insert(0, onnx.helper.make_node("Slice", [WAVS, *bounds], [CUT]))


@torch.no_grad()
def largest_difference(
    module: nn.Module, path: Path, wavs: Tensor, longest: int | None = None
) -> float:
    """Between PyTorch and ONNX Runtime, for other numbers of clips and samples too, and
    for a clip that is longer than is read."""
    _, onnxruntime = libraries()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    longer = torch.cat([wavs, wavs.flip(1)[:, : wavs.shape[1] // 3]], 1)
    tried = [wavs, longer[:1], longer[[0, 1, 0]]]
    if longest is not None:
        tried.append(torch.randn(1, longest + wavs.shape[1]) * 0.1)
    differences = []
    for clips in tried:
        try:
            (theirs,) = session.run(None, {WAVS: clips.numpy()})
        except Exception as error:  # the runtime's own have no class in common
            raise UserError(
                f"ONNX Runtime does not run the graph of {len(clips)} clips "
                f"({shortened(str(error))}): nothing is written."
            ) from None
        differences.append((module(clips) - torch.from_numpy(theirs)).abs().max())
    return float(max(differences))


def libraries() -> tuple[Any, Any]:
    """The modules onnx and onnxruntime."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401, torch's exporter needs it
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed: pip install onnx onnxruntime onnxscript."
        ) from None
    return onnx, onnxruntime


def main(argv: list[str] | None = None) -> None:
    """Export, and say how equal it is."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("adapter", metavar="ADAPTER", help="The folder of a run.")
    add("file", metavar="FILE", help="What to write: model.onnx, or a folder.")
    add("--source", help="The backbone, if it is not where the adapter says.")
    options = parser.parse_args(argv)
    for name in ("onnxscript", "torch.onnx"):  # such as that torchvision is not there
        logging.getLogger(name).setLevel(logging.ERROR)
    difference = export(options.adapter, options.file, options.source)
    print(
        f"{options.file}: what ONNX Runtime computes is within {difference:.1e} of "
        "PyTorch."
    )
