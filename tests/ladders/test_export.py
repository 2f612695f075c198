"""Exported networks answer as the published runs did, in a runtime that knows nothing of this project."""

import numpy as np
import onnxruntime
import pytest
import torch

import utils
from lab.__main__ import main
from lab.ladders.export import export
from lab.run.results import load_records
from lab.training.data import mnist_folder

NAMES = ["e02", "e01", "e03", "a09", "b12", "c08", "d08"]  # the frontier and the ends of the ladders
DIGITS = utils.load_digits("mnist" if mnist_folder() else "sample").test


def right_in_project(name):
    """Right answers of the published run; on the sample, of its weights in torch."""
    if DIGITS.images.shape[0] == 10_000:
        return load_records(name)[0].epochs[-1]["test_correct"]
    with torch.inference_mode():
        answers = utils.load_weights(name)(utils.prepare(DIGITS.images, ())).argmax(1)
    return int((answers == DIGITS.labels).sum())


@pytest.mark.parametrize("name", NAMES)
def test_onnx_is_right_as_often_as_the_record_says(name, tmp_path):
    (path,) = export(name, ["onnx"], tmp_path)
    session = onnxruntime.InferenceSession(path)
    logits = np.concatenate([session.run(None, {"grey": part.numpy()})[0] for part in DIGITS.images.split(777)])
    assert logits.dtype == np.float32
    assert int((logits.argmax(1) == DIGITS.labels.numpy()).sum()) == right_in_project(name)
    (one,) = session.run(None, {"grey": DIGITS.images[:1].numpy()})
    assert np.allclose(one, logits[:1], atol=1e-4)
    assert session.get_modelmeta().custom_metadata_map["rung"] == name


def test_torchscript_is_right_as_often_as_the_record_says(tmp_path, capsys):
    main(["export", "e02", "--torchscript", "--folder", str(tmp_path / "new")])
    assert capsys.readouterr().out == f"e02  {tmp_path / 'new' / 'e02.torchscript'}\n"
    network = torch.jit.load(tmp_path / "new" / "e02.torchscript")
    with torch.inference_mode():
        right = sum(int((network(part).argmax(1) == labels).sum()) for part, labels in batches())
    assert right == right_in_project("e02")


def batches():
    return zip(DIGITS.images.split(777), DIGITS.labels.split(777), strict=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("export e02", "say into which format, --onnx or --torchscript"),
        ("export a00 --onnx", "weights are kept of"),
        ("export x9 --onnx", "no notebook is called x9"),
    ],
)
def test_what_cannot_be_exported_is_named(line, message):
    with pytest.raises(SystemExit, match=message):
        main(line.split())
