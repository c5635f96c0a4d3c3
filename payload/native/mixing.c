/* Probabilities of yes-or-no decisions from what the bundle says and what was seen so far in the tile; twin of
 * payload/codec/lapped/dense/mixing.py. Sums of integers throughout: their order changes nothing. */
#include "kernel.h"

enum { KINDS = 4, MOST_WORDS = 10, MOST_SETS = 6, MOST_MIXED = 12, MOST_BATCH = 16 };
enum { SIGNIFICANCE, SIZE, REFINEMENT, SIGN };
/* Logits are in 256ths of an octave. */
enum { LOGIT_SIDE = 4096, INPUT_LIMIT = 2047, WEIGHT_BITS = 32, USED_BITS = 16, MOST_SEEN = 1023 };
/* The first weights in all, in 2^-16: of what the bundle says, and of the words together. */
enum { FIRST_OF_GIVEN = 65536, FIRST_OF_WORDS = 58990 };

/* Of the third generation, whose weights are kept in 2^-24 and used in 2^-12, and which expects in 2^-8. */
enum { SMALL_WEIGHT_BITS = 24, SMALL_USED_BITS = 12, MOST_WEIGHT = 1 << 27, MOST_USED = 32767, MOST_SEEN_OF_SMALL = 254 };

/* Counters and rows of weights of a kind, by context; payload/codec/lapped/dense/contexts.py. */
static const uint16_t TABLE_SIZES[KINDS][MOST_WORDS] = {
    {1728, 576, 5184, 1280, 1024, 8192, 2880, 4096, 8192, 3456},
    {512, 1024, 384, 576, 384, 1280, 2048},
    {512, 1024, 384, 576, 384, 1280, 2048},
    {576, 576, 108, 2304, 576, 576, 6912, 3072, 5184}};
static const uint16_t SET_SIZES[KINDS][MOST_SETS] = {
    {20, 128, 36, 256, 64, 36}, {16, 20, 32, 256, 32}, {16, 20, 32, 256, 32}, {20, 9, 8}};
enum { COUNTERS = 36608 + 2 * 6208 + 19884, WEIGHT_ROWS = 540 + 2 * 356 + 37 };

/* The third generation has rows for these sets alone, each of so many lanes: words, zeros, and last the given logit. */
static const uint8_t LANES_OF[KINDS] = {16, 8, 8, 16};
enum { SMALL_WEIGHTS = 16 * (540 - 128) + 2 * 8 * 356 + 16 * 37 };
/* By how much it learns of a kind's decisions, in 256ths of what the others do. */
static const int16_t RATE[KINDS] = {200, 256, 256, 320};

/* A generation of the profile: how many decisions are judged before any of them teaches, what a counter begins with
 * besides, how many contexts of a kind have counters (the first of them), and which rows of weights are added up. */
typedef struct {
    int batch, no_prior, words[KINDS], sets[KINDS]; /* sets: a bit each */
} Generation;
enum { THIRD = 2, GENERATIONS };
static const Generation GENERATION[GENERATIONS] = {{16, 2, {6, 6, 6, 6}, {7, 7, 7, 7}},
                                                   {1, 1, {10, 7, 7, 9}, {61, 31, 31, 7}},
                                                   {1, 1, {10, 7, 7, 9}, {61, 31, 31, 7}}};

/* How often a thing was (yes) and was not (no), and how often the bundle's tables expected it, in 2^-16. */
typedef struct {
    uint16_t yes, no;
    uint32_t expected;
} Counter;

/* What the layers so far have taught begins with its generation, which says what follows. */
typedef struct {
    int64_t generation;
} Mixture;

typedef struct {
    Mixture is;
    int64_t weights[WEIGHT_ROWS][MOST_MIXED]; /* in 2^-32; those beyond a kind's inputs stay 0 */
    Counter counters[COUNTERS];
} WideMixture;

typedef struct {
    Mixture is;
    int32_t weights[SMALL_WEIGHTS];
    uint32_t counters[COUNTERS]; /* from the lowest bit: yes 8, no 8, expected 16 */
} SmallMixture;

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
    int kind, words, sets, rows, pitch, no_prior, batch; /* sets: a bit each; rows: how many; pitch: from row to row */
} Layout;

EXPORT size_t nadir_mixture_octets(int generation) {
    return generation == THIRD ? sizeof(SmallMixture) : sizeof(WideMixture);
}

static Layout layout_of(int generation, int kind) {
    const Generation *g = &GENERATION[generation];
    Layout found = {.kind = kind, .words = g->words[kind], .sets = g->sets[kind], .no_prior = g->no_prior, .batch = g->batch};
    uint32_t counter = 0, row = 0;
    for (int k = 0; k <= kind; k++) {
        found.pitch = generation == THIRD ? LANES_OF[k] : 1;
        for (int t = 0; t < MOST_WORDS; counter += TABLE_SIZES[k][t++])
            found.word[t] = counter;
        for (int s = 0; s < MOST_SETS; s++) {
            found.row[s] = (uint16_t)row;
            row += generation != THIRD || g->sets[k] >> s & 1 ? (uint32_t)(SET_SIZES[k][s] * found.pitch) : 0;
        }
    }
    for (int s = 0; s < MOST_SETS; s++)
        found.rows += found.sets >> s & 1;
    return found;
}

static void open_wide(WideMixture *m, int kind, const Layout *l) {
    int64_t given = FIRST_OF_GIVEN / l->rows, word = FIRST_OF_WORDS / (l->words * l->rows);
    for (int s = 0; s < MOST_SETS; s++)
        for (int r = 0; r < SET_SIZES[kind][s]; r++)
            for (int j = 0; j <= l->words; j++)
                m->weights[l->row[s] + r][j] = (j ? word : given) << USED_BITS;
}

static void open_small(SmallMixture *m, int kind, const Layout *l) {
    int given = (FIRST_OF_GIVEN << 8) / l->rows, word = (FIRST_OF_WORDS << 8) / (l->words * l->rows);
    for (int s = 0; s < MOST_SETS; s++)
        for (int r = 0; l->sets >> s & 1 && r < SET_SIZES[kind][s]; r++) {
            int32_t *row = m->weights + l->row[s] + r * l->pitch;
            for (int j = 0; j < l->words; j++)
                row[j] = word;
            row[l->pitch - 1] = given;
        }
}

static void open_mixture(Mixture *m, int generation) {
    memset(m, 0, nadir_mixture_octets(generation));
    m->generation = generation;
    for (int kind = 0; kind < KINDS; kind++) {
        Layout l = layout_of(generation, kind);
        if (generation == THIRD)
            open_small((SmallMixture *)m, kind, &l);
        else
            open_wide((WideMixture *)m, kind, &l);
    }
}

/* A decision of a kind by all of its contexts, those that have counters and those that choose rows. Words beyond the
 * kind's are never looked at. */
static inline __attribute__((always_inline)) void set_decision(Decision *d, const Layout *l, const int *words,
                                                               const int *rows, int16_t given) {
#pragma GCC unroll 10
    for (int t = 0; t < MOST_WORDS; t++)
        d->word[t] = l->word[t] + (uint32_t)words[t];
    int n = 0;
#pragma GCC unroll 6
    for (int s = 0; s < MOST_SETS; s++)
        if (l->sets >> s & 1)
            d->row[n++] = (uint16_t)(l->row[s] + rows[s] * l->pitch);
    d->given = given;
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

/* The chance of a yes in 2^-24 by its logit, which the table has from 0 on. */
static inline uint32_t chance_of(const uint32_t *squash, int32_t logit) {
    uint32_t chance = squash[logit < 0 ? -logit : logit];
    return logit < 0 ? (1 << 24) - chance : chance;
}

/* By how much what was seen exceeds what was expected, of a decision's counters. */
static inline __attribute__((always_inline)) void excess_of(const WideMixture *m, const Layout *l, const Decision *d,
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
static inline __attribute__((always_inline)) int32_t mixed(const WideMixture *m, const Layout *l, const Decision *d,
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

static inline __attribute__((always_inline)) void learn_weights(WideMixture *m, const Layout *l, const Decision *d,
                                                                const int32_t *inputs, int32_t error) {
    int64_t step[MOST_MIXED] = {0};
    for (int j = 0; j <= l->words; j++)
        step[j] = error * inputs[j];
    for (int s = 0; s < l->rows; s++)
        for (int j = 0; j < MOST_MIXED; j++)
            m->weights[d->row[s]][j] += step[j];
}

/* The tile has taught `count` decisions more. */
static inline __attribute__((always_inline)) void learn(WideMixture *m, const Layout *l, const uint32_t *squash,
                                                        const Decision *d, const int32_t inputs[][MOST_MIXED],
                                                        const uint32_t *chance, const uint8_t *bits, int count) {
    for (int i = 0; i < count; i++) {
        learn_weights(m, l, d + i, inputs[i], (bits[i] << 16) - (int32_t)(chance[i] >> 8));
        uint32_t expected = chance_of(squash, d[i].given) >> 8;
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
static void code_in_batches(WideMixture *m, const Layout *l, const uint32_t *squash, Encoder *encoder, Decoder *decoder,
                      const Decision *d, uint8_t *bits, const uint8_t *size128, int rebuilt64, int count) {
    int32_t inputs[MOST_BATCH][MOST_MIXED];
    uint32_t chance[MOST_BATCH];
    for (int first = 0; first < count; first += l->batch, d += l->batch, bits += l->batch) {
        int n = count - first < l->batch ? count - first : l->batch;
        for (int i = 0; i < n; i++) {
            int32_t logit = mixed(m, l, d + i, inputs[i]);
            chance[i] = chance_of(squash, logit);
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

/* What the third generation's decisions of a kind have in common. */
typedef struct {
    SmallMixture *mixture;
    const Layout *layout;
    const uint32_t *squash;
    Encoder *encoder; /* one of the two is there */
    Decoder *decoder;
    int rebuilt64;
} Small;

/* A decision through the coder, by its logit: the error in 2^-16 that the chance had, times the kind's rate. */
static inline int32_t code_one(const Small *g, int32_t logit, uint8_t *bit, int size128) {
    logit = logit < 1 - LOGIT_SIDE ? 1 - LOGIT_SIDE : logit > LOGIT_SIDE - 1 ? LOGIT_SIDE - 1 : logit;
    uint32_t chance = chance_of(g->squash, logit);
    if (*bit && size128 < 255 && size128 < least_worth(logit, g->rebuilt64))
        *bit = 0;
    const uint32_t lower[3] = {0, (1 << 24) - chance, 1 << 24};
    if (g->encoder)
        put(g->encoder, lower, *bit);
    else
        *bit = (uint8_t)take_bit(g->decoder, lower);
    return ((*bit << 16) - (int32_t)(chance >> 8)) * RATE[g->layout->kind] >> 8;
}

/* The chance that the bundle gives a decision, in 2^-8. */
static inline int32_t expected_of(const Small *g, const Decision *d) {
    return (int32_t)((chance_of(g->squash, d->given) + (1 << 15)) >> 16);
}

static inline int32_t between(int32_t value, int32_t most) { return value < -most ? -most : value > most ? most : value; }

/* One decision after the other, each of which teaches the next one. */
static void code_small_plain(const Small *g, const Decision *d, uint8_t *bits, const uint8_t *size128, int count) {
    const Layout *l = g->layout;
    for (int i = 0; i < count; i++, d++) {
        int32_t input[MOST_WORDS + 1], weight[MOST_WORDS + 1] = {0}, logit = 0;
        for (int t = 0; t < l->words; t++) {
            uint32_t seen = g->mixture->counters[d->word[t]];
            int32_t yes = (int32_t)(seen & 255), no = (int32_t)(seen >> 8 & 255), expected = (int32_t)(seen >> 16);
            input[t] = between(log2_of((yes + 1) << 8) - log2_of(expected + (1 << 8)) - log2_of((no + 1) << 8) +
                                   log2_of(((yes + no + 1) << 8) - expected),
                               INPUT_LIMIT);
        }
        input[l->words] = d->given;
        for (int s = 0; s < l->rows; s++) {
            const int32_t *row = g->mixture->weights + d->row[s];
            for (int t = 0; t <= l->words; t++)
                weight[t] += row[t < l->words ? t : l->pitch - 1];
        }
        for (int t = 0; t <= l->words; t++)
            logit += between(weight[t] >> (SMALL_WEIGHT_BITS - SMALL_USED_BITS), MOST_USED) * input[t];
        int32_t error = code_one(g, logit >> SMALL_USED_BITS, bits + i, size128 ? size128[i] : 255);
        for (int s = 0; s < l->rows; s++) {
            int32_t *row = g->mixture->weights + d->row[s];
            for (int t = 0; t <= l->words; t++) {
                int32_t *w = row + (t < l->words ? t : l->pitch - 1);
                *w = between(*w + (error * input[t] >> 8), MOST_WEIGHT);
            }
        }
        uint32_t given = (uint32_t)expected_of(g, d);
        for (int t = 0; t < l->words; t++) {
            uint32_t *counter = g->mixture->counters + d->word[t];
            uint32_t yes = (*counter & 255) + bits[i], no = (*counter >> 8 & 255) + !bits[i], expected = (*counter >> 16) + given;
            int full = yes + no > MOST_SEEN_OF_SMALL;
            yes >>= full, no >>= full, expected >>= full;
            uint32_t most = (yes + no) << 8;
            *counter = yes | no << 8 | (expected < most ? expected : most) << 16;
        }
    }
}

#if HAVE_AVX2
#define EIGHT static inline __attribute__((always_inline, target("avx2"))) __m256i

EIGHT eight_between(__m256i values, int32_t most) {
    return _mm256_max_epi32(_mm256_min_epi32(values, _mm256_set1_epi32(most)), _mm256_set1_epi32(-most));
}

EIGHT eight_log2_of(__m256i values) { return _mm256_srai_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(values)), 15); }

/* Eight counters of a decision; nothing where it has no more. */
EIGHT eight_counters(const SmallMixture *m, const uint32_t *word, const int count) {
    uint32_t c[8] = {0};
    for (int t = 0; t < count && t < 8; t++)
        c[t] = m->counters[word[t]];
    return _mm256_setr_epi32((int)c[0], (int)c[1], (int)c[2], (int)c[3], (int)c[4], (int)c[5], (int)c[6], (int)c[7]);
}

EIGHT eight_words(__m256i seen) {
    const __m256i low = _mm256_set1_epi32(0xFF00), one = _mm256_set1_epi32(1 << 8);
    __m256i yes = _mm256_and_si256(_mm256_slli_epi32(seen, 8), low), no = _mm256_and_si256(seen, low);
    __m256i expected = _mm256_srli_epi32(seen, 16), no1 = _mm256_add_epi32(no, one), yes1 = _mm256_add_epi32(yes, one);
    __m256i unexpected = _mm256_sub_epi32(_mm256_add_epi32(yes, no1), expected);
    __m256i up = _mm256_add_epi32(eight_log2_of(yes1), eight_log2_of(unexpected));
    __m256i down = _mm256_add_epi32(eight_log2_of(_mm256_add_epi32(expected, one)), eight_log2_of(no1));
    return eight_between(_mm256_sub_epi32(up, down), INPUT_LIMIT);
}

/* What eight counters have seen after one decision more. */
EIGHT eight_after(__m256i seen, int bit, int32_t given) {
    const __m256i low = _mm256_set1_epi32(255);
    __m256i yes = _mm256_add_epi32(_mm256_and_si256(seen, low), _mm256_set1_epi32(bit));
    __m256i no = _mm256_add_epi32(_mm256_and_si256(_mm256_srli_epi32(seen, 8), low), _mm256_set1_epi32(!bit));
    __m256i expected = _mm256_add_epi32(_mm256_srli_epi32(seen, 16), _mm256_set1_epi32(given));
    __m256i full = _mm256_cmpgt_epi32(_mm256_add_epi32(yes, no), _mm256_set1_epi32(MOST_SEEN_OF_SMALL));
    full = _mm256_srli_epi32(full, 31);
    yes = _mm256_srlv_epi32(yes, full), no = _mm256_srlv_epi32(no, full), expected = _mm256_srlv_epi32(expected, full);
    expected = _mm256_min_epi32(expected, _mm256_slli_epi32(_mm256_add_epi32(yes, no), 8));
    return _mm256_or_si256(_mm256_or_si256(yes, _mm256_slli_epi32(no, 8)), _mm256_slli_epi32(expected, 16));
}

AVX2 static inline __attribute__((always_inline)) void put_counters(SmallMixture *m, const uint32_t *word, __m256i seen,
                                                                    const int count) {
    uint32_t c[8];
    _mm256_storeu_si256((__m256i *)c, seen);
    for (int t = 0; t < count && t < 8; t++)
        m->counters[word[t]] = c[t];
}

/* As code_small_plain, for a number of words, rows and eights of lanes that a compiler knows. */
AVX2 static inline __attribute__((always_inline)) void code_eights(const Small *g, const Decision *d, uint8_t *bits,
                                                                   const uint8_t *size128, int count, const int words,
                                                                   const int rows, const int eights) {
    SmallMixture *m = g->mixture;
    for (int i = 0; i < count; i++, d++) {
        __m256i seen[2], input[2], sum = _mm256_setzero_si256();
        for (int e = 0; e < eights; e++) {
            seen[e] = eight_counters(m, d->word + 8 * e, words - 8 * e);
            input[e] = eight_words(seen[e]);
        }
        input[eights - 1] = _mm256_insert_epi32(input[eights - 1], d->given, 7);
        for (int e = 0; e < eights; e++) {
            __m256i weight = _mm256_setzero_si256();
            for (int s = 0; s < rows; s++)
                weight = _mm256_add_epi32(weight, _mm256_loadu_si256((const __m256i *)(m->weights + d->row[s]) + e));
            weight = eight_between(_mm256_srai_epi32(weight, SMALL_WEIGHT_BITS - SMALL_USED_BITS), MOST_USED);
            sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(weight, input[e]));
        }
        __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
        int32_t logit = _mm_cvtsi128_si32(four) + _mm_extract_epi32(four, 1);
        int32_t error = code_one(g, logit >> SMALL_USED_BITS, bits + i, size128 ? size128[i] : 255);
        for (int e = 0; e < eights; e++) {
            __m256i step = _mm256_srai_epi32(_mm256_mullo_epi32(_mm256_set1_epi32(error), input[e]), 8);
            for (int s = 0; s < rows; s++) {
                __m256i *row = (__m256i *)(m->weights + d->row[s]) + e;
                _mm256_storeu_si256(row, eight_between(_mm256_add_epi32(_mm256_loadu_si256(row), step), MOST_WEIGHT));
            }
            put_counters(m, d->word + 8 * e, eight_after(seen[e], bits[i], expected_of(g, d)), words - 8 * e);
        }
    }
}

AVX2 static void code_small_avx2(const Small *g, const Decision *d, uint8_t *bits, const uint8_t *size128, int count) {
    if (g->layout->kind == SIGNIFICANCE)
        code_eights(g, d, bits, size128, count, 10, 5, 2);
    else if (g->layout->kind == SIGN)
        code_eights(g, d, bits, NULL, count, 9, 3, 2);
    else
        code_eights(g, d, bits, NULL, count, 7, 5, 1);
}
#endif

static void code_bits(Mixture *m, const Layout *l, const uint32_t *squash, Encoder *encoder, Decoder *decoder,
                      const Decision *d, uint8_t *bits, const uint8_t *size128, int rebuilt64, int count) {
    if (m->generation != THIRD) {
        code_in_batches((WideMixture *)m, l, squash, encoder, decoder, d, bits, size128, rebuilt64, count);
        return;
    }
    Small g = {(SmallMixture *)m, l, squash, encoder, decoder, rebuilt64};
#if HAVE_AVX2
    if (use_avx2()) {
        code_small_avx2(&g, d, bits, size128, count);
        return;
    }
#endif
    code_small_plain(&g, d, bits, size128, count);
}
