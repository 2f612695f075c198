// The limit of a core: sums that stay in registers, enough of them that none waits for another.
#include "lanes.h"

// Returns the number of multiply-accumulates done.
extern "C" double multiply_accumulate(int64_t rounds) {
    Lanes factor = Lanes{} + 0.999f, term = Lanes{} + 1e-3f;
    Lanes a = term, b = a + 1, c = a + 2, d = a + 3, e = a + 4, f = a + 5;  // no two alike, or they would be one
    Lanes g = a + 6, h = a + 7, i = a + 8, j = a + 9, k = a + 10, l = a + 11;
    for (int64_t round = 0; round < rounds; round++) {
        a = a * factor + term, b = b * factor + term, c = c * factor + term, d = d * factor + term;
        e = e * factor + term, f = f * factor + term, g = g * factor + term, h = h * factor + term;
        i = i * factor + term, j = j * factor + term, k = k * factor + term, l = l * factor + term;
#if defined(__SSE__)
        asm volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f));  // all of them count
        asm volatile("" : "+x"(g), "+x"(h), "+x"(i), "+x"(j), "+x"(k), "+x"(l));
#endif
    }
    static volatile float kept;
    kept = (a + b + c + d + e + f + g + h + i + j + k + l)[0];
    return 12.0 * LANES * (double)rounds;
}
