// A unit of a network: a convolution, what follows it pixel by pixel, and the pooling after them.
#pragma once
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "philox.h"
#include "winograd.h"

constexpr float EPSILON = 1e-5f;

// Feature maps, (groups, channels, side, side, LANES), with a border that stays zero.
struct Maps {
    int side = 0, border = 0;
    int plane = 0, row = 0;
    long group = 0;  // distances between neighbours, in floats
    std::vector<Lanes> data;

    // `room` is what a group takes at least.
    void allocate(int groups, int channels, int side_, int border_, long room = 0) {
        side = side_, border = std::max(0, border_);  // negative padding cuts pixels off
        row = (side + 2 * border) * LANES;
        plane = (side + 2 * border) * row;
        group = std::max((long)channels * plane, room);
        data.assign(groups * group / LANES, Lanes{});
    }
    View of(int number = 0) {
        return {reinterpret_cast<float *>(data.data()) + number * group + border * (row + LANES), plane, row};
    }
};

enum Post { NONE = 0, MAX = 1, AVERAGE = 2, GLOBAL = 3 };

// Python's description of a unit, in the order in which it acts: a convolution of `size` pixels each way, ReLU, batch
// normalisation, another ReLU, dropout, pooling. Only the convolution is required; if it is `separable`, 3x3 on every
// channel by itself comes before a 1x1. Offsets count from the first weight or statistic; -1 is none. `side` is that of
// the convolution's output maps; `dropped` of 65536 activations are dropped.
struct Description {
    int64_t separable, size, inputs, outputs, padding, side, weight, pointwise, bias, relu_first, scale, shift,
        statistics, relu_last, dropped, post;
};

// Calls body with the flag as a type, so that what it decides costs nothing in inner loops.
template <class Body>
void as_type(bool flag, Body body) {
    flag ? body(std::true_type{}) : body(std::false_type{});
}

// Sums of pixels, which alternate between two vectors: an addition takes as long as handling two pixels.
template <int I>
using Slot = std::integral_constant<int, I>;
struct Sum {
    Lanes parts[2] = {};
    Lanes total() const { return parts[0] + parts[1]; }
};
template <class Body>
__attribute__((always_inline)) inline void alternate(int count, Body body) {  // body(slot, x)
    int x = 0;
    for (; x + 1 < count; x += 2) body(Slot<0>{}, x), body(Slot<1>{}, x + 1);
    if (x < count) body(Slot<0>{}, x);
}

struct Unit : Description {
    Maps raw;  // of the batch: what normalisation reads; in the backward pass, grad_in takes its place
    // Of one group: what the next unit reads; what a separable one has in its middle, and its gradient; that of raw.
    Maps out, middle, grad_middle, grad_raw;
    int side_in = 0, window = 1;         // pixels each way: of what it reads, of the pooling
    std::vector<Lanes> sums, grad_sums;  // two per channel: see Finish and add_gradient
    std::vector<uint16_t> kept;          // by dropout; see kept_of
    bool dropping = false;
    float survival = 1;  // factor of the activations that are kept
    std::vector<float> slope, offset, mean, inverse, by_raw, constant, zeros;
    Convolution ahead, back;  // the one that mixes channels, and its gradient

    // It reads maps of `side_in_` pixels each way; the next unit needs a border of `padding_after` around its own.
    void allocate(const Description &description, int groups, int side_in_, int padding_after) {
        static_cast<Description &>(*this) = description;
        side_in = side_in_;
        window = post == NONE ? 1 : post == GLOBAL ? (int)side : 2;
        const int border = (int)(separable ? 3 : size) - 1 - (int)padding;  // that the gradient needs
        raw.allocate(groups, outputs, side, 0, inputs * side_in * side_in * LANES);
        out.allocate(1, outputs, side / window, padding_after);
        grad_raw.allocate(1, outputs, side, separable ? 0 : border);
        middle.allocate(1, inputs, separable ? side : 1, 0);
        grad_middle.allocate(1, inputs, separable ? side : 1, border);
        if (dropped) kept.resize(groups * outputs * counted());
        survival = 65536.0f / (65536 - dropped);
        sums.resize(2 * outputs), grad_sums.resize(2 * outputs);
        slope.assign(outputs, 1);
        for (auto *values : {&offset, &mean, &inverse, &by_raw, &constant, &zeros}) values->assign(outputs, 0);
        ahead.allocate((int)inputs, (int)outputs, (int)size, (int)side, false);
        back.allocate((int)outputs, (int)inputs, (int)size, separable ? (int)side : side_in, true);
    }

    // The gradient of the maps that a group was read from.
    View grad_in(int group) {
        const int row = side_in * LANES;
        return {raw.of(group).first, side_in * row, row};
    }

    int count() const { return (int)(side * side); }
    int counted() const { return (count() + 7) / 8 * 8; }  // with room for whole draws
    bool normalised() const { return scale >= 0; }

    int64_t mixing() const { return separable ? pointwise : weight; }  // offset of the weights that mix channels

    void prepare(const float *parameters) {
        ahead.prepare(parameters + mixing()), back.prepare(parameters + mixing());
        for (auto *values : {&sums, &grad_sums}) std::fill(values->begin(), values->end(), Lanes{});
    }

    // Convolution of one group, bias and first ReLU; adds up sums and squares. Lanes that hold no image stay 0.
    void convolve_group(View in, int group, Lanes present, const float *parameters) {
        const float floor = relu_first ? 0 : -std::numeric_limits<float>::infinity();
        const Finish finish{bias < 0 ? zeros.data() : parameters + bias, present, Lanes{} + floor, sums.data()};
        ahead.run(between(in, parameters), raw.of(group), &finish);
    }

    // What the convolution that mixes channels reads. Recomputing it in the backward pass is cheaper than keeping it.
    View between(View in, const float *parameters) {
        const View from = in.at(0, -padding, -padding);
        if (!separable) return from;
        depthwise(from, parameters + weight, false, middle.of(), inputs, side);
        return middle.of();
    }

    // slope * raw + offset is the normalised map; without normalisation it is the raw one.
    void set(int c, const float *parameters, float average, float variance) {
        const float factor = parameters[scale + c], deviation = std::sqrt(variance + EPSILON);
        mean[c] = average, slope[c] = factor / deviation;
        inverse[c] = factor == 0 ? 1 / deviation : slope[c] / factor;
        offset[c] = parameters[shift + c] - slope[c] * average;
    }

    // Draws what dropout keeps of a group: 16 random bits per activation, eight activations per counter.
    void draw(int group, uint32_t number, uint64_t key) {
        Bits image;
        for (int n = 0; n < LANES; n++) image[n] = (uint32_t)(group * LANES + n);
        for (uint32_t c = 0; c < outputs; c++)
            for (uint32_t pixel = 0; pixel < (uint32_t)count(); pixel += 8) {
                Bits words[4] = {image, Bits{} + c, Bits{} + pixel, Bits{} + number};
                philox(words, key);
                EACH (i, 8)
                    kept_of(group, c)[pixel + i] =
                        at_least(i % 2 ? words[i / 2] : words[i / 2] << 16, (uint32_t)dropped << 16);
            }
    }

    // For a channel: bit n of element p tells whether pixel p of image n is kept.
    uint16_t *kept_of(int group, int c) { return &kept[(group * outputs + c) * counted()]; }

    // One channel of a group, as its pixels are before pooling. `Drops` and `Rectifies` say what there is to do.
    template <class Drops, class Rectifies>
    struct Channel {
        View from;
        const uint16_t *keeps;
        int width;
        float slope, survival;
        Lanes offset;

        Lanes raw(int y, int x) const { return from.at(0, y, x)(0, 0); }
        Lanes normal(int y, int x) const { return raw(y, x) * slope + offset; }
        Lanes keep(Lanes v, int y, int x) const {
            if (Drops{}) v = where(keeps[y * width + x], v * survival);
            return v;
        }
        Lanes value(int y, int x) const {
            return keep(Rectifies{} ? larger(Lanes{}, normal(y, x)) : normal(y, x), y, x);
        }
        // Gradient of the normalised pixel, from that of its value.
        Lanes back(Lanes d, int y, int x) const {
            d = keep(d, y, x);
            return Rectifies{} ? (normal(y, x) > Lanes{} ? d : Lanes{}) : d;
        }
    };

    // Calls body(c, channel) for every channel of a group.
    template <class Body>
    void each_channel(int group, Lanes present, Body body) {
        as_type(dropping, [&](auto drops) {
            as_type(relu_last, [&](auto rectifies) {
                for (int c = 0; c < outputs; c++)
                    body(c, Channel<decltype(drops), decltype(rectifies)>{
                                raw.of(group).at(c, 0, 0), drops ? kept_of(group, c) : nullptr, (int)side, slope[c],
                                survival, offset[c] * present});
            });
        });
    }

    // Normalisation and what follows, for one group, into `out`.
    void activate(int group, Lanes present) {
        each_channel(group, present, [&](int c, auto channel) {
            auto fill = [&](auto pooled) {
                for (int y = 0; y < out.side; y++) {
                    const View row = out.of().at(c, y, 0);
                    for (int x = 0; x < out.side; x++) row(0, x) = pooled(y, x);
                }
            };
            if (post == NONE)
                fill([&](int y, int x) { return channel.value(y, x); });
            else if (post == MAX)
                fill([&](int y, int x) {
                    return larger(larger(channel.value(2 * y, 2 * x), channel.value(2 * y, 2 * x + 1)),
                                  larger(channel.value(2 * y + 1, 2 * x), channel.value(2 * y + 1, 2 * x + 1)));
                });
            else
                fill([&](int y, int x) {
                    Lanes sum = {};
                    for (int i = y * window; i < (y + 1) * window; i++)
                        for (int j = x * window; j < (x + 1) * window; j++) sum += channel.value(i, j);
                    return sum * (1.0f / (window * window));
                });
        });
    }

    // Calls body(slot, y, x, gradient) for every pixel of a channel: the gradient of normalisation's output.
    template <class Channel, class Body>
    void each_gradient(View grad_out, int c, const Channel &channel, Body body) {
        const float share = 1.0f / (window * window);
        for (int y = 0; y < out.side; y++) {
            const View grad = grad_out.at(c, y, 0);
            if (post == NONE)
                alternate(raw.side, [&](auto slot, int x) { body(slot, y, x, channel.back(grad(0, x), y, x)); });
            else if (post == MAX)
                for (int x = 0; x < out.side; x++) {
                    Lanes v[4], d = grad(0, x);
                    for (int i = 0; i < 4; i++) v[i] = channel.value(2 * y + i / 2, 2 * x + i % 2);
                    const Lanes most = larger(larger(v[0], v[1]), larger(v[2], v[3]));
                    auto pass = [&](auto slot, int i) {  // to the first of equal ones, as torch does
                        auto hit = v[i] == most;
                        body(slot, 2 * y + i / 2, 2 * x + i % 2,
                             channel.back(hit ? d : Lanes{}, 2 * y + i / 2, 2 * x + i % 2));
                        d = hit ? Lanes{} : d;
                    };
                    pass(Slot<0>{}, 0), pass(Slot<1>{}, 1), pass(Slot<0>{}, 2), pass(Slot<1>{}, 3);
                }
            else
                for (int x = 0; x < out.side; x++)
                    for (int i = y * window; i < (y + 1) * window; i++)
                        alternate(window, [&](auto slot, int j) {
                            const int at = x * window + j;
                            body(slot, i, at, channel.back(grad(0, x) * share, i, at));
                        });
        }
        for (int y = 0; y < raw.side; y++)  // what pooling left out at odd sizes
            for (int x = y < window * out.side ? window * out.side : 0; x < raw.side; x++)
                body(Slot<0>{}, y, x, Lanes{});
    }

    // Adds up the gradient of normalisation's output, and its product with the input, over the pixels of a group.
    void add_gradient(int group, Lanes present, View grad_out) {
        if (!normalised()) return;
        each_channel(group, present, [&](int c, auto channel) {
            Sum sum, product;
            each_gradient(grad_out, c, channel, [&](auto slot, int y, int x, Lanes d) {
                sum.parts[slot] += d, product.parts[slot] += d * channel.raw(y, x);
            });
            grad_sums[2 * c] += sum.total(), grad_sums[2 * c + 1] += product.total();
        });
    }

    // The gradient of normalisation's scale and shift, and what it passes on: d * slope + raw * by_raw + constant.
    void backward_norm(int images, float *gradient) {
        float n = (float)images * count();
        for (int c = 0; c < outputs && normalised(); c++) {
            float total = sum_of(grad_sums[2 * c]);
            float along = inverse[c] * (sum_of(grad_sums[2 * c + 1]) - mean[c] * total);
            gradient[scale + c] += along, gradient[shift + c] += total;
            by_raw[c] = -slope[c] * inverse[c] * along / n;
            constant[c] = -slope[c] * total / n - by_raw[c] * mean[c];
        }
    }

    // The gradient of the convolution output of one group, into grad_raw; adds up that of its bias.
    void backward_pixels(int group, Lanes present, View grad_out, std::vector<Lanes> &grad) {
        each_channel(group, present, [&](int c, auto channel) {
            const View to = grad_raw.of();
            const float a = slope[c], b = by_raw[c];
            const Lanes k = constant[c] * present;
            Sum sum;
            as_type(relu_first, [&](auto rectifies) {
                each_gradient(grad_out, c, channel, [&](auto slot, int y, int x, Lanes d) {
                    const Lanes z = channel.raw(y, x);
                    Lanes passed = d * a + (z * b + k);
                    if (rectifies) passed = z > Lanes{} ? passed : Lanes{};
                    to.at(c, y, x)(0, 0) = passed, sum.parts[slot] += passed;
                });
            });
            if (bias >= 0) grad[bias + c] += sum.total();
        });
    }

    // Backward pass through the convolution of one group, from grad_raw: adds up the gradient of its weights, and,
    // unless it reads the image, writes that of what it read.
    void backward_convolution(View in, int group, const float *parameters, bool first, std::vector<Lanes> &grad) {
        const View mixed = grad_raw.of(), each = grad_middle.of(), to = grad_in(group);
        const int border = separable ? grad_middle.border : grad_raw.border;
        ahead.add_gradient(between(in, parameters), mixed, &grad[mixing()]);
        if (separable) {
            back.run(mixed, each);
            depthwise_correlate(in.at(0, -padding, -padding), each, inputs, side, &grad[weight]);
        }
        if (first) return;
        if (separable)
            depthwise(each.at(0, -border, -border), parameters + weight, true, to, inputs, side_in);
        else
            back.run(mixed.at(0, -border, -border), to);
    }
};
