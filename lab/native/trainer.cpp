// Training and measuring small networks. The Python side is library.py.
#include <memory>
#include <set>

#include "images.h"
#include "muon.h"

// Of a batch: learning rate, momentum, the share of the new weights in the average, the key that dropout draws from.
struct Step {
    double rate;
    float momentum, take;
    uint64_t key;
};

struct Method {
    float decay;
    int32_t nesterov, muon;
};

// Arrays of Python's, of all weights or all statistics in torch's order.
struct State {
    float *weights, *velocity, *average_weights, *gradient, *statistics, *average_statistics;
};

// Numbers below 1e-38 become 0 while this lives, as on a GPU: they cost a processor up to a hundred cycles each.
struct FlushToZero {
#if defined(__SSE__)
    unsigned before = _mm_getcsr();
    FlushToZero() { _mm_setcsr(before | 0x8040); }
    ~FlushToZero() { _mm_setcsr(before); }
#endif
};

struct Trainer : Network {
    int batch;
    int64_t count_weights, count_statistics;
    std::vector<float> steps;
    std::vector<int64_t> labels;

    // torch.optim.SGD or lab.training.muon, and swa_utils.AveragedModel.
    void step(const State &s, const Step &now, const Method &method) {
        for (int64_t i = 0; i < count_weights; i++) {
            float g = s.gradient[i] + method.decay * s.weights[i];
            s.velocity[i] = now.momentum * s.velocity[i] + g;
            steps[i] = method.nesterov ? g + now.momentum * s.velocity[i] : s.velocity[i];
        }
        std::set<int64_t> done = {units.back().mixing()};  // no hidden matrix; one that units share takes one step
        for (Unit &u : units)
            if (method.muon && u.size == 1 && done.insert(u.mixing()).second)
                orthogonalise(&steps[u.mixing()], u.outputs, u.inputs);
        const float rate = (float)now.rate;
        for (int64_t i = 0; i < count_weights; i++) {
            s.weights[i] -= rate * steps[i];
            s.average_weights[i] += now.take * (s.weights[i] - s.average_weights[i]);
        }
        for (int64_t i = 0; i < count_statistics; i++)
            s.average_statistics[i] += now.take * (s.statistics[i] - s.average_statistics[i]);
    }
};

extern "C" {

Trainer *create(const Description *units, int count, int batch, int64_t count_weights, int64_t count_statistics) try {
    auto t = std::make_unique<Trainer>();
    t->batch = batch, t->count_weights = count_weights, t->count_statistics = count_statistics;
    t->steps.resize(count_weights), t->labels.resize(batch);
    t->allocate(units, count, count_weights, Network::groups_of(batch));
    return t.release();
} catch (const std::bad_alloc &) {
    return nullptr;
}

void destroy(Trainer *t) { delete t; }

// What the activations of a unit were multiplied by in the last batch, (images, channels, height, width).
void copy_mask(Trainer *t, int unit, int images, float *array) {
    Unit &u = t->units[unit];
    for (int n = 0; n < images; n++)
        for (int c = 0; c < u.outputs; c++)
            for (int p = 0; p < u.count(); p++) *array++ = u.kept_of(n / LANES, c)[p] >> n % LANES & 1 ? u.survival : 0;
}

// Trains on images in order, up to a batch whose loss is not finite; `losses` are theirs. Returns how many batches.
int64_t train(Trainer *t, State state, Data data, const int64_t *order, int64_t count, Distortion distortion,
              const Step *steps, Method method, float *losses, double *loss, int64_t *correct) {
    FlushToZero here;
    int64_t done = 0;
    for (int64_t start = 0; start < count && std::isfinite(*loss); start += t->batch, done++) {
        int images = (int)std::min<int64_t>(t->batch, count - start);
        load(data, order, distortion, start, images, t->input, t->labels.data());
        std::fill(t->sums.begin(), t->sums.end(), Lanes{});
        std::fill_n(state.gradient, t->count_weights, 0.0f);
        t->forward(state.weights, state.statistics, images, true, steps[done].key);
        t->judge(t->labels.data(), images, losses + start, loss, correct);
        t->backward(state.weights, images, state.gradient);
        t->step(state, steps[done], method);
    }
    return done;
}

// The logits of the averaged network on images in order, (count, CLASSES).
void infer(Trainer *t, State state, Data data, const int64_t *order, int64_t count, float *logits) {
    FlushToZero here;
    const Lanes *group = nullptr;
    for (int64_t start = 0; start < count; start += t->batch) {
        int images = (int)std::min<int64_t>(t->batch, count - start);
        load(data, order, {}, start, images, t->input, t->labels.data());
        t->forward(state.average_weights, state.average_statistics, images, false, 0);
        for (int n = 0; n < images; n++) {
            if (n % LANES == 0) group = t->classify(n / LANES, images);
            for (int k = 0; k < CLASSES; k++) *logits++ = group[k][n % LANES];
        }
    }
}
}
