// Convolutions on feature maps whose innermost axis holds LANES images: one instruction serves them all,
// so that the number of channels and the width of a map do not matter. A map is (channels, height, width, LANES).
#pragma once
#include <algorithm>
#include <array>
#include <utility>

#include "lanes.h"

// The layout of a map: the distances, in floats, between neighbours along an axis.
struct Stride {
    long plane, row;
};

// Sums that registers hold, with room for what is multiplied, and the channels and pixels of a tile.
#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr int MOST_SUMS = 12, MOST_CHANNELS = 6;
#else
constexpr int MOST_SUMS = 24, MOST_CHANNELS = 8;
#endif
constexpr int MOST_PIXELS = 6;
constexpr int pixels_for(int channels) { return std::min(MOST_PIXELS, MOST_SUMS / channels); }

// Calls body(start, size) for parts of nearly equal size, none above `most`.
template <class Body>
void in_parts(int count, int most, Body body) {
    int parts = (count + most - 1) / most;
    for (int part = 0, start = 0; part < parts; part++) {
        int size = (count - start) / (parts - part);
        body(start, size);
        start += size;
    }
}

// ------------------------------------------------------------------------------------------- KxK, all channels
// CT output channels times XT neighbouring pixels stay in registers while all inputs go by. Loops over inputs and
// kernel are written as one: compilers that unroll an inner one run out of registers.

// What is done to the sums while they are in registers: a bias, where `present` is 1, and a floor, that of a ReLU.
// Their sums and sums of squares are added up, two vectors for each channel.
struct Finish {
    const float *bias;
    Lanes present, floor;
    Lanes *sums;
};

template <int CT, int XT, int K>
void convolve_tile(const float *in, Stride from, int inputs, const float *weights, float *out, Stride to,
                   const Finish *finish, int first) {
    Lanes total[CT][XT] = {};
    const float *end = weights + inputs * K * K * CT;
    for (int kx = 0, ky = 0; weights != end; weights += CT) {
#pragma GCC unroll 8
        for (int c = 0; c < CT; c++)
#pragma GCC unroll 8
            for (int x = 0; x < XT; x++) total[c][x] += lanes(in + x * LANES) * weights[c];
        in += LANES;
        if (++kx == K) {
            kx = 0, in += from.row - K * LANES;
            if (++ky == K) ky = 0, in += from.plane - K * from.row;
        }
    }
#pragma GCC unroll 8
    for (int c = 0; c < CT && finish; c++) {
        const Lanes added = finish->bias[first + c] * finish->present;
        Lanes sum = {}, squares = {};
#pragma GCC unroll 8
        for (int x = 0; x < XT; x++) {
            total[c][x] = larger(finish->floor, total[c][x] + added);
            sum += total[c][x], squares += total[c][x] * total[c][x];
        }
        finish->sums[2 * (first + c)] += sum, finish->sums[2 * (first + c) + 1] += squares;
    }
#pragma GCC unroll 8
    for (int c = 0; c < CT; c++)
#pragma GCC unroll 8
        for (int x = 0; x < XT; x++) lanes(out + c * to.plane + x * LANES) = total[c][x];
}

using ConvolveTile = void (*)(const float *, Stride, int, const float *, float *, Stride, const Finish *, int);
template <int K, int... I>
constexpr std::array<ConvolveTile, sizeof...(I)> convolve_tiles(std::integer_sequence<int, I...>) {
    return {convolve_tile<I / MOST_PIXELS + 1, std::min(I % MOST_PIXELS + 1, pixels_for(I / MOST_PIXELS + 1)), K>...};
}

// Weights (outputs, inputs, k, k) in the order in which tiles read them; `transposed` for the backward pass.
inline void pack(const float *weights, int outputs, int inputs, int k, bool transposed, float *packed) {
    int area = k * k, to = transposed ? inputs : outputs, from = transposed ? outputs : inputs;
    in_parts(to, MOST_CHANNELS, [&](int start, int size) {
        for (int i = 0; i < from; i++)
            for (int p = 0; p < area; p++)
                for (int o = start; o < start + size; o++)
                    *packed++ = transposed ? weights[(i * inputs + o) * area + area - 1 - p]
                                           : weights[(o * inputs + i) * area + p];
    });
}

// One group of images: `in` points to the first pixel that the first output pixel reads.
inline void convolve(const float *in, Stride from, int inputs, int k, const float *packed, float *out, Stride to,
                     int outputs, int height, int width, const Finish *finish = nullptr) {
    constexpr std::make_integer_sequence<int, MOST_CHANNELS * MOST_PIXELS> all;
    static constexpr auto of_1 = convolve_tiles<1>(all), of_3 = convolve_tiles<3>(all), of_7 = convolve_tiles<7>(all);
    const ConvolveTile *tiles = k == 1 ? of_1.data() : k == 3 ? of_3.data() : of_7.data();
    for (int y = 0; y < height; y++)
        in_parts(outputs, MOST_CHANNELS, [&](int c, int channels) {
            in_parts(width, pixels_for(channels), [&](int x, int pixels) {
                tiles[(channels - 1) * MOST_PIXELS + pixels - 1](
                    in + y * from.row + x * LANES, from, inputs, packed + c * inputs * k * k,
                    out + c * to.plane + y * to.row + x * LANES, to, finish, c);
            });
        });
}

// Gradient of the weights: CT outputs times IT inputs times KT neighbours along a row of the kernel stay in registers
// while pixels go by; they are added to `sums`.
template <int CT, int IT, int KT>
void correlate_tile(const float *in, Stride from, const float *grad, Stride of, int height, int width, Lanes *sums,
                    int area, long skip) {
    Lanes total[IT][CT][KT] = {};
    for (int x = 0, y = 0; y < height; in += LANES, grad += LANES) {
#pragma GCC unroll 8
        for (int c = 0; c < CT; c++)
#pragma GCC unroll 4
            for (int i = 0; i < IT; i++)
#pragma GCC unroll 3
                for (int k = 0; k < KT; k++)
                    total[i][c][k] += lanes(grad + c * of.plane) * lanes(in + i * from.plane + k * LANES);
        if (++x == width) x = 0, y++, in += from.row - width * LANES, grad += of.row - width * LANES;
    }
#pragma GCC unroll 8
    for (int c = 0; c < CT; c++)
#pragma GCC unroll 4
        for (int i = 0; i < IT; i++)
#pragma GCC unroll 3
            for (int k = 0; k < KT; k++) sums[c * skip + i * area + k] += total[i][c][k];
}

using CorrelateTile = void (*)(const float *, Stride, const float *, Stride, int, int, Lanes *, int, long);
template <int IT, int KT, int... I>
constexpr std::array<CorrelateTile, sizeof...(I)> correlate_tiles(std::integer_sequence<int, I...>) {
    return {correlate_tile<I + 1, IT, KT>...};
}

// sums: (outputs, inputs, k, k) of Lanes. Takes as many rows at a time as the L1 cache holds, since each is read once
// per input.
inline void correlate(const float *in, Stride from, int inputs, int k, const float *grad, Stride of, int outputs,
                      int height, int width, Lanes *sums) {
    constexpr int TOGETHER = 4, MOST_3 = MOST_SUMS / 3, MOST_1 = MOST_SUMS / TOGETHER;
    constexpr int CACHE = 32 << 10;
    static constexpr auto rows_of_3 = correlate_tiles<1, 3>(std::make_integer_sequence<int, MOST_3>());
    static constexpr auto single = correlate_tiles<1, 1>(std::make_integer_sequence<int, MOST_1>());
    static constexpr auto together = correlate_tiles<TOGETHER, 1>(std::make_integer_sequence<int, MOST_1>());
    const int neighbours = k == 3 ? 3 : 1, most = k == 3 ? MOST_3 : MOST_1, area = k * k;
    const int rows = std::max(1, CACHE / (int)(std::min(outputs, most) * width * sizeof(Lanes)));
    for (int y = 0; y < height; y += rows)
        in_parts(outputs, most, [&](int c, int channels) {
            for (int i = 0, step; i < inputs; i += step) {
                step = k == 1 && inputs - i >= TOGETHER ? TOGETHER : 1;
                const auto *tiles = step > 1 ? together.data() : k == 3 ? rows_of_3.data() : single.data();
                for (int p = 0; p < area; p += neighbours)
                    tiles[channels - 1](in + i * from.plane + (y + p / k) * from.row + p % k * LANES, from,
                                        grad + c * of.plane + y * of.row, of, std::min(rows, height - y), width,
                                        sums + (c * inputs + i) * area + p, area, (long)inputs * area);
            }
        });
}

// --------------------------------------------------------------------------------------------- 3x3, each channel

template <int XT>
void depthwise_tile(const float *in, long row, const float *weights, float *out) {
    Lanes total[XT] = {};
#pragma GCC unroll 3
    for (int ky = 0; ky < 3; ky++)
#pragma GCC unroll 3
        for (int kx = 0; kx < 3; kx++)
#pragma GCC unroll 8
            for (int x = 0; x < XT; x++) total[x] += lanes(in + ky * row + (x + kx) * LANES) * weights[ky * 3 + kx];
#pragma GCC unroll 8
    for (int x = 0; x < XT; x++) lanes(out + x * LANES) = total[x];
}

// weights: 9 per channel, `flipped` for the backward pass.
inline void depthwise(const float *in, Stride from, const float *weights, bool flipped, float *out, Stride to,
                      int channels, int height, int width) {
    using Tile = void (*)(const float *, long, const float *, float *);
    static constexpr Tile tiles[] = {depthwise_tile<1>, depthwise_tile<2>, depthwise_tile<3>, depthwise_tile<4>,
                                     depthwise_tile<5>, depthwise_tile<6>, depthwise_tile<7>, depthwise_tile<8>};
    for (int c = 0; c < channels; c++) {
        float kernel[9];
        for (int p = 0; p < 9; p++) kernel[p] = weights[c * 9 + (flipped ? 8 - p : p)];
        for (int y = 0; y < height; y++)
            in_parts(width, 8, [&](int x, int pixels) {
                tiles[pixels - 1](in + c * from.plane + y * from.row + x * LANES, from.row, kernel,
                                  out + c * to.plane + y * to.row + x * LANES);
            });
    }
}

inline void depthwise_correlate(const float *in, Stride from, const float *grad, Stride of, int channels, int height,
                                int width, Lanes *sums) {
    for (int c = 0; c < channels; c++) {
        Lanes total[9] = {};
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++) {
                const float *a = in + c * from.plane + y * from.row + x * LANES;
                Lanes b = lanes(grad + c * of.plane + y * of.row + x * LANES);
#pragma GCC unroll 9
                for (int p = 0; p < 9; p++) total[p] += b * lanes(a + p / 3 * from.row + p % 3 * LANES);
            }
        for (int p = 0; p < 9; p++) sums[c * 9 + p] += total[p];
    }
}
