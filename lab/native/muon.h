// Orthogonal steps for matrices: see lab/training/muon.py.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

using Matrix = std::vector<float>;

// a (rows, inner) times b (inner, columns).
inline Matrix multiply(const Matrix &a, const Matrix &b, int rows, int inner, int columns) {
    Matrix result(rows * columns);
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < inner; k++)
            for (int j = 0; j < columns; j++) result[i * columns + j] += a[i * inner + k] * b[k * columns + j];
    return result;
}

inline void orthogonalise(float *matrix, int rows, int columns) {
    constexpr float FIRST = 3.4445f, THIRD = -4.775f, FIFTH = 2.0315f;
    Matrix step(matrix, matrix + rows * columns), turned(step);
    float squares = 0;
    for (float v : step) squares += v * v;
    for (float &v : step) v /= std::sqrt(squares) + 1e-7f;
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < rows * columns; i++) turned[i % columns * rows + i / columns] = step[i];
        const Matrix square = multiply(step, turned, rows, columns, rows);
        Matrix factor = multiply(square, square, rows, rows, rows);
        for (int i = 0; i < rows * rows; i++) factor[i] = THIRD * square[i] + FIFTH * factor[i];
        const Matrix added = multiply(factor, step, rows, rows, columns);
        for (int i = 0; i < rows * columns; i++) step[i] = FIRST * step[i] + added[i];
    }
    const float scale = std::sqrt(std::max(1.0f, (float)rows / columns));
    for (int i = 0; i < rows * columns; i++) matrix[i] = step[i] * scale;
}
