// A network: units that end in a map of one pixel, then the matrix that gives the classes.
#pragma once
#include "unit.h"

constexpr int CLASSES = 10, SIDE = 28;
constexpr float STATISTICS_MOMENTUM = 0.1f;

// Where the last matrix and its bias lie among the weights; -1: no bias.
struct Head {
    int64_t weight, bias;
};

struct Network {
    Maps input;
    std::vector<Unit> units;
    Head head;
    std::vector<float> statistics, gradient;
    std::vector<Lanes> sums;  // of the gradient, one for each of 16 images

    void allocate(const Description *descriptions, int count, Head last, int64_t weights, int groups) {
        head = last;
        gradient.assign(weights, 0);
        sums.assign(weights, Lanes{});
        units.resize(count);
        input.allocate(groups, 1, SIDE, SIDE, (int)descriptions[0].padding);
        for (int i = 0; i < count; i++)
            units[i].allocate(descriptions[i], groups,
                              i + 1 < count ? (int)descriptions[i + 1].padding : 0);
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

    // Training uses the statistics of the batch, and dropout drawn from `key`; evaluation uses the stored statistics.
    void forward(const float *parameters, const float *stored, int groups, bool training, uint64_t key) {
        for (size_t i = 0; i < units.size(); i++) {
            Unit &u = units[i];
            u.prepare(parameters);
            u.dropping = training && u.dropped;
            for (int g = 0; g < groups && u.dropping; g++) u.draw(g, (uint32_t)i, key);
            for (auto *sums : {&u.sums, &u.grad_sums}) std::fill(sums->begin(), sums->end(), Lanes{});
            for (int g = 0; g < groups; g++) {  // what is read again at once is still in the cache, also in `backward`
                if (i) units[i - 1].activate(g);
                u.convolve_group(input_of(i), g, parameters, training && u.normalised() ? u.sums.data() : nullptr);
            }
            if (!u.normalised())
                for (int c = 0; c < u.outputs; c++) u.set_none(c);
            else if (training)
                normalise_with_batch(u, parameters, groups * LANES);
            else
                for (int c = 0; c < u.outputs; c++)
                    u.set(c, parameters, stored[u.statistics + c], stored[u.statistics + u.outputs + c]);
        }
    }

    // Loss and correct answers of the output of `forward`; with `learn`, the gradients of head and features too.
    void judge(const float *parameters, const int64_t *labels, int groups, bool learn, double *loss, int64_t *correct) {
        Unit &last = units.back();
        int width = (int)last.outputs;
        const float *w = parameters + head.weight;
        for (int g = 0; g < groups; g++) {
            last.activate(g);
            const Lanes *f = &lanes(last.out.at(g));
            Lanes logits[CLASSES] = {}, grad[CLASSES];
            for (int k = 0; k < CLASSES; k++)
                for (int c = 0; c < width; c++) logits[k] += f[c] * w[k * width + c];
            for (int k = 0; k < CLASSES && head.bias >= 0; k++) logits[k] += parameters[head.bias + k];
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
            Lanes *gf = &lanes(last.grad_out.at(g));
            for (int k = 0; k < CLASSES && head.bias >= 0; k++) sums[head.bias + k] += grad[k];
            for (int c = 0; c < width; c++) {
                gf[c] = Lanes{};
                for (int k = 0; k < CLASSES; k++) {
                    gf[c] += grad[k] * w[k * width + c];
                    sums[head.weight + k * width + c] += grad[k] * f[c];
                }
            }
            last.add_gradient(g);
        }
    }

    void backward(const float *parameters, int groups) {
        for (size_t i = units.size(); i-- > 0;) {
            Unit &u = units[i], *before = i ? &units[i - 1] : nullptr;
            u.backward_norm(parameters, groups, gradient.data());
            for (int g = 0; g < groups; g++) {
                u.backward_pixels(g, sums);
                u.backward_convolution(input_of(i), g, parameters, before ? &before->grad_out : nullptr, sums);
                if (before) before->add_gradient(g);
            }
        }
    }
};
