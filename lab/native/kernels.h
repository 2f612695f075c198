// Convolutions on feature maps whose innermost axis holds 16 images: one vector instruction serves 16 images at once,
// so that the number of channels and the width of a map do not matter. A map is (channels, height, width, 16).
#pragma once
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

constexpr int LANES = 16;
using Lanes = float __attribute__((vector_size(64)));

inline Lanes &lanes(float *place) { return *reinterpret_cast<Lanes *>(place); }
inline const Lanes &lanes(const float *place) { return *reinterpret_cast<const Lanes *>(place); }

// The layout of a map: the distances, in floats, between neighbours along an axis.
struct Stride {
    long plane, row;
};

// ------------------------------------------------------------------------------------------- KxK, all channels
// CT output channels times XT neighbouring pixels stay in registers while all inputs go by.

template <int CT, int XT, int K>
void convolve_tile(const float *in, Stride from, int inputs, const float *weights, float *out, Stride to, Lanes *sums) {
    Lanes total[CT][XT] = {};
    for (int channel = 0; channel < inputs; channel++)
        for (int ky = 0; ky < K; ky++) {
            const float *row = in + channel * from.plane + ky * from.row;
#pragma GCC unroll 3
            for (int kx = 0; kx < K; kx++, weights += CT)
#pragma GCC unroll 8
                for (int c = 0; c < CT; c++)
#pragma GCC unroll 8
                    for (int x = 0; x < XT; x++) total[c][x] += lanes(row + (x + kx) * LANES) * weights[c];
        }
#pragma GCC unroll 8
    for (int c = 0; c < CT; c++)
#pragma GCC unroll 8
        for (int x = 0; x < XT; x++) lanes(out + c * to.plane + x * LANES) = total[c][x];
    if (sums)
#pragma GCC unroll 8
        for (int c = 0; c < CT; c++) {
            Lanes sum = {}, squares = {};
#pragma GCC unroll 8
            for (int x = 0; x < XT; x++) sum += total[c][x], squares += total[c][x] * total[c][x];
            sums[2 * c] += sum;
            sums[2 * c + 1] += squares;
        }
}

using ConvolveTile = void (*)(const float *, Stride, int, const float *, float *, Stride, Lanes *);
constexpr int MOST_CHANNELS = 8, MOST_PIXELS = 6;
constexpr int pixels_for(int channels) { return std::min(MOST_PIXELS, 24 / channels); }

template <int K, int... I>
constexpr std::array<ConvolveTile, sizeof...(I)> tiles_of(std::integer_sequence<int, I...>) {
    return {convolve_tile<I / MOST_PIXELS + 1, std::min(I % MOST_PIXELS + 1, pixels_for(I / MOST_PIXELS + 1)), K>...};
}

template <int K>
ConvolveTile tile_for(int channels, int pixels) {
    static constexpr auto tiles = tiles_of<K>(std::make_integer_sequence<int, MOST_CHANNELS * MOST_PIXELS>());
    return tiles[(channels - 1) * MOST_PIXELS + pixels - 1];
}

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

// Weights (outputs, inputs, K, K) in the order in which tiles read them; `transposed` for the backward pass.
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

// One group of 16 images: `in` points to the first pixel that the first output pixel reads.
template <int K>
void convolve(const float *in, Stride from, int inputs, const float *packed, float *out, Stride to, int outputs,
              int height, int width, Lanes *sums) {
    for (int y = 0; y < height; y++)
        in_parts(outputs, MOST_CHANNELS, [&](int c, int channels) {
            in_parts(width, pixels_for(channels), [&](int x, int pixels) {
                tile_for<K>(channels, pixels)(in + y * from.row + x * LANES, from, inputs, packed + c * inputs * K * K,
                                              out + c * to.plane + y * to.row + x * LANES, to,
                                              sums ? sums + 2 * c : nullptr);
            });
        });
}

// Gradient of the weights: IT inputs times CT outputs times K neighbours stay in registers while all pixels go by.
template <int CT, int IT, int K>
void correlate_tile(const float *in, Stride from, const float *grad, Stride of, int height, int width, Lanes *sums,
                    long skip) {
    Lanes total[IT][CT][K] = {};
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const float *a = in + y * from.row + x * LANES, *b = grad + y * of.row + x * LANES;
#pragma GCC unroll 8
            for (int c = 0; c < CT; c++)
#pragma GCC unroll 4
                for (int i = 0; i < IT; i++)
#pragma GCC unroll 3
                    for (int k = 0; k < K; k++)
                        total[i][c][k] += lanes(b + c * of.plane) * lanes(a + i * from.plane + k * LANES);
        }
    for (int c = 0; c < CT; c++)
        for (int i = 0; i < IT; i++)
            for (int k = 0; k < K; k++) sums[c * skip + i * K * K + k] += total[i][c][k];
}

using CorrelateTile = void (*)(const float *, Stride, const float *, Stride, int, int, Lanes *, long);
template <int IT, int K, int... I>
constexpr std::array<CorrelateTile, sizeof...(I)> correlators(std::integer_sequence<int, I...>) {
    return {correlate_tile<I + 1, IT, K>...};
}

// sums: (outputs, inputs, K, K) of Lanes.
template <int K>
void correlate(const float *in, Stride from, int inputs, const float *grad, Stride of, int outputs, int height,
               int width, Lanes *sums) {
    constexpr int MOST = K == 1 ? 6 : 8;
    static constexpr auto one = correlators<1, K>(std::make_integer_sequence<int, MOST>());
    static constexpr auto four = correlators<K == 1 ? 4 : 1, K>(std::make_integer_sequence<int, MOST>());
    int together = K == 1 ? 4 : 1;
    for (int i = 0; i < inputs;) {
        int size = inputs - i >= together ? together : 1;
        in_parts(outputs, MOST, [&](int c, int channels) {
            for (int ky = 0; ky < K; ky++)
                (size > 1 ? four : one)[channels - 1](in + i * from.plane + ky * from.row, from, grad + c * of.plane,
                                                      of, height, width, sums + (c * inputs + i) * K * K + ky * K,
                                                      inputs * K * K);
        });
        i += size;
    }
}

// ------------------------------------------------------------------------------------------- 3x3, many channels
// Takes nearly all the time of a network without separable convolutions. Its loops are written as one, because a
// compiler that unrolls them adds up in pairs, and then runs out of registers.

template <int CT, int XT>
void convolve_deep_tile(const float *in, Stride from, int inputs, const float *weights, float *out, Stride to) {
    Lanes total[CT][XT] = {};
    const float *end = weights + inputs * 9 * CT;
    for (int kx = 0, ky = 0; weights != end; weights += CT) {
#pragma GCC unroll 8
        for (int c = 0; c < CT; c++)
#pragma GCC unroll 8
            for (int x = 0; x < XT; x++) total[c][x] += lanes(in + x * LANES) * weights[c];
        in += LANES;
        if (++kx == 3) {
            kx = 0, in += from.row - 3 * LANES;
            if (++ky == 3) ky = 0, in += from.plane - 3 * from.row;
        }
    }
#pragma GCC unroll 8
    for (int c = 0; c < CT; c++)
#pragma GCC unroll 8
        for (int x = 0; x < XT; x++) lanes(out + c * to.plane + x * LANES) = total[c][x];
}

using DeepTile = void (*)(const float *, Stride, int, const float *, float *, Stride);
template <int... I>
constexpr std::array<DeepTile, sizeof...(I)> deep_tiles(std::integer_sequence<int, I...>) {
    return {convolve_deep_tile<I / MOST_PIXELS + 1, std::min(I % MOST_PIXELS + 1, pixels_for(I / MOST_PIXELS + 1))>...};
}

inline void convolve_deep(const float *in, Stride from, int inputs, const float *packed, float *out, Stride to,
                          int outputs, int height, int width) {
    static constexpr auto tiles = deep_tiles(std::make_integer_sequence<int, MOST_CHANNELS * MOST_PIXELS>());
    for (int y = 0; y < height; y++)
        in_parts(outputs, MOST_CHANNELS, [&](int c, int channels) {
            in_parts(width, pixels_for(channels), [&](int x, int pixels) {
                tiles[(channels - 1) * MOST_PIXELS + pixels - 1](
                    in + y * from.row + x * LANES, from, inputs, packed + c * inputs * 9,
                    out + c * to.plane + y * to.row + x * LANES, to);
            });
        });
}

// For CT outputs, one input, and three neighbours along a row of the kernel; continues from `sums`.
template <int CT>
void correlate_deep_tile(const float *in, Stride from, const float *grad, Stride of, int height, int width, Lanes *sums,
                         long skip) {
    Lanes total[CT][3];
#pragma GCC unroll 8
    for (int c = 0; c < CT; c++)
#pragma GCC unroll 3
        for (int k = 0; k < 3; k++) total[c][k] = sums[c * skip + k];
    for (int x = 0, y = 0; y < height; in += LANES, grad += LANES) {
#pragma GCC unroll 8
        for (int c = 0; c < CT; c++)
#pragma GCC unroll 3
            for (int k = 0; k < 3; k++) total[c][k] += lanes(grad + c * of.plane) * lanes(in + k * LANES);
        if (++x == width) x = 0, y++, in += from.row - width * LANES, grad += of.row - width * LANES;
    }
#pragma GCC unroll 8
    for (int c = 0; c < CT; c++)
#pragma GCC unroll 3
        for (int k = 0; k < 3; k++) sums[c * skip + k] = total[c][k];
}

// As many rows at a time as the L1 cache holds, since each is read once per input.
inline void correlate_deep(const float *in, Stride from, int inputs, const float *grad, Stride of, int outputs,
                           int height, int width, Lanes *sums) {
    constexpr int MOST = 8, CACHE = 32 << 10;
    static constexpr CorrelateTile tiles[] = {correlate_deep_tile<1>, correlate_deep_tile<2>, correlate_deep_tile<3>,
                                              correlate_deep_tile<4>, correlate_deep_tile<5>, correlate_deep_tile<6>,
                                              correlate_deep_tile<7>, correlate_deep_tile<8>};
    int most = std::max(1, CACHE / (int)(std::min(outputs, MOST) * width * sizeof(Lanes)));
    for (int y = 0; y < height; y += most)
        in_parts(outputs, MOST, [&](int c, int channels) {
            for (int i = 0; i < inputs; i++)
                for (int ky = 0; ky < 3; ky++)
                    tiles[channels - 1](in + i * from.plane + (y + ky) * from.row, from,
                                        grad + c * of.plane + y * of.row, of, std::min(most, height - y), width,
                                        sums + (c * inputs + i) * 9 + ky * 3, inputs * 9);
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
