// A network: units, then the average over the map and a matrix.
#pragma once
#include "unit.h"

constexpr int CLASSES = 10, SIDE = 28;
constexpr float STATISTICS_MOMENTUM = 0.1f;

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
        input.allocate(groups, 1, SIDE, SIDE, (int)descriptions[0].padding);
        for (int i = 0; i < count; i++)
            units[i].allocate(descriptions[i], input_of(i), groups,
                              i + 1 < count ? (int)descriptions[i + 1].padding : 0);
        features.resize((size_t)groups * units.back().outputs);
        grad_features.resize(features.size());
    }

    Maps &input_of(size_t i) { return i ? units[i - 1].out : input; }

    // slope * raw + offset is the normalised map.
    void normalise_with_batch(Unit &u, const float *parameters, int images) {
        float n = (float)images * u.count();
        for (int c = 0; c < u.outputs; c++) {
            float mean = sum_of(u.sums[2 * c]) / n, variance = sum_of(u.sums[2 * c + 1]) / n - mean * mean;
            variance = std::max(variance, 0.0f);
            u.set(c, parameters, mean, variance);
            float *stored = statistics.data() + u.statistics;
            stored[c] += STATISTICS_MOMENTUM * (mean - stored[c]);
            stored[u.outputs + c] += STATISTICS_MOMENTUM * (variance * n / (n - 1) - stored[u.outputs + c]);
        }
    }

    void forward(const float *parameters, const float *stored, int groups) {
        bool training = stored == nullptr;
        for (size_t i = 0; i < units.size(); i++) {
            Unit &u = units[i];
            u.prepare(parameters);
            u.sums.assign(u.sums.size(), Lanes{});
            for (int g = 0; g < groups; g++)
                u.convolve_group(input_of(i), g, parameters, training ? u.sums.data() : nullptr);
            if (training)
                normalise_with_batch(u, parameters, groups * LANES);
            else
                for (int c = 0; c < u.outputs; c++)
                    u.set(c, parameters, stored[u.statistics + c], stored[u.statistics + u.outputs + c]);
            for (int g = 0; g < groups; g++)
                u.activate(g, u.post == GLOBAL ? &lanes(features[(size_t)g * u.outputs].values) : nullptr);
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
            float n = (float)groups * LANES * u.count();
            for (int c = 0; c < u.outputs; c++) {
                Lanes sum = {}, product = {};
                for (int g = 0; g < groups; g++)
                    u.visit(g, c, grad_features.data(),
                            [&](int, int, const Lanes &z, const Lanes &d) { sum += d, product += d * z; });
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
                    u.visit(g, c, grad_features.data(), [&](int y, int x, const Lanes &z, const Lanes &d) {
                        lanes(out + y * u.grad_raw.stride.row + x * LANES) = d * a + z * b + k;
                    });
                }
                u.backward_convolution(input_of(i), g, parameters, i ? &units[i - 1].grad_out : nullptr, sums);
            }
        }
    }
};
