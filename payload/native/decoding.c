/* Octets -> layers, group by group and class by class; the ground's half of payload/codec/lapped/layers.py.
 *
 * What the range coder says of a class is a string of bits, one for every open coefficient: whether it becomes
 * significant. Chunk by chunk the bits of a class are dealt out to the coefficients that are of it. */
#include "kernel.h"

enum { PLAIN, WITH_AVX2, WITH_PDEP }; /* which loops are taken */

/* A group while it is decoded. Chunks and pairs of them: chunks.c. */
typedef struct {
    Contexts contexts;
    Decoder coder;
    int k, chunks;                /* the layer; chunks in a channel */
    uint8_t *open;                /* [channels of the group][chunks][STEP] classes */
    uint32_t *counts;             /* [channels of the group][CLASSES] */
    uint64_t *words;              /* strings of the group */
    uint64_t *ones[CLASSES];      /* of the open coefficients of a class, whether each becomes significant */
    size_t seen[CLASSES];         /* how many of them are dealt out */
    uint64_t *refined[REFINEMENTS]; /* of the known ones of a size, the next bit */
    size_t refined_seen[REFINEMENTS];
    uint8_t *symbols, *size[SIZE_CLASSES]; /* sizes in layer 0, by class */
    size_t more[SIZE_CLASSES];    /* how many refinements or sizes there are */
    uint64_t *fresh;              /* [C][chunks / 2] by rank: what becomes significant in this layer */
    uint64_t *minus;              /* their signs */
    size_t signs, escapes;
} Group;

static size_t group_words(size_t group_cells) {
    return 2 * (group_cells / 64) + 2 * (CLASSES + REFINEMENTS);
}

static size_t decoding_octets(int channels, int h, int w, int longest_group) {
    size_t cells = (size_t)longest_group * h * w, chunks = (size_t)chunks_of(h, w);
    size_t words = group_words(cells) + channels * chunks / 2 + words_for((size_t)channels * h * w);
    return sizeof(uint64_t) * (words + 1) + sizeof(uint32_t) * CLASSES * longest_group + cells +
           STEP * chunks * longest_group;
}

static void open_group(Group *g, uint8_t *memory, int channels, int longest_group) {
    int h = g->contexts.h, w = g->contexts.w;
    size_t cells = (size_t)longest_group * h * w;
    g->chunks = chunks_of(h, w);
    g->words = (uint64_t *)(((uintptr_t)memory + 7) & ~(uintptr_t)7);
    g->fresh = g->words + group_words(cells);
    g->minus = g->fresh + (size_t)channels * g->chunks / 2;
    g->counts = (uint32_t *)(g->minus + words_for((size_t)channels * h * w));
    g->symbols = (uint8_t *)(g->counts + (size_t)CLASSES * longest_group);
    g->open = g->symbols + cells;
}

static inline uint8_t *open_of(const Group *g, int at) { return g->open + (size_t)at * g->chunks * STEP; }

static inline const uint8_t *classes_of_row(const Contexts *t, int at, int row) {
    return t->found + (size_t)at * t->span + (size_t)row * t->pitch;
}

static inline int size_class(unsigned magnitude) {
    unsigned size = magnitude >> 1;
    return (int)(size < REFINEMENTS ? size : REFINEMENTS) - 1;
}

#if HAVE_AVX2
/* Known ones among STEP magnitudes, by size: they are still even. They are closed in `open`, where there is one. */
AVX2 static inline void known_avx2(const uint16_t *here, uint32_t by_size[REFINEMENTS], uint8_t *open) {
    __m256i octets = octets_avx2(here, 0), old = reach_avx2(octets, 2), *to = (__m256i *)open;
    by_size[0] = mask_avx2(_mm256_cmpeq_epi8(octets, _mm256_set1_epi8(2)));
    by_size[1] = mask_avx2(_mm256_cmpeq_epi8(octets, _mm256_set1_epi8(4)));
    by_size[2] = mask_avx2(old) & ~by_size[0] & ~by_size[1];
    if (open)
        _mm256_storeu_si256(to, _mm256_or_si256(_mm256_loadu_si256(to), old));
}
#endif

static void known_plain(const uint16_t *here, int count, uint32_t by_size[REFINEMENTS]) {
    memset(by_size, 0, REFINEMENTS * sizeof *by_size);
    for (int i = 0; i < count; i++)
        if (here[i] > 1)
            by_size[size_class(here[i])] |= (uint32_t)1 << i;
}

/* Classes of what is open in up to STEP coefficients; what is known is counted by size. */
static inline __attribute__((always_inline)) void open_chunk(Group *g, const uint16_t *here, int count, uint8_t *open,
                                                             int how) {
    uint32_t by_size[REFINEMENTS];
#if HAVE_AVX2
    if (how && count == STEP)
        known_avx2(here, by_size, open);
    else
#endif
    {
        known_plain(here, count, by_size);
        for (int i = 0; i < count; i++)
            open[i] |= here[i] > 1 ? CLOSED : 0;
    }
    for (int c = 0; c < REFINEMENTS; c++)
        g->more[c] += (size_t)__builtin_popcount(by_size[c]);
}

/* The group's channel `at`, whose magnitudes are `here`: which classes its open coefficients are of. */
static inline __attribute__((always_inline)) void open_channel(Group *g, int at, const uint16_t *here, int known,
                                                               int how) {
    const Contexts *t = &g->contexts;
    uint8_t *to = open_of(g, at), *end = to + (size_t)g->chunks * STEP;
    for (int row = 0; row < t->h; row++)
        for (int col = 0; col < t->w; col += STEP, to += STEP) {
            int count = t->w - col < STEP ? t->w - col : STEP;
            copy_chunk(classes_of_row(t, at, row) + col, count, to);
            if (known)
                open_chunk(g, here + (size_t)row * t->w + col, count, to, how);
        }
    memset(to, CLOSED, (size_t)(end - to));
}

/* Its open coefficients by class. */
static inline __attribute__((always_inline)) void count_channel(const Group *g, int at, int how) {
    uint32_t *counts = g->counts + (size_t)at * CLASSES;
    const uint8_t *open = open_of(g, at);
#if HAVE_AVX2
    if (how && g->chunks <= MOST_COUNTED) {
        count_avx2(open, g->chunks, counts);
        return;
    }
#endif
    count_plain(open, g->chunks, counts);
}

/* Runs of a class, by its tables, until `count` coefficients are covered: which of them become significant, bits of a
 * string of zeros. How many do; `too_long`: the last lies beyond them. `longest` is a constant where it is small. */
typedef size_t TakeRuns(Decoder *from, const uint32_t *lower, const uint8_t *guess, uint32_t longest, uint32_t count,
                        uint64_t *ones, int *too_long);

static inline __attribute__((always_inline)) size_t take_runs(Decoder *from, const uint32_t *lower,
                                                              const uint8_t *guess, uint32_t longest, uint32_t count,
                                                              uint64_t *ones, int *too_long) {
    Decoder coder = *from; /* a copy that need not be written back for every symbol */
    size_t found = 0;
    uint32_t one = 0, place = 0;
    while (place < count) {
        uint32_t run = guess ? (uint32_t)take_guessed(&coder, lower, guess) : take_few(&coder, lower, (int)longest + 1);
        one = run != longest;
        place += run;
        ones[place >> 6] |= (uint64_t)one << (place & 63);
        place += one, found += one;
    }
    *from = coder, *too_long = one && place > count;
    return found;
}

#define RUNS_UP_TO(most)                                                                                               \
    static size_t runs_up_to_##most(Decoder *from, const uint32_t *lower, const uint8_t *guess, uint32_t longest,      \
                                    uint32_t count, uint64_t *ones, int *too_long) {                                   \
        (void)guess, (void)longest;                                                                                    \
        return take_runs(from, lower, NULL, most, count, ones, too_long);                                              \
    }
RUNS_UP_TO(1)
RUNS_UP_TO(2)
RUNS_UP_TO(4)

static size_t longer_runs(Decoder *from, const uint32_t *lower, const uint8_t *guess, uint32_t longest, uint32_t count,
                          uint64_t *ones, int *too_long) {
    return take_runs(from, lower, guess, longest, count, ones, too_long);
}

/* Which of `count` coefficients of a class become significant. 0, or what is wrong with the octets. */
static int take_ones(Group *g, int class, uint32_t count) {
    static TakeRuns *const by_longest[] = {longer_runs, runs_up_to_1, runs_up_to_2, longer_runs, runs_up_to_4};
    const Layer *layer = g->contexts.layer;
    uint32_t longest = (uint32_t)layer->longest[class];
    uint64_t *ones = g->ones[class] = g->words;
    int too_long;
    memset(ones, 0, words_for(count) * sizeof *ones);
    g->words += words_for(count), g->seen[class] = 0;
    size_t found = by_longest[longest <= 4 ? longest : 0](&g->coder, layer->runs + class * (LONGEST_RUN + 2),
                                                          layer->guess + class * GUESSES, longest, count, ones, &too_long);
    g->signs += found;
    g->more[class >> 2] += g->k ? 0 : found;
    return g->coder.failed ? NO_ENCODERS : too_long ? RUN_TOO_LONG : 0;
}

/* The lowest of `bits`, one after the other, where `chosen` has bits. */
static uint64_t deposit_plain(uint64_t bits, uint64_t chosen) {
    uint64_t found = 0;
    for (; bits && chosen; bits >>= 1, chosen &= chosen - 1)
        found |= bits & 1 ? chosen & -chosen : 0;
    return found;
}

#if HAVE_AVX2
PEXT static inline uint64_t deposit_pext(uint64_t bits, uint64_t chosen) { return _pdep_u64(bits, chosen); }
#define DEPOSIT(bits, chosen, how) ((how) == WITH_PDEP ? deposit_pext(bits, chosen) : deposit_plain(bits, chosen))
#else
#define DEPOSIT(bits, chosen, how) deposit_plain(bits, chosen)
#endif

/* The next bits of a string for those that are `chosen`. */
static inline __attribute__((always_inline)) uint64_t deal(const uint64_t *words, size_t *seen, uint64_t chosen,
                                                           int how) {
    uint64_t found = DEPOSIT(bits_at(words, *seen), chosen, how);
    *seen += (size_t)__builtin_popcountll(chosen);
    return found;
}

static uint64_t equal_plain(const uint8_t *classes, int class) {
    uint64_t found = 0;
    for (int i = 0; i < 2 * STEP; i++)
        found |= (uint64_t)(classes[i] == class) << i;
    return found;
}

#if HAVE_AVX2
#define EQUAL(classes, class, how) ((how) ? equal_avx2(classes, class) : equal_plain(classes, class))
#else
#define EQUAL(classes, class, how) equal_plain(classes, class)
#endif

/* Those of the group's channel `at` that become significant: fresh [chunks / 2]. Whether there are any. */
static inline __attribute__((always_inline)) int mark_channel(Group *g, int at, uint64_t *fresh, int how) {
    const uint32_t *counts = g->counts + (size_t)at * CLASSES;
    const uint8_t *open = open_of(g, at);
    int some = 0;
    memset(fresh, 0, sizeof *fresh * g->chunks / 2);
    for (int c = 0; c < CLASSES; c++) {
        size_t seen = g->seen[c];
        g->seen[c] += counts[c];
        if (!any_bit(g->ones[c], seen, g->seen[c]))
            continue;
        some = 1;
        for (int i = 0; i < g->chunks / 2; i++)
            fresh[i] |= deal(g->ones[c], &seen, EQUAL(open + 2 * STEP * i, c, how), how);
    }
    return some;
}

/* Refinements as strings of bits, or, in the coarsest layer, sizes. */
static inline __attribute__((always_inline)) void take_more(Group *g) {
    const Layer *layer = g->contexts.layer;
    Decoder coder = g->coder;
    uint8_t *to = g->symbols;
    for (int c = 0; g->k == 0 && c < SIZE_CLASSES; c++) {
        g->size[c] = to;
        for (size_t i = 0; i < g->more[c]; i++)
            *to++ = (uint8_t)take(&coder, layer->size + c * (ESCAPE + 1), ESCAPE);
    }
    for (int c = 0; g->k && c < REFINEMENTS; c++) {
        uint64_t *words = g->refined[c] = g->words;
        g->words += words_for(g->more[c]), g->refined_seen[c] = 0;
        for (size_t i = 0; i < g->more[c]; i += 64) {
            uint64_t word = 0;
            for (size_t j = 0; j < 64 && i + j < g->more[c]; j++)
                word |= (uint64_t)take_bit(&coder, layer->refinement + c * 3) << j;
            words[i / 64] = word;
        }
    }
    g->coder = coder;
}

/* Sizes of what becomes significant in up to STEP coefficients of the coarsest layer. */
static inline void set_sizes(Group *g, uint16_t *here, const uint8_t *classes, uint32_t fresh) {
    for (; fresh; fresh &= fresh - 1) {
        int i = __builtin_ctz(fresh);
        here[i] = (uint16_t)(1 + *g->size[classes[i] >> 2]++);
        g->escapes += here[i] == ESCAPE;
    }
}

/* What becomes significant in up to STEP coefficients of another layer, and a bit more of what was known. */
static inline __attribute__((always_inline)) void set_bits(Group *g, uint16_t *here, int count, uint32_t bits,
                                                           int known, int how) {
    uint32_t by_size[REFINEMENTS] = {0, 0, 0};
#if HAVE_AVX2
    if (known && how && count == STEP)
        known_avx2(here, by_size, NULL);
    else
#endif
        if (known)
        known_plain(here, count, by_size);
    for (int c = 0; known && c < REFINEMENTS; c++)
        bits |= (uint32_t)deal(g->refined[c], &g->refined_seen[c], by_size[c], how);
#if HAVE_AVX2
    if (how && count == STEP) {
        if (bits)
            set_bits_avx2(here, bits);
        return;
    }
#endif
    for (; bits; bits &= bits - 1)
        here[__builtin_ctz(bits)]++;
}

static inline __attribute__((always_inline)) void set_channel(Group *g, int at, const uint64_t *fresh, uint16_t *here,
                                                              int known, int how) {
    const Contexts *t = &g->contexts;
    for (int row = 0, i = 0; row < t->h; row++)
        for (int col = 0; col < t->w; col += STEP, i++) {
            uint32_t bits = half_of(fresh[i / 2], i);
            uint16_t *of = here + (size_t)row * t->w + col;
            if (g->k == 0)
                set_sizes(g, of, open_of(g, at) + (size_t)STEP * i, bits);
            else if (bits || known)
                set_bits(g, of, t->w - col < STEP ? t->w - col : STEP, bits, known, how);
        }
}

/* Channels of the ranks begin..end of here [C][h w]. 0, or what is wrong with the octets. */
static inline __attribute__((always_inline)) int decode_group(Group *g, int begin, int end, uint16_t *here, int how) {
    Contexts *t = &g->contexts;
    const int16_t *order = t->model->order;
    size_t n = (size_t)t->h * t->w, pairs = (size_t)g->chunks / 2;
    uint32_t all[CLASSES] = {0};
    uint64_t *words = g->words;
    memset(g->more, 0, sizeof g->more);
    classes_of_group(t, begin, end);
    for (int rank = begin; rank < end; rank++) {
        open_channel(g, rank - begin, here + order[rank] * n, g->k && t->some[order[rank]], how);
        count_channel(g, rank - begin, how);
        for (int c = 0; c < CLASSES; c++)
            all[c] += g->counts[(size_t)(rank - begin) * CLASSES + c];
    }
    for (int c = 0; c < CLASSES; c++) {
        int failed = take_ones(g, c, all[c]);
        if (failed)
            return failed;
    }
    take_more(g);
    g->words = words;
    if (g->coder.failed)
        return NO_ENCODERS;
    for (int rank = begin; rank < end; rank++) {
        uint64_t *fresh = g->fresh + rank * pairs;
        int known = g->k && t->some[order[rank]];
        if (!mark_channel(g, rank - begin, fresh, how) && !known)
            continue;
        set_channel(g, rank - begin, fresh, here + order[rank] * n, known, how);
        know(t, order[rank], here + order[rank] * n, 0, 0);
    }
    return 0;
}

static int group_plain(Group *g, int begin, int end, uint16_t *here) { return decode_group(g, begin, end, here, PLAIN); }

#if HAVE_AVX2
__attribute__((target("avx2,popcnt,bmi"))) static int group_avx2(Group *g, int begin, int end, uint16_t *here) {
    return decode_group(g, begin, end, here, WITH_AVX2);
}

PEXT static int group_pdep(Group *g, int begin, int end, uint16_t *here) {
    return decode_group(g, begin, end, here, WITH_PDEP);
}
#endif

static int group_of(Group *g, int begin, int end, uint16_t *here) {
#if HAVE_AVX2
    if (use_pext())
        return group_pdep(g, begin, end, here);
    if (use_avx2())
        return group_avx2(g, begin, end, here);
#endif
    return group_plain(g, begin, end, here);
}

/* Magnitudes that were too large for a symbol. 0, or what is wrong with the octets. */
static int take_large(const Group *g, int active, const uint8_t *octets, uint16_t *here) {
    const Contexts *t = &g->contexts;
    int in_row = chunks_of_row(t->w);
    for (int rank = 0; rank < active; rank++) {
        uint16_t *of = here + (size_t)t->model->order[rank] * t->h * t->w;
        const uint64_t *fresh = g->fresh + (size_t)rank * g->chunks / 2;
        for (int i = 0; i < t->h * in_row; i++)
            for (uint32_t bits = half_of(fresh[i / 2], i); bits; bits &= bits - 1) {
                size_t at = (size_t)(i / in_row) * t->w + i % in_row * STEP + __builtin_ctz(bits);
                if (of[at] != ESCAPE)
                    continue;
                of[at] = (uint16_t)(octets[0] << 8 | octets[1]);
                if (of[at] < ESCAPE)
                    return SMALL_ESCAPE;
                octets += 2;
            }
    }
    return 0;
}

#if HAVE_AVX2
AVX2 static inline void set_signs_avx2(uint8_t *negative, uint32_t fresh, uint32_t minus) {
    __m256i *to = (__m256i *)negative, one = _mm256_set1_epi8(1);
    __m256i kept = _mm256_andnot_si256(widen_avx2(fresh), _mm256_loadu_si256(to));
    _mm256_storeu_si256(to, _mm256_or_si256(kept, _mm256_and_si256(widen_avx2(minus), one)));
}
#endif

/* The signs of up to STEP coefficients that became significant. */
static inline __attribute__((always_inline)) void set_signs(uint8_t *negative, int count, uint32_t fresh,
                                                            uint32_t minus, int how) {
#if HAVE_AVX2
    if (how && count == STEP) {
        set_signs_avx2(negative, fresh, minus);
        return;
    }
#endif
    for (; fresh; fresh &= fresh - 1)
        negative[__builtin_ctz(fresh)] = minus >> __builtin_ctz(fresh) & 1;
}

static inline __attribute__((always_inline)) void take_signs(const Group *g, int active, uint8_t *negative, int how) {
    const Contexts *t = &g->contexts;
    size_t seen = 0;
    for (int rank = 0; rank < active; rank++) {
        uint8_t *of = negative + (size_t)t->model->order[rank] * t->h * t->w;
        const uint64_t *fresh = g->fresh + (size_t)rank * g->chunks / 2;
        for (int row = 0, i = 0; row < t->h; row++)
            for (int col = 0; col < t->w; col += STEP, i++) {
                uint32_t here = half_of(fresh[i / 2], i);
                if (here)
                    set_signs(of + (size_t)row * t->w + col, t->w - col < STEP ? t->w - col : STEP, here,
                              (uint32_t)deal(g->minus, &seen, here, how), how);
            }
    }
}

static void signs_plain(const Group *g, int active, uint8_t *negative) { take_signs(g, active, negative, PLAIN); }

#if HAVE_AVX2
PEXT static void signs_pdep(const Group *g, int active, uint8_t *negative) { take_signs(g, active, negative, WITH_PDEP); }
#endif

/* Signs of what became significant, and escapes, which stand at the end of a layer's octets. */
static int take_raw(const Group *g, int active, const uint8_t *octets, size_t count, uint16_t *here, uint8_t *negative) {
    size_t octets_of_signs = (g->signs + 7) / 8;
    if (octets_of_signs + 2 * g->escapes > count)
        return TOO_SHORT;
    const uint8_t *sign = octets + count - octets_of_signs;
    read_bits(sign, g->signs, g->minus);
#if HAVE_AVX2
    if (use_pext())
        signs_pdep(g, active, negative);
    else
#endif
        signs_plain(g, active, negative);
    return g->escapes ? take_large(g, active, sign - 2 * g->escapes, here) : 0;
}

/* The magnitudes of a channel as the next layer counts them. */
VECTORISED static void double_all(uint16_t *here, int n) {
    for (int i = 0; i < n; i++)
        here[i] = (uint16_t)(here[i] << 1);
}

/* Layer k from its octets behind the head: here [C][h w], negative [C][h w] where it became significant. `here` comes
 * as the coarser layer's magnitudes. raw [2]: how many signs and escapes there were. 0, or why not. */
static int decode(const Model *model, const Layer *layer, int k, Span octets, int h, int w, int active,
                  const int16_t *busy, uint8_t *scratch, uint16_t *here, uint8_t *negative, uint64_t *raw) {
    int channels = model->bands * COEFFICIENTS;
    Group g = {.k = k};
    open_contexts(&g.contexts, model, layer, h, w, busy, scratch);
    if (k)
        know_everything_coarser(&g.contexts, here, 0);
    for (int c = 0; k && c < channels; c++)
        if (g.contexts.some[c])
            double_all(here + (size_t)c * h * w, h * w);
    open_group(&g, scratch + context_octets(channels, h, w), channels, longest_group_of(model));
    open_decoder(&g.coder, octets.at, octets.octets);
    for (int i = 0; i < model->groups && model->starts[i] < active; i++) {
        int failed = group_of(&g, model->starts[i], model->starts[i + 1] < active ? model->starts[i + 1] : active, here);
        if (failed)
            return failed;
    }
    raw[0] = g.signs, raw[1] = g.escapes;
    return take_raw(&g, active, octets.at, octets.octets, here, negative);
}

EXPORT int nadir_decode(const Model *model, const Layer *layer, int k, Span octets, int h, int w, int active, Span busy,
                        Span scratch, Span here, Span negative, Span raw) {
    int refused = refuse(model, layer, k, h, w, active, busy, scratch, nadir_scratch_octets);
    if (refused)
        return refused;
    size_t all = (size_t)model->bands * COEFFICIENTS * h * w;
    if (octets.at == NULL || !HOLDS(here, uint16_t, all) || !HOLDS(negative, uint8_t, all) ||
        !HOLDS(raw, uint64_t, 2))
        return BUFFER_TOO_SMALL;
    return decode(model, layer, k, octets, h, w, active, busy.at, scratch.at, here.at, negative.at, raw.at);
}
