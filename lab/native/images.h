// The images of a batch, distorted as lab.training.augment does it, with parameters that Python has drawn.
#pragma once
#include "network.h"

// One of the transforms that images go through. Its parameters, for each image: clockwise degrees, shift along x and y
// in pixels, scale, shear in degrees; if it jitters, brightness, contrast, and 1 if brightness comes first.
struct Transform {
    int32_t jitters, bilinear;
    float fill;  // grey value, from 0 to 1, of what comes from outside the image
};
constexpr int PARAMETERS = 5;

struct Data {
    const uint8_t *images;
    const int64_t *labels;
    float black, white;  // what grey levels 0 and 255 become
};

// How images are changed: by transforms, in order, with `drawn` parameters; or `drawn` are distorted grey levels.
struct Distortion {
    const Transform *transforms;
    int64_t count;       // of transforms; -1: there are grey levels
    const float *drawn;  // (images, count, PARAMETERS) or (images, SIDE, SIDE)
};

// An image in grey levels from 0 to 255, with a frame of one pixel for what is read from outside.
struct Picture {
    static constexpr int FRAME = SIDE + 2, PIXELS = SIDE * SIDE;
    float levels[PIXELS], framed[FRAME * FRAME];

    void apply(const Transform &transform, const float *parameters) {
        if (!transform.jitters) return resample(parameters, transform.bilinear, transform.fill * 255);
        if (parameters[2] != 0) brighten(parameters[0]);
        sharpen(parameters[1]);
        if (parameters[2] == 0) brighten(parameters[0]);
    }

    void brighten(float factor) {
        for (float &level : levels) level = std::min(level * factor, 255.0f);
    }

    void sharpen(float factor) {
        float sums[LANES] = {}, mean = 0;
        for (int i = 0; i < PIXELS; i++) sums[i % LANES] += levels[i] / PIXELS;
        for (float sum : sums) mean += sum;
        for (float &level : levels) level = std::min(std::max(mean + (level - mean) * factor, 0.0f), 255.0f);
    }

    // Reads every pixel through the inverse of the map in lab.training.augment.affine.
    void resample(const float *parameters, bool bilinear, float fill) {
        constexpr float half = (SIDE - 1) / 2.0f, radian = 3.14159265358979f / 180;
        const float degrees = parameters[0], right = parameters[1], down = parameters[2], scale = parameters[3];
        const float cosine = std::cos(degrees * radian) / scale, sine = std::sin(degrees * radian) / scale;
        const float slope = std::tan(parameters[4] * radian), a = cosine - slope * sine, b = sine + slope * cosine;
        std::fill(framed, framed + FRAME * FRAME, fill);
        for (int y = 0; y < SIDE; y++) std::copy_n(levels + y * SIDE, SIDE, framed + (y + 1) * FRAME + 1);
        for (int y = 0; y < SIDE; y++) {
            const float from_top = y - half - down;
            float px[SIDE], py[SIDE];  // in the frame, which catches every place outside
            int place[SIDE];
            for (int x = 0; x < SIDE; x++) {
                const float from_left = x - half - right;
                px[x] = std::min(std::max(a * from_left + b * from_top + half, -1.0f), (float)SIDE);
                py[x] = std::min(std::max(-sine * from_left + cosine * from_top + half, -1.0f), (float)SIDE);
                if (!bilinear) px[x] = std::nearbyint(px[x]), py[x] = std::nearbyint(py[x]);
                px[x] += 1, py[x] += 1;
                place[x] = (int)py[x] * FRAME + (int)px[x];
            }
            float *row = levels + y * SIDE;
            for (int x = 0; x < SIDE; x++) row[x] = framed[place[x]];
            for (int x = 0; x < SIDE && bilinear; x++) {  // as torchvision does: outside is black, then mixed with fill
                const int ix = std::min((int)px[x], FRAME - 2), iy = std::min((int)py[x], FRAME - 2);
                const float *p = framed + iy * FRAME + ix, fx = px[x] - ix, fy = py[x] - iy;
                const float l = ix > 0 ? 1 - fx : 0, r = ix < SIDE ? fx : 0;
                const float t = iy > 0 ? 1 - fy : 0, b = iy < SIDE ? fy : 0;
                const float sampled = (p[0] * l + p[1] * r) * t + (p[FRAME] * l + p[FRAME + 1] * r) * b;
                row[x] = fill + (l + r) * (t + b) * (sampled - fill);
            }
        }
    }
};

// Puts the images of `order` from `first` on into the first map, and their labels into `labels`.
inline void load(const Data &data, const int64_t *order, const Distortion &distortion, int64_t first, int count,
                 Maps &input, int64_t *labels) {
    const float step = (data.white - data.black) / 255;
    Picture picture;
    for (int n = 0; n < Network::groups_of(count) * LANES; n++) {
        const View view = input.of(n / LANES);
        if (n < count) {
            labels[n] = data.labels[order[first + n]];
            const uint8_t *image = data.images + order[first + n] * Picture::PIXELS;
            const int64_t each = distortion.count < 0 ? Picture::PIXELS : distortion.count * PARAMETERS;
            const float *drawn = distortion.drawn + (first + n) * each;
            if (distortion.count < 0)
                std::copy_n(drawn, Picture::PIXELS, picture.levels);
            else
                std::copy_n(image, Picture::PIXELS, picture.levels);
            for (int t = 0; t < distortion.count; t++) picture.apply(distortion.transforms[t], drawn + t * PARAMETERS);
        }
        for (int y = 0; y < SIDE; y++)  // a lane without an image holds zeros
            for (int x = 0; x < SIDE; x++)
                view.first[y * view.row + x * LANES + n % LANES] =
                    n < count ? data.black + picture.levels[y * SIDE + x] * step : 0;
    }
}
