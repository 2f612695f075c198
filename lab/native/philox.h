// Random bits that depend on a counter and a key alone: Philox4x32-10, for LANES counters at once.
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
#pragma once
#include "lanes.h"

using Wide = uint64_t __attribute__((vector_size(4 * LANES)));

// Products of the lower halves. Compilers take the long way unless they see that the upper halves do not matter.
inline Wide times(Wide a, uint32_t factor) {
#ifdef __AVX512F__
    return (Wide)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(factor));
#elif defined(__AVX2__)
    return (Wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(factor));
#else
    return (a & 0xFFFFFFFF) * factor;
#endif
}

// Replaces the four words of each counter with random bits. Even and odd lanes are computed apart, each with room for
// 64 bits, of which only the lower 32 count.
inline void philox(Bits (&words)[4], uint64_t key) {
    Wide halves[2][4];
    for (int w = 0; w < 4; w++) halves[0][w] = (Wide)words[w], halves[1][w] = (Wide)words[w] >> 32;
    for (auto &v : halves) {
        uint32_t first = (uint32_t)key, second = (uint32_t)(key >> 32);
        EACH (round, 10) {
            Wide a = times(v[0], 0xD2511F53), b = times(v[2], 0xCD9E8D57);
            v[0] = (b >> 32) ^ v[1] ^ first, v[1] = b;
            v[2] = (a >> 32) ^ v[3] ^ second, v[3] = a;
            first += 0x9E3779B9, second += 0xBB67AE85;
        }
    }
    for (int w = 0; w < 4; w++) words[w] = (Bits)((halves[0][w] & 0xFFFFFFFF) | halves[1][w] << 32);
}
