// Random bits that depend on a counter and a key alone: Philox4x32-10, for 16 counters at once.
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
#pragma once
#include <cstdint>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

using Bits = uint32_t __attribute__((vector_size(64)));
using Wide = uint64_t __attribute__((vector_size(64)));

// Products of the lower halves. Compilers take the long way unless they see that the upper halves do not matter.
inline Wide times(Wide a, uint32_t factor) {
#ifdef __AVX512F__
    return (Wide)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(factor));
#else
    return (a & 0xFFFFFFFF) * factor;
#endif
}

// Moves the upper halves to the lower ones; what is left above does not matter either.
inline Wide upper(Wide a) {
    return (Wide)__builtin_shuffle((Bits)a, Bits{1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15});
}

// Replaces the four words of each counter with random bits. Even and odd lanes are computed apart, each with room for
// 64 bits, of which only the lower 32 count.
inline void philox(Bits (&words)[4], uint64_t key) {
    Wide halves[2][4];
    for (int w = 0; w < 4; w++) halves[0][w] = (Wide)words[w], halves[1][w] = upper((Wide)words[w]);
    for (auto &v : halves) {
        uint32_t first = (uint32_t)key, second = (uint32_t)(key >> 32);
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++) {
            Wide a = times(v[0], 0xD2511F53), b = times(v[2], 0xCD9E8D57);
            v[0] = upper(b) ^ v[1] ^ first, v[1] = b;
            v[2] = upper(a) ^ v[3] ^ second, v[3] = a;
            first += 0x9E3779B9, second += 0xBB67AE85;
        }
    }
    for (int w = 0; w < 4; w++) words[w] = (Bits)((halves[0][w] & 0xFFFFFFFF) | halves[1][w] << 32);
}
