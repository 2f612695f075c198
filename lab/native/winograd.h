// 3x3 kernels with half of the products: four neighbours of a row come from six inputs by six products for each row of
// the kernel, in place of twelve. Source: Winograd's F(4, 3), see Lavin and Gray 2016, arXiv:1509.09308.
//
// To multiply polynomials is to multiply their values at enough points: here 0, 1, -1, 2, -2 and infinity.
#pragma once
#include <vector>

#include "kernels.h"

constexpr int POINTS = 6, BLOCK = 4;
// How values at the points are summed up from inputs, from the rows of a kernel and from the gradient of outputs;
// outputs and the gradient of a kernel are summed up from the points with the same factors.
constexpr float INPUTS[POINTS][BLOCK + 2] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                                             {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
constexpr float S = 1 / 6.0f, T = 1 / 24.0f;
constexpr float KERNEL[POINTS][3] = {{6 * T, 0, 0}, {-S, -S, -S},   {-S, S, -S},
                                     {T, 2 * T, S}, {T, -2 * T, S}, {0, 0, 1}};
constexpr float OUTPUTS[POINTS][BLOCK] = {{1, 0, 0, 0}, {1, 1, 1, 1},   {1, -1, 1, -1},
                                          {1, 2, 4, 8}, {1, -2, 4, -8}, {0, 0, 0, 1}};

// Some columns of blocks of one group at the points, (POINTS, channels, columns, height, LANES).
struct AtPoints {
    std::vector<Lanes> data;
    int plane, row, size;

    View of(int point) { return {reinterpret_cast<float *>(data.data()) + point * size, plane, row}; }

    template <const auto &TAKES>
    void fill(View maps, int channels, int columns, int height) {
        row = height * LANES, plane = columns * row, size = channels * plane;
        data.resize(POINTS * size / LANES);
        for (int c = 0; c < channels; c++)
            for (int column = 0; column < columns; column++)
                for (int y = 0; y < height; y++)
                    EACH (p, POINTS) {
                        Lanes value = {};
                        EACH (x, (int)std::size(TAKES[0]))
                            if (TAKES[p][x] != 0) value += maps.at(c, y, column * BLOCK)(0, x) * TAKES[p][x];
                        of(p).at(c, column, y)(0, 0) = value;
                    }
    }
};

// A convolution of one group of images, and the gradient of its weights. If it is `turned`, it takes the weights of
// another one, from its outputs to its inputs, and the gradient along with them.
struct Convolution {
    static constexpr int CACHE = 512 << 10, WORTH = 4;  // bytes at the points at a time; channels from which they pay
    int inputs, outputs, k, side, columns;              // of blocks; what is right of them takes all products
    bool turned;
    std::vector<float> packed, packed_at;
    std::vector<Lanes> sums_at;  // the gradient at the points, (POINTS, outputs, inputs, 3)

    void allocate(int inputs_, int outputs_, int k_, int side_, bool turned_) {
        inputs = inputs_, outputs = outputs_, k = k_, side = side_, turned = turned_;
        columns = k == 3 && std::min(inputs, outputs) >= WORTH ? side / BLOCK : 0;
        packed.resize(outputs * inputs * k * k);
        packed_at.resize(columns ? POINTS * each() : 0);
        sums_at.resize(turned ? 0 : packed_at.size());
    }

    int each() const { return outputs * inputs * 3; }

    void prepare(const float *weights) {
        pack(weights, turned ? inputs : outputs, turned ? outputs : inputs, k * k, turned, packed.data());
        std::fill(sums_at.begin(), sums_at.end(), Lanes{});
        float *at = packed_at.data();
        for (int p = 0; p < POINTS && columns; p++) {
            const float *row = packed.data(), *takes = KERNEL[p];
            in_parts(outputs, MOST_CHANNELS, [&](int, int channels) {
                for (int y = 0; y < inputs * 3; y++, row += 3 * channels)
                    for (const float *w = row; w < row + channels; w++)
                        *at++ = w[0] * takes[0] + w[channels] * takes[1] + w[2 * channels] * takes[2];
            });
        }
    }

    // `in` begins with the first pixel that the first output reads.
    void run(View in, View out, const Finish *finish = nullptr) {
        static thread_local AtPoints points;
        const ConvolveTile *tiles = tiles_for(1, 3);
        for (int x = 0; x < columns * BLOCK; x += BLOCK) {
            points.fill<INPUTS>(in.at(0, 0, x), inputs, 1, side + 2);
            each_tile(outputs, 1, side, [&](int c, int channels, int, int y, int pixels) {
                Lanes sums[POINTS][MOST_SUMS];
                for (int p = 0; p < POINTS; p++)
                    tiles[tile_at(channels, pixels)](
                        points.of(p).at(0, 0, y), inputs, &packed_at[p * each() + c * inputs * 3],
                        {reinterpret_cast<float *>(sums[p]), pixels * LANES, 0}, nullptr, 0);
                for (int i = 0; i < channels; i++)
                    for (int j = 0; j < pixels; j++) {
                        Lanes values[BLOCK] = {};
                        EACH (n, BLOCK)
                            EACH (p, POINTS)
                                if (OUTPUTS[p][n] != 0) values[n] += sums[p][i * pixels + j] * OUTPUTS[p][n];
                        if (finish) (*finish)(c + i, values);
                        EACH (n, BLOCK) out.at(c + i, y + j, x)(0, n) = values[n];
                    }
            });
        }
        const int rest = columns * BLOCK;
        convolve(in.at(0, 0, rest), inputs, k, packed.data(), out.at(0, 0, rest), outputs, side, side - rest, finish);
    }

    // Adds up the gradient of the weights, (outputs, inputs, k, k) of Lanes; a part of it waits for `collect`.
    void add_gradient(View in, View grad, Lanes *sums) {
        static thread_local AtPoints read, given;
        const int bytes = POINTS * (inputs + outputs) * (side + 2) * (int)sizeof(Lanes), rest = columns * BLOCK;
        in_parts(columns, std::max(1, CACHE / bytes), [&](int first, int count) {
            read.fill<INPUTS>(in.at(0, 0, first * BLOCK), inputs, count, side + 2);
            given.fill<OUTPUTS>(grad.at(0, 0, first * BLOCK), outputs, count, side);
            for (int p = 0; p < POINTS; p++)
                correlate(read.of(p), inputs, 1, 3, given.of(p), outputs, count, side, &sums_at[p * each()]);
        });
        if (rest == side) return;
        correlate(in.at(0, 0, rest), inputs, k, k, grad.at(0, 0, rest), outputs, side, side - rest, sums);
    }

    void collect(Lanes *sums) {
        for (int i = 0; i < (int)sums_at.size(); i++)
            EACH (x, 3) sums[3 * (i % each()) + x] += sums_at[i] * KERNEL[i / each()][x];
    }
};
