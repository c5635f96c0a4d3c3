/* Held memory and its copies, many pieces in one call (payload/guard/twins.py): handing pieces over one by one takes
 * longer than to compare them. */
#include "kernel.h"

typedef struct {
    Span held, copy;
} Twins;

/* The number of the first of n pairs that differ; n where none does. */
EXPORT int nadir_unlike(Span twins, int n) {
    if (n < 0 || !HOLDS(twins, Twins, n))
        return BUFFER_TOO_SMALL;
    const Twins *pair = twins.at;
    for (int i = 0; i < n; i++)
        if (pair[i].held.octets != pair[i].copy.octets || memcmp(pair[i].held.at, pair[i].copy.at, pair[i].held.octets))
            return i;
    return n;
}
