// Training and measuring small networks. The Python side is library.py.
#include <numeric>
#include <set>

#include "muon.h"
#include "network.h"

namespace {

struct Distortion {  // of one image, as lab.training.augment draws it: angles in degrees, shifts in pixels
    float degrees, right, down, scale, shear;
};

struct Data {
    const uint8_t *images;
    const int64_t *labels;
    float black, white;  // what grey levels 0 and 255 become
};

// How images are changed before the network sees them, in training order: a distortion for each, or pixels that are
// already distorted, as grey values from 0 to 1. With neither they are left as they are.
struct Distorted {
    const Distortion *distortions;
    const float *pixels;
    int bilinear;
    float fill;  // grey value of what comes from outside the image
};

// Of a batch: the learning rate, the momentum, the share of the new weights in the average, and the key that dropout
// draws from.
struct Pace {
    float rate, momentum, take;
    uint64_t key;
};

// For every step.
struct Rules {
    float decay;
    int nesterov, muon;
};

struct Trainer : Network {
    int batch;
    std::vector<float> weights, velocity, steps, average_weights, average_statistics;

    // Puts the images of `order` from `first` on into the first map; returns their labels.
    std::vector<int64_t> load(const Data &data, const int64_t *order, const Distorted &distorted, int64_t first,
                              int count) {
        constexpr int FRAME = SIDE + 2;  // what is read from outside the image
        const float range = data.white - data.black;
        float framed[FRAME * FRAME], line[SIDE];
        std::fill(framed, framed + FRAME * FRAME, data.black + distorted.fill * range);
        std::vector<int64_t> labels(count);
        for (int n = 0; n < count; n++) {
            labels[n] = data.labels[order[first + n]];
            const uint8_t *image = data.images + order[first + n] * SIDE * SIDE;
            const float *pixels = distorted.pixels ? distorted.pixels + (first + n) * SIDE * SIDE : nullptr;
            for (int y = 0; y < SIDE; y++)
                for (int x = 0; x < SIDE; x++)
                    framed[(y + 1) * FRAME + x + 1] =
                        data.black + (pixels ? pixels[y * SIDE + x] * range : image[y * SIDE + x] * (range / 255));
            float *out = input.at(n / LANES) + n % LANES;
            for (int y = 0; y < SIDE; y++) {
                if (distorted.distortions)
                    resample(framed, FRAME, distorted.distortions[first + n], y, distorted.bilinear, line);
                else
                    std::copy_n(framed + (y + 1) * FRAME + 1, SIDE, line);
                for (int x = 0; x < SIDE; x++) out[y * input.stride.row + x * LANES] = line[x];
            }
        }
        return labels;
    }

    // Row y of a distorted image, read through the inverse of the map in lab.training.augment.affine.
    static void resample(const float *framed, int frame, const Distortion &d, int y, bool bilinear, float *line) {
        constexpr float half = (SIDE - 1) / 2.0f, radian = 3.14159265358979f / 180;
        float cosine = std::cos(d.degrees * radian) / d.scale, sine = std::sin(d.degrees * radian) / d.scale;
        float slope = std::tan(d.shear * radian), a = cosine - slope * sine, b = sine + slope * cosine;
        float down = y - half - d.down;
        for (int x = 0; x < SIDE; x++) {
            float right = x - half - d.right;
            float px = a * right + b * down + half, py = -sine * right + cosine * down + half;
            if (bilinear) {
                px = std::min(std::max(px, -1.0f), SIDE - 1e-3f) + 1,
                py = std::min(std::max(py, -1.0f), SIDE - 1e-3f) + 1;
                int ix = (int)px, iy = (int)py;
                const float *p = framed + iy * frame + ix;
                float fx = px - ix, fy = py - iy;
                line[x] = (p[0] * (1 - fx) + p[1] * fx) * (1 - fy) + (p[frame] * (1 - fx) + p[frame + 1] * fx) * fy;
            } else {
                int ix = (int)std::nearbyint(std::min(std::max(px, -1.0f), (float)SIDE)) + 1;
                int iy = (int)std::nearbyint(std::min(std::max(py, -1.0f), (float)SIDE)) + 1;
                line[x] = framed[iy * frame + ix];
            }
        }
    }

    void differentiate(const int64_t *labels, int groups, uint64_t key, double *loss, int64_t *correct) {
        std::fill(sums.begin(), sums.end(), Lanes{});
        std::fill(gradient.begin(), gradient.end(), 0.0f);
        forward(weights.data(), nullptr, groups, true, key);
        judge(weights.data(), labels, groups, true, loss, correct);
        backward(weights.data(), groups);
        for (size_t i = 0; i < weights.size(); i++) gradient[i] += sum_of(sums[i]);
    }

    // torch.optim.SGD or lab.training.muon, and swa_utils.AveragedModel.
    void step(const Pace &pace, const Rules &rules) {
        const float rate = pace.rate, momentum = pace.momentum, take = pace.take;
        for (size_t i = 0; i < weights.size(); i++) {
            float g = gradient[i] + rules.decay * weights[i];
            velocity[i] = momentum * velocity[i] + g;
            steps[i] = rules.nesterov ? g + momentum * velocity[i] : velocity[i];
        }
        std::set<int64_t> done;  // a matrix that units share takes one step
        for (Unit &u : units)
            if (rules.muon && u.kind != FULL && done.insert(u.mixing()).second)
                orthogonalise(&steps[u.mixing()], u.outputs, u.inputs);
        for (size_t i = 0; i < weights.size(); i++) weights[i] -= rate * steps[i];
        for (size_t i = 0; i < weights.size(); i++) average_weights[i] += take * (weights[i] - average_weights[i]);
        for (size_t i = 0; i < statistics.size(); i++)
            average_statistics[i] += take * (statistics[i] - average_statistics[i]);
    }
};

}  // namespace

extern "C" {

Trainer *create(const Description *units, int count, const Head *head, int batch, int64_t count_weights,
                int64_t count_statistics) {
    auto *t = new Trainer;
    t->batch = batch;
    for (auto *values : {&t->weights, &t->velocity, &t->steps, &t->average_weights}) values->resize(count_weights);
    for (auto *values : {&t->statistics, &t->average_statistics}) values->resize(count_statistics);
    t->allocate(units, count, *head, count_weights, batch / LANES);
    return t;
}

void destroy(Trainer *t) { delete t; }

// Copies a trainer's state at the end of an epoch, array by array; `to_trainer` or from it.
void copy_state(Trainer *t, float *const *arrays, int to_trainer) {
    for (auto *values : {&t->weights, &t->velocity, &t->statistics, &t->average_weights, &t->average_statistics}) {
        float *array = *arrays++;
        if (to_trainer)
            std::copy_n(array, values->size(), values->begin());
        else
            std::copy(values->begin(), values->end(), array);
    }
}

// What the activations of a unit were multiplied by in the last batch, (images, channels, height, width).
void copy_mask(Trainer *t, int unit, int images, float *array) {
    Unit &u = t->units[unit];
    for (int n = 0; n < images; n++)
        for (int c = 0; c < u.outputs; c++)
            for (int p = 0; p < u.count(); p++)
                *array++ = u.mask(n / LANES, c)[p / 32][n % LANES] >> p % 32 & 1 ? u.survival : 0;
}

// Replaces 16 counters with random words, as dropout draws them.
void draw_words(uint32_t *counters, uint64_t key) {
    Bits words[4];
    std::memcpy(words, counters, sizeof words);
    philox(words, key);
    std::memcpy(counters, words, sizeof words);
}

void copy_gradient(Trainer *t, float *array) { std::copy(t->gradient.begin(), t->gradient.end(), array); }

// Trains on images in order, up to the first batch whose loss is not finite; adds up losses and correct answers.
void train(Trainer *t, Data data, const int64_t *order, int64_t count, Distorted distorted, const Pace *paces,
           Rules rules, double *loss, int64_t *correct) {
    for (int64_t start = 0; start < count && std::isfinite(*loss); start += t->batch) {
        int size = (int)std::min<int64_t>(t->batch, count - start);
        auto labels = t->load(data, order, distorted, start, size);
        const Pace &pace = paces[start / t->batch];
        t->differentiate(labels.data(), size / LANES, pace.key, loss, correct);
        t->step(pace, rules);
    }
}

// The averaged network on the first images; adds up losses and correct answers.
void evaluate(Trainer *t, Data data, int64_t count, double *loss, int64_t *correct) {
    std::vector<int64_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    for (int64_t start = 0; start < count; start += t->batch) {
        int size = (int)std::min<int64_t>(t->batch, count - start);
        auto labels = t->load(data, order.data(), {}, start, size);
        t->forward(t->average_weights.data(), t->average_statistics.data(), size / LANES, false, 0);
        t->judge(t->average_weights.data(), labels.data(), size / LANES, false, loss, correct);
    }
}
}
