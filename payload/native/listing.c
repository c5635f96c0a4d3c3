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
static uint32_t idle_plain(const uint16_t *magnitude, int shift, const uint8_t *size128, const uint8_t *classes,
                           const uint8_t *worth, uint32_t fresh) {
    uint32_t found = 0;
    for (; fresh; fresh &= fresh - 1) {
        int at = __builtin_ctz(fresh);
        found |= (uint32_t)(magnitude[at] >> shift == 1 && size128[at] < worth[classes[at]]) << at;
    }
    return found;
}

/* What is known of a chunk from here on, zeros where they are `idle`, and its zone's sums if there are any. */
static void tell_plain(const uint16_t *magnitude, int count, int shift, uint32_t idle, uint8_t *known, uint16_t *sums) {
    for (int i = 0; i < count; i++) {
        int size = idle >> i & 1 ? 0 : magnitude[i] >> shift;
        uint8_t here = (uint8_t)(size < KNOWN_LIMIT ? size : KNOWN_LIMIT);
        if (sums)
            sums[i] = (uint16_t)(sums[i] + here - known[i]);
        known[i] = here;
    }
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
 * octets is left out. known [h][pitch] or NULL where nobody looks at it again, with the sums [h][pitch] of its zone, or
 * NULL. `any`: whether the channel holds anything in this layer. */
typedef struct {
    const uint8_t *classes;
    const uint16_t *magnitude;
    const uint8_t *negative, *size128;
    uint8_t *known;
    uint16_t *sums;
    int any;
} Channel;

static void list_plain(Symbols *s, const Contexts *t, Channel c, int shift, int k) {
    for (int row = 0; row < t->h; row++)
        for (int col = 0; col < t->w; col += STEP) {
            int count = t->w - col < STEP ? t->w - col : STEP;
            size_t at = (size_t)row * t->w + col, place = (size_t)row * t->pitch + col;
            const uint16_t *magnitude = c.magnitude + at;
            const uint8_t *classes = c.classes + place;
            uint32_t some = reach_plain(magnitude, count, shift, 1), old = k ? reach_plain(magnitude, count, shift, 2) : 0;
            uint32_t fresh = some & ~old, idle = 0;
            if (c.size128)
                idle = idle_plain(magnitude, shift, c.size128 + at, classes, t->layer->worth, fresh);
            fresh &= ~idle;
            refine_plain(s, magnitude, old, shift);
            if (k == 0)
                list_sizes(s, magnitude, classes, fresh, shift);
            append_plain(&s->sign, minus_plain(c.negative + at, count), fresh);
            for (int i = 0; i < count; i++)
                if (!(old >> i & 1))
                    append(&s->fresh[classes[i]], fresh >> i & 1, 1);
            if (c.known)
                tell_plain(magnitude, count, shift, idle, c.known + place, c.sums ? c.sums + place : NULL);
        }
}

#if HAVE_AVX2
/* Pairs of chunks that wait to be dealt out by class: 64 coefficients each. `held`: which classes have anything new. */
enum { PAIRS = 16 };
typedef struct {
    int count;
    uint64_t fresh[PAIRS], minus[PAIRS];
    uint8_t classes[PAIRS][2 * STEP];
    __m256i held[CLASSES / 8];
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

/* As tell_plain, of STEP sizes. */
AVX2 static inline void tell_avx2(__m256i octets, uint8_t *known, uint16_t *sums) {
    __m256i *at = (__m256i *)known, here = _mm256_min_epu8(octets, _mm256_set1_epi8(KNOWN_LIMIT));
    if (sums) {
        __m256i more = _mm256_sub_epi8(here, _mm256_loadu_si256(at)), *to = (__m256i *)sums;
        __m256i low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(more));
        __m256i high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(more, 1));
        _mm256_storeu_si256(to, _mm256_add_epi16(_mm256_loadu_si256(to), low));
        _mm256_storeu_si256(to + 1, _mm256_add_epi16(_mm256_loadu_si256(to + 1), high));
    }
    _mm256_storeu_si256(at, here);
}

/* Adds the classes that are not CLOSED: bit i of an octet of held[j] stands for class 8 j + i. */
AVX2 static inline void hold_avx2(__m256i *held, __m256i classes) {
    const __m256i first = _mm256_set_epi64x(0, (int64_t)0x8040201008040201, 0, (int64_t)0x8040201008040201);
    const __m256i second = _mm256_set_epi64x((int64_t)0x8040201008040201, 0, (int64_t)0x8040201008040201, 0);
    __m256i low = _mm256_adds_epu8(classes, _mm256_set1_epi8(0x70)); /* 16 and more: above 127, of which shuffles make 0 */
    __m256i high = _mm256_sub_epi8(classes, _mm256_set1_epi8(16));
    held[0] = _mm256_or_si256(held[0], _mm256_shuffle_epi8(first, low));
    held[1] = _mm256_or_si256(held[1], _mm256_shuffle_epi8(second, low));
    held[2] = _mm256_or_si256(held[2], _mm256_shuffle_epi8(first, high));
    held[3] = _mm256_or_si256(held[3], _mm256_shuffle_epi8(second, high));
}

AVX2 static inline uint32_t held_avx2(const __m256i *held) {
    __m128i half[CLASSES / 8];
    for (int i = 0; i < CLASSES / 8; i++)
        half[i] = _mm_or_si128(_mm256_castsi256_si128(held[i]), _mm256_extracti128_si256(held[i], 1));
    __m128i a = _mm_or_si128(_mm_unpacklo_epi8(half[0], half[1]), _mm_unpackhi_epi8(half[0], half[1]));
    __m128i b = _mm_or_si128(_mm_unpacklo_epi8(half[2], half[3]), _mm_unpackhi_epi8(half[2], half[3]));
    a = _mm_or_si128(_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b));
    a = _mm_or_si128(a, _mm_srli_si128(a, 8));
    return (uint32_t)_mm_cvtsi128_si32(_mm_or_si128(a, _mm_srli_si128(a, 4)));
}

PEXT static inline void append_pext(Bits *to, uint64_t bits, uint64_t chosen) {
    append(to, _pext_u64(bits, chosen), __builtin_popcountll(chosen));
}

/* Neighbours are alike: the classes of a channel are few, and next to each other; most hold nothing that is new. */
PEXT static void deal_pext(Symbols *s, Waiting *w, int any) {
    uint32_t counts[CLASSES], there = count_avx2(w->classes[0], 2 * w->count, counts), held = any ? held_avx2(w->held) : 0;
    for (int i = 0; i < w->count && held; i++)
        append_pext(&s->sign, w->minus[i], w->fresh[i]);
    for (uint32_t left = there & ~held; left; left &= left - 1)
        append_zeros(&s->fresh[__builtin_ctz(left)], counts[__builtin_ctz(left)]);
    for (; held; held &= held - 1) {
        int c = __builtin_ctz(held);
        Bits to = s->fresh[c];
        for (int i = 0; i < w->count; i++)
            append_pext(&to, w->fresh[i], equal_avx2(w->classes[i], c));
        s->fresh[c] = to;
    }
    w->count = 0;
}

/* What becomes of STEP coefficients, a bit each: whether they are new, negative, known from the coarser layer; the next
 * bits of those, and which of those were one, and two or three... */
typedef struct {
    uint64_t fresh, minus, old, next, ones, twos;
} Chunk;

PEXT static inline void look_at_chunk(Chunk *to, int up, Waiting *w, const Channel *c, __m256i octets, size_t at,
                                      size_t place, const uint8_t *worth, int k) {
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi8(-1);
    __m256i *wait = (__m256i *)(w->classes[w->count] + up), class = _mm256_loadu_si256((const __m256i *)(c->classes + place));
    __m256i some = _mm256_xor_si256(_mm256_cmpeq_epi8(octets, zero), ones);
    __m256i old = k ? reach_avx2(octets, 2) : zero, fresh = _mm256_andnot_si256(old, some);
    if (c->size128) {
        __m256i idle = _mm256_and_si256(idle_avx2(octets, c->size128 + at, class, worth), fresh);
        fresh = _mm256_andnot_si256(idle, fresh), octets = _mm256_andnot_si256(idle, octets);
    }
    if (c->known)
        tell_avx2(octets, c->known + place, c->sums ? c->sums + place : NULL);
    __m256i odd = _mm256_or_si256(octets, _mm256_set1_epi8(1));
    __m256i minus = _mm256_slli_epi16(_mm256_loadu_si256((const __m256i *)(c->negative + at)), 7);
    to->fresh |= (uint64_t)mask_avx2(fresh) << up;
    to->minus |= (uint64_t)mask_avx2(minus) << up;
    to->old |= (uint64_t)mask_avx2(old) << up;
    to->next |= (uint64_t)mask_avx2(_mm256_slli_epi16(octets, 7)) << up;
    to->ones |= (uint64_t)mask_avx2(_mm256_cmpeq_epi8(odd, _mm256_set1_epi8(3))) << up;
    to->twos |= (uint64_t)mask_avx2(_mm256_cmpeq_epi8(odd, _mm256_set1_epi8(5))) << up;
    _mm256_storeu_si256(wait, _mm256_or_si256(class, old));
    hold_avx2(w->held, _mm256_or_si256(class, _mm256_xor_si256(fresh, ones)));
}

/* As list_plain, where rows are of whole chunks. */
PEXT static void list_pext(Symbols *s, const Contexts *t, Channel c, int shift, int k) {
    int of_row = t->w / STEP, chunks = t->h * of_row;
    Waiting w;
    w.count = 0;
    for (int first = 0; first < chunks; first += 2) {
        __m256i octets[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        int count = chunks - first < 2 ? 1 : 2;
        size_t place[2];
        if (w.count == 0)
            memset(w.held, 0, sizeof w.held);
        if (count == 1)
            memset(w.classes[w.count] + STEP, CLOSED, STEP);
        for (int i = 0; i < count; i++) {
            place[i] = (size_t)((first + i) / of_row * t->pitch + (first + i) % of_row * STEP);
            memcpy(w.classes[w.count] + i * STEP, c.classes + place[i], STEP);
            if (c.any)
                octets[i] = octets_avx2(c.magnitude + (size_t)(first + i) * STEP, shift);
        }
        Chunk both = {0, 0, 0, 0, 0, 0};
        __m256i some = _mm256_or_si256(octets[0], octets[1]);
        if (!_mm256_testz_si256(some, some)) /* as few are */
            for (int i = 0; i < count; i++)
                look_at_chunk(&both, i * STEP, &w, &c, octets[i], (size_t)(first + i) * STEP, place[i], t->layer->worth, k);
        if (both.old) {
            append_pext(&s->refined[0], both.next, both.old & both.ones);
            append_pext(&s->refined[1], both.next, both.old & both.twos);
            append_pext(&s->refined[2], both.next, both.old & ~both.ones & ~both.twos);
        }
        for (int i = 0; k == 0 && both.fresh && i < count; i++)
            list_sizes(s, c.magnitude + (size_t)(first + i) * STEP, w.classes[w.count] + i * STEP,
                       (uint32_t)half_of(both.fresh, i), shift);
        w.fresh[w.count] = both.fresh, w.minus[w.count] = both.minus;
        if (++w.count == PAIRS)
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
