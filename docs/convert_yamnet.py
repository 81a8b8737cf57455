"""Take YAMNet's weights out of its int8 tflite, for `petl pretrain --second_teacher`.

`pip install tflite; python docs/convert_yamnet.py yamnet.tflite OUTPUT` writes
OUTPUT/yamnet.safetensors. The file is the one that reads patches of 96 x 64 log mel
energies; its operations are those of the network, in order, each with its weights
(signed, symmetric, one scale for each channel or one for all) and biases.
"""

import sys
from pathlib import Path

import numpy as np
import tflite
import torch
from safetensors.torch import save_file
from torch import Tensor

from petl_modules.embedded.yamnet import WEIGHTS, Convolution, YamNet

WEIGHTED = {
    tflite.BuiltinOperator.CONV_2D,
    tflite.BuiltinOperator.DEPTHWISE_CONV_2D,
    tflite.BuiltinOperator.FULLY_CONNECTED,
}


def main(source: str, output: str) -> None:
    """Read, dequantise, check the shapes by loading, and write."""
    model = tflite.Model.GetRootAsModel(Path(source).read_bytes(), 0)
    graph = model.Subgraphs(0)
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    taken = [o for o in operators if kind(model, o) in WEIGHTED]
    network = YamNet()
    modules = [*network.layers.named_children(), ("scores", network.scores)]
    state = {}
    for (name, module), operator in zip(modules, taken, strict=True):
        name = f"layers.{name}" if name.isdigit() else name
        weight, bias = (dequantised(model, graph, operator.Inputs(i)) for i in (1, 2))
        if isinstance(module, Convolution):  # (after, height, width, channels) there
            order = (3, 0, 1, 2) if module.groups > 1 else (0, 3, 1, 2)
            weight = weight.permute(*order).contiguous()
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    network.load_state_dict(state)
    Path(output).mkdir(parents=True, exist_ok=True)
    save_file(state, Path(output) / WEIGHTS)


def kind(model: tflite.Model, operator: tflite.Operator) -> int:
    """What an operation does."""
    code = model.OperatorCodes(operator.OpcodeIndex())
    return max(code.BuiltinCode(), code.DeprecatedBuiltinCode())


def dequantised(model: tflite.Model, graph: tflite.SubGraph, place: int) -> Tensor:
    """A tensor of the file, in float32."""
    tensor = graph.Tensors(place)
    kept = np.int8 if tensor.Type() == tflite.TensorType.INT8 else np.int32
    whole = model.Buffers(tensor.Buffer()).DataAsNumpy().view(kept)
    whole = whole.reshape(tensor.ShapeAsNumpy()).astype(np.float32)
    scales = tensor.Quantization().ScaleAsNumpy()
    shape = [1] * whole.ndim
    shape[tensor.Quantization().QuantizedDimension()] = len(scales)
    return torch.from_numpy(whole * scales.reshape(shape))


if __name__ == "__main__":
    main(*sys.argv[1:])
