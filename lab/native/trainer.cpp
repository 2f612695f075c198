// Training of small networks, for a search over many of them. Python's side is __init__.py.
#include <set>

#include "muon.h"
#include "network.h"

namespace {

struct Distortion {  // of one image, as lab.augment draws it: angles in degrees, shifts in pixels
    float degrees, right, down, scale, shear;
};

struct Data {
    const uint8_t *images;
    const int64_t *labels;
    float black, white;  // what grey levels 0 and 255 become
};

struct Trainer : Network {
    int batch;
    std::vector<float> weights, velocity, steps, average_weights, average_statistics;

    // Puts images into the first map, undistorted without `distortions`; their labels come back.
    std::vector<int64_t> load(const Data &data, const int64_t *order, int count, const Distortion *distortions,
                              bool bilinear) {
        constexpr int FRAME = SIDE + 2;  // what is read from outside the image is black
        float framed[FRAME * FRAME], line[SIDE];
        std::fill(framed, framed + FRAME * FRAME, data.black);
        std::vector<int64_t> labels(count);
        for (int n = 0; n < count; n++) {
            labels[n] = data.labels[order[n]];
            const uint8_t *image = data.images + order[n] * SIDE * SIDE;
            for (int y = 0; y < SIDE; y++)
                for (int x = 0; x < SIDE; x++)
                    framed[(y + 1) * FRAME + x + 1] =
                        data.black + image[y * SIDE + x] * ((data.white - data.black) / 255);
            float *out = input.at(n / LANES) + n % LANES;
            for (int y = 0; y < SIDE; y++) {
                if (distortions)
                    resample(framed, FRAME, distortions[n], y, bilinear, line);
                else
                    std::copy_n(framed + (y + 1) * FRAME + 1, SIDE, line);
                for (int x = 0; x < SIDE; x++) out[y * input.stride.row + x * LANES] = line[x];
            }
        }
        return labels;
    }

    // Row y of a distorted image: where each pixel comes from is the inverse of the map in lab.augment.affine.
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

    void differentiate(const int64_t *labels, int groups, double *loss, int64_t *correct) {
        std::fill(sums.begin(), sums.end(), Lanes{});
        std::fill(gradient.begin(), gradient.end(), 0.0f);
        forward(weights.data(), nullptr, groups);
        judge(weights.data(), labels, groups, true, loss, correct);
        backward(weights.data(), groups);
        for (size_t i = 0; i < weights.size(); i++) gradient[i] += sum_of(sums[i]);
    }

    // torch.optim.SGD with Nesterov's momentum or lab.muon, and swa_utils.AveragedModel.
    void step(float rate, float momentum, float decay, bool muon, float take) {
        for (size_t i = 0; i < weights.size(); i++) {
            float g = gradient[i] + decay * weights[i];
            velocity[i] = momentum * velocity[i] + g;
            steps[i] = g + momentum * velocity[i];
        }
        std::set<int64_t> done;  // a matrix that units share takes one step
        for (Unit &u : units)
            if (muon && u.kind != FULL && done.insert(u.mixing()).second)
                orthogonalise(&steps[u.mixing()], u.outputs, u.inputs);
        for (size_t i = 0; i < weights.size(); i++) weights[i] -= rate * steps[i];
        for (size_t i = 0; i < weights.size(); i++) average_weights[i] += take * (weights[i] - average_weights[i]);
        for (size_t i = 0; i < statistics.size(); i++)
            average_statistics[i] += take * (statistics[i] - average_statistics[i]);
    }
};

}  // namespace

extern "C" {

Trainer *create(const Description *units, int count, int64_t head, int batch, int64_t count_weights,
                int64_t count_statistics) {
    auto *t = new Trainer;
    t->batch = batch;
    for (auto *values : {&t->weights, &t->velocity, &t->steps, &t->average_weights}) values->resize(count_weights);
    for (auto *values : {&t->statistics, &t->average_statistics}) values->resize(count_statistics);
    t->allocate(units, count, head, count_weights, batch / LANES);
    return t;
}

void destroy(Trainer *t) { delete t; }

// What a trainer knows at the end of an epoch, an array after the other; `to_trainer` or from it.
void copy_state(Trainer *t, float *const *arrays, int to_trainer) {
    for (auto *values : {&t->weights, &t->velocity, &t->statistics, &t->average_weights, &t->average_statistics}) {
        float *array = *arrays++;
        if (to_trainer)
            std::copy_n(array, values->size(), values->begin());
        else
            std::copy(values->begin(), values->end(), array);
    }
}

void copy_gradient(Trainer *t, float *array) { std::copy(t->gradient.begin(), t->gradient.end(), array); }

// One epoch over `order`, up to the first batch whose loss is not finite; returns the sum of losses. `rates` has one a
// batch, and so has `takes`: how much the average takes in of the weights that it leaves.
double train(Trainer *t, Data data, const int64_t *order, int64_t count, const Distortion *distortions, int bilinear,
             const float *rates, const float *takes, float momentum, float decay, int muon, int64_t *correct) {
    double loss = 0;
    for (int64_t start = 0; start < count && std::isfinite(loss); start += t->batch) {
        int size = (int)std::min<int64_t>(t->batch, count - start);
        auto labels = t->load(data, order + start, size, distortions + start, bilinear);
        t->differentiate(labels.data(), size / LANES, &loss, correct);
        t->step(rates[start / t->batch], momentum, decay, muon, takes[start / t->batch]);
    }
    return loss;
}

// The averaged network on the first images; returns the sum of losses.
double evaluate(Trainer *t, Data data, int64_t count, int64_t *correct) {
    double loss = 0;
    std::vector<int64_t> order(t->batch);
    for (int64_t start = 0; start < count; start += t->batch) {
        int size = (int)std::min<int64_t>(t->batch, count - start);
        for (int i = 0; i < size; i++) order[i] = start + i;
        auto labels = t->load(data, order.data(), size, nullptr, false);
        t->forward(t->average_weights.data(), t->average_statistics.data(), size / LANES);
        t->judge(t->average_weights.data(), labels.data(), size / LANES, false, &loss, correct);
    }
    return loss;
}
}
