// Images side by side, as many as a register holds floats: a number of each in a vector, a bit of each in a word.
#pragma once
#include <cstdint>
#ifdef __SSE__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
// A short loop of known length, unrolled.
#define EACH(i, count) _Pragma("GCC unroll 16") for (int i = 0; i < count; i++)
using Lanes = float __attribute__((vector_size(4 * LANES)));
using Bits = uint32_t __attribute__((vector_size(4 * LANES)));

inline Lanes &lanes(float *place) { return *reinterpret_cast<Lanes *>(place); }
inline const Lanes &lanes(const float *place) { return *reinterpret_cast<const Lanes *>(place); }

inline float sum_of(const Lanes &v) {
    float sum = 0;
    for (int n = 0; n < LANES; n++) sum += v[n];
    return sum;
}

inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }  // b if one of them is NaN

// Bit n of the result: whether v[n] >= threshold.
inline uint16_t at_least(Bits v, uint32_t threshold) {
#ifdef __AVX512F__
    return _mm512_cmpge_epu32_mask((__m512i)v, _mm512_set1_epi32((int)threshold));
#elif defined(__AVX2__)
    return (uint16_t)_mm256_movemask_ps((__m256)(v >= threshold));
#else
    uint16_t result = 0;
    for (int n = 0; n < LANES; n++) result |= (uint16_t)((v[n] >= threshold) << n);
    return result;
#endif
}

// v where the bits are set, 0 elsewhere.
inline Lanes where(uint16_t bits, Lanes v) {
#ifdef __AVX512F__
    return (Lanes)_mm512_maskz_mov_ps(bits, (__m512)v);
#else
    Bits places;
    for (int n = 0; n < LANES; n++) places[n] = 1u << n;
    return (places & (uint32_t)bits) != 0 ? v : Lanes{};
#endif
}
