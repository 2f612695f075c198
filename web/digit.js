"use strict";
// A drawing or photograph made into what MNIST would have made of it: the steps of lab/pages/own_digit.py, one by one,
// with the same constants. A picture is {width, height, values}, values in [0, 1] row by row, 0 for black.

const BOX = 20;
const SIDE = 28;
const CONTRAST = 0.15;
const INK = 0.401;
const LEANING = 1e-3;
const [SPECK, TALL, APART] = [0.02, 0.6, 0.1];

// Rounds halves to even, as Python does.
function rint(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 ? low + 1 : low;
}

function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

// The plane a + b x + c y through the given points that fits best, from its normal equations.
function fitPlane(points) {
  const matrix = [0, 1, 2].map(() => [0, 0, 0, 0]);
  for (const { x, y, value } of points) {
    const row = [1, x, y];
    for (let i = 0; i < 3; i += 1) {
      for (let j = 0; j < 3; j += 1) matrix[i][j] += row[i] * row[j];
      matrix[i][3] += row[i] * value;
    }
  }
  for (let pivot = 0; pivot < 3; pivot += 1) {
    if (Math.abs(matrix[pivot][pivot]) < 1e-9) {
      return [points.reduce((sum, { value }) => sum + value, 0) / points.length, 0, 0]; // points on one line
    }
    for (let i = 0; i < 3; i += 1) {
      if (i === pivot) continue;
      const factor = matrix[i][pivot] / matrix[pivot][pivot];
      for (let j = pivot; j < 4; j += 1) matrix[i][j] -= factor * matrix[pivot][j];
    }
  }
  return matrix.map((row, i) => row[3] / row[i]);
}

function findInk({ width, height, values }) {
  const edge = Math.max(1, Math.floor(Math.min(width, height) / 50));
  const place = (at) => ({ x: (at % width) / width, y: Math.floor(at / width) / height });
  const border = [];
  for (let at = 0; at < values.length; at += 1) {
    const [row, column] = [Math.floor(at / width), at % width];
    if (row < edge || row >= height - edge || column < edge || column >= width - edge) border.push(at);
  }
  const middle = quantile(border.map((at) => values[at]), 0.5);
  let difference = values.map((value) => value - middle);
  for (let round = 0; round < 3; round += 1) {
    const most = Math.max(CONTRAST, quantile(border.map((at) => Math.abs(difference[at])), 0.5));
    const paper = border.filter((at) => Math.abs(difference[at]) < most);
    const [a, b, c] = fitPlane(paper.map((at) => ({ ...place(at), value: values[at] })));
    difference = values.map((value, at) => value - a - b * place(at).x - c * place(at).y);
  }
  let [low, high] = [Infinity, -Infinity];
  for (const value of difference) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const signed = high > -low ? difference : difference.map((value) => -value);
  const strongest = signed.length > 5 ? quantile(signed, 1 - 5 / signed.length) : Math.max(...signed);
  if (strongest < CONTRAST) throw new Error("No strokes stand out here: one digit, large and dark, please.");
  return { width, height, values: signed.map((value) => Math.min(1, Math.max(0, value / strongest))) };
}

// Parts of strokes that touch, corners included: a number for every pixel, 0 for none, and box and area of each part.
function findParts({ width, height, values }) {
  const labels = new Int32Array(values.length);
  const parts = [];
  for (let start = 0; start < values.length; start += 1) {
    if (labels[start] || !(values[start] > INK)) continue;
    const part = { area: 0, top: height, bottom: 0, left: width, right: 0 };
    parts.push(part);
    labels[start] = parts.length;
    const waiting = [start];
    while (waiting.length) {
      const at = waiting.pop();
      const [row, column] = [Math.floor(at / width), at % width];
      part.area += 1;
      part.top = Math.min(part.top, row);
      part.bottom = Math.max(part.bottom, row + 1);
      part.left = Math.min(part.left, column);
      part.right = Math.max(part.right, column + 1);
      for (let i = Math.max(0, row - 1); i <= Math.min(height - 1, row + 1); i += 1) {
        for (let j = Math.max(0, column - 1); j <= Math.min(width - 1, column + 1); j += 1) {
          const next = i * width + j;
          if (labels[next] || !(values[next] > INK)) continue;
          labels[next] = parts.length;
          waiting.push(next);
        }
      }
    }
  }
  return { labels, parts };
}

function withoutSpecks(ink) {
  const { width, height, values } = ink;
  const { labels, parts } = findParts(ink);
  const largest = Math.max(...parts.map(({ area }) => area));
  const kept = parts.map(({ area }) => area >= SPECK * largest);
  const boxes = parts.filter((_, number) => kept[number]);
  const whole = Math.max(...boxes.map(({ bottom }) => bottom)) - Math.min(...boxes.map(({ top }) => top));
  const tall = boxes.filter(({ top, bottom }) => bottom - top >= TALL * whole);
  tall.sort((one, other) => one.left - other.left || one.right - other.right);
  for (let number = 1; number < tall.length; number += 1) {
    if (tall[number - 1].right + APART * whole <= tall[number].left) {
      throw new Error("Several digits, side by side? Only one can be read.");
    }
  }
  let near = Array.from(labels, (label) => label > 0 && kept[label - 1]);
  for (let round = 0; round < 2; round += 1) {
    near = near.map((is, at) => {
      const [row, column] = [Math.floor(at / width), at % width];
      return is || (row > 0 && near[at - width]) || (row < height - 1 && near[at + width])
        || (column > 0 && near[at - 1]) || (column < width - 1 && near[at + 1]);
    });
  }
  return { width, height, values: values.map((value, at) => (near[at] ? value : 0)) };
}

// The mean over boxes, along rows; Pillow's BOX filter, which keeps float32 between its two passes.
function shrinkRows({ width, height, values }, to) {
  const scale = width / to;
  const support = Math.max(scale, 1) / 2;
  const result = new Float64Array(to * height);
  for (let x = 0; x < to; x += 1) {
    const centre = (x + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(width, Math.trunc(centre + support + 0.5));
    const inside = [];
    for (let at = first; at < last; at += 1) {
      const distance = (at - centre + 0.5) / Math.max(scale, 1);
      if (distance > -0.5 && distance <= 0.5) inside.push(at);
    }
    for (let row = 0; row < height; row += 1) {
      let sum = 0;
      for (const at of inside) sum += values[row * width + at] / inside.length;
      result[row * to + x] = Math.fround(sum);
    }
  }
  return { width: to, height, values: result };
}

function transpose({ width, height, values }) {
  const turned = values.map((_, at) => values[(at % height) * width + Math.floor(at / height)]);
  return { width: height, height: width, values: turned };
}

function cutOut({ width, height, values }) {
  const [rows, columns] = [[], []];
  values.forEach((value, at) => {
    if (!(value > INK)) return;
    rows.push(Math.floor(at / width));
    columns.push(at % width);
  });
  const least = (numbers) => numbers.reduce((one, other) => Math.min(one, other));
  const most = (numbers) => numbers.reduce((one, other) => Math.max(one, other));
  const [top, left] = [least(rows), least(columns)];
  const [bottom, right] = [most(rows) + 1, most(columns) + 1];
  const part = [];
  for (let row = top; row < bottom; row += 1) part.push(...values.subarray(row * width + left, row * width + right));
  return { width: right - left, height: bottom - top, values: Float64Array.from(part, Math.fround) };
}

// Grey levels 0 to 255 of the 28 x 28 pixels that a network sees: the digit in a box of 20 x 20, centred by mass.
// Throws an Error in words for an empty picture or for several digits.
function asMnist(picture) {
  const cut = cutOut(withoutSpecks(findInk({ ...picture, values: Float64Array.from(picture.values) })));
  const scale = BOX / Math.max(cut.width, cut.height);
  const [width, height] = [cut.width, cut.height].map((side) => Math.max(1, rint(side * scale)));
  const small = transpose(shrinkRows(transpose(shrinkRows(cut, width)), height));
  const highest = small.values.reduce((one, other) => Math.max(one, other));
  const values = small.values.map((value) => Math.min(1, Math.max(0, value / highest)));
  let [mass, down, across] = [0, 0, 0];
  values.forEach((value, at) => {
    mass += value;
    down += value * Math.floor(at / width);
    across += value * (at % width);
  });
  const start = (centre, side) => Math.min(SIDE - side, Math.max(0, rint(SIDE / 2 - centre - LEANING)));
  const [row, column] = [start(down / mass, height), start(across / mass, width)];
  const pixels = new Uint8Array(SIDE * SIDE);
  values.forEach((value, at) => {
    pixels[(row + Math.floor(at / width)) * SIDE + column + (at % width)] = rint(Math.fround(255 * Math.fround(value)));
  });
  return pixels;
}

if (typeof module !== "undefined") module.exports = { asMnist };
