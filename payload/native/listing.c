/* A layer's coefficients -> what is coded of them: new ones by class, bits and sizes of known ones, signs. */
#include "kernel.h"

/* A string of bits: the first is the lowest of the first word. `bits` holds the `count` (< 64) of the open word. */
typedef struct {
    uint64_t *begin, *at, bits;
    int count;
} Bits;

/* The lowest `count` (0 to 64) of `bits`; those above are 0. */
static inline void append(Bits *to, uint64_t bits, int count) {
    uint64_t here = to->bits | bits << to->count, beyond = bits >> 1 >> (63 - to->count);
    int all = to->count + count, whole = all >> 6;
    *to->at = here;
    to->at += whole;
    to->bits = here ^ ((here ^ beyond) & -(uint64_t)whole); /* no branch: nobody can foresee it */
    to->count = all & 63;
}

static inline size_t bits_in(const Bits *bits) { return (size_t)(bits->at - bits->begin) * 64 + (size_t)bits->count; }

static size_t words_for(size_t bits) { return bits / 64 + 2; }

static void start(Bits *bits) { bits->at = bits->begin, bits->bits = 0, bits->count = 0; }

/* As octets, the first bit the highest of its octet; the last octet is filled up with zeros. */
static uint8_t *write_bits(const Bits *bits, uint8_t *out) {
    size_t octets = (bits_in(bits) + 7) / 8;
    *bits->at = bits->bits;
    for (size_t i = 0; i < octets; i += 8) {
        uint64_t word = bits->begin[i / 8];
        word = (word >> 1 & 0x5555555555555555u) | (word & 0x5555555555555555u) << 1;
        word = (word >> 2 & 0x3333333333333333u) | (word & 0x3333333333333333u) << 2;
        word = (word >> 4 & 0x0f0f0f0f0f0f0f0fu) | (word & 0x0f0f0f0f0f0f0f0fu) << 4;
        for (size_t j = i; j < i + 8 && j < octets; j++, word >>= 8)
            *out++ = (uint8_t)word;
    }
    return out;
}

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

#if HAVE_AVX2
#define PEXT __attribute__((target("avx2,popcnt,bmi,bmi2")))

/* Processors whose pext is quick. */
static int use_pext(void) {
    return use_avx2() && __builtin_cpu_supports("bmi2") && !__builtin_cpu_is("znver1") && !__builtin_cpu_is("znver2");
}

/* A bit each of 32 comparisons of 16 bits. */
AVX2 static uint32_t mask_avx2(__m256i first, __m256i second) {
    __m256i both = _mm256_packs_epi16(first, second);
    return (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(both, _MM_SHUFFLE(3, 1, 2, 0)));
}

AVX2 static uint32_t some_avx2(const uint16_t *magnitude, int shift) {
    const __m128i down = _mm_cvtsi32_si128(shift);
    const __m256i zero = _mm256_setzero_si256();
    __m256i a = _mm256_srl_epi16(_mm256_loadu_si256((const __m256i *)magnitude), down);
    __m256i b = _mm256_srl_epi16(_mm256_loadu_si256((const __m256i *)(magnitude + 16)), down);
    return ~mask_avx2(_mm256_cmpeq_epi16(a, zero), _mm256_cmpeq_epi16(b, zero));
}

AVX2 static uint32_t equal_avx2(const uint8_t *classes, int class) {
    __m256i same = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)classes), _mm256_set1_epi8((char)class));
    return (uint32_t)_mm256_movemask_epi8(same);
}

AVX2 static uint32_t minus_avx2(const uint8_t *negative) {
    __m256i high = _mm256_slli_epi16(_mm256_loadu_si256((const __m256i *)negative), 7);
    return (uint32_t)_mm256_movemask_epi8(high);
}

AVX2 static uint32_t idle_avx2(const uint16_t *magnitude, const uint8_t *size128, const uint8_t *classes,
                               const uint8_t *worth) {
    const __m256i one = _mm256_set1_epi16(1);
    uint32_t ones = mask_avx2(_mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *)magnitude), one),
                              _mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *)(magnitude + 16)), one));
    __m256i class = _mm256_loadu_si256((const __m256i *)classes), size = _mm256_loadu_si256((const __m256i *)size128);
    __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)worth));
    __m256i high = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(worth + 16)));
    __m256i price = _mm256_blendv_epi8(_mm256_shuffle_epi8(low, class), _mm256_shuffle_epi8(high, class),
                                       _mm256_slli_epi16(class, 3)); /* bit 4 chooses the half */
    return ones & ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(size, price), size));
}

PEXT static inline void append_pext(Bits *to, uint32_t bits, uint32_t chosen) {
    append(to, _pext_u32(bits, chosen), __builtin_popcount(chosen));
}

PEXT static inline void refine_pext(Symbols *s, const uint16_t *magnitude, uint32_t old, int shift) {
    const __m128i down = _mm_cvtsi32_si128(shift), further = _mm_cvtsi32_si128(shift + 1);
    const __m256i one = _mm256_set1_epi16(1), two = _mm256_set1_epi16(2);
    __m256i a = _mm256_loadu_si256((const __m256i *)magnitude);
    __m256i b = _mm256_loadu_si256((const __m256i *)(magnitude + 16));
    uint32_t next = mask_avx2(_mm256_slli_epi16(_mm256_srl_epi16(a, down), 15),
                              _mm256_slli_epi16(_mm256_srl_epi16(b, down), 15));
    a = _mm256_srl_epi16(a, further), b = _mm256_srl_epi16(b, further);
    uint32_t ones = mask_avx2(_mm256_cmpeq_epi16(a, one), _mm256_cmpeq_epi16(b, one));
    uint32_t twos = mask_avx2(_mm256_cmpeq_epi16(a, two), _mm256_cmpeq_epi16(b, two));
    append_pext(&s->refined[0], next, old & ones);
    append_pext(&s->refined[1], next, old & twos);
    append_pext(&s->refined[2], next, old & ~ones & ~twos);
}
#endif

/* Chunks of 32 coefficients that wait to be dealt out by class. */
enum { CHUNKS = 32 };
typedef struct {
    int count;
    uint32_t open[CHUNKS], fresh[CHUNKS];
    uint8_t classes[CHUNKS][STEP];
} Waiting;

static void deal_plain(Symbols *s, const Waiting *w) {
    for (int i = 0; i < w->count; i++)
        for (uint32_t open = w->open[i]; open; open &= open - 1) {
            int at = __builtin_ctz(open);
            append(&s->fresh[w->classes[i][at]], w->fresh[i] >> at & 1, 1);
        }
}

#if HAVE_AVX2
/* Neighbours are alike: the classes of a channel are few, and next to each other. */
PEXT static void deal_pext(Symbols *s, Waiting *w) {
    __m256i least = _mm256_set1_epi8(CLASSES - 1), most = _mm256_setzero_si256();
    if (w->count & 1) /* two chunks at a time */
        w->open[w->count] = 0, memcpy(w->classes[w->count], w->classes[w->count - 1], STEP);
    for (int i = 0; i < w->count; i++) {
        __m256i here = _mm256_loadu_si256((const __m256i *)w->classes[i]);
        least = _mm256_min_epu8(least, here), most = _mm256_max_epu8(most, here);
    }
    uint8_t low[STEP], high[STEP], first = CLASSES - 1, last = 0;
    _mm256_storeu_si256((__m256i *)low, least), _mm256_storeu_si256((__m256i *)high, most);
    for (int i = 0; i < STEP; i++)
        first = low[i] < first ? low[i] : first, last = high[i] > last ? high[i] : last;
    for (int c = first; c <= last; c++) {
        Bits to = s->fresh[c];
        for (int i = 0; i < w->count; i += 2) {
            uint64_t open, fresh, same = equal_avx2(w->classes[i], c) | (uint64_t)equal_avx2(w->classes[i + 1], c) << 32;
            memcpy(&open, w->open + i, sizeof open), memcpy(&fresh, w->fresh + i, sizeof fresh);
            append(&to, _pext_u64(fresh, same & open), __builtin_popcountll(same & open));
        }
        s->fresh[c] = to;
    }
}
#endif

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
 * octets is cleared. */
static inline __attribute__((always_inline)) void list_channel(Symbols *s, const Contexts *t, const uint8_t *classes,
                                                               uint16_t *magnitude, const uint8_t *negative,
                                                               const uint8_t *size128, int shift, int k, int vector) {
    Waiting waiting;
    waiting.count = 0;
    for (int row = 0; row < t->h; row++)
        for (int col = 0; col < t->w; col += STEP) {
            int count = t->w - col < STEP ? t->w - col : STEP, at = row * t->w + col;
            const uint8_t *class = classes + row * t->pitch + col, *worth = t->layer->worth;
            uint32_t here = UINT32_MAX >> (STEP - count), minus, idle = 0;
            Events events;
#if HAVE_AVX2
            if (vector && count == STEP) {
                events.some = some_avx2(magnitude + at, shift);
                events.old = k && events.some ? some_avx2(magnitude + at, shift + 1) : 0;
                minus = minus_avx2(negative + at);
                if (size128 && events.some & ~events.old)
                    idle = idle_avx2(magnitude + at, size128 + at, class, worth) & ~events.old;
                if (events.old)
                    refine_pext(s, magnitude + at, events.old, shift);
            } else
#endif
            {
                events = events_plain(magnitude + at, count, shift, shift + 1);
                events.old = k ? events.old : 0;
                minus = minus_plain(negative + at, count);
                if (size128)
                    idle = idle_plain(magnitude + at, size128 + at, class, worth, events.some & ~events.old);
                refine_plain(s, magnitude + at, events.old, shift);
            }
            uint32_t fresh = events.some & ~events.old & ~idle;
            for (; idle; idle &= idle - 1)
                magnitude[at + __builtin_ctz(idle)] = 0; /* counts as a zero from here on */
            if (k == 0)
                list_sizes(s, magnitude + at, class, fresh, shift);
#if HAVE_AVX2
            if (vector)
                append_pext(&s->sign, minus, fresh);
            else
#endif
                append_plain(&s->sign, minus, fresh);
            waiting.open[waiting.count] = here & ~events.old, waiting.fresh[waiting.count] = fresh;
            memcpy(waiting.classes[waiting.count], class, (size_t)count);
            memset(waiting.classes[waiting.count++] + count, class[0], (size_t)(STEP - count));
            int last = row == t->h - 1 && col + STEP >= t->w;
            if (waiting.count < CHUNKS && !last)
                continue;
#if HAVE_AVX2
            if (vector)
                deal_pext(s, &waiting);
            else
#endif
                deal_plain(s, &waiting);
            waiting.count = 0;
        }
}

static void list_plain(Symbols *s, const Contexts *t, const uint8_t *classes, uint16_t *magnitude,
                       const uint8_t *negative, const uint8_t *size128, int shift, int k) {
    list_channel(s, t, classes, magnitude, negative, size128, shift, k, 0);
}

#if HAVE_AVX2
PEXT static void list_pext(Symbols *s, const Contexts *t, const uint8_t *classes, uint16_t *magnitude,
                           const uint8_t *negative, const uint8_t *size128, int shift, int k) {
    list_channel(s, t, classes, magnitude, negative, size128, shift, k, 1);
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
