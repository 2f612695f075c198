"""The same training in JAX, for an environment of its own: `python lab/bench/jax_peer.py DIGITS.npz CORE`.

One jitted step distorts a batch, trains on it with dropout and batch normalisation, and keeps running statistics.
"""

import os
import sys
from pathlib import Path

os.sched_setaffinity(
    0, {sorted(os.sched_getaffinity(0))[int(sys.argv[2])]}
)  # XLA takes as many threads as it is given cores

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

jax.config.update("jax_default_prng_impl", "rbg")  # the fastest one
sys.path.insert(0, str(Path(__file__).parent))
from meter import BATCH, measure  # noqa: E402

DROPOUT, MOMENTUM, RATE, SIDE = 0.03, 0.9, 0.015, 28
LAYERS = (  # inputs, outputs, kernel, what follows
    (1, 8, 3, "unit"),
    (8, 16, 3, "unit pool"),
    (16, 8, 1, ""),
    (8, 10, 3, "unit"),
    (10, 16, 3, "unit"),
    (16, 18, 3, "unit mean"),
    (18, 16, 1, "unit"),
    (16, 10, 1, ""),
)


def begin(key):
    """Weights with torch's default spread, statistics of every normalisation."""
    weights, statistics = [], []
    for inputs, outputs, size, after in LAYERS:
        key, own = jax.random.split(key)
        bound = (inputs * size * size) ** -0.5
        kernel = jax.random.uniform(own, (size, size, inputs, outputs), minval=-bound, maxval=bound)
        weights.append({"kernel": kernel})
        if "unit" in after:
            weights[-1] |= {"scale": jnp.ones(outputs), "shift": jnp.zeros(outputs)}
            statistics.append((jnp.zeros(outputs), jnp.ones(outputs)))
    return weights, statistics


def network(weights, statistics, maps, key):
    """Logits and new statistics, in training."""
    updated = []
    for layer, (*_, after) in zip(weights, LAYERS, strict=True):
        maps = jax.lax.conv_general_dilated(
            maps, layer["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        if "unit" in after:
            maps = jax.nn.relu(maps)
            mean, variance = maps.mean((0, 1, 2)), maps.var((0, 1, 2))
            old_mean, old_variance = statistics[len(updated)]
            updated.append((0.9 * old_mean + 0.1 * mean, 0.9 * old_variance + 0.1 * variance))
            maps = (maps - mean) * jax.lax.rsqrt(variance + 1e-5) * layer["scale"] + layer["shift"]
            key, own = jax.random.split(key)
            maps = jnp.where(jax.random.bernoulli(own, 1 - DROPOUT, maps.shape), maps / (1 - DROPOUT), 0)
        if "pool" in after:
            maps = jax.lax.reduce_window(maps, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        if "mean" in after:
            maps = maps.mean((1, 2), keepdims=True)
    return maps.reshape(len(maps), 10), updated


def resample(images, degrees, shift, scale, shear, fill):
    """As lab.training.augment.affine does it, to the nearest pixel."""
    angle, slope, half = jnp.deg2rad(degrees), jnp.tan(jnp.deg2rad(shear)), (SIDE - 1) / 2
    cosine, sine = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    rows, columns = jnp.meshgrid(jnp.arange(SIDE) - half, jnp.arange(SIDE) - half, indexing="ij")
    x, y = columns - shift[:, 0, None, None], rows - shift[:, 1, None, None]
    at = lambda values: values[:, None, None]  # noqa: E731
    source_x = at(cosine - slope * sine) * x + at(sine + slope * cosine) * y + half
    source_y = at(-sine) * x + at(cosine) * y + half
    column = jnp.clip(jnp.round(source_x), -1, SIDE).astype(int) + 1
    row = jnp.clip(jnp.round(source_y), -1, SIDE).astype(int) + 1
    framed = jnp.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=fill)
    return framed[jnp.arange(len(images))[:, None, None], row, column]


def distort(images, key):
    """Rotation, affine map and jitter of rung a07."""
    keys, count = jax.random.split(key, 8), (len(images),)
    draw = lambda key, low, high, shape=count: jax.random.uniform(key, shape, minval=low, maxval=high)  # noqa: E731
    still, nothing = jnp.ones(count), jnp.zeros((*count, 2))
    images = resample(images, draw(keys[0], -6, 6), nothing, still, 0 * still, 1 / 255)
    shift = jnp.round(draw(keys[1], -2.8, 2.8, (*count, 2)))
    images = resample(images, draw(keys[2], -7, 7), shift, draw(keys[3], 0.8, 1.2), draw(keys[4], -10, 10), 0)
    brightness, contrast = draw(keys[5], 0.6, 1.4)[:, None, None], draw(keys[6], 0.6, 1.4)[:, None, None]
    first = jax.random.bernoulli(keys[7], 0.5, count)[:, None, None]
    images = jnp.clip(images * jnp.where(first, brightness, 1), 0, 1)
    mean = images.mean((1, 2), keepdims=True)
    images = jnp.clip(mean + (images - mean) * contrast, 0, 1)
    return jnp.clip(images * jnp.where(first, 1, brightness), 0, 1)


@jax.jit
def step(weights, velocity, statistics, images, labels, key):
    """One batch of SGD with momentum."""
    first, second = jax.random.split(key)
    maps = (distort(images / 255, first)[..., None] - 0.1307) / 0.3081

    def loss_of(weights):
        logits, updated = network(weights, statistics, maps, second)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean(), updated

    (loss, updated), gradient = jax.value_and_grad(loss_of, has_aux=True)(weights)
    velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradient)
    return jax.tree.map(lambda w, v: w - RATE * v, weights, velocity), velocity, updated, loss


def main(path):
    digits = np.load(path)
    images, labels = digits["images"].astype(np.float32), digits["labels"].astype(np.int32)
    weights, statistics = begin(jax.random.key(0))
    state = [weights, jax.tree.map(jnp.zeros_like, weights), statistics]
    generator, losses = np.random.default_rng(0), []

    def train(meter):
        order = generator.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            index = order[start : start + BATCH]
            key = jax.random.key(int(generator.integers(2**31)))
            *state[:], loss = step(*state, images[index], labels[index], key)
            losses.append(float(loss))
            meter()

    rate = measure(train)
    if not np.mean(losses[-50:]) < np.mean(losses[:5]):
        sys.exit("it does not learn")
    print(rate)


if __name__ == "__main__":
    main(sys.argv[1])
