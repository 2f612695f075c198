"""Trained networks in formats that run without this project: ONNX and TorchScript, one file each.

Both take grey levels as MNIST has them, uint8 (N, 1, 28, 28), 0 for paper and 255 for ink, any N, and give logits,
float32 (N, 10). Normalisation is inside.
"""

import warnings
from pathlib import Path

import torch
from torch import nn

from lab.files import write_atomically
from lab.ladders.rungs import find_rung
from lab.ladders.weights import load_weights
from lab.training.data import normalise


class FromGreyLevels(nn.Module):
    """A network with the normalisation in front of it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, grey):
        return self.network(normalise(grey.float() / 255))


def export(name, formats, folder="."):
    """Write the published network of a rung, seed 0, as `<folder>/<name>.onnx` or `<name>.torchscript`; yield paths.

    Args:
        formats: of "onnx" and "torchscript".

    Raises: as `load_weights`; ImportError if onnx and onnxscript are not installed.
    """
    module = FromGreyLevels(load_weights(name)).eval()
    Path(folder).mkdir(parents=True, exist_ok=True)
    for kind in formats:
        path = Path(folder) / f"{name}.{kind}"
        write_atomically(path, WRITERS[kind](module, name))
        yield path


def _onnx(module, name):
    example = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            input_names=["grey"],
            output_names=["logits"],
            dynamic_shapes={"grey": {0: torch.export.Dim("images")}},
            verbose=False,
        )
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose code it came from: ten times the weights
    about = {"rung": name, "title": find_rung(name).title, "input": "grey levels 0 to 255", "output": "logits"}
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model.SerializeToString()


def _torchscript(module, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(module, torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    return scripted.save_to_buffer()


WRITERS = {"onnx": _onnx, "torchscript": _torchscript}
