// A network: units of convolution, batch normalisation, ReLU and pooling, then the average over the map and a matrix.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels.h"

constexpr int CLASSES = 10, SIDE = 28;
constexpr float EPSILON = 1e-5f, STATISTICS_MOMENTUM = 0.1f;

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

struct Unit : Description {
    Maps raw, out, grad_out;             // of the batch
    Maps middle, grad_middle, grad_raw;  // of one group of 16 images: small enough for the cache
    std::vector<Lanes> sums;
    std::vector<float> slope, offset, mean, by_raw, constant, packed, packed_back;
    int count() const { return raw.height * raw.width; }
};

float sum_of(const Lanes &v) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

struct Network {
    Maps input;
    std::vector<Unit> units;
    int64_t head;  // offset of the matrix behind the average
    std::vector<float> statistics, gradient;
    std::vector<Lanes> sums;  // of the gradient, one for each of 16 images
    std::vector<Block> features, grad_features;

    void allocate(const Description *descriptions, int count, int64_t matrix, int64_t weights, int groups) {
        head = matrix;
        gradient.assign(weights, 0);
        sums.assign(weights, Lanes{});
        units.resize(count);
        int height = SIDE, width = SIDE;
        input.allocate(groups, 1, height, width, (int)descriptions[0].padding);
        for (int i = 0; i < count; i++) {
            Unit &u = units[i];
            static_cast<Description &>(u) = descriptions[i];
            int back = u.kind == POINTWISE ? 0 : 2 - (int)u.padding;  // border that the gradient needs on its way back
            if (u.kind != POINTWISE) height += 2 * (int)u.padding - 2, width += 2 * (int)u.padding - 2;
            u.raw.allocate(groups, u.outputs, height, width, 0);
            u.grad_raw.allocate(1, u.outputs, height, width, u.kind == FULL ? back : 0);
            if (u.kind == SEPARABLE) {
                u.middle.allocate(1, u.inputs, height, width, 0);
                u.grad_middle.allocate(1, u.inputs, height, width, back);
            }
            if (u.post == MAX || u.post == AVERAGE) height /= 2, width /= 2;
            if (u.post != GLOBAL) {
                u.out.allocate(groups, u.outputs, height, width, (int)descriptions[i + 1].padding);
                u.grad_out.allocate(groups, u.outputs, height, width, 0);
            }
            u.sums.resize(2 * u.outputs);
            for (auto *values : {&u.slope, &u.offset, &u.mean, &u.by_raw, &u.constant}) values->resize(u.outputs);
            u.packed.resize(u.inputs * u.outputs * (u.kind == FULL ? 9 : 1));
            u.packed_back.resize(u.packed.size());
        }
        features.resize((size_t)groups * units.back().outputs);
        grad_features.resize(features.size());
    }

    Maps &input_of(size_t i) { return i ? units[i - 1].out : input; }

    void prepare(const float *parameters) {
        for (auto &u : units) {
            const float *w = parameters + (u.kind == SEPARABLE ? u.pointwise : u.weight);
            int k = u.kind == FULL ? 3 : 1;
            pack(w, u.outputs, u.inputs, k, false, u.packed.data());
            pack(w, u.outputs, u.inputs, k, true, u.packed_back.data());
        }
    }

    // Convolution of a unit for one group; adds up the statistics of what comes out if `sums` are given.
    void convolve_unit(Unit &u, Maps &in, int group, const float *parameters, Lanes *sums) {
        if (u.kind == FULL)
            convolve<3>(in.at(group, u.padding), in.stride, u.inputs, u.packed.data(), u.raw.at(group), u.raw.stride,
                        u.outputs, u.raw.height, u.raw.width, sums);
        else
            convolve<1>(between(u, in, group, parameters), u.kind == SEPARABLE ? u.middle.stride : in.stride, u.inputs,
                        u.packed.data(), u.raw.at(group), u.raw.stride, u.outputs, u.raw.height, u.raw.width, sums);
    }

    // What the 1x1 convolution of a unit reads. Computing it again on the way back is cheaper than keeping it.
    float *between(Unit &u, Maps &in, int group, const float *parameters) {
        if (u.kind != SEPARABLE) return in.at(group);
        depthwise(in.at(group, u.padding), in.stride, parameters + u.weight, false, u.middle.at(0), u.middle.stride,
                  u.inputs, u.raw.height, u.raw.width);
        return u.middle.at(0);
    }

    // slope * raw + offset is the normalised map.
    void normalise_with_batch(Unit &u, const float *parameters, int images) {
        float n = (float)images * u.count();
        for (int c = 0; c < u.outputs; c++) {
            float mean = sum_of(u.sums[2 * c]) / n, variance = sum_of(u.sums[2 * c + 1]) / n - mean * mean;
            variance = std::max(variance, 0.0f);
            set(u, c, parameters, mean, variance);
            float *stored = statistics.data() + u.statistics;
            stored[c] += STATISTICS_MOMENTUM * (mean - stored[c]);
            stored[u.outputs + c] += STATISTICS_MOMENTUM * (variance * n / (n - 1) - stored[u.outputs + c]);
        }
    }

    void set(Unit &u, int c, const float *parameters, float mean, float variance) {
        u.mean[c] = mean;
        u.slope[c] = parameters[u.scale + c] / std::sqrt(variance + EPSILON);
        u.offset[c] = parameters[u.shift + c] - u.slope[c] * mean;
    }

    void activate(Unit &u, int group, Lanes *feature) {
        const Lanes zero = {};
        for (int c = 0; c < u.outputs; c++) {
            const float a = u.slope[c], b = u.offset[c];
            const float *raw = u.raw.at(group) + c * u.raw.stride.plane;
            float *out = u.post == GLOBAL ? nullptr : u.out.at(group) + c * u.out.stride.plane;
            long row = u.raw.stride.row;
            auto relu = [&](const float *place) {
                Lanes v = lanes(place) * a + b;
                return v < zero ? zero : v;  // what is no number stays none
            };
            if (u.post == NONE) {
                for (int y = 0; y < u.raw.height; y++)
                    for (int x = 0; x < u.raw.width; x++)
                        lanes(out + y * u.out.stride.row + x * LANES) = relu(raw + y * row + x * LANES);
            } else if (u.post == GLOBAL) {
                Lanes sum = {};
                for (int p = 0; p < u.count(); p++) sum += relu(raw + p * LANES);
                feature[c] = sum / (float)u.count();
            } else {
                for (int y = 0; y < u.out.height; y++)
                    for (int x = 0; x < u.out.width; x++) {
                        const float *p = raw + 2 * y * row + 2 * x * LANES;
                        Lanes q[4] = {relu(p), relu(p + LANES), relu(p + row), relu(p + row + LANES)}, r;
                        if (u.post == MAX) {
                            Lanes s = q[0] > q[1] ? q[0] : q[1], t = q[2] > q[3] ? q[2] : q[3];
                            r = s > t ? s : t;
                        } else
                            r = (q[0] + q[1] + q[2] + q[3]) * 0.25f;
                        lanes(out + y * u.out.stride.row + x * LANES) = r;
                    }
            }
        }
    }

    // Calls body(place, raw value, gradient) for every pixel of channel c: the gradient before normalisation's output.
    template <class Body>
    void visit(Unit &u, int group, int c, Body body) {
        const Lanes zero = {};
        const float a = u.slope[c], b = u.offset[c];
        const float *raw = u.raw.at(group) + c * u.raw.stride.plane;
        const float *grad = u.post == GLOBAL ? nullptr : u.grad_out.at(group) + c * u.grad_out.stride.plane;
        const long row = u.raw.stride.row, grad_row = u.grad_out.stride.row;
        if (u.post == NONE) {
            for (int y = 0; y < u.raw.height; y++)
                for (int x = 0; x < u.raw.width; x++) {
                    Lanes z = lanes(raw + y * row + x * LANES), d = lanes(grad + y * grad_row + x * LANES);
                    body(y, x, z, z * a + b > zero ? d : zero);
                }
        } else if (u.post == GLOBAL) {
            Lanes d = lanes(grad_features[group * u.outputs + c].values) / (float)u.count();
            for (int y = 0; y < u.raw.height; y++)
                for (int x = 0; x < u.raw.width; x++) {
                    Lanes z = lanes(raw + y * row + x * LANES);
                    body(y, x, z, z * a + b > zero ? d : zero);
                }
        } else {
            for (int y = 0; y < u.out.height; y++)
                for (int x = 0; x < u.out.width; x++) {
                    const float *p = raw + 2 * y * row + 2 * x * LANES;
                    Lanes z[4] = {lanes(p), lanes(p + LANES), lanes(p + row), lanes(p + row + LANES)}, v[4];
                    Lanes d = lanes(grad + y * grad_row + x * LANES);
                    for (int i = 0; i < 4; i++) v[i] = z[i] * a + b;
                    if (u.post == MAX) {
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
            for (int y = 0; y < u.raw.height; y++)  // what pooling left out at odd sizes
                for (int x = y < 2 * u.out.height ? 2 * u.out.width : 0; x < u.raw.width; x++)
                    body(y, x, lanes(raw + y * row + x * LANES), zero);
        }
    }

    void forward(const float *parameters, const float *stored, int groups) {
        bool training = stored == nullptr;
        prepare(parameters);
        for (size_t i = 0; i < units.size(); i++) {
            Unit &u = units[i];
            u.sums.assign(u.sums.size(), Lanes{});
            for (int g = 0; g < groups; g++)
                convolve_unit(u, input_of(i), g, parameters, training ? u.sums.data() : nullptr);
            if (training)
                normalise_with_batch(u, parameters, groups * LANES);
            else
                for (int c = 0; c < u.outputs; c++)
                    set(u, c, parameters, stored[u.statistics + c], stored[u.statistics + u.outputs + c]);
            for (int g = 0; g < groups; g++)
                activate(u, g, u.post == GLOBAL ? &lanes(features[(size_t)g * u.outputs].values) : nullptr);
        }
    }

    // Loss and correct answers of what `forward` left; with `learn`, the gradients of head and features too.
    void judge(const float *parameters, const int64_t *labels, int groups, bool learn, double *loss, int64_t *correct) {
        int width = units.back().outputs;
        const float *w = parameters + head;
        for (int g = 0; g < groups; g++) {
            const Lanes *f = &lanes(features[(size_t)g * width].values);
            Lanes logits[CLASSES] = {}, grad[CLASSES];
            for (int k = 0; k < CLASSES; k++)
                for (int c = 0; c < width; c++) logits[k] += f[c] * w[k * width + c];
            for (int i = 0; i < LANES; i++) {
                int best = 0, label = (int)labels[g * LANES + i];
                for (int k = 1; k < CLASSES; k++)
                    if (logits[k][i] > logits[best][i]) best = k;
                float total = 0, p[CLASSES];
                for (int k = 0; k < CLASSES; k++) total += p[k] = std::exp(logits[k][i] - logits[best][i]);
                *correct += best == label;
                *loss += std::log(total) + logits[best][i] - logits[label][i];
                for (int k = 0; k < CLASSES; k++) grad[k][i] = (p[k] / total - (k == label)) / (float)(groups * LANES);
            }
            if (!learn) continue;
            Lanes *gf = &lanes(grad_features[(size_t)g * width].values);
            for (int c = 0; c < width; c++) {
                gf[c] = Lanes{};
                for (int k = 0; k < CLASSES; k++) {
                    gf[c] += grad[k] * w[k * width + c];
                    sums[head + k * width + c] += grad[k] * f[c];
                }
            }
        }
    }

    void backward(const float *parameters, int groups) {
        for (size_t i = units.size(); i-- > 0;) {
            Unit &u = units[i];
            Maps &in = input_of(i);
            float n = (float)groups * LANES * u.count();
            for (int c = 0; c < u.outputs; c++) {
                Lanes sum = {}, product = {};
                for (int g = 0; g < groups; g++)
                    visit(u, g, c, [&](int, int, const Lanes &z, const Lanes &d) { sum += d, product += d * z; });
                float scale = parameters[u.scale + c], inverse = u.slope[c] / scale, shift = sum_of(sum);
                if (scale == 0) inverse = 0;
                float slope = inverse * (sum_of(product) - u.mean[c] * shift);
                gradient[u.scale + c] += slope, gradient[u.shift + c] += shift;
                u.by_raw[c] = -u.slope[c] * inverse * slope / n;
                u.constant[c] = -u.slope[c] * shift / n - u.by_raw[c] * u.mean[c];
            }
            for (int g = 0; g < groups; g++) {
                for (int c = 0; c < u.outputs; c++) {
                    float *out = u.grad_raw.at(0) + c * u.grad_raw.stride.plane;
                    const float a = u.slope[c], b = u.by_raw[c], k = u.constant[c];
                    visit(u, g, c, [&](int y, int x, const Lanes &z, const Lanes &d) {
                        lanes(out + y * u.grad_raw.stride.row + x * LANES) = d * a + z * b + k;
                    });
                }
                backward_convolution(u, in, g, parameters, i ? &units[i - 1].grad_out : nullptr);
            }
        }
    }

    void backward_convolution(Unit &u, Maps &in, int g, const float *parameters, Maps *out) {
        int h = u.raw.height, w = u.raw.width;
        if (u.kind == FULL) {
            correlate<3>(in.at(g, u.padding), in.stride, u.inputs, u.grad_raw.at(0), u.grad_raw.stride, u.outputs, h, w,
                         &sums[u.weight]);
            if (out)
                convolve<3>(u.grad_raw.at(0, 2 - u.padding), u.grad_raw.stride, u.outputs, u.packed_back.data(),
                            out->at(g), out->stride, u.inputs, out->height, out->width, nullptr);
            return;
        }
        bool separable = u.kind == SEPARABLE;
        correlate<1>(between(u, in, g, parameters), separable ? u.middle.stride : in.stride, u.inputs, u.grad_raw.at(0),
                     u.grad_raw.stride, u.outputs, h, w, &sums[separable ? u.pointwise : u.weight]);
        if (Maps *target = separable ? &u.grad_middle : out)
            convolve<1>(u.grad_raw.at(0), u.grad_raw.stride, u.outputs, u.packed_back.data(),
                        target->at(separable ? 0 : g), target->stride, u.inputs, h, w, nullptr);
        if (separable) {
            depthwise_correlate(in.at(g, u.padding), in.stride, u.grad_middle.at(0), u.grad_middle.stride, u.inputs, h,
                                w, &sums[u.weight]);
            if (out)
                depthwise(u.grad_middle.at(0, 2 - u.padding), u.grad_middle.stride, parameters + u.weight, true,
                          out->at(g), out->stride, u.inputs, out->height, out->width);
        }
    }
};
