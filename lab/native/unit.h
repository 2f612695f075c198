// A unit of a network: a convolution, what follows it pixel by pixel, and the pooling after them.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels.h"
#include "philox.h"

constexpr float EPSILON = 1e-5f;

struct alignas(64) Block {
    float values[LANES];
};

// Feature maps of a batch, (groups, channels, height, width, 16), with a border that stays zero.
struct Maps {
    int channels = 0, height = 0, width = 0, border = 0;
    Stride stride{};
    std::vector<Block> data;

    void allocate(int groups, int channels_, int height_, int width_, int border_) {
        channels = channels_, height = height_, width = width_, border = border_;
        stride.row = (width + 2 * border) * LANES;
        stride.plane = (height + 2 * border) * stride.row;
        data.assign((size_t)groups * channels * stride.plane / LANES, Block{});
    }
    // Row and column `-margin` of a group's first channel.
    float *at(int group, int margin = 0) {
        return data[0].values + group * channels * stride.plane + (border - margin) * (stride.row + LANES);
    }
};

enum Kind { FULL = 0, SEPARABLE = 1, POINTWISE = 2 };
enum Post { NONE = 0, MAX = 1, AVERAGE = 2, GLOBAL = 3 };

// Python's description of a unit, in the order in which it acts: a convolution, ReLU, batch normalisation, another
// ReLU, dropout, pooling. Only the convolution is required. Offsets count from the first weight or statistic; -1 is
// none. `side` is that of the convolution's output maps; `dropped` of 65536 activations are dropped.
struct Description {
    int64_t kind, inputs, outputs, padding, side, weight, pointwise, bias, relu_first, scale, shift, statistics,
        relu_last, dropped, post;
};

float sum_of(const Lanes &v) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

// A ReLU passes what is above this; without a ReLU everything is.
inline Lanes floor_of(bool relu) { return Lanes{} - (relu ? 0.0f : std::numeric_limits<float>::infinity()); }
inline Lanes above(Lanes floor, Lanes v) { return v < floor ? floor : v; }  // NaN stays NaN

struct Unit : Description {
    Maps raw, out, grad_out;             // of the batch; raw is what normalisation reads
    Maps middle, grad_middle, grad_raw;  // of one group of 16 images: small enough for the cache
    std::vector<Lanes> sums, grad_sums;  // two per channel: see convolve_group and add_gradient
    std::vector<Bits> masks;
    bool dropping = false;
    float survival = 1;  // factor of the activations that are kept
    std::vector<float> slope, offset, mean, by_raw, constant, packed, packed_back;

    // `padding_after` is the border that the next unit needs around the maps it reads.
    void allocate(const Description &description, int groups, int padding_after) {
        static_cast<Description &>(*this) = description;
        int height = (int)side, width = (int)side;
        int back = kind == POINTWISE ? 0 : 2 - (int)padding;  // border that the gradient needs
        raw.allocate(groups, outputs, height, width, 0);
        grad_raw.allocate(1, outputs, height, width, kind == FULL ? back : 0);
        if (kind == SEPARABLE) {
            middle.allocate(1, inputs, height, width, 0);
            grad_middle.allocate(1, inputs, height, width, back);
        }
        if (dropped) masks.resize((size_t)groups * outputs * ((count() + 31) / 32));
        survival = 65536.0f / (65536 - dropped);
        if (post == MAX || post == AVERAGE) height /= 2, width /= 2;
        if (post == GLOBAL) height = width = 1;
        out.allocate(groups, outputs, height, width, padding_after);
        grad_out.allocate(groups, outputs, height, width, 0);
        sums.resize(2 * outputs), grad_sums.resize(2 * outputs);
        for (auto *values : {&slope, &offset, &mean, &by_raw, &constant}) values->resize(outputs);
        packed.resize(inputs * outputs * (kind == FULL ? 9 : 1));
        packed_back.resize(packed.size());
    }

    int count() const { return raw.height * raw.width; }
    bool normalised() const { return scale >= 0; }
    bool finished() const { return bias < 0 && !relu_first; }  // as soon as the convolution is

    bool deep() const { return kind == FULL && inputs > 1; }

    // Offset of the weights that mix all channels.
    int64_t mixing() const { return kind == SEPARABLE ? pointwise : weight; }

    void prepare(const float *parameters) {
        int k = kind == FULL ? 3 : 1;
        pack(parameters + mixing(), outputs, inputs, k, false, packed.data());
        pack(parameters + mixing(), outputs, inputs, k, true, packed_back.data());
    }

    // Convolution of one group, with what comes before the normalisation; adds up the statistics of its output if
    // `totals` are given.
    void convolve_group(Maps &in, int group, const float *parameters, Lanes *totals) {
        const float *from = kind == FULL ? in.at(group, padding) : between(in, group, parameters);
        const Stride stride = kind == SEPARABLE ? middle.stride : in.stride;
        bool by_rows = deep() || !finished();  // a row is still in the cache when the rest is done to it
        for (int y = 0, rows = by_rows ? 1 : raw.height; y < raw.height; y += rows) {
            float *to = raw.at(group) + y * raw.stride.row;
            const float *first = from + y * stride.row;
            if (deep())
                convolve_deep(first, stride, inputs, packed.data(), to, raw.stride, outputs, rows, raw.width);
            else
                (kind == FULL ? convolve<3> : convolve<1>)(first, stride, inputs, packed.data(), to, raw.stride,
                                                           outputs, rows, raw.width, by_rows ? nullptr : totals);
            if (by_rows) finish_row(to, parameters, totals);
        }
    }

    void finish_row(float *row, const float *parameters, Lanes *totals) {
        const Lanes floor = floor_of(relu_first);
        for (int c = 0; c < outputs; c++) {
            const float added = bias < 0 ? 0 : parameters[bias + c];
            Lanes sum = {}, squares = {};
            for (int x = 0; x < raw.width; x++) {
                Lanes &v = lanes(row + c * raw.stride.plane + x * LANES);
                v = above(floor, v + added);
                sum += v, squares += v * v;
            }
            if (totals) totals[2 * c] += sum, totals[2 * c + 1] += squares;
        }
    }

    // What the 1x1 convolution of a unit reads. Recomputing it in the backward pass is cheaper than keeping it.
    float *between(Maps &in, int group, const float *parameters) {
        if (kind != SEPARABLE) return in.at(group);
        depthwise(in.at(group, padding), in.stride, parameters + weight, false, middle.at(0), middle.stride, inputs,
                  raw.height, raw.width);
        return middle.at(0);
    }

    void set(int c, const float *parameters, float average, float variance) {
        mean[c] = average;
        slope[c] = parameters[scale + c] / std::sqrt(variance + EPSILON);
        offset[c] = parameters[shift + c] - slope[c] * average;
    }

    void set_none(int c) { mean[c] = offset[c] = 0, slope[c] = 1; }

    // Draws what dropout keeps of a group: 16 random bits per activation, eight activations per counter.
    void draw(int group, uint32_t number, uint64_t key) {
        const Bits image = Bits{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + (uint32_t)(group * LANES);
        const uint32_t threshold = (uint32_t)dropped << 16;
        for (uint32_t c = 0; c < outputs; c++)
            for (uint32_t pixel = 0; pixel < (uint32_t)count(); pixel += 8) {
                Bits words[4] = {image, Bits{} + c, Bits{} + pixel, Bits{} + number}, bits = {};
                philox(words, key);
#pragma GCC unroll 8
                for (int i = 0; i < 8; i++)
                    bits |= (i % 2 ? words[i / 2] : words[i / 2] << 16) >= threshold ? Bits{} + (1u << i) : Bits{};
                Bits &kept = mask(group, c)[pixel / 32];
                kept = pixel % 32 ? kept | bits << pixel % 32 : bits;
            }
    }

    // For a channel: bit p % 32 of a lane of element p / 32 tells whether pixel p is kept.
    Bits *mask(int group, int c) { return &masks[(group * outputs + c) * ((count() + 31) / 32)]; }

    // Activations, or their gradient, after dropout: survivors are scaled, the others become 0.
    Lanes drop(const Lanes &v, const Bits *mask, unsigned pixel) const {
        return (mask[pixel / 32] & 1u << pixel % 32) != 0 ? v * survival : Lanes{};
    }

    void activate(int group) { dropping ? activate<true>(group) : activate<false>(group); }

    template <bool DROPPING>
    void activate(int group) {
        const Lanes floor = floor_of(relu_last);
        for (int c = 0; c < outputs; c++) {
            const float a = slope[c], b = offset[c];
            const float *from = raw.at(group) + c * raw.stride.plane;
            const Bits *kept = DROPPING ? mask(group, c) : nullptr;
            float *to = out.at(group) + c * out.stride.plane;
            auto value = [&](int y, int x) {
                Lanes v = above(floor, lanes(from + y * raw.stride.row + x * LANES) * a + b);
                return DROPPING ? drop(v, kept, y * raw.width + x) : v;
            };
            if (post == NONE) {
                for (int y = 0; y < raw.height; y++)
                    for (int x = 0; x < raw.width; x++) lanes(to + y * out.stride.row + x * LANES) = value(y, x);
            } else if (post == GLOBAL) {
                Lanes sum = {};
                for (int y = 0; y < raw.height; y++)
                    for (int x = 0; x < raw.width; x++) sum += value(y, x);
                lanes(to) = sum / (float)count();
            } else {
                for (int y = 0; y < out.height; y++)
                    for (int x = 0; x < out.width; x++) {
                        Lanes q[4], r;
                        for (int i = 0; i < 4; i++) q[i] = value(2 * y + i / 2, 2 * x + i % 2);
                        if (post == MAX) {
                            Lanes s = q[0] > q[1] ? q[0] : q[1], t = q[2] > q[3] ? q[2] : q[3];
                            r = s > t ? s : t;
                        } else
                            r = (q[0] + q[1] + q[2] + q[3]) * 0.25f;
                        lanes(to + y * out.stride.row + x * LANES) = r;
                    }
            }
        }
    }

    // Calls body(y, x, raw value, gradient) for every pixel of channel c: the gradient of normalisation's output.
    template <class Body>
    void visit(int group, int c, Body body) {
        dropping ? visit<true>(group, c, body) : visit<false>(group, c, body);
    }

    template <bool DROPPING, class Body>
    void visit(int group, int c, Body body) {
        const Lanes zero = {}, floor = floor_of(relu_last);
        const float a = slope[c], b = offset[c];
        const float *from = raw.at(group) + c * raw.stride.plane, *grad = grad_out.at(group) + c * grad_out.stride.plane;
        const Bits *kept = DROPPING ? mask(group, c) : nullptr;
        const long row = raw.stride.row, grad_row = grad_out.stride.row;
        auto keep = [&](Lanes v, int y, int x) { return DROPPING ? drop(v, kept, y * raw.width + x) : v; };
        if (post == NONE) {
            for (int y = 0; y < raw.height; y++)
                for (int x = 0; x < raw.width; x++) {
                    Lanes z = lanes(from + y * row + x * LANES), d = keep(lanes(grad + y * grad_row + x * LANES), y, x);
                    body(y, x, z, z * a + b > floor ? d : zero);
                }
        } else if (post == GLOBAL) {
            Lanes d = lanes(grad) / (float)count();
            for (int y = 0; y < raw.height; y++)
                for (int x = 0; x < raw.width; x++) {
                    Lanes z = lanes(from + y * row + x * LANES);
                    body(y, x, z, z * a + b > floor ? keep(d, y, x) : zero);
                }
        } else {
            for (int y = 0; y < out.height; y++)
                for (int x = 0; x < out.width; x++) {
                    const float *p = from + 2 * y * row + 2 * x * LANES;
                    Lanes z[4] = {lanes(p), lanes(p + LANES), lanes(p + row), lanes(p + row + LANES)}, v[4];
                    Lanes d = lanes(grad + y * grad_row + x * LANES);
                    for (int i = 0; i < 4; i++) v[i] = keep(z[i] * a + b, 2 * y + i / 2, 2 * x + i % 2);
                    if (post == MAX) {
                        Lanes s = v[0] > v[1] ? v[0] : v[1], t = v[2] > v[3] ? v[2] : v[3], most = s > t ? s : t;
                        d = most > floor ? d : zero;
                        for (int i = 0; i < 4; i++) {  // the first of equal ones, as torch does
                            auto hit = v[i] == most;
                            int y_ = 2 * y + i / 2, x_ = 2 * x + i % 2;
                            body(y_, x_, z[i], keep(hit ? d : zero, y_, x_));
                            d = hit ? zero : d;
                        }
                    } else
                        for (int i = 0; i < 4; i++) {
                            int y_ = 2 * y + i / 2, x_ = 2 * x + i % 2;
                            body(y_, x_, z[i], v[i] > floor ? keep(d * 0.25f, y_, x_) : zero);
                        }
                }
            for (int y = 0; y < raw.height; y++)  // what pooling left out at odd sizes
                for (int x = y < 2 * out.height ? 2 * out.width : 0; x < raw.width; x++)
                    body(y, x, lanes(from + y * row + x * LANES), zero);
        }
    }

    // Adds up the gradient of normalisation's output, and its product with the input, over the pixels of a group.
    void add_gradient(int group) {
        for (int c = 0; c < outputs && normalised(); c++) {
            Lanes sum = grad_sums[2 * c], product = grad_sums[2 * c + 1];
            visit(group, c, [&](int, int, const Lanes &z, const Lanes &d) { sum += d, product += d * z; });
            grad_sums[2 * c] = sum, grad_sums[2 * c + 1] = product;
        }
    }

    // The gradient of normalisation's scale and shift, and what it passes on: d * slope + raw * by_raw + constant.
    void backward_norm(const float *parameters, int groups, float *gradient) {
        float n = (float)groups * LANES * count();
        for (int c = 0; c < outputs && normalised(); c++) {
            float factor = parameters[scale + c], inverse = slope[c] / factor, total = sum_of(grad_sums[2 * c]);
            if (factor == 0) inverse = 0;
            float along = inverse * (sum_of(grad_sums[2 * c + 1]) - mean[c] * total);
            gradient[scale + c] += along, gradient[shift + c] += total;
            by_raw[c] = -slope[c] * inverse * along / n;
            constant[c] = -slope[c] * total / n - by_raw[c] * mean[c];
        }
    }

    // The gradient of the convolution output of one group, into grad_raw; adds up that of its bias.
    void backward_pixels(int group, std::vector<Lanes> &grad) {
        const Lanes zero = {}, floor = floor_of(relu_first);
        for (int c = 0; c < outputs; c++) {
            float *to = grad_raw.at(0) + c * grad_raw.stride.plane;
            const float a = slope[c], b = by_raw[c], k = constant[c];
            if (finished())
                visit(group, c, [&](int y, int x, const Lanes &z, const Lanes &d) {
                    lanes(to + y * grad_raw.stride.row + x * LANES) = d * a + z * b + k;
                });
            else {
                Lanes sum = {};
                visit(group, c, [&](int y, int x, const Lanes &z, const Lanes &d) {
                    Lanes passed = d * a + z * b + k;
                    passed = z > floor ? passed : zero;
                    lanes(to + y * grad_raw.stride.row + x * LANES) = passed, sum += passed;
                });
                if (bias >= 0) grad[bias + c] += sum;
            }
        }
    }

    // Backward pass through the convolution of one group, from grad_raw; adds up the gradient of its weights.
    void backward_convolution(Maps &in, int g, const float *parameters, Maps *grad_in, std::vector<Lanes> &grad) {
        int h = raw.height, w = raw.width;
        if (kind == FULL) {
            (deep() ? correlate_deep : correlate<3>)(in.at(g, padding), in.stride, inputs, grad_raw.at(0),
                                                     grad_raw.stride, outputs, h, w, &grad[weight]);
            if (grad_in)
                convolve_deep(grad_raw.at(0, 2 - padding), grad_raw.stride, outputs, packed_back.data(), grad_in->at(g),
                              grad_in->stride, inputs, grad_in->height, grad_in->width);
            return;
        }
        bool separable = kind == SEPARABLE;
        correlate<1>(between(in, g, parameters), separable ? middle.stride : in.stride, inputs, grad_raw.at(0),
                     grad_raw.stride, outputs, h, w, &grad[mixing()]);
        if (Maps *target = separable ? &grad_middle : grad_in)
            convolve<1>(grad_raw.at(0), grad_raw.stride, outputs, packed_back.data(), target->at(separable ? 0 : g),
                        target->stride, inputs, h, w, nullptr);
        if (separable) {
            depthwise_correlate(in.at(g, padding), in.stride, grad_middle.at(0), grad_middle.stride, inputs, h, w,
                                &grad[weight]);
            if (grad_in)
                depthwise(grad_middle.at(0, 2 - padding), grad_middle.stride, parameters + weight, true, grad_in->at(g),
                          grad_in->stride, inputs, grad_in->height, grad_in->width);
        }
    }
};
