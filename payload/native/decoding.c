/* Octets -> layers, group by group and class by class; the ground's half of payload/codec/lapped/layers.py.
 *
 * Most coefficients stay zero. So nothing looks at one after the other: classes are counted, the range coder says which
 * of a class are significant by their number in it, and only the rows of blocks that hold one are searched for it. */
#include "kernel.h"

/* A group while it is decoded. Words hold a bit for each of up to 32 blocks of a row. */
enum { HELD = CLASSES, COUNTS }; /* behind the classes of a channel: whether it holds anything */
typedef struct {
    Contexts contexts;
    Decoder coder;
    int k, words;                   /* the layer; words in a row */
    uint32_t *counts;               /* [channels of the group][COUNTS] coefficients that are open, by class */
    uint32_t *old, *significant;    /* [h][words] of a channel: known from the coarser layer; significant from now on */
    uint32_t *ones, *next[CLASSES]; /* numbers of the significant ones in their class, UINT32_MAX behind the last */
    uint8_t *symbols, *symbol[SIZE_CLASSES]; /* refinements, or sizes, by class */
    uint32_t more[SIZE_CLASSES];    /* how many of these there are */
    uint32_t *fresh;                /* where signs belong */
    size_t signs, escapes;
} Group;

/* Classes of a row of blocks of the group's channel `at`. */
static inline const uint8_t *classes_of_row(const Contexts *t, int at, int row) {
    return t->found + (size_t)at * t->span + (size_t)row * t->pitch;
}

static inline int size_class(unsigned magnitude) {
    unsigned size = magnitude >> 1;
    return (int)(size < REFINEMENTS ? size : REFINEMENTS) - 1;
}

static inline __attribute__((always_inline)) uint32_t some_of(const uint16_t *here, int count, int shift, int vector) {
#if HAVE_AVX2
    if (vector && count == STEP)
        return some_avx2(here, shift);
#endif
    return events_plain(here, count, shift, shift).some;
}

/* Which blocks of a channel the coarser layer knows. Whether there are any. */
static inline __attribute__((always_inline)) int find_old(Group *g, int channel, const uint16_t *here, int vector) {
    const Contexts *t = &g->contexts;
    if (g->k == 0 || !t->some[channel])
        return 0;
    for (int row = 0, at = 0; row < t->h; row++, here += t->w)
        for (int col = 0; col < t->w; col += STEP, at++)
            g->old[at] = some_of(here + col, t->w - col < STEP ? t->w - col : STEP, 1, vector);
    return 1;
}

#if HAVE_AVX2
/* Coefficients of a channel of STEP blocks a row by class, four classes at a time. Counts of a lane fit an octet. */
AVX2 static void count_classes_avx2(const Contexts *t, int at, uint32_t *counts) {
    __m256i least = _mm256_set1_epi8(CLASSES - 1), most = _mm256_setzero_si256();
    for (int row = 0; row < t->h; row++) {
        __m256i here = _mm256_loadu_si256((const __m256i *)classes_of_row(t, at, row));
        least = _mm256_min_epu8(least, here), most = _mm256_max_epu8(most, here);
    }
    uint8_t low[STEP], high[STEP], first = CLASSES - 1, last = 0;
    _mm256_storeu_si256((__m256i *)low, least), _mm256_storeu_si256((__m256i *)high, most);
    for (int i = 0; i < STEP; i++)
        first = low[i] < first ? low[i] : first, last = high[i] > last ? high[i] : last;
    memset(counts, 0, CLASSES * sizeof *counts);
    for (int c = first & ~3; c <= last; c += 4) {
        __m256i seen[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
        for (int row = 0; row < t->h; row++) {
            __m256i here = _mm256_loadu_si256((const __m256i *)classes_of_row(t, at, row));
            for (int i = 0; i < 4; i++)
                seen[i] = _mm256_sub_epi8(seen[i], _mm256_cmpeq_epi8(here, _mm256_set1_epi8((char)(c + i))));
        }
        for (int i = 0; i < 4; i++) {
            __m256i sums = _mm256_sad_epu8(seen[i], _mm256_setzero_si256());
            __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
            counts[c + i] = (uint32_t)(_mm_cvtsi128_si32(half) + _mm_extract_epi32(half, 2));
        }
    }
}
#endif

static void count_classes_plain(const Contexts *t, int at, uint32_t *counts) {
    uint32_t seen[CLASSES][4] = {0}; /* four: none waits for the last */
    for (int row = 0; row < t->h; row++) {
        const uint8_t *classes = classes_of_row(t, at, row);
        for (int i = 0; i < t->w; i++)
            seen[classes[i]][i & 3]++;
    }
    for (int c = 0; c < CLASSES; c++)
        counts[c] = seen[c][0] + seen[c][1] + seen[c][2] + seen[c][3];
}

/* Counts the open coefficients of the group's channel `at` by class, and the others by size. */
static inline __attribute__((always_inline)) void count_channel(Group *g, int at, const uint16_t *here, int known,
                                                                int vector) {
    const Contexts *t = &g->contexts;
    uint32_t *counts = g->counts + (size_t)at * COUNTS;
#if HAVE_AVX2
    if (vector && t->w == STEP && t->h <= UINT8_MAX)
        count_classes_avx2(t, at, counts);
    else
#endif
        count_classes_plain(t, at, counts);
    counts[HELD] = (uint32_t)known;
    for (int word = 0; known && word < t->h * g->words; word++)
        for (uint32_t old = g->old[word]; old; old &= old - 1) {
            int row = word / g->words, i = word % g->words * STEP + __builtin_ctz(old);
            counts[classes_of_row(t, at, row)[i]]--;
            g->more[size_class(here[row * t->w + i])]++;
        }
}

/* Numbers of the significant ones among `count` of a class. 0, or what is wrong with the octets. */
static int take_ones(Group *g, int class, uint32_t count) {
    const Layer *layer = g->contexts.layer;
    const uint32_t *lower = layer->runs + class * (LONGEST_RUN + 2);
    const uint8_t *guess = layer->guess + class * GUESSES;
    int longest = layer->longest[class];
    uint32_t *ones = g->ones;
    Decoder coder = g->coder; /* a copy that need not be written back for every symbol */
    for (uint32_t place = 0; place < count;) {
        int run = take_guessed(&coder, lower, guess);
        if (coder.failed)
            return NO_ENCODERS;
        place += (uint32_t)run;
        if (run == longest)
            continue;
        if (place >= count)
            return RUN_TOO_LONG;
        *ones++ = place++;
    }
    *ones++ = UINT32_MAX;
    g->ones = ones, g->coder = coder;
    return 0;
}

#if HAVE_AVX2
/* Those of one class in a channel, of which `seen` came before it. */
__attribute__((target("avx2,popcnt,bmi"))) static void mark_class_avx2(Group *g, int at, int class, uint32_t seen,
                                                                       int known) {
    const Contexts *t = &g->contexts;
    uint32_t *next = g->next[class];
    const uint32_t end = seen + g->counts[(size_t)at * COUNTS + class];
    for (int row = 0; *next < end; row++) {
        uint32_t open = equal_avx2(classes_of_row(t, at, row), class) & (known ? ~g->old[row] : UINT32_MAX);
        uint32_t here = (uint32_t)__builtin_popcount(open);
        for (; *next < seen + here; next++, seen++, here--) {
            for (; seen < *next; seen++, here--)
                open &= open - 1;
            g->significant[row] |= open & -open;
            open &= open - 1;
        }
        seen += here;
    }
    g->next[class] = next;
}
#endif

/* The same of all classes, whose numbers before the channel are `seen`. */
static void mark_plain(Group *g, int at, const uint32_t *seen, int known) {
    const Contexts *t = &g->contexts;
    uint32_t so_far[CLASSES];
    memcpy(so_far, seen, sizeof so_far);
    for (int row = 0; row < t->h; row++) {
        const uint8_t *classes = classes_of_row(t, at, row);
        for (int i = 0; i < t->w; i++) {
            int word = row * g->words + i / STEP;
            if ((known && g->old[word] >> i % STEP & 1) || *g->next[classes[i]] != so_far[classes[i]]++)
                continue;
            g->next[classes[i]]++;
            g->significant[word] |= (uint32_t)1 << i % STEP;
        }
    }
}

/* Marks the channel's significant ones in `significant`. Whether there are any. */
static inline __attribute__((always_inline)) int mark_channel(Group *g, int at, uint32_t *seen, int known, int vector) {
    const uint32_t *counts = g->counts + (size_t)at * COUNTS;
    uint32_t hit = 0, before[CLASSES];
    memcpy(before, seen, sizeof before);
    for (int c = 0; c < CLASSES; c++) {
        seen[c] += counts[c];
        hit |= (uint32_t)(*g->next[c] < seen[c]) << c;
    }
    if (!hit)
        return 0;
    memset(g->significant, 0, (size_t)g->contexts.h * g->words * sizeof *g->significant);
#if HAVE_AVX2
    if (vector && g->contexts.w == STEP) {
        for (uint32_t classes = hit; classes; classes &= classes - 1)
            mark_class_avx2(g, at, __builtin_ctz(classes), before[__builtin_ctz(classes)], known);
        return 1;
    }
#endif
    mark_plain(g, at, before, known);
    return 1;
}

/* The significant become ones; their places are kept for their signs. */
static inline __attribute__((always_inline)) void set_ones(Group *g, int at, size_t base, uint16_t *here) {
    const Contexts *t = &g->contexts;
    for (int word = 0; word < t->h * g->words; word++)
        for (uint32_t bits = g->significant[word]; bits; bits &= bits - 1) {
            int row = word / g->words, i = word % g->words * STEP + __builtin_ctz(bits);
            here[row * t->w + i] = 1;
            g->more[classes_of_row(t, at, row)[i] >> 2] += g->k == 0;
            g->fresh[g->signs++] = (uint32_t)(base + (size_t)(row * t->w + i));
        }
}

static void take_more(Group *g) {
    const Layer *layer = g->contexts.layer;
    uint8_t *to = g->symbols;
    Decoder coder = g->coder;
    for (int c = 0; c < (g->k ? REFINEMENTS : SIZE_CLASSES); c++) {
        const uint32_t *lower = g->k ? layer->refinement + c * 3 : layer->size + c * (ESCAPE + 1);
        g->symbol[c] = to;
        for (uint32_t i = 0; i < g->more[c]; i++)
            *to++ = (uint8_t)(g->k ? take_bit(&coder, lower) : take(&coder, lower, ESCAPE));
    }
    g->coder = coder;
}

/* A bit more of what was known; or, in the coarsest layer, sizes of what has become significant. */
static inline __attribute__((always_inline)) void grow(Group *g, int at, uint16_t *here, int vector) {
    const Contexts *t = &g->contexts;
    for (int row = 0; row < t->h; row++, here += t->w)
        for (int col = 0; col < t->w; col += STEP) {
            uint32_t bits = some_of(here + col, t->w - col < STEP ? t->w - col : STEP, g->k != 0, vector);
            for (; bits; bits &= bits - 1) {
                int i = col + __builtin_ctz(bits);
                if (g->k) {
                    here[i] |= *g->symbol[size_class(here[i])]++;
                } else {
                    here[i] = (uint16_t)(1 + *g->symbol[classes_of_row(t, at, row)[i] >> 2]++);
                    g->escapes += here[i] == ESCAPE;
                }
            }
        }
}

/* Channels of the ranks begin..end of here [C][h w]. 0, or what is wrong with the octets. */
static inline __attribute__((always_inline)) int decode_group(Group *g, int begin, int end, uint16_t *here,
                                                              int vector) {
    Contexts *t = &g->contexts;
    const int16_t *order = t->model->order;
    size_t n = (size_t)t->h * t->w;
    uint32_t all[CLASSES] = {0}, seen[CLASSES] = {0}, *ones = g->ones;
    memset(g->more, 0, sizeof g->more);
    classes_of_group(t, begin, end);
    for (int rank = begin; rank < end; rank++) {
        uint16_t *of = here + (size_t)order[rank] * n;
        count_channel(g, rank - begin, of, find_old(g, order[rank], of, vector), vector);
        for (int c = 0; c < CLASSES; c++)
            all[c] += g->counts[(size_t)(rank - begin) * COUNTS + c];
    }
    for (int c = 0; c < CLASSES; c++) {
        g->next[c] = g->ones;
        int failed = take_ones(g, c, all[c]);
        if (failed)
            return failed;
    }
    for (int rank = begin; rank < end; rank++) {
        uint16_t *of = here + (size_t)order[rank] * n;
        if (mark_channel(g, rank - begin, seen, find_old(g, order[rank], of, vector), vector)) {
            set_ones(g, rank - begin, (size_t)order[rank] * n, of);
            g->counts[(size_t)(rank - begin) * COUNTS + HELD] = 1;
        }
    }
    take_more(g);
    g->ones = ones;
    if (g->coder.failed)
        return NO_ENCODERS;
    for (int rank = begin; rank < end; rank++)
        if (g->counts[(size_t)(rank - begin) * COUNTS + HELD]) {
            grow(g, rank - begin, here + (size_t)order[rank] * n, vector);
            know(t, order[rank], here + (size_t)order[rank] * n, 0, 0);
        }
    return 0;
}

static int group_plain(Group *g, int begin, int end, uint16_t *here) { return decode_group(g, begin, end, here, 0); }

#if HAVE_AVX2
__attribute__((target("avx2,popcnt,bmi"))) static int group_avx2(Group *g, int begin, int end, uint16_t *here) {
    return decode_group(g, begin, end, here, 1);
}
#endif

static int group_of(Group *g, int begin, int end, uint16_t *here) {
#if HAVE_AVX2
    if (use_avx2())
        return group_avx2(g, begin, end, here);
#endif
    return group_plain(g, begin, end, here);
}

/* Signs of what became significant, and escapes, which stand at the end of a layer's octets. */
static int take_raw(const Group *g, const uint8_t *octets, size_t count, uint16_t *here, uint8_t *negative) {
    size_t octets_of_signs = (g->signs + 7) / 8;
    if (octets_of_signs + 2 * g->escapes > count)
        return TOO_SHORT;
    const uint8_t *sign = octets + count - octets_of_signs, *escape = sign - 2 * g->escapes;
    for (size_t i = 0; i < g->signs; i++) {
        uint32_t at = g->fresh[i];
        negative[at] = sign[i / 8] >> (7 - i % 8) & 1;
        if (g->k == 0 && here[at] == ESCAPE) {
            here[at] = (uint16_t)(escape[0] << 8 | escape[1]);
            if (here[at] < ESCAPE)
                return SMALL_ESCAPE;
            escape += 2;
        }
    }
    return 0;
}

/* Layer k from its octets behind the head: here [C][h w], negative [C][h w] where it became significant. `here` comes
 * as twice the coarser layer's magnitudes. raw [2]: how many signs and escapes there were. 0, or why not. */
static int decode(const Model *model, const Layer *layer, int k, Span octets, int h, int w, int active,
                  const int16_t *busy, uint8_t *scratch, uint16_t *here, uint8_t *negative, uint64_t *raw) {
    size_t channels = (size_t)model->bands * COEFFICIENTS, group = (size_t)longest_group_of(model);
    Group g = {.k = k, .words = (w + STEP - 1) / STEP};
    open_contexts(&g.contexts, model, layer, h, w, busy, scratch);
    if (k)
        know_everything_coarser(&g.contexts, here, 1, NULL);
    uintptr_t behind = (uintptr_t)scratch + context_octets((int)channels, h, w);
    g.counts = (uint32_t *)((behind + 3) & ~(uintptr_t)3);
    g.old = g.counts + group * COUNTS;
    g.significant = g.old + h * g.words;
    g.fresh = g.significant + h * g.words;
    g.ones = g.fresh + channels * h * w;
    g.symbols = (uint8_t *)(g.ones + group * h * w + CLASSES);
    open_decoder(&g.coder, octets.at, octets.octets);
    for (int i = 0; i < model->groups && model->starts[i] < active; i++) {
        int failed = group_of(&g, model->starts[i], model->starts[i + 1] < active ? model->starts[i + 1] : active, here);
        if (failed)
            return failed;
    }
    raw[0] = g.signs, raw[1] = g.escapes;
    return take_raw(&g, octets.at, octets.octets, here, negative);
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
