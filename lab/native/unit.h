// A unit of a network: convolution, batch normalisation, ReLU, and the pooling behind them.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels.h"

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

// What Python describes of a unit: convolution, batch normalisation, ReLU, pooling. Offsets count from the first
// weight.
struct Description {
    int64_t kind, inputs, outputs, padding, post, weight, pointwise, scale, shift, statistics;
};

float sum_of(const Lanes &v) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

struct Unit : Description {
    Maps raw, out, grad_out;             // of the batch
    Maps middle, grad_middle, grad_raw;  // of one group of 16 images: small enough for the cache
    std::vector<Lanes> sums;
    std::vector<float> slope, offset, mean, by_raw, constant, packed, packed_back;

    // Takes its shape from the maps that it reads; `padding_after` is what the next unit wants around them.
    void allocate(const Description &description, const Maps &in, int groups, int padding_after) {
        static_cast<Description &>(*this) = description;
        int shrink = kind == POINTWISE ? 0 : 2 - 2 * (int)padding, height = in.height - shrink,
            width = in.width - shrink;
        int back = kind == POINTWISE ? 0 : 2 - (int)padding;  // border that the gradient needs on its way back
        raw.allocate(groups, outputs, height, width, 0);
        grad_raw.allocate(1, outputs, height, width, kind == FULL ? back : 0);
        if (kind == SEPARABLE) {
            middle.allocate(1, inputs, height, width, 0);
            grad_middle.allocate(1, inputs, height, width, back);
        }
        if (post == MAX || post == AVERAGE) height /= 2, width /= 2;
        if (post != GLOBAL) {
            out.allocate(groups, outputs, height, width, padding_after);
            grad_out.allocate(groups, outputs, height, width, 0);
        }
        sums.resize(2 * outputs);
        for (auto *values : {&slope, &offset, &mean, &by_raw, &constant}) values->resize(outputs);
        packed.resize(inputs * outputs * (kind == FULL ? 9 : 1));
        packed_back.resize(packed.size());
    }

    int count() const { return raw.height * raw.width; }

    // Offset of the weights that go from all channels to all channels.
    int64_t mixing() const { return kind == SEPARABLE ? pointwise : weight; }

    void prepare(const float *parameters) {
        int k = kind == FULL ? 3 : 1;
        pack(parameters + mixing(), outputs, inputs, k, false, packed.data());
        pack(parameters + mixing(), outputs, inputs, k, true, packed_back.data());
    }

    // Convolution of one group; adds up the statistics of what comes out if `totals` are given.
    void convolve_group(Maps &in, int group, const float *parameters, Lanes *totals) {
        if (kind == FULL)
            convolve<3>(in.at(group, padding), in.stride, inputs, packed.data(), raw.at(group), raw.stride, outputs,
                        raw.height, raw.width, totals);
        else
            convolve<1>(between(in, group, parameters), kind == SEPARABLE ? middle.stride : in.stride, inputs,
                        packed.data(), raw.at(group), raw.stride, outputs, raw.height, raw.width, totals);
    }

    // What the 1x1 convolution of a unit reads. Computing it again on the way back is cheaper than keeping it.
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

    void activate(int group, Lanes *feature) {
        const Lanes zero = {};
        for (int c = 0; c < outputs; c++) {
            const float a = slope[c], b = offset[c];
            const float *from = raw.at(group) + c * raw.stride.plane;
            float *to = post == GLOBAL ? nullptr : out.at(group) + c * out.stride.plane;
            long row = raw.stride.row;
            auto relu = [&](const float *place) {
                Lanes v = lanes(place) * a + b;
                return v < zero ? zero : v;  // what is no number stays none
            };
            if (post == NONE) {
                for (int y = 0; y < raw.height; y++)
                    for (int x = 0; x < raw.width; x++)
                        lanes(to + y * out.stride.row + x * LANES) = relu(from + y * row + x * LANES);
            } else if (post == GLOBAL) {
                Lanes sum = {};
                for (int p = 0; p < count(); p++) sum += relu(from + p * LANES);
                feature[c] = sum / (float)count();
            } else {
                for (int y = 0; y < out.height; y++)
                    for (int x = 0; x < out.width; x++) {
                        const float *p = from + 2 * y * row + 2 * x * LANES;
                        Lanes q[4] = {relu(p), relu(p + LANES), relu(p + row), relu(p + row + LANES)}, r;
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

    // Calls body(place, raw value, gradient) for every pixel of channel c: the gradient before normalisation's output.
    template <class Body>
    void visit(int group, int c, const Block *grad_features, Body body) {
        const Lanes zero = {};
        const float a = slope[c], b = offset[c];
        const float *from = raw.at(group) + c * raw.stride.plane;
        const float *grad = post == GLOBAL ? nullptr : grad_out.at(group) + c * grad_out.stride.plane;
        const long row = raw.stride.row, grad_row = grad_out.stride.row;
        if (post == NONE) {
            for (int y = 0; y < raw.height; y++)
                for (int x = 0; x < raw.width; x++) {
                    Lanes z = lanes(from + y * row + x * LANES), d = lanes(grad + y * grad_row + x * LANES);
                    body(y, x, z, z * a + b > zero ? d : zero);
                }
        } else if (post == GLOBAL) {
            Lanes d = lanes(grad_features[group * outputs + c].values) / (float)count();
            for (int y = 0; y < raw.height; y++)
                for (int x = 0; x < raw.width; x++) {
                    Lanes z = lanes(from + y * row + x * LANES);
                    body(y, x, z, z * a + b > zero ? d : zero);
                }
        } else {
            for (int y = 0; y < out.height; y++)
                for (int x = 0; x < out.width; x++) {
                    const float *p = from + 2 * y * row + 2 * x * LANES;
                    Lanes z[4] = {lanes(p), lanes(p + LANES), lanes(p + row), lanes(p + row + LANES)}, v[4];
                    Lanes d = lanes(grad + y * grad_row + x * LANES);
                    for (int i = 0; i < 4; i++) v[i] = z[i] * a + b;
                    if (post == MAX) {
                        Lanes s = v[0] > v[1] ? v[0] : v[1], t = v[2] > v[3] ? v[2] : v[3], most = s > t ? s : t;
                        d = most > zero ? d : zero;
                        for (int i = 0; i < 4; i++) {  // the first of equal ones, as torch does
                            auto hit = v[i] == most;
                            body(2 * y + i / 2, 2 * x + i % 2, z[i], hit ? d : zero);
                            d = hit ? zero : d;
                        }
                    } else
                        for (int i = 0; i < 4; i++)
                            body(2 * y + i / 2, 2 * x + i % 2, z[i], v[i] > zero ? d * 0.25f : zero);
                }
            for (int y = 0; y < raw.height; y++)  // what pooling left out at odd sizes
                for (int x = y < 2 * out.height ? 2 * out.width : 0; x < raw.width; x++)
                    body(y, x, lanes(from + y * row + x * LANES), zero);
        }
    }

    // The way back through the convolution of one group, from grad_raw; adds up the gradient of its weights.
    void backward_convolution(Maps &in, int g, const float *parameters, Maps *grad_in, std::vector<Lanes> &grad) {
        int h = raw.height, w = raw.width;
        if (kind == FULL) {
            correlate<3>(in.at(g, padding), in.stride, inputs, grad_raw.at(0), grad_raw.stride, outputs, h, w,
                         &grad[weight]);
            if (grad_in)
                convolve<3>(grad_raw.at(0, 2 - padding), grad_raw.stride, outputs, packed_back.data(), grad_in->at(g),
                            grad_in->stride, inputs, grad_in->height, grad_in->width, nullptr);
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
