/* Layers -> octets, group by group and class by class; twin of payload/codec/lapped/layers.py, with decoding.c. */
#include "kernel.h"

/* Lists of symbols that are coded one after the other: runs by class, then sizes or refinements by theirs. */
enum { LISTS = CLASSES + SIZE_CLASSES, ROOM = 16 };
/* A coefficient takes two symbols of up to 24.01 bits, an escape and a sign at most: 8.2 octets. */
enum { MOST_OCTETS = 9, LAST_OCTETS = 64 };

static int longest_group_of(const Model *model) {
    int longest = 0;
    for (int g = 0; g < model->groups; g++)
        if (model->starts[g + 1] - model->starts[g] > longest)
            longest = model->starts[g + 1] - model->starts[g];
    return longest;
}

/* Of encoding's lists, or of decoding's counts, words, places and numbers. */
EXPORT size_t nadir_scratch_octets(int channels, int h, int w, int longest_group) {
    size_t cells = (size_t)longest_group * h * w, words = (size_t)h * ((w + STEP - 1) / STEP);
    size_t lists = LISTS * (cells + ROOM) + 4 * (size_t)channels * h * w;
    size_t numbers = (size_t)longest_group * (CLASSES + 1) + 2 * words + (size_t)channels * h * w + cells + CLASSES;
    size_t decoding = sizeof(uint32_t) * numbers + cells;
    return context_octets(channels, h, w) + (lists > decoding ? lists : decoding) + 64;
}

/* hits [C] of the coarser layer, or NULL where they are not known: a channel without any is known to be zeros. */
static void know_everything_coarser(Contexts *t, const uint16_t *magnitude, int shift, const int32_t *hits) {
    for (int c = 0; c < t->model->bands * COEFFICIENTS; c++)
        if (hits == NULL || hits[c])
            know(t, c, magnitude + (size_t)c * t->h * t->w, shift, 1);
}

typedef struct {
    uint8_t *begin[LISTS], *end[LISTS];
    uint32_t seen[CLASSES][4]; /* open ones of a class so far in the group; four columns: none waits for the last */
    uint32_t after[CLASSES];   /* the same, up to and with the last significant one */
    int bits[CLASSES];         /* log2 of the longest run */
} Lists;

static inline uint32_t seen_of(const Lists *lists, int class) {
    const uint32_t *s = lists->seen[class];
    return s[0] + s[1] + s[2] + s[3];
}

/* `zeros` coefficients of a class that stayed zero, and then a significant one, or the group's end. */
static inline void token(Lists *lists, int class, uint32_t zeros, int one) {
    int bits = lists->bits[class];
    uint32_t whole = zeros >> bits, rest = zeros - (whole << bits);
    uint8_t *end = lists->end[class], longest = (uint8_t)(1 << bits);
    uint64_t eight = longest * 0x0101010101010101u;
    for (; whole > 8; whole -= 8, end += 8) /* hardly ever */
        memcpy(end, &eight, sizeof eight);
    memcpy(end, &eight, sizeof eight); /* lists have room for what is not meant */
    end += whole;
    if (one || rest)
        *end++ = (uint8_t)(one ? rest : longest);
    lists->end[class] = end;
}

/* Of up to 32 coefficients: which are significant, and which of those the coarser layer knows; a bit each. */
typedef struct {
    uint32_t some, old;
} Events;

static Events events_plain(const uint16_t *magnitude, int count, int shift, int old_shift) {
    Events found = {0, 0};
    for (int i = 0; i < count; i++) {
        found.some |= (uint32_t)(magnitude[i] >> shift != 0) << i;
        found.old |= (uint32_t)(magnitude[i] >> old_shift != 0) << i;
    }
    return found;
}

#if HAVE_AVX2
AVX2 static uint32_t some_avx2(const uint16_t *magnitude, int shift) {
    const __m128i down = _mm_cvtsi32_si128(shift);
    __m256i a = _mm256_srl_epi16(_mm256_loadu_si256((const __m256i *)magnitude), down);
    __m256i b = _mm256_srl_epi16(_mm256_loadu_si256((const __m256i *)(magnitude + 16)), down);
    const __m256i zero = _mm256_setzero_si256();
    __m256i none = _mm256_packs_epi16(_mm256_cmpeq_epi16(a, zero), _mm256_cmpeq_epi16(b, zero));
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(none, _MM_SHUFFLE(3, 1, 2, 0)));
}

AVX2 static uint32_t equal_avx2(const uint8_t *classes, int class) {
    __m256i same = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)classes), _mm256_set1_epi8((char)class));
    return (uint32_t)_mm256_movemask_epi8(same);
}
#endif

/* What a layer's coefficients become: lists of symbols, escapes, signs. */
typedef struct {
    Lists lists;
    uint8_t *escape, *sign;
    uint64_t bits;
    int bit_count;
} Symbols;

static inline __attribute__((always_inline)) void list_channel(Symbols *s, const Contexts *t, const uint8_t *classes,
                                                               uint16_t *magnitude, const uint8_t *negative,
                                                               const uint8_t *size128, int shift, int k, int vector) {
    /* octets may alias anything: what is kept in locals need not be read again after each that is written */
    Lists *restrict lists = &s->lists;
    const uint8_t *restrict worth = t->layer->worth;
    uint8_t *sign = s->sign, *old_ends[REFINEMENTS];
    uint64_t bits = s->bits;
    int bit_count = s->bit_count, h = t->h, w = t->w, pitch = t->pitch;
    memcpy(old_ends, lists->end + CLASSES, sizeof old_ends);
    for (int row = 0; row < h; row++)
        for (int col = 0; col < w; col += STEP) {
            int count = w - col < STEP ? w - col : STEP;
            uint16_t *restrict from = magnitude + row * w + col;
            const uint8_t *restrict minus = negative + row * w + col;
            const uint8_t *restrict class = classes + row * pitch + col;
            Events events;
#if HAVE_AVX2
            if (vector && count == STEP) {
                events.some = some_avx2(from, shift);
                events.old = k && events.some ? some_avx2(from, shift + 1) : 0;
            } else
#endif
            {
                events = events_plain(from, count, shift, shift + 1);
                events.old = k ? events.old : 0;
            }
            uint32_t open = ~events.old;
            for (uint32_t fresh = events.some & open; fresh; fresh &= fresh - 1) {
                int at = __builtin_ctz(fresh), c = class[at], before = 0;
                if (size128 && from[at] == 1 && size128[row * w + col + at] < worth[c]) {
                    from[at] = 0; /* counts as a zero from here on */
                    continue;
                }
#if HAVE_AVX2
                if (vector && count == STEP)
                    before = __builtin_popcount(equal_avx2(class, c) & open & ((1u << at) - 1));
                else
#endif
                    for (int i = 0; i < at; i++)
                        before += class[i] == c && open >> i & 1;
                uint32_t here = seen_of(lists, c) + (uint32_t)before;
                token(lists, c, here - lists->after[c], 1);
                lists->after[c] = here + 1;
                if (k == 0) {
                    unsigned size = from[at] >> shift;
                    *lists->end[CLASSES + (c >> 2)]++ = (uint8_t)((size < ESCAPE ? size : ESCAPE) - 1);
                    if (size >= ESCAPE)
                        *s->escape++ = (uint8_t)(size >> 8), *s->escape++ = (uint8_t)size;
                }
                bits = bits << 1 | minus[at];
                if (++bit_count == 8)
                    *sign++ = (uint8_t)bits, bit_count = 0;
            }
            for (uint32_t old = events.old; old; old &= old - 1) {
                int at = __builtin_ctz(old);
                unsigned here = from[at] >> shift, size = here >> 1;
                *old_ends[(size < REFINEMENTS ? size : REFINEMENTS) - 1]++ = here & 1;
                lists->seen[class[at]][0]--; /* it is counted with all others below, but is not open */
            }
            if (count == STEP)
                for (int i = 0; i < STEP; i += 8) {
                    lists->seen[class[i]][0]++, lists->seen[class[i + 1]][1]++;
                    lists->seen[class[i + 2]][2]++, lists->seen[class[i + 3]][3]++;
                    lists->seen[class[i + 4]][0]++, lists->seen[class[i + 5]][1]++;
                    lists->seen[class[i + 6]][2]++, lists->seen[class[i + 7]][3]++;
                }
            else
                for (int i = 0; i < count; i++)
                    lists->seen[class[i]][i & 3]++;
        }
    if (k)
        memcpy(lists->end + CLASSES, old_ends, sizeof old_ends);
    s->sign = sign, s->bits = bits, s->bit_count = bit_count;
}

static void list_plain(Symbols *s, const Contexts *t, const uint8_t *classes, uint16_t *magnitude,
                       const uint8_t *negative, const uint8_t *size128, int shift, int k) {
    list_channel(s, t, classes, magnitude, negative, size128, shift, k, 0);
}

#if HAVE_AVX2
__attribute__((target("avx2,popcnt,bmi"))) static void list_avx2(Symbols *s, const Contexts *t, const uint8_t *classes,
                                                                 uint16_t *magnitude, const uint8_t *negative,
                                                                 const uint8_t *size128, int shift, int k) {
    list_channel(s, t, classes, magnitude, negative, size128, shift, k, 1);
}
#endif

/* Octets of layer k behind its head (active, activity): how many it took of `out`. magnitude [C][h w] of the finest
 * layer, shift >> makes it this one's; negative [C][h w]; hits [C] of this layer, those of the coarser one before them.
 * size128 [C][h w], in the finest layer, or NULL: a magnitude of one that is not worth its octets is cleared. */
static size_t encode(const Model *model, const Layer *layer, int k, uint16_t *magnitude, const uint8_t *negative,
                     const uint8_t *size128, const int32_t *hits, int shift, int h, int w, int active,
                     const int16_t *busy, uint8_t *scratch, uint8_t *out) {
    int channels = model->bands * COEFFICIENTS, n = h * w, longest_group = longest_group_of(model);
    Contexts t;
    open_contexts(&t, model, layer, h, w, busy, scratch);
    if (k)
        know_everything_coarser(&t, magnitude, shift + 1, hits - channels);
    uint8_t *pool = scratch + context_octets(channels, h, w);
    uint8_t *escapes = pool + LISTS * ((size_t)longest_group * n + ROOM), *signs = escapes + 2 * (size_t)channels * n;
    Symbols s = {.escape = escapes, .sign = signs};
    for (int i = 0; i < LISTS; i++)
        s.lists.begin[i] = pool + (size_t)i * ((size_t)longest_group * n + ROOM);
    for (int c = 0; c < CLASSES; c++)
        s.lists.bits[c] = __builtin_ctz((unsigned)layer->longest[c]);
    Encoder coder = {0, UINT64_MAX, out, out};
    for (int g = 0; g < model->groups && model->starts[g] < active; g++) {
        int begin = model->starts[g], end = model->starts[g + 1] < active ? model->starts[g + 1] : active;
        classes_of_group(&t, begin, end);
        memset(s.lists.seen, 0, sizeof s.lists.seen);
        memset(s.lists.after, 0, sizeof s.lists.after);
        memcpy(s.lists.end, s.lists.begin, sizeof s.lists.end);
        for (int rank = begin; rank < end; rank++) {
            size_t at = (size_t)model->order[rank] * n;
            const uint8_t *classes = t.found + (size_t)(rank - begin) * t.span;
            /* block averages are few and worth much */
            const uint8_t *sizes = size128 && model->order[rank] % COEFFICIENTS ? size128 + at : NULL;
#if HAVE_AVX2
            if (use_avx2())
                list_avx2(&s, &t, classes, magnitude + at, negative + at, sizes, shift, k);
            else
#endif
                list_plain(&s, &t, classes, magnitude + at, negative + at, sizes, shift, k);
            if (hits[model->order[rank]])
                know(&t, model->order[rank], magnitude + at, shift, 0);
        }
        for (int c = 0; c < CLASSES; c++) {
            token(&s.lists, c, seen_of(&s.lists, c) - s.lists.after[c], 0);
            for (const uint8_t *list = s.lists.begin[c]; list < s.lists.end[c]; list++)
                put(&coder, layer->runs + c * (LONGEST_RUN + 2), *list);
        }
        for (int c = CLASSES; c < CLASSES + (k ? REFINEMENTS : SIZE_CLASSES); c++)
            for (const uint8_t *list = s.lists.begin[c]; list < s.lists.end[c]; list++)
                put(&coder, k ? layer->refinement + (c - CLASSES) * 3 : layer->size + (c - CLASSES) * (ESCAPE + 1),
                    *list);
    }
    finish(&coder);
    if (s.bit_count)
        *s.sign++ = (uint8_t)(s.bits << (8 - s.bit_count));
    memcpy(coder.at, escapes, (size_t)(s.escape - escapes));
    coder.at += s.escape - escapes;
    memcpy(coder.at, signs, (size_t)(s.sign - signs));
    return (size_t)(coder.at + (s.sign - signs) - out);
}

/* What encoding and decoding have in common to be checked. `octets_of`: of scratch memory. */
static int refuse(const Model *model, const Layer *layer, int k, int h, int w, int active, Span busy, Span scratch,
                  size_t (*octets_of)(int, int, int, int)) {
    if (!within(k, 0, MAX_LAYERS - 1) || !within(h, 1, MAX_CELLS) || !within(w, 1, MAX_CELLS))
        return OUT_OF_RANGE;
    if (!fits_model(model) || !fits_layer(model, layer, k))
        return TABLES_DAMAGED;
    int channels = model->bands * COEFFICIENTS;
    if (!within(active, 0, channels))
        return OUT_OF_RANGE;
    size_t octets = octets_of(channels, h, w, longest_group_of(model));
    return HOLDS(busy, int16_t, model->bands) && HOLDS(scratch, uint8_t, octets) ? 0 : BUFFER_TOO_SMALL;
}

/* As `encode`; hits [k + 1][C] of the layers up to this one, written: how many octets of `out` are its own. */
EXPORT int nadir_encode(const Model *model, const Layer *layer, int k, Span magnitude, Span negative, Span size128,
                        Span hits, int shift, int h, int w, int active, Span busy, Span scratch, Span out,
                        size_t *written) {
    int refused = refuse(model, layer, k, h, w, active, busy, scratch, nadir_scratch_octets);
    if (refused || !within(shift, 0, MAX_LAYERS - 1))
        return refused ? refused : OUT_OF_RANGE;
    size_t channels = (size_t)model->bands * COEFFICIENTS, all = channels * h * w;
    if (!HOLDS(magnitude, uint16_t, all) || !HOLDS(negative, uint8_t, all) ||
        !HOLDS(hits, int32_t, (k + 1) * channels) || !HOLDS(out, uint8_t, MOST_OCTETS * all + LAST_OCTETS) ||
        (size128.at && !HOLDS(size128, uint8_t, all)))
        return BUFFER_TOO_SMALL;
    *written = encode(model, layer, k, magnitude.at, negative.at, size128.at, (const int32_t *)hits.at + k * channels,
                      shift, h, w, active, busy.at, scratch.at, out.at);
    return 0;
}
