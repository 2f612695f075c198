// Convolutions on feature maps whose innermost axis holds LANES images: one instruction serves them all, so that
// neither the number of channels nor the width of a map matters.
#pragma once
#include <algorithm>
#include <array>
#include <utility>

#include "lanes.h"

// Maps of one group of images, (channels, height, width, LANES), from some pixel on.
struct View {
    float *first;
    int plane, row;  // distances between neighbours in floats; so small that a view travels in registers
    View at(int channel, int y, int x) const { return {first + channel * plane + y * row + x * LANES, plane, row}; }
    Lanes &operator()(int channel, int x) const { return lanes(first + channel * plane + x * LANES); }
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

// What is done to the sums while they are in registers: a bias, where `present` is 1, and a floor, that of a ReLU.
// Their sums and sums of squares are added up, two vectors for each channel.
struct Finish {
    const float *bias;
    Lanes present, floor;
    Lanes *sums;

    template <int N>
    __attribute__((always_inline)) void operator()(int channel, Lanes (&values)[N]) const {
        const Lanes added = bias[channel] * present;
        Lanes sum = {}, squares = {};
        EACH (x, N) {
            values[x] = larger(floor, values[x] + added);
            sum += values[x], squares += values[x] * values[x];
        }
        sums[2 * channel] += sum, sums[2 * channel + 1] += squares;
    }
};

// CT output channels times XT neighbouring pixels stay in registers while all inputs go by. Loops over inputs and
// kernel are written as one: compilers that unroll an inner one run out of registers.
template <int CT, int XT, int KY, int KX>
void convolve_tile(View in, int inputs, const float *weights, View out, const Finish *finish, int channel) {
    Lanes total[CT][XT] = {};
    const float *end = weights + inputs * KY * KX * CT, *from = in.first;
    for (int kx = 0, ky = 0; weights != end; weights += CT) {
        EACH (c, CT)
            EACH (x, XT) total[c][x] += lanes(from + x * LANES) * weights[c];
        from += LANES;
        if (++kx == KX) {
            kx = 0, from += in.row - KX * LANES;
            if (++ky == KY) ky = 0, from += in.plane - KY * in.row;
        }
    }
    if (finish)
        EACH (c, CT) (*finish)(channel + c, total[c]);
    EACH (c, CT)
        EACH (x, XT) out(c, x) = total[c][x];
}

using ConvolveTile = void (*)(View, int, const float *, View, const Finish *, int);
template <int KY, int KX, int... I>
constexpr std::array<ConvolveTile, sizeof...(I)> convolve_tiles(std::integer_sequence<int, I...>) {
    return {
        convolve_tile<I / MOST_PIXELS + 1, std::min(I % MOST_PIXELS + 1, pixels_for(I / MOST_PIXELS + 1)), KY, KX>...};
}

// Weights (outputs, inputs, area) in the order in which tiles read them; `transposed` for the backward pass.
inline void pack(const float *weights, int outputs, int inputs, int area, bool transposed, float *packed) {
    int to = transposed ? inputs : outputs, from = transposed ? outputs : inputs;
    in_parts(to, MOST_CHANNELS, [&](int start, int size) {
        for (int i = 0; i < from; i++)
            for (int p = 0; p < area; p++)
                for (int o = start; o < start + size; o++)
                    *packed++ = transposed ? weights[(i * inputs + o) * area + area - 1 - p]
                                           : weights[(o * inputs + i) * area + p];
    });
}

// The tiles for a kernel that is square, or a row of three; `tile_at` says which is for how many channels and pixels.
inline const ConvolveTile *tiles_for(int k_y, int k_x) {
    constexpr std::make_integer_sequence<int, MOST_CHANNELS * MOST_PIXELS> all;
    static constexpr auto of_1 = convolve_tiles<1, 1>(all), of_3 = convolve_tiles<3, 3>(all),
                          of_7 = convolve_tiles<7, 7>(all), row_of_3 = convolve_tiles<1, 3>(all);
    return (k_x == 1 ? of_1 : k_x == 7 ? of_7 : k_y == 3 ? of_3 : row_of_3).data();
}
constexpr int tile_at(int channels, int pixels) { return (channels - 1) * MOST_PIXELS + pixels - 1; }

// Calls body(c, channels, y, x, pixels) for tiles that make up all maps.
template <class Body>
void each_tile(int outputs, int height, int width, Body body) {
    for (int y = 0; y < height; y++)
        in_parts(outputs, MOST_CHANNELS, [&](int c, int channels) {
            in_parts(width, pixels_for(channels), [&](int x, int pixels) { body(c, channels, y, x, pixels); });
        });
}

// One group of images; `in` begins with the first pixel that the first of height x width output pixels reads.
inline void convolve(View in, int inputs, int k, const float *packed, View out, int outputs, int height, int width,
                     const Finish *finish = nullptr) {
    const ConvolveTile *tiles = tiles_for(k, k);
    each_tile(outputs, height, width, [&](int c, int channels, int y, int x, int pixels) {
        tiles[tile_at(channels, pixels)](in.at(0, y, x), inputs, packed + c * inputs * k * k, out.at(c, y, x), finish,
                                         c);
    });
}

// Gradient of the weights: CT outputs times IT inputs times KT neighbours along a row of the kernel stay in registers
// while `rows` of `width` pixels go by; they are added to `sums`, of which each output has `skip`, each input `area`.
template <int CT, int IT, int KT>
void correlate_tile(View in, View grad, int rows, int width, Lanes *sums, int area, long skip) {
    Lanes total[IT][CT][KT] = {};
    for (int x = 0, y = 0; y < rows; in.first += LANES, grad.first += LANES) {
        EACH (c, CT)
            EACH (i, IT)
                EACH (k, KT) total[i][c][k] += grad(c, 0) * in(i, k);
        if (++x == width) x = 0, y++, in.first += in.row - width * LANES, grad.first += grad.row - width * LANES;
    }
    EACH (c, CT)
        EACH (i, IT)
            EACH (k, KT) sums[c * skip + i * area + k] += total[i][c][k];
}

template <int IT, int KT, int... I>
constexpr std::array<void (*)(View, View, int, int, Lanes *, int, long), MOST_SUMS> correlate_tiles(
    std::integer_sequence<int, I...>) {
    return {correlate_tile<I + 1, IT, KT>...};
}

// sums: (outputs, inputs, k_y, k_x). Takes as many rows at a time as the L1 cache holds: each is read once per input.
inline void correlate(View in, int inputs, int k_y, int k_x, View grad, int outputs, int height, int width,
                      Lanes *sums) {
    constexpr int TOGETHER = 4, CACHE = 32 << 10;
    constexpr std::make_integer_sequence<int, MOST_SUMS / 3> few;
    static constexpr auto rows_of_3 = correlate_tiles<1, 3>(few), single = correlate_tiles<1, 1>(few);
    static constexpr auto together =
        correlate_tiles<TOGETHER, 1>(std::make_integer_sequence<int, MOST_SUMS / TOGETHER>());
    const int neighbours = k_x == 3 ? 3 : 1, most = MOST_SUMS / (k_x == 3 ? 3 : TOGETHER), area = k_y * k_x;
    const int rows = std::max(1, CACHE / (int)(std::min(outputs, most) * width * sizeof(Lanes)));
    for (int y = 0; y < height; y += rows)
        in_parts(outputs, most, [&](int c, int channels) {
            for (int i = 0, step; i < inputs; i += step) {
                step = k_x == 1 && inputs - i >= TOGETHER ? TOGETHER : 1;
                const auto &tiles = step > 1 ? together : k_x == 3 ? rows_of_3 : single;
                for (int p = 0; p < area; p += neighbours)
                    tiles[channels - 1](in.at(i, y + p / k_x, p % k_x), grad.at(c, y, 0), std::min(rows, height - y),
                                        width, sums + (c * inputs + i) * area + p, area, (long)inputs * area);
            }
        });
}

// 3x3 on every channel by itself.
template <int XT>
void depthwise_tile(View in, const float *weights, View out) {
    Lanes total[XT] = {};
    EACH (ky, 3)
        EACH (kx, 3)
            EACH (x, XT) total[x] += in.at(0, ky, x + kx)(0, 0) * weights[ky * 3 + kx];
    EACH (x, XT) out(0, x) = total[x];
}

template <int... I>
constexpr std::array<void (*)(View, const float *, View), sizeof...(I)> depthwise_tiles(
    std::integer_sequence<int, I...>) {
    return {depthwise_tile<I + 1>...};
}

// weights: 9 per channel, `flipped` for the backward pass.
inline void depthwise(View in, const float *weights, bool flipped, View out, int channels, int side) {
    static constexpr auto tiles = depthwise_tiles(std::make_integer_sequence<int, 8>());
    for (int c = 0; c < channels; c++) {
        float kernel[9];
        pack(weights + c * 9, 1, 1, 9, flipped, kernel);
        for (int y = 0; y < side; y++)
            in_parts(side, (int)tiles.size(),
                     [&](int x, int pixels) { tiles[pixels - 1](in.at(c, y, x), kernel, out.at(c, y, x)); });
    }
}

// A row of the kernel takes the place of an input.
inline void depthwise_correlate(View in, View grad, int channels, int side, Lanes *sums) {
    for (int c = 0; c < channels; c++, in = in.at(1, 0, 0), grad = grad.at(1, 0, 0))
        correlate_tile<1, 3, 3>({in.first, in.row, in.row}, grad, side, side, sums + 9 * c, 3, 0);
}
