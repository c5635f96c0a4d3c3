/* A layer's coefficients -> what is coded of them: new ones by class, bits and sizes of known ones, signs. */
#include "kernel.h"

/* What the channels of a group become; escapes and signs are those of all groups. */
typedef struct {
    Bits fresh[CLASSES];       /* of a class's coefficients that were not significant before: whether each is now */
    Bits refined[REFINEMENTS]; /* next bits of those that were */
    uint8_t *size_begin[SIZE_CLASSES], *size_end[SIZE_CLASSES];
    uint8_t *escape;
    Bits sign;
} Symbols;

static size_t symbols_octets(int channels, size_t cells, size_t group_cells) {
    size_t lists = (CLASSES + REFINEMENTS) * words_for(group_cells) + words_for(channels * cells);
    return sizeof(uint64_t) * (lists + 1) + SIZE_CLASSES * group_cells + 2 * (size_t)channels * cells;
}

/* Lists in `memory`, of symbols_octets; escapes begin at its end. */
static void open_symbols(Symbols *s, int channels, size_t cells, size_t group_cells, uint8_t *memory) {
    uint64_t *word = (uint64_t *)(((uintptr_t)memory + 7) & ~(uintptr_t)7);
    for (int i = 0; i < CLASSES + REFINEMENTS; i++, word += words_for(group_cells))
        (i < CLASSES ? &s->fresh[i] : &s->refined[i - CLASSES])->begin = word;
    s->sign.begin = word;
    start(&s->sign);
    uint8_t *octet = (uint8_t *)(word + words_for(channels * cells));
    for (int i = 0; i < SIZE_CLASSES; i++, octet += group_cells)
        s->size_begin[i] = octet;
    s->escape = octet;
}

static void start_group(Symbols *s) {
    for (int i = 0; i < CLASSES; i++)
        start(&s->fresh[i]);
    for (int i = 0; i < REFINEMENTS; i++)
        start(&s->refined[i]);
    memcpy(s->size_end, s->size_begin, sizeof s->size_end);
}

static uint32_t minus_plain(const uint8_t *negative, int count) {
    uint32_t found = 0;
    for (int i = 0; i < count; i++)
        found |= (uint32_t)negative[i] << i;
    return found;
}

/* Of `fresh`, those of magnitude one that are not worth their octets. */
static uint32_t idle_plain(const uint16_t *magnitude, const uint8_t *size128, const uint8_t *classes,
                           const uint8_t *worth, uint32_t fresh) {
    uint32_t found = 0;
    for (; fresh; fresh &= fresh - 1) {
        int at = __builtin_ctz(fresh);
        found |= (uint32_t)(magnitude[at] == 1 && size128[at] < worth[classes[at]]) << at;
    }
    return found;
}

static void append_plain(Bits *to, uint32_t bits, uint32_t chosen) {
    for (; chosen; chosen &= chosen - 1)
        append(to, bits >> __builtin_ctz(chosen) & 1, 1);
}

static void refine_plain(Symbols *s, const uint16_t *magnitude, uint32_t old, int shift) {
    for (; old; old &= old - 1) {
        unsigned here = magnitude[__builtin_ctz(old)] >> shift, size = here >> 1;
        append(&s->refined[(size < REFINEMENTS ? size : REFINEMENTS) - 1], here & 1, 1);
    }
}

/* Sizes of what layer 0 has found, and the magnitude of those that are too large for one. */
static inline void list_sizes(Symbols *s, const uint16_t *magnitude, const uint8_t *classes, uint32_t fresh, int shift) {
    for (; fresh; fresh &= fresh - 1) {
        int at = __builtin_ctz(fresh);
        unsigned size = magnitude[at] >> shift;
        *s->size_end[classes[at] >> 2]++ = (uint8_t)((size < ESCAPE ? size : ESCAPE) - 1);
        if (size >= ESCAPE)
            *s->escape++ = (uint8_t)(size >> 8), *s->escape++ = (uint8_t)size;
    }
}

/* One channel [h][w] of layer k: classes [h][pitch]. size128 [h][w] or NULL: a magnitude of one that is not worth its
 * octets is cleared. `any`: whether the channel holds anything in this layer. */
typedef struct {
    const uint8_t *classes;
    uint16_t *magnitude;
    const uint8_t *negative, *size128;
    int any;
} Channel;

static void list_plain(Symbols *s, const Contexts *t, Channel c, int shift, int k) {
    for (int row = 0; row < t->h; row++)
        for (int col = 0; col < t->w; col += STEP) {
            int count = t->w - col < STEP ? t->w - col : STEP;
            size_t at = (size_t)row * t->w + col;
            uint16_t *magnitude = c.magnitude + at;
            const uint8_t *classes = c.classes + row * t->pitch + col;
            uint32_t some = reach_plain(magnitude, count, shift, 1), old = k ? reach_plain(magnitude, count, shift, 2) : 0;
            uint32_t fresh = some & ~old, idle = 0;
            if (c.size128)
                idle = idle_plain(magnitude, c.size128 + at, classes, t->layer->worth, fresh);
            fresh &= ~idle;
            refine_plain(s, magnitude, old, shift);
            for (; idle; idle &= idle - 1)
                magnitude[__builtin_ctz(idle)] = 0; /* counts as a zero from here on */
            if (k == 0)
                list_sizes(s, magnitude, classes, fresh, shift);
            append_plain(&s->sign, minus_plain(c.negative + at, count), fresh);
            for (int i = 0; i < count; i++)
                if (!(old >> i & 1))
                    append(&s->fresh[classes[i]], fresh >> i & 1, 1);
        }
}

#if HAVE_AVX2
/* Chunks that wait to be dealt out by class. */
enum { CHUNKS = 32 };
typedef struct {
    int count;
    uint64_t fresh[CHUNKS / 2], minus[CHUNKS / 2];
    uint8_t classes[CHUNKS][STEP], is_fresh[CHUNKS][STEP]; /* all ones where it is */
} Waiting;

/* STEP octets of magnitudes of one that are not worth theirs: all ones. */
AVX2 static inline __m256i idle_avx2(__m256i octets, const uint8_t *size128, __m256i class, const uint8_t *worth) {
    __m256i size = _mm256_loadu_si256((const __m256i *)size128);
    __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)worth));
    __m256i high = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(worth + 16)));
    __m256i price = _mm256_blendv_epi8(_mm256_shuffle_epi8(low, class), _mm256_shuffle_epi8(high, class),
                                       _mm256_slli_epi16(class, 3)); /* bit 4 chooses the half */
    __m256i worthless = _mm256_xor_si256(_mm256_cmpeq_epi8(_mm256_max_epu8(size, price), size), _mm256_set1_epi8(-1));
    return _mm256_and_si256(worthless, _mm256_cmpeq_epi8(octets, _mm256_set1_epi8(1)));
}

/* STEP magnitudes of one or zero, of which those that are all ones in `idle` become zero. */
AVX2 static inline void clear_avx2(uint16_t *magnitude, __m256i idle) {
    __m256i *at = (__m256i *)magnitude, inner = _mm256_permute4x64_epi64(idle, _MM_SHUFFLE(3, 1, 2, 0));
    _mm256_storeu_si256(at, _mm256_andnot_si256(_mm256_unpacklo_epi8(inner, inner), _mm256_loadu_si256(at)));
    _mm256_storeu_si256(at + 1, _mm256_andnot_si256(_mm256_unpackhi_epi8(inner, inner), _mm256_loadu_si256(at + 1)));
}

PEXT static inline void append_pext(Bits *to, uint64_t bits, uint64_t chosen) {
    append(to, _pext_u64(bits, chosen), __builtin_popcountll(chosen));
}

PEXT static inline void refine_pext(Symbols *s, __m256i octets, uint32_t old) {
    uint32_t next = mask_avx2(_mm256_slli_epi16(octets, 7));
    __m256i odd = _mm256_or_si256(octets, _mm256_set1_epi8(1));
    uint32_t ones = mask_avx2(_mm256_cmpeq_epi8(odd, _mm256_set1_epi8(3)));
    uint32_t twos = mask_avx2(_mm256_cmpeq_epi8(odd, _mm256_set1_epi8(5)));
    append_pext(&s->refined[0], next, old & ones);
    append_pext(&s->refined[1], next, old & twos);
    append_pext(&s->refined[2], next, old & ~ones & ~twos);
}

/* Neighbours are alike: the classes of a channel are few, and next to each other; most hold nothing that is new. */
PEXT static void deal_pext(Symbols *s, Waiting *w, int any) {
    uint32_t counts[CLASSES], there, held = 0;
    int pairs = (w->count + 1) / 2;
    if (w->count & 1) /* two chunks at a time */
        memset(w->classes[w->count], CLOSED, STEP);
    if (any)
        there = count_avx2(w->classes[0], w->is_fresh[0], w->count, counts, &held);
    else
        there = count_avx2(w->classes[0], NULL, w->count, counts, NULL);
    for (int i = 0; i < pairs && any; i++)
        append_pext(&s->sign, w->minus[i], w->fresh[i]);
    for (uint32_t left = there; left; left &= left - 1) {
        int c = __builtin_ctz(left);
        if (!(held >> c & 1)) {
            append_zeros(&s->fresh[c], counts[c]);
            continue;
        }
        Bits to = s->fresh[c];
        for (int i = 0; i < pairs; i++)
            append_pext(&to, w->fresh[i], equal_avx2(w->classes[2 * i], c));
        s->fresh[c] = to;
    }
    w->count = 0;
}

/* STEP coefficients, which wait as the next chunk. */
PEXT static inline void list_chunk(Symbols *s, Waiting *w, const Channel *c, size_t at, const uint8_t *worth, int shift,
                                   int k) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i class = _mm256_loadu_si256((const __m256i *)w->classes[w->count]), octets = octets_avx2(c->magnitude + at, shift);
    if (_mm256_testz_si256(octets, octets)) { /* as most are */
        _mm256_storeu_si256((__m256i *)w->is_fresh[w->count], zero);
        return;
    }
    __m256i some = _mm256_xor_si256(_mm256_cmpeq_epi8(octets, zero), _mm256_set1_epi8(-1));
    __m256i old = k ? reach_avx2(octets, 2) : zero, fresh = _mm256_andnot_si256(old, some);
    if (c->size128) {
        __m256i idle = _mm256_and_si256(idle_avx2(octets, c->size128 + at, class, worth), fresh);
        if (!_mm256_testz_si256(idle, idle))
            clear_avx2(c->magnitude + at, idle); /* counts as zeros from here on */
        fresh = _mm256_andnot_si256(idle, fresh);
    }
    if (!_mm256_testz_si256(old, old))
        refine_pext(s, octets, mask_avx2(old));
    uint64_t chosen = mask_avx2(fresh), up = w->count & 1 ? STEP : 0;
    __m256i minus = _mm256_slli_epi16(_mm256_loadu_si256((const __m256i *)(c->negative + at)), 7);
    w->fresh[w->count / 2] |= chosen << up;
    w->minus[w->count / 2] |= (uint64_t)mask_avx2(minus) << up;
    _mm256_storeu_si256((__m256i *)w->is_fresh[w->count], fresh);
    _mm256_storeu_si256((__m256i *)w->classes[w->count], _mm256_or_si256(class, old));
    if (k == 0)
        list_sizes(s, c->magnitude + at, w->classes[w->count], (uint32_t)chosen, shift);
}

/* As list_plain, where rows are of whole chunks. */
PEXT static void list_pext(Symbols *s, const Contexts *t, Channel c, int shift, int k) {
    Waiting w;
    w.count = 0;
    for (int row = 0; row < t->h; row++)
        for (int col = 0; col < t->w; col += STEP) {
            const __m256i *classes = (const __m256i *)(c.classes + row * t->pitch + col);
            _mm256_storeu_si256((__m256i *)w.classes[w.count], _mm256_loadu_si256(classes));
            if (!(w.count & 1))
                w.fresh[w.count / 2] = w.minus[w.count / 2] = 0;
            if (c.any)
                list_chunk(s, &w, &c, (size_t)row * t->w + col, t->layer->worth, shift, k);
            w.count++;
            if (w.count == CHUNKS)
                deal_pext(s, &w, c.any);
        }
    if (w.count)
        deal_pext(s, &w, c.any);
}
#endif

/* `zeros` coefficients of a class that stayed zero, and then a significant one, or the group's end. */
static inline uint8_t *token(uint8_t *list, int log2_longest, uint32_t zeros, int one) {
    uint32_t whole = zeros >> log2_longest, rest = zeros - (whole << log2_longest);
    uint8_t longest = (uint8_t)(1 << log2_longest);
    uint64_t eight = longest * 0x0101010101010101u;
    for (; whole > 8; whole -= 8, list += 8) /* hardly ever */
        memcpy(list, &eight, sizeof eight);
    memcpy(list, &eight, sizeof eight); /* a list has room for what is not meant */
    list += whole;
    if (one || rest)
        *list++ = (uint8_t)(one ? rest : longest);
    return list;
}

/* Tokens of a class's coefficients, no more than those and ROOM: the end of the list. */
enum { ROOM = 16 };
static uint8_t *list_tokens(const Bits *fresh, int log2_longest, uint8_t *list) {
    size_t after = 0;
    *fresh->at = fresh->bits;
    for (const uint64_t *word = fresh->begin; word <= fresh->at; word++)
        for (uint64_t left = *word; left; left &= left - 1) {
            size_t here = (size_t)(word - fresh->begin) * 64 + (size_t)__builtin_ctzll(left);
            list = token(list, log2_longest, (uint32_t)(here - after), 1);
            after = here + 1;
        }
    return token(list, log2_longest, (uint32_t)(bits_in(fresh) - after), 0);
}
