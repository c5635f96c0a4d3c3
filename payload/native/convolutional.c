/* Viterbi decoder of the rate 1/2, constraint length 7 code; twin of payload/link/frames/convolutional.py, bit for bit.
 *
 * A state is the last six bits, the newest first. Both generators end in a one, so that the two ways into a state send
 * opposite symbols, and so do the same ways into the state 32 further on. */
#include "kernel.h"

enum { STATES = 64, HALF = 32, GENERATOR_1 = 0171, GENERATOR_2 = 0133, MOST_SYMBOL = 255, RENORMALISE = 32 };
enum { MOST_BITS = 1 << 20 };

static int parity_of(int x) {
    int odd = 0;
    for (; x; x >>= 1)
        odd ^= x & 1;
    return odd;
}

VECTORISED static void add_compare_select(const uint16_t *old, uint16_t *next, uint8_t *odd, const uint16_t *flip_1,
                                          const uint16_t *flip_2, uint16_t y1, uint16_t y2) {
    uint16_t even_metric[HALF], odd_metric[HALF];
    for (int s = 0; s < HALF; s++)
        even_metric[s] = old[2 * s], odd_metric[s] = old[2 * s + 1];
    for (int s = 0; s < HALF; s++) {
        uint16_t cost = (uint16_t)((y1 ^ flip_1[s]) + (y2 ^ flip_2[s])), other = (uint16_t)(2 * MOST_SYMBOL - cost);
        uint16_t a = (uint16_t)(even_metric[s] + cost), b = (uint16_t)(odd_metric[s] + other);
        uint16_t c = (uint16_t)(even_metric[s] + other), d = (uint16_t)(odd_metric[s] + cost);
        next[s] = b < a ? b : a, odd[s] = b < a;
        next[s + HALF] = d < c ? d : c, odd[s + HALF] = d < c;
    }
}

/* symbols [n, 2], 0 for a sure zero to 255 for a sure one; bits [n]; odd [n, 64] is scratch. Begins in any state and
 * ends in the best. Gives the cost of the path: 255 for every symbol that a sure one had to be turned round. */
EXPORT int nadir_viterbi(Span symbols, int n, Span odd, Span bits) {
    if (!within(n, 1, MOST_BITS))
        return OUT_OF_RANGE;
    if (!HOLDS(symbols, uint8_t, 2 * n) || !HOLDS(bits, uint8_t, n) || !HOLDS(odd, uint8_t, (size_t)n * STATES))
        return BUFFER_TOO_SMALL;
    uint16_t metrics[2][STATES] = {{0}}, flip_1[HALF], flip_2[HALF];
    const uint8_t *y = symbols.at;
    uint8_t *chosen = odd.at, *to = bits.at;
    int cost = 0, best = 0;
    for (int s = 0; s < HALF; s++) {
        flip_1[s] = parity_of(2 * s & GENERATOR_1) ? MOST_SYMBOL : 0;
        flip_2[s] = parity_of(2 * s & GENERATOR_2) ? 0 : MOST_SYMBOL; /* the second is sent inverted */
    }
    for (int k = 0; k < n; k++) {
        uint16_t *next = metrics[(k + 1) & 1];
        add_compare_select(metrics[k & 1], next, chosen + (size_t)k * STATES, flip_1, flip_2, y[2 * k], y[2 * k + 1]);
        if (k % RENORMALISE == RENORMALISE - 1 || k == n - 1) {
            uint16_t least = next[0];
            for (int s = 1; s < STATES; s++)
                least = next[s] < least ? next[s] : least;
            for (int s = 0; s < STATES; s++)
                next[s] = (uint16_t)(next[s] - least);
            cost += least;
        }
    }
    while (metrics[n & 1][best])
        best++;
    for (int k = n - 1; k >= 0; k--) {
        to[k] = (uint8_t)(best >> 5);
        best = (2 * best & (STATES - 1)) | chosen[(size_t)k * STATES + best];
    }
    return cost;
}
