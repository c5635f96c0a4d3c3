/* Probabilities of yes-or-no decisions from what the bundle says and what was seen so far in the tile; twin of
 * payload/codec/lapped/dense/mixing.py. Sums of integers throughout: their order changes nothing. */
#include "kernel.h"

enum { BATCH = 16, WORDS = 6, SETS = 3, MIXED = WORDS + 1, KINDS = 4 };
enum { SIGNIFICANCE, SIZE, REFINEMENT, SIGN };
/* Logits are in 256ths of an octave. */
enum { LOGIT_SIDE = 4096, INPUT_LIMIT = 2047, WEIGHT_BITS = 32, USED_BITS = 16, MOST_SEEN = 1023 };

/* Counters and rows of weights of a kind, by table and by set; payload/codec/lapped/dense/contexts.py. */
static const uint16_t TABLE_SIZES[KINDS][WORDS] = {{1728, 576, 5184, 1280, 1024, 8192},
                                                    {512, 1024, 384, 576, 384, 1280},
                                                    {512, 1024, 384, 576, 384, 1280},
                                                    {576, 576, 108, 2304, 576, 576}};
static const uint16_t SET_SIZES[KINDS][SETS] = {{20, 128, 36}, {16, 20, 32}, {16, 20, 32}, {20, 9, 8}};
enum { COUNTERS = 17984 + 2 * 4160 + 4716, WEIGHT_ROWS = 184 + 2 * 68 + 37 };

/* How often a thing was (yes) and was not (no), and how often the bundle's tables expected it, in 2^-16. */
typedef struct {
    uint16_t yes, no;
    uint32_t expected;
} Counter;

typedef struct {
    int64_t weights[WEIGHT_ROWS][MIXED]; /* in 2^-32 */
    Counter counters[COUNTERS];
} Mixture;

/* One decision: its counters, then its rows of weights; the logit that the bundle's tables give it. */
typedef struct {
    uint16_t at[WORDS + SETS];
    int16_t given;
} Decision;

EXPORT size_t nadir_mixture_octets(void) { return sizeof(Mixture); }

static void open_mixture(Mixture *m) {
    memset(m->counters, 0, sizeof m->counters);
    for (int r = 0; r < WEIGHT_ROWS; r++)
        for (int j = 0; j < MIXED; j++)
            m->weights[r][j] = j ? (int64_t)3277 << USED_BITS : (int64_t)21845 << USED_BITS;
}

static void begins_of(int kind, uint16_t *begins) {
    uint16_t counter = 0, row = 0;
    for (int k = 0; k <= kind; k++) {
        for (int t = 0; t < WORDS; counter = (uint16_t)(counter + TABLE_SIZES[k][t++]))
            begins[t] = counter;
        for (int s = 0; s < SETS; row = (uint16_t)(row + SET_SIZES[k][s++]))
            begins[WORDS + s] = row;
    }
}

/* 256 log2 of a positive integer and a constant: exponent and eight bits of the mantissa of its float. */
static inline int32_t log2_of(uint32_t value) {
    float exact = (float)value;
    int32_t bits;
    memcpy(&bits, &exact, sizeof bits);
    return bits >> 15;
}

static inline int32_t clamp(int64_t value, int32_t most) {
    return (int32_t)(value < -most ? -most : value > most ? most : value);
}

/* By how much what was seen exceeds what was expected. */
static inline int32_t excess(const Counter *c) {
    uint32_t seen = (uint32_t)c->yes + c->no, unexpected = (seen << 16) - c->expected;
    int32_t yes = log2_of(c->yes + 1u) - log2_of(c->expected + (1u << 16));
    int32_t no = log2_of(c->no + 2u) - log2_of(unexpected + (2u << 16));
    return clamp(yes - no, INPUT_LIMIT);
}

/* What a decision is judged by, and its probability of a yes in 2^-24. */
static uint32_t mixed(const Mixture *m, const uint32_t *squash, const Decision *d, int32_t *inputs) {
    int64_t sum = 0;
    inputs[0] = d->given;
    for (int t = 0; t < WORDS; t++)
        inputs[1 + t] = excess(&m->counters[d->at[t]]);
    const int64_t *a = m->weights[d->at[WORDS]], *b = m->weights[d->at[WORDS + 1]], *c = m->weights[d->at[WORDS + 2]];
    for (int j = 0; j < MIXED; j++)
        sum += ((a[j] + b[j] + c[j]) >> USED_BITS) * inputs[j];
    return squash[LOGIT_SIDE + clamp(sum >> (WEIGHT_BITS - USED_BITS), LOGIT_SIDE - 1)];
}

/* The tile has taught `count` decisions more. */
static void learn(Mixture *m, const uint32_t *squash, const Decision *d, const int32_t inputs[][MIXED],
                  const uint32_t *chance, const uint8_t *bits, int count) {
    for (int i = 0; i < count; i++) {
        int64_t error = ((int64_t)bits[i] << 16) - (chance[i] >> 8);
        for (int s = WORDS; s < WORDS + SETS; s++)
            for (int j = 0; j < MIXED; j++)
                m->weights[d[i].at[s]][j] += error * inputs[i][j];
        uint32_t expected = squash[LOGIT_SIDE + d[i].given] >> 8;
        for (int t = 0; t < WORDS; t++) {
            Counter *c = &m->counters[d[i].at[t]];
            c->yes = (uint16_t)(c->yes + bits[i]), c->no = (uint16_t)(c->no + !bits[i]), c->expected += expected;
        }
    }
    for (int i = 0; i < count; i++)
        for (int t = 0; t < WORDS; t++) {
            Counter *c = &m->counters[d[i].at[t]];
            if (c->yes + c->no <= MOST_SEEN)
                continue;
            c->yes >>= 1, c->no >>= 1;
            uint32_t most = ((uint32_t)c->yes + c->no) << 16;
            c->expected = c->expected >> 1 < most ? c->expected >> 1 : most;
        }
}

/* Decisions one after the other, in batches: all of a batch are judged by what was known before it. */
static void code_bits(Mixture *m, const uint32_t *squash, Encoder *encoder, Decoder *decoder, const Decision *d,
                      uint8_t *bits, int count) {
    int32_t inputs[BATCH][MIXED];
    uint32_t chance[BATCH];
    for (int first = 0; first < count; first += BATCH, d += BATCH, bits += BATCH) {
        int n = count - first < BATCH ? count - first : BATCH;
        for (int i = 0; i < n; i++)
            chance[i] = mixed(m, squash, d + i, inputs[i]);
        for (int i = 0; i < n; i++) {
            const uint32_t lower[3] = {0, (1 << 24) - chance[i], 1 << 24};
            if (encoder)
                put(encoder, lower, bits[i]);
            else
                bits[i] = (uint8_t)take_bit(decoder, lower);
        }
        learn(m, squash, d, (const int32_t(*)[MIXED])inputs, chance, bits, n);
    }
}
