// A network: units of which the last gives a map of one pixel for each class.
#pragma once
#include "unit.h"

constexpr int CLASSES = 10, SIDE = 28;
constexpr float STATISTICS_MOMENTUM = 0.1f, PLAIN = 64;  // PLAIN: how large a mean's square may be beside the variance

struct Network {
    Maps input, grad_logits;
    std::vector<Unit> units;
    std::vector<Lanes> sums;  // of the gradient, one for each image of a group

    void allocate(const Description *descriptions, int count, int64_t weights, int groups) {
        sums.assign(weights, Lanes{});
        units.resize(count);
        input.allocate(groups, 1, SIDE, (int)descriptions[0].padding);
        grad_logits.allocate(groups, CLASSES, 1, 0);
        for (int i = 0, side = SIDE; i < count; side = units[i++].out.side)
            units[i].allocate(descriptions[i], groups, side, i + 1 < count ? (int)descriptions[i + 1].padding : 0);
    }

    static int groups_of(int images) { return (images + LANES - 1) / LANES; }

    // Every second pass goes through the groups from the last to the first, to begin with what is still in the cache.
    static int turn(size_t pass, int k, int images) { return pass % 2 ? groups_of(images) - 1 - k : k; }

    // 1 for each image of a group, 0 for lanes that the last group leaves empty.
    static Lanes present(int images, int group) {
        Lanes result;
        for (int n = 0; n < LANES; n++) result[n] = group * LANES + n < images;
        return result;
    }

    // What unit i reads of a group. Of activations one group is kept: reading one again takes as long as computing it.
    View input_of(size_t i, int group, Lanes here) {
        if (i) units[i - 1].activate(group, here);
        return i ? units[i - 1].out.of() : input.of(group);
    }

    // The gradient of what unit i gives to the next one.
    View grad_of(size_t i, int g) { return i + 1 < units.size() ? units[i + 1].grad_in(g) : grad_logits.of(g); }

    // Sum of the squared distances of a channel from its mean: where the mean is large, plain sums of squares cancel.
    float around(Unit &u, int c, float mean, int images) {
        Lanes sum = {}, far;
        for (int g = 0; g < groups_of(images); g++)
            for (int p = 0; p < u.count(); p++)
                far = (u.raw.of(g).at(c, 0, p)(0, 0) - mean) * present(images, g), sum += far * far;
        return sum_of(sum);
    }

    // Statistics of a batch, which move the stored ones.
    void normalise_with_batch(Unit &u, const float *parameters, float *stored, int images) {
        float n = (float)images * u.count();
        for (int c = 0; c < u.outputs; c++) {
            float mean = sum_of(u.sums[2 * c]) / n, variance = sum_of(u.sums[2 * c + 1]) / n - mean * mean;
            if (mean * mean > PLAIN * variance) variance = around(u, c, mean, images) / n;
            u.set(c, parameters, mean, variance);
            stored[c] += STATISTICS_MOMENTUM * (mean - stored[c]);
            stored[u.outputs + c] += STATISTICS_MOMENTUM * (variance * n / (n - 1) - stored[u.outputs + c]);
        }
    }

    // Training uses the statistics of the batch, and dropout drawn from `key`; evaluation uses the stored statistics.
    void forward(const float *parameters, float *statistics, int images, bool training, uint64_t key) {
        for (size_t i = 0; i < units.size(); i++) {
            Unit &u = units[i];
            u.prepare(parameters);
            u.dropping = training && u.dropped;
            for (int k = 0; k < groups_of(images); k++) {
                const int g = turn(i, k, images);
                const Lanes here = present(images, g);
                if (u.dropping) u.draw(g, (uint32_t)i, key);
                u.convolve_group(input_of(i, g, here), g, here, parameters);
            }
            float *stored = statistics + u.statistics;
            if (u.normalised() && training) normalise_with_batch(u, parameters, stored, images);
            for (int c = 0; c < u.outputs && u.normalised() && !training; c++)
                u.set(c, parameters, stored[c], stored[u.outputs + c]);
        }
    }

    // The logits of a group after `forward`, CLASSES of Lanes.
    const Lanes *classify(int g, int images) { return &lanes(input_of(units.size(), g, present(images, g)).first); }

    // Losses of a batch after `forward`; adds them up, and correct answers; begins the backward pass.
    void judge(const int64_t *labels, int images, float *losses, double *loss, int64_t *correct) {
        const Lanes *logits = nullptr;
        for (int n = 0; n < groups_of(images) * LANES; n++) {
            const int group = n / LANES, lane = n % LANES, label = n < images ? (int)labels[n] : 0;
            if (lane == 0) logits = classify(group, images);
            Lanes *grad = &lanes(grad_logits.of(group).first);
            int best = 0;
            for (int k = 1; k < CLASSES; k++)
                if (logits[k][lane] > logits[best][lane]) best = k;
            float total = 0, p[CLASSES];
            for (int k = 0; k < CLASSES; k++) total += p[k] = std::exp(logits[k][lane] - logits[best][lane]);
            for (int k = 0; k < CLASSES; k++)
                grad[k][lane] = n < images ? (p[k] / total - (k == label)) / (float)images : 0;
            if (n >= images) continue;  // a lane without an image
            *correct += best == label;
            *loss += losses[n] = std::log(total) + logits[best][lane] - logits[label][lane];
        }
        for (int g = 0; g < groups_of(images); g++) units.back().add_gradient(g, present(images, g), grad_logits.of(g));
    }

    // Adds the gradient of the last batch to `gradient`.
    void backward(const float *parameters, int images, float *gradient) {
        for (size_t i = units.size(); i-- > 0;) {
            Unit &u = units[i];
            u.backward_norm(images, gradient);
            for (int k = 0; k < groups_of(images); k++) {
                const int g = turn(i + 1, k, images);
                const Lanes here = present(images, g);
                u.backward_pixels(g, here, grad_of(i, g), sums);
                u.backward_convolution(input_of(i, g, here), g, parameters, i == 0, sums);
                if (i) units[i - 1].add_gradient(g, here, grad_of(i - 1, g));
            }
        }
        for (Unit &u : units) u.ahead.collect(&sums[u.mixing()]);
        for (size_t i = 0; i < sums.size(); i++) gradient[i] += sum_of(sums[i]);
    }
};
