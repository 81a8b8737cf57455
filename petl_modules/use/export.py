"""Write an adapter and its backbone as one ONNX file.

`petl export ADAPTER FILE.onnx`: the file takes waveforms at the backbone's rate, any
number of clips of one length, and gives class probabilities; features, backbone,
adapter and head are inside. What ONNX Runtime computes of it is compared with PyTorch
before it is said to be done. Labels and sample rate are in the file's metadata.
"""

import json
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from petl_modules.console import Parser
from petl_modules.errors import UserError
from petl_modules.files import whole
from petl_modules.tasks.heads import ClassificationHead
from petl_modules.use.adapter_file import read_adapter

WAVS, PROBABILITIES = "wavs", "probabilities"
SECONDS = 1.0  # of the clips that the graph is traced with
TOLERANCE = 1e-4  # of probabilities


class WholeClips(nn.Module):
    """Class probabilities `(batch, classes)` of clips `(batch, samples)` without
    padding."""

    def __init__(self, model, head):
        super().__init__()
        self.model, self.head = model, head

    def forward(self, wavs):
        tokens = self.model(wavs, all_layers=self.head.weighted_sum)
        return self.head(tokens).softmax(-1)


def export(adapter, path, source=None):
    """Write an ONNX file.

    Arguments
    ---------
    adapter : str or Path
        A run's folder; a classifier.
    path : str or Path
    source : str or None
        Where the backbone is now, if not where the adapter says.

    Returns
    -------
    float
        The largest difference of a probability between ONNX Runtime and PyTorch.

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
    if not isinstance(loaded.head, ClassificationHead):
        raise UserError(
            f"The adapter {adapter} gives no labels: only classifiers are exported."
        )
    module = WholeClips(loaded.model, loaded.head).eval()
    rate = loaded.model.backbone.sample_rate
    # two clips: of one, the exporter would make a graph for one
    wavs = torch.randn(2, round(SECONDS * rate)) * 0.1
    # bounds that spare the exporter what happens outside of them
    samples = torch.export.Dim("samples", min=rate // 10, max=30 * rate)
    sizes = {0: torch.export.Dim("batch", min=1, max=4096), 1: samples}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (wavs,),
            dynamo=True,
            dynamic_shapes={WAVS: sizes},
            input_names=[WAVS],
            output_names=[PROBABILITIES],
            verbose=False,
        )
    model = program.model_proto
    facts = {"labels": json.dumps(loaded.info["labels"]), "sample_rate": str(rate)}
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    with whole(path) as partial:
        onnx.save(model, partial)
        difference = largest_difference(module, partial, wavs)
        if difference > TOLERANCE:
            raise UserError(
                "ONNX Runtime's probabilities differ from PyTorch's by "
                f"{difference:.1e}: nothing is written."
            )
    return difference


@torch.no_grad()
def largest_difference(module, path, wavs):
    """Between PyTorch and ONNX Runtime, for other numbers of clips and samples too."""
    _, onnxruntime = libraries()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    longer = torch.cat([wavs, wavs.flip(1)[:, : wavs.shape[1] // 3]], 1)
    differences = []
    for clips in (wavs, longer[:1], longer[[0, 1, 0]]):
        (theirs,) = session.run([PROBABILITIES], {WAVS: clips.numpy()})
        differences.append((module(clips) - torch.from_numpy(theirs)).abs().max())
    return float(max(differences))


def libraries():
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
    add("file", metavar="FILE", help="What to write, such as model.onnx.")
    add("--source", help="The backbone, if it is not where the adapter says.")
    options = parser.parse_args(argv)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    difference = export(options.adapter, options.file, options.source)
    print(
        f"{options.file}: probabilities within {difference:.1e} of PyTorch's, in ONNX "
        "Runtime."
    )
