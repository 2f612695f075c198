// Orthogonal steps for matrices: see lab/training/muon.py.
#pragma once
#include <cmath>

#include "kernels.h"

using Matrix = std::vector<Lanes>;  // n x n, whole registers to a row, with zeros around what there is
inline float *floats(Matrix &matrix) { return reinterpret_cast<float *>(matrix.data()); }

// The first rows of a product, as a convolution of 1x1.
inline Matrix multiply(Matrix &a, Matrix &b, int rows, int n) {
    Matrix product(b.size());
    std::vector<float> packed(rows * n);
    pack(floats(a), rows, n, 1, false, packed.data());
    convolve({floats(b), n, 0}, n, 1, packed.data(), {floats(product), n, 0}, rows, 1, n / LANES);
    return product;
}

inline void orthogonalise(float *matrix, int rows, int columns) {
    constexpr float FIRST = 3.4445f, THIRD = -4.775f, FIFTH = 2.0315f;
    const int n = (std::max(rows, columns) + LANES - 1) / LANES * LANES, size = n * n / LANES, count = rows * columns;
    Matrix step(size), turned(size);
    float squares = 0;
    for (int i = 0; i < count; i++) squares += matrix[i] * matrix[i];
    const float length = std::sqrt(squares) + 1e-7f, scale = std::sqrt(std::max(1.0f, (float)rows / columns));
    for (int i = 0; i < count; i++) floats(step)[i / columns * n + i % columns] = matrix[i] / length;
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) floats(turned)[j * n + i] = floats(step)[i * n + j];
        Matrix square = multiply(step, turned, rows, n), factor = multiply(square, square, rows, n);
        for (int i = 0; i < size; i++) factor[i] = THIRD * square[i] + FIFTH * factor[i];
        const Matrix added = multiply(factor, step, rows, n);
        for (int i = 0; i < size; i++) step[i] = FIRST * step[i] + added[i];
    }
    for (int i = 0; i < count; i++) matrix[i] = floats(step)[i / columns * n + i % columns] * scale;
}
