// Orthogonal steps for matrices: see lab/training/muon.py.
#pragma once
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

// a (rows, inner) times b (inner, columns), added to `to` (rows, columns).
inline void multiply(const float *a, const float *b, int rows, int inner, int columns, float *to) {
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < inner; k++)
            for (int j = 0; j < columns; j++) to[i * columns + j] += a[i * inner + k] * b[k * columns + j];
}

inline std::vector<float> transposed(const float *matrix, int rows, int columns) {
    std::vector<float> result(rows * columns);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) result[j * rows + i] = matrix[i * columns + j];
    return result;
}

inline void orthogonalise(float *matrix, int rows, int columns) {
    constexpr float FIRST = 3.4445f, THIRD = -4.775f, FIFTH = 2.0315f;
    constexpr int ROUNDS = 5;
    bool tall = rows > columns;
    int height = std::min(rows, columns), width = std::max(rows, columns);
    std::vector<float> wide =
        tall ? transposed(matrix, rows, columns) : std::vector<float>(matrix, matrix + rows * columns);
    float squares = 0;
    for (float v : wide) squares += v * v;
    for (float &v : wide) v /= std::sqrt(squares) + 1e-7f;
    std::vector<float> square(height * height), factor(height * height), next(wide.size());
    for (int round = 0; round < ROUNDS; round++) {
        std::fill(square.begin(), square.end(), 0.0f);
        multiply(wide.data(), transposed(wide.data(), height, width).data(), height, width, height, square.data());
        std::fill(factor.begin(), factor.end(), 0.0f);
        multiply(square.data(), square.data(), height, height, height, factor.data());
        for (int i = 0; i < height * height; i++) factor[i] = THIRD * square[i] + FIFTH * factor[i];
        for (size_t i = 0; i < wide.size(); i++) next[i] = FIRST * wide[i];
        multiply(factor.data(), wide.data(), height, height, width, next.data());
        std::swap(wide, next);
    }
    if (tall) wide = transposed(wide.data(), height, width);
    float scale = std::sqrt(std::max(1.0f, (float)rows / columns));
    for (int i = 0; i < rows * columns; i++) matrix[i] = wide[i] * scale;
}
