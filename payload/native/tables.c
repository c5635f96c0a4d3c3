/* The entropy model as Python hands it over, and whether it can be believed; payload/codec/lapped/tables.py. */
#include "kernel.h"

/* What Python hands over, once per bundle and layer. Arrays as in payload/codec/lapped/context_model.py; tables of
 * symbols are cumulative counts. */
typedef struct {
    int32_t bands, groups;
    const int16_t *order;      /* [C] channel by rank */
    const int32_t *starts;     /* [groups + 1] ranks */
    const int16_t *neighbours; /* [5][C][4] channels next in frequency, C where there is none */
    const int8_t *zone;        /* [64] */
    size_t octets[4];          /* of the arrays above */
    uintptr_t complements[4];  /* of where they are: a pointer that was hit is not followed */
} Model;

typedef struct {
    const int8_t *weight;     /* [C][F] */
    const int8_t *gain;       /* [C][4] */
    const int8_t *mix;        /* [F] */
    const int16_t *floor;     /* [4] */
    const int16_t *base;      /* [C] */
    const int16_t *position;  /* [B][64] */
    const int16_t *activity;  /* [C] */
    const uint32_t *runs;     /* [32][66] */
    const int32_t *longest;   /* [32] */
    const uint32_t *refinement; /* [3][3] */
    const uint32_t *size;       /* [8][17] */
    const uint8_t *worth;       /* [32] 128ths of a step from which on a magnitude of one is worth its octets */
    const uint8_t *used;        /* [F] whether a feature has any weight, or a place in a sum that has gain */
    const uint8_t *weighted;    /* features with weights, `weights` of them */
    const uint8_t *mixed;       /* features of the sums that have gain: those of sum e end at mixed_ends[e] */
    const int32_t *mixed_ends;  /* [4] */
    const uint8_t *guess;       /* [32][256] the symbol of `runs` that a quantile's first eight bits begin in */
    int32_t weights;
    size_t octets[17]; /* of the arrays above */
    uintptr_t complements[17];
} Layer;

static int feature_count(int bands) { return 3 + 5 + 2 * (bands - 1) + 2 * (ZONES + 1); }

VECTORISED static int all_within(const int16_t *values, int n, int least, int most) {
    int16_t low = INT16_MAX, high = INT16_MIN;
    for (int i = 0; i < n; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    return n == 0 || (low >= least && high <= most);
}

/* Whether every pointer is still the one that was handed over. */
static int intact(const void *const *pointers, const uintptr_t *complements, int n) {
    int found = 1;
    for (int i = 0; i < n; i++)
        found &= (uintptr_t)pointers[i] == ~complements[i];
    return found;
}

/* Whether a model's arrays are as long as they must be and point at nothing outside. */
static int fits_model(const Model *m) {
    const void *const arrays[] = {m->order, m->starts, m->neighbours, m->zone};
    if (!intact(arrays, m->complements, 4) || !within(m->bands, 1, MAX_BANDS) || !within(m->groups, 1, m->bands * COEFFICIENTS))
        return 0;
    int channels = m->bands * COEFFICIENTS;
    const size_t wanted[] = {2 * channels, 4 * (m->groups + 1), 2 * 5 * 4 * channels, COEFFICIENTS};
    for (int i = 0; i < 4; i++)
        if (m->octets[i] < wanted[i])
            return 0;
    int rising = m->starts[0] == 0 && m->starts[m->groups] == channels;
    for (int g = 0; g < m->groups; g++)
        rising = rising && m->starts[g] < m->starts[g + 1];
    for (int i = 0; i < COEFFICIENTS; i++)
        rising = rising && within(m->zone[i], -1, ZONES - 1);
    return rising && all_within(m->order, channels, 0, channels - 1) &&
           all_within(m->neighbours, 5 * 4 * channels, 0, channels);
}

/* Whether cumulative counts of so many symbols rise from 0 to 2^24. */
static int rises(const uint32_t *lower, int symbols) {
    int found = lower[0] == 0 && lower[symbols] == 1 << 24;
    for (int i = 0; i < symbols; i++)
        found &= lower[i] < lower[i + 1];
    return found;
}

static int all_below(const uint8_t *values, int n, int limit) {
    int found = 1;
    for (int i = 0; i < n; i++)
        found &= values[i] < limit;
    return found;
}

static int lists_fit(const Layer *l, int features) {
    const int32_t *ends = l->mixed_ends;
    if (!within(l->weights, 0, features) || l->octets[13] < (size_t)l->weights || ends[0] < 0 || ends[0] > ends[1] ||
        ends[1] > ends[2] || ends[2] > ends[3] || ends[3] > features || l->octets[14] < (size_t)ends[3])
        return 0;
    return all_below(l->weighted, l->weights, features) && all_below(l->mixed, ends[3], features);
}

/* The same of a layer's arrays, and whether its symbol tables are distributions. */
static int fits_layer(const Model *m, const Layer *l, int k) {
    size_t c = (size_t)m->bands * COEFFICIENTS, f = (size_t)feature_count(m->bands);
    const size_t wanted[] = {c * f, SUMS * c, f, 2 * SUMS, 2 * c, 2 * c, 2 * c, 4 * CLASSES * (LONGEST_RUN + 2),
                             4 * CLASSES, 4 * 3 * REFINEMENTS, 4 * SIZE_CLASSES * (ESCAPE + 1), CLASSES, f, 0, 0,
                             4 * SUMS, CLASSES * GUESSES};
    for (int i = 0; i < 17; i++)
        if (l->octets[i] < wanted[i])
            return 0;
    const void *const arrays[] = {l->weight, l->gain, l->mix, l->floor, l->base, l->position, l->activity, l->runs,
                                  l->longest, l->refinement, l->size, l->worth, l->used, l->weighted, l->mixed,
                                  l->mixed_ends, l->guess};
    int found = intact(arrays, l->complements, 17) && lists_fit(l, (int)f);
    for (int i = 0; found && i < CLASSES; i++)
        found = within(l->longest[i], 1, LONGEST_RUN) && (l->longest[i] & (l->longest[i] - 1)) == 0 &&
                rises(l->runs + i * (LONGEST_RUN + 2), l->longest[i] + 1) &&
                all_below(l->guess + i * GUESSES, GUESSES, l->longest[i] + 1);
    for (int i = 0; found && i < (k ? REFINEMENTS : SIZE_CLASSES); i++)
        found = k ? rises(l->refinement + i * 3, 2) : rises(l->size + i * (ESCAPE + 1), ESCAPE);
    return found;
}
