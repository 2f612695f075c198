"use strict";
// The forward pass of a small network, and the class activation map behind its answer. A network is a list of
// operations and one array of float32 weights in their order, written by lab/site/networks.py:
//   conv {inputs, outputs, size, padding, groups, bias}, affine {channels}, relu, maxpool {size}, mean
// A map is {channels, height, width, values}, values channel by channel, row by row.

const MEAN = 0.1307;
const STD = 0.3081; // of MNIST's training pixels, as in lab/training/data.py

function unpack({ operations, weights }) {
  const bytes = Uint8Array.from(atob(weights), (character) => character.charCodeAt(0));
  const numbers = new Float32Array(bytes.buffer);
  let at = 0;
  const take = (count) => numbers.subarray(at, (at += count));
  return operations.map((operation) => {
    if (operation.kind === "conv") {
      const { inputs, outputs, size, groups } = operation;
      const kernel = take((outputs * inputs * size * size) / groups);
      return { ...operation, kernel, shift: operation.bias ? take(outputs) : new Float32Array(outputs) };
    }
    if (operation.kind === "affine") {
      return { ...operation, scale: take(operation.channels), shift: take(operation.channels) };
    }
    return operation;
  });
}

const blank = (channels, height, width) => ({
  channels,
  height,
  width,
  values: new Float64Array(channels * height * width),
});

const RUN = {
  conv({ inputs, outputs, size, padding, groups, kernel, shift }, map) {
    const [height, width] = [map.height + 2 * padding - size + 1, map.width + 2 * padding - size + 1];
    const result = blank(outputs, height, width);
    const [depth, share] = [inputs / groups, outputs / groups];
    for (let out = 0; out < outputs; out += 1) {
      const target = result.values.subarray(out * height * width, (out + 1) * height * width).fill(shift[out]);
      for (let k = 0; k < depth; k += 1) {
        const source = (Math.floor(out / share) * depth + k) * map.height * map.width;
        for (let i = 0; i < size; i += 1) {
          for (let j = 0; j < size; j += 1) {
            const weight = kernel[((out * depth + k) * size + i) * size + j];
            const [first, last] = [Math.max(0, padding - j), Math.min(width, map.width + padding - j)];
            for (let row = Math.max(0, padding - i); row < Math.min(height, map.height + padding - i); row += 1) {
              const line = source + (row + i - padding) * map.width + j - padding;
              for (let column = first; column < last; column += 1) {
                target[row * width + column] += weight * map.values[line + column];
              }
            }
          }
        }
      }
    }
    return result;
  },
  affine({ scale, shift }, map) {
    const area = map.height * map.width;
    return { ...map, values: map.values.map((value, at) => value * scale[(at / area) | 0] + shift[(at / area) | 0]) };
  },
  relu: (_, map) => ({ ...map, values: map.values.map((value) => Math.max(value, 0)) }),
  maxpool({ size }, map) {
    const result = blank(map.channels, Math.floor(map.height / size), Math.floor(map.width / size));
    result.values.fill(-Infinity);
    for (let channel = 0; channel < map.channels; channel += 1) {
      for (let row = 0; row < result.height * size; row += 1) {
        for (let column = 0; column < result.width * size; column += 1) {
          const to = (channel * result.height + Math.floor(row / size)) * result.width + Math.floor(column / size);
          const value = map.values[(channel * map.height + row) * map.width + column];
          result.values[to] = Math.max(result.values[to], value);
        }
      }
    }
    return result;
  },
  mean(_, map) {
    const [area, result] = [map.height * map.width, blank(map.channels, 1, 1)];
    map.values.forEach((value, at) => (result.values[(at / area) | 0] += value / area));
    return result;
  },
};

// Every map from the image on; the last one holds the logits. Pixels are grey levels from 0 to 255.
function trace(network, pixels) {
  const values = Float64Array.from(pixels, (pixel) => (pixel / 255 - MEAN) / STD);
  const maps = [{ channels: 1, height: 28, width: 28, values }];
  for (const operation of network) maps.push(RUN[operation.kind](operation, maps.at(-1)));
  return maps;
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = powers.reduce((one, other) => one + other);
  return powers.map((power) => power / sum);
}

// What each place of the last map in front of the mean adds to the logit of a class: its channels, weighted by the
// gradient of that logit. Behind the mean every map is a single pixel, so a convolution is a matrix.
function activationMap(network, maps, digit) {
  const pooled = network.findIndex(({ kind }) => kind === "mean");
  let gradient = new Float64Array(10);
  gradient[digit] = 1;
  for (let at = network.length - 1; at > pooled; at -= 1) {
    const { kind, inputs, kernel, scale } = network[at];
    const before = maps[at].values;
    if (kind === "conv") {
      const to = new Float64Array(inputs);
      gradient.forEach((value, out) => to.forEach((_, k) => (to[k] += value * kernel[out * inputs + k])));
      gradient = to;
    } else {
      gradient = gradient.map((value, k) => value * (kind === "affine" ? scale[k] : before[k] > 0));
    }
  }
  const { height, width, values } = maps[pooled];
  const result = blank(1, height, width);
  values.forEach((value, at) => (result.values[at % (height * width)] += value * gradient[(at / height / width) | 0]));
  return result;
}

if (typeof module !== "undefined") module.exports = { unpack, trace, softmax, activationMap };
