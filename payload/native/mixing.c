/* Probabilities of yes-or-no decisions from what the bundle says and what was seen so far in the tile; twin of
 * payload/codec/lapped/dense/mixing.py. Sums of integers throughout: their order changes nothing. */
#include "kernel.h"

enum { KINDS = 4, MOST_WORDS = 10, MOST_SETS = 6, MOST_MIXED = 12, MOST_BATCH = 16 };
enum { SIGNIFICANCE, SIZE, REFINEMENT, SIGN };
/* Logits are in 256ths of an octave. */
enum { LOGIT_SIDE = 4096, INPUT_LIMIT = 2047, WEIGHT_BITS = 32, USED_BITS = 16, MOST_SEEN = 1023 };
/* The first weights in all, in 2^-16: of what the bundle says, and of the words together. */
enum { FIRST_OF_GIVEN = 65536, FIRST_OF_WORDS = 58990 };

/* Counters and rows of weights of a kind, by context; payload/codec/lapped/dense/contexts.py. */
static const uint16_t TABLE_SIZES[KINDS][MOST_WORDS] = {
    {1728, 576, 5184, 1280, 1024, 8192, 2880, 4096, 8192, 3456},
    {512, 1024, 384, 576, 384, 1280, 2048},
    {512, 1024, 384, 576, 384, 1280, 2048},
    {576, 576, 108, 2304, 576, 576, 6912, 3072, 5184}};
static const uint16_t SET_SIZES[KINDS][MOST_SETS] = {
    {20, 128, 36, 256, 64, 36}, {16, 20, 32, 256, 32}, {16, 20, 32, 256, 32}, {20, 9, 8}};
enum { COUNTERS = 36608 + 2 * 6208 + 19884, WEIGHT_ROWS = 540 + 2 * 356 + 37 };

/* A generation of the profile: how many decisions are judged before any of them teaches, what a counter begins with
 * besides, how many contexts of a kind have counters (the first of them), and which rows of weights are added up. */
typedef struct {
    int batch, no_prior, words[KINDS], sets[KINDS]; /* sets: a bit each */
} Generation;
enum { GENERATIONS = 2 };
static const Generation GENERATION[GENERATIONS] = {{16, 2, {6, 6, 6, 6}, {7, 7, 7, 7}},
                                                   {1, 1, {10, 7, 7, 9}, {61, 31, 31, 7}}};

/* How often a thing was (yes) and was not (no), and how often the bundle's tables expected it, in 2^-16. */
typedef struct {
    uint16_t yes, no;
    uint32_t expected;
} Counter;

typedef struct {
    int64_t generation;
    int64_t weights[WEIGHT_ROWS][MOST_MIXED]; /* in 2^-32; those beyond a kind's inputs stay 0 */
    Counter counters[COUNTERS];
} Mixture;

/* One decision: its counters, its rows of weights, the logit that the bundle's tables give it. */
typedef struct {
    uint32_t word[MOST_WORDS];
    uint16_t row[MOST_SETS];
    int16_t given;
} Decision;

/* Where the counters and the rows of a kind begin, and which of them its decisions have. */
typedef struct {
    uint32_t word[MOST_WORDS];
    uint16_t row[MOST_SETS];
    int words, sets, rows, no_prior, batch; /* sets: a bit each; rows: how many */
} Layout;

EXPORT size_t nadir_mixture_octets(void) { return sizeof(Mixture); }

static Layout layout_of(const Mixture *m, int kind) {
    const Generation *g = &GENERATION[m->generation];
    Layout found = {.words = g->words[kind], .sets = g->sets[kind], .no_prior = g->no_prior, .batch = g->batch};
    uint32_t counter = 0, row = 0;
    for (int k = 0; k <= kind; k++) {
        for (int t = 0; t < MOST_WORDS; counter += TABLE_SIZES[k][t++])
            found.word[t] = counter;
        for (int s = 0; s < MOST_SETS; row += SET_SIZES[k][s++])
            found.row[s] = (uint16_t)row;
    }
    for (int s = 0; s < MOST_SETS; s++)
        found.rows += found.sets >> s & 1;
    return found;
}

static void open_mixture(Mixture *m, int generation) {
    memset(m, 0, sizeof *m);
    m->generation = generation;
    for (int kind = 0; kind < KINDS; kind++) {
        Layout l = layout_of(m, kind);
        int64_t given = FIRST_OF_GIVEN / l.rows, word = FIRST_OF_WORDS / (l.words * l.rows);
        for (int s = 0; s < MOST_SETS; s++)
            for (int r = 0; r < SET_SIZES[kind][s]; r++)
                for (int j = 0; j <= l.words; j++)
                    m->weights[l.row[s] + r][j] = (j ? word : given) << USED_BITS;
    }
}

/* A decision of a kind by all of its contexts, those that have counters and those that choose rows. */
static inline __attribute__((always_inline)) Decision decision_of(const Layout *l, const int *words, const int *rows,
                                                                  int16_t given) {
    Decision d = {.given = given};
    for (int t = 0; t < l->words; t++)
        d.word[t] = l->word[t] + (uint32_t)words[t];
    for (int s = 0, n = 0; s < MOST_SETS; s++)
        if (l->sets >> s & 1)
            d.row[n++] = (uint16_t)(l->row[s] + rows[s]);
    return d;
}

/* 256 log2 of positive integers below 2^31 and a constant: exponent and eight bits of the mantissa of their float. */
static inline int32_t log2_of(int32_t value) {
    float exact = (float)value;
    int32_t bits;
    memcpy(&bits, &exact, sizeof bits);
    return bits >> 15;
}

static inline int32_t clamp(int64_t value, int32_t most) {
    return (int32_t)(value < -most ? -most : value > most ? most : value);
}

/* By how much what was seen exceeds what was expected, of a decision's counters. */
static inline __attribute__((always_inline)) void excess_of(const Mixture *m, const Layout *l, const Decision *d,
                                                            int32_t *words) {
    int32_t yes[MOST_MIXED], no[MOST_MIXED], expected[MOST_MIXED], unexpected[MOST_MIXED];
    for (int t = 0; t < l->words; t++) {
        Counter c = m->counters[d->word[t]];
        yes[t] = c.yes + 1, no[t] = c.no + l->no_prior, expected[t] = (int32_t)c.expected + (1 << 16);
        unexpected[t] = (int32_t)((((uint32_t)c.yes + c.no + (uint32_t)l->no_prior) << 16) - c.expected);
    }
    for (int t = 0; t < l->words; t++)
        words[t] = clamp(log2_of(yes[t]) - log2_of(expected[t]) - log2_of(no[t]) + log2_of(unexpected[t]), INPUT_LIMIT);
}

/* What a decision is judged by, and its logit. */
static inline __attribute__((always_inline)) int32_t mixed(const Mixture *m, const Layout *l, const Decision *d,
                                                           int32_t *inputs) {
    int64_t weights[MOST_MIXED] = {0}, sum = 0;
    inputs[0] = d->given;
    excess_of(m, l, d, inputs + 1);
    for (int s = 0; s < l->rows; s++)
        for (int j = 0; j < MOST_MIXED; j++)
            weights[j] += m->weights[d->row[s]][j];
    for (int j = 0; j <= l->words; j++)
        sum += (weights[j] >> USED_BITS) * inputs[j];
    return clamp(sum >> (WEIGHT_BITS - USED_BITS), LOGIT_SIDE - 1);
}

static inline __attribute__((always_inline)) void learn_weights(Mixture *m, const Layout *l, const Decision *d,
                                                                const int32_t *inputs, int32_t error) {
    int64_t step[MOST_MIXED] = {0};
    for (int j = 0; j <= l->words; j++)
        step[j] = error * inputs[j];
    for (int s = 0; s < l->rows; s++)
        for (int j = 0; j < MOST_MIXED; j++)
            m->weights[d->row[s]][j] += step[j];
}

/* The tile has taught `count` decisions more. */
static inline __attribute__((always_inline)) void learn(Mixture *m, const Layout *l, const uint32_t *squash,
                                                        const Decision *d, const int32_t inputs[][MOST_MIXED],
                                                        const uint32_t *chance, const uint8_t *bits, int count) {
    for (int i = 0; i < count; i++) {
        learn_weights(m, l, d + i, inputs[i], (bits[i] << 16) - (int32_t)(chance[i] >> 8));
        uint32_t expected = squash[LOGIT_SIDE + d[i].given] >> 8;
        for (int t = 0; t < l->words; t++) {
            Counter *c = &m->counters[d[i].word[t]];
            c->yes = (uint16_t)(c->yes + bits[i]), c->no = (uint16_t)(c->no + !bits[i]), c->expected += expected;
        }
    }
    for (int i = 0; i < count; i++)
        for (int t = 0; t < l->words; t++) {
            Counter *c = &m->counters[d[i].word[t]];
            if (c->yes + c->no <= MOST_SEEN)
                continue;
            c->yes >>= 1, c->no >>= 1;
            uint32_t most = ((uint32_t)c->yes + c->no) << 16;
            c->expected = c->expected >> 1 < most ? c->expected >> 1 : most;
        }
}

/* The least size, in 128ths of a step, of a magnitude of one that is worth its octets at this logit, where it is
 * rebuilt at so many 64ths of a step: it removes at least .175 squared steps of error per bit. The sender's own matter. */
static inline int least_worth(int32_t logit, int rebuilt64) {
    return rebuilt64 + 14 * (256 - (logit < 0 ? logit : 0)) / (5 * rebuilt64);
}

/* Decisions one after the other, in batches: all of a batch are judged by what was known before it. size128 [count] of
 * those that may be left out where they are not worth their octets, 255 of others; NULL: none is. */
static void code_bits(Mixture *m, const Layout *l, const uint32_t *squash, Encoder *encoder, Decoder *decoder,
                      const Decision *d, uint8_t *bits, const uint8_t *size128, int rebuilt64, int count) {
    int32_t inputs[MOST_BATCH][MOST_MIXED];
    uint32_t chance[MOST_BATCH];
    for (int first = 0; first < count; first += l->batch, d += l->batch, bits += l->batch) {
        int n = count - first < l->batch ? count - first : l->batch;
        for (int i = 0; i < n; i++) {
            int32_t logit = mixed(m, l, d + i, inputs[i]);
            chance[i] = squash[LOGIT_SIDE + logit];
            if (size128 && bits[i] && size128[first + i] < least_worth(logit, rebuilt64))
                bits[i] = 0;
        }
        for (int i = 0; i < n; i++) {
            const uint32_t lower[3] = {0, (1 << 24) - chance[i], 1 << 24};
            if (encoder)
                put(encoder, lower, bits[i]);
            else
                bits[i] = (uint8_t)take_bit(decoder, lower);
        }
        learn(m, l, squash, d, (const int32_t(*)[MOST_MIXED])inputs, chance, bits, n);
    }
}
