"""Networks of the drawing page: folded without a change, and run by its script as torch runs them."""

import json
import subprocess

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import utils
from lab.ladders.rungs import find_rungs
from lab.pages.ideas.class_maps import class_maps
from lab.site.build import DRAWN
from lab.site.frame import WEB
from lab.site.networks import as_script, operations_of
from lab.training.data import mnist_folder
from lab.training.loop import prepare
from tests.site.node import run_node

DIGITS = utils.load_digits("mnist" if mnist_folder() else "sample").test
SMALL = [rung.id for rung in find_rungs() if rung.recipe.parameters < 50_000]


def apply(operations, maps):
    """Folded operations with torch's own functions, in double precision."""
    for described, weights in operations:
        if described["kind"] == "conv":
            kernel, *shift = weights
            settings = {"padding": described["padding"], "groups": described["groups"]}
            maps = functional.conv2d(maps, kernel, *shift, **settings)
        elif described["kind"] == "affine":
            scale, shift = (weight[:, None, None] for weight in weights)
            maps = maps * scale + shift
        elif described["kind"] == "maxpool":
            maps = functional.max_pool2d(maps, described["size"])
        else:
            maps = maps.relu() if described["kind"] == "relu" else maps.mean((2, 3), keepdim=True)
    return maps.flatten(1)


@pytest.mark.parametrize("name", SMALL)
def test_operations_answer_as_their_network_does(name):
    try:
        network = utils.load_weights(name)
        operations = operations_of(network)
    except (FileNotFoundError, ValueError) as reason:
        assert name not in DRAWN
        pytest.skip(str(reason))
    images = prepare(DIGITS.images[:50], ()).double()
    with torch.inference_mode():
        wanted = network.double()(images)
        found = apply(operations, images)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-6)
    assert sum(described["kind"] == "conv" for described, _ in operations) == sum(
        isinstance(module, nn.Conv2d) for module in network.modules()
    )


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(1, 4, 3, stride=2), nn.Conv2d(1, 4, 3, dilation=2), nn.Sigmoid(), nn.AvgPool2d(2), nn.MaxPool2d(3, 2)],
    ids=repr,
)
def test_a_layer_that_the_page_does_not_know_is_named(layer):
    network = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="is not a layer that the drawing page knows") as caught:
        operations_of(network)
    assert repr(layer) in str(caught.value)


@pytest.mark.parametrize("name", DRAWN)
def test_the_script_answers_as_torch_does(name, tmp_path):
    network = utils.load_weights(name)
    (tmp_path / "network.js").write_text(as_script(name, network, {}), encoding="utf-8")
    (tmp_path / "pixels").write_bytes(DIGITS.images.numpy().tobytes())
    run_node(
        f"""
        const fs = require("fs"), {{ unpack, trace }} = require({json.dumps(str(WEB / "network.js"))});
        require("./network.js");
        const network = unpack(NETWORKS.{name}), pixels = fs.readFileSync("pixels");
        const logits = new Float64Array(pixels.length / 784 * 10);
        for (let at = 0; at < pixels.length; at += 784)
          logits.set(trace(network, pixels.subarray(at, at + 784)).at(-1).values, at / 784 * 10);
        fs.writeFileSync("logits", Buffer.from(logits.buffer));
        """,
        tmp_path,
    )
    found = torch.from_numpy(np.fromfile(tmp_path / "logits").reshape(-1, 10))
    with torch.inference_mode():
        wanted = torch.cat([network(prepare(images, ())) for images in DIGITS.images.split(1_000)])
    assert (found - wanted).abs().max() < 1e-4
    assert torch.equal(found.argmax(1), wanted.argmax(1))


@pytest.mark.parametrize("name", DRAWN)
def test_the_map_of_a_class_is_that_of_the_notebooks(name, tmp_path):
    """Against autograd, `lab.pages.ideas.class_maps`."""
    network = utils.load_weights(name)
    (tmp_path / "network.js").write_text(as_script(name, network, {}), encoding="utf-8")
    image = DIGITS.images[7]
    shown = run_node(
        f"""
        const N = require({json.dumps(str(WEB / "network.js"))});
        require("./network.js");
        const network = N.unpack(NETWORKS.{name});
        const maps = N.trace(network, {image.flatten().tolist()});
        const ten = [...Array(10).keys()].map((digit) => N.activationMap(network, maps, digit));
        console.log(JSON.stringify(ten.map(({{ values }}) => [...values])));
        """,
        tmp_path,
    )
    wanted, _ = class_maps(network, image[None])
    found = torch.tensor(json.loads(shown)).view(wanted[0].shape)
    assert torch.allclose(found, wanted[0], rtol=0, atol=1e-4)


def test_a_broken_script_is_not_taken_for_an_answer(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        run_node("throw new Error('x')", tmp_path)
