/* Coefficients in chunks: up to STEP blocks of a row of one channel, which classes they are of, a bit for each of them.
 * Two chunks share a word of 64 bits, the first one the lower half. */
#include "kernel.h"

enum { CLOSED = UINT8_MAX }; /* instead of a class: known from the coarser layer, or behind the end of a row */
enum { MOST_COUNTED = 254 }; /* chunks whose coefficients are counted in octets */

static inline int chunks_of_row(int w) { return (w + STEP - 1) / STEP; }
/* Of a channel, an even number. */
static inline int chunks_of(int h, int w) { return (h * chunks_of_row(w) + 1) & ~1; }

static inline uint64_t half_of(uint64_t both, int chunk) { return both >> (chunk & 1) * STEP & UINT32_MAX; }

/* Classes of a row's chunk of `count` coefficients, whole. */
static inline void copy_chunk(const uint8_t *classes, int count, uint8_t *to) {
    memset(to + count, CLOSED, (size_t)(STEP - count));
    memcpy(to, classes, (size_t)count);
}

static void count_plain(const uint8_t *classes, int chunks, uint32_t *counts) {
    uint32_t seen[UINT8_MAX + 1][4] = {0}; /* four: none waits for the last */
    for (int i = 0; i < STEP * chunks; i++)
        seen[classes[i]][i & 3]++;
    for (int c = 0; c < CLASSES; c++)
        counts[c] = seen[c][0] + seen[c][1] + seen[c][2] + seen[c][3];
}

#if HAVE_AVX2
#define PEXT __attribute__((target("avx2,popcnt,bmi,bmi2")))

/* Processors whose pext and pdep are quick. */
static int use_pext(void) {
    return use_avx2() && loops_taken != OLDER_LOOPS && __builtin_cpu_supports("bmi2") && !__builtin_cpu_is("znver1") &&
           !__builtin_cpu_is("znver2");
}

/* STEP magnitudes >> shift as octets, at most 254, or 255 where they are odd. */
AVX2 static inline __m256i octets_avx2(const uint16_t *magnitude, int shift) {
    const __m128i down = _mm_cvtsi32_si128(shift);
    const __m256i one = _mm256_set1_epi16(1), most = _mm256_set1_epi16(254);
    __m256i a = _mm256_srl_epi16(_mm256_loadu_si256((const __m256i *)magnitude), down);
    __m256i b = _mm256_srl_epi16(_mm256_loadu_si256((const __m256i *)(magnitude + 16)), down);
    a = _mm256_min_epu16(a, _mm256_or_si256(_mm256_and_si256(a, one), most));
    b = _mm256_min_epu16(b, _mm256_or_si256(_mm256_and_si256(b, one), most));
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), _MM_SHUFFLE(3, 1, 2, 0));
}

/* All ones where octets are `least` or more. */
AVX2 static inline __m256i reach_avx2(__m256i octets, int least) {
    return _mm256_cmpeq_epi8(_mm256_max_epu8(octets, _mm256_set1_epi8((char)least)), octets);
}

AVX2 static inline uint32_t mask_avx2(__m256i octets) { return (uint32_t)_mm256_movemask_epi8(octets); }

AVX2 static inline uint32_t some_avx2(const uint16_t *magnitude) {
    return ~mask_avx2(_mm256_cmpeq_epi8(octets_avx2(magnitude, 0), _mm256_setzero_si256()));
}

/* Which of two chunks are of a class. */
AVX2 static inline uint64_t equal_avx2(const uint8_t *classes, int class) {
    const __m256i wanted = _mm256_set1_epi8((char)class);
    const __m256i *chunk = (const __m256i *)classes;
    return mask_avx2(_mm256_cmpeq_epi8(_mm256_loadu_si256(chunk), wanted)) |
           (uint64_t)mask_avx2(_mm256_cmpeq_epi8(_mm256_loadu_si256(chunk + 1), wanted)) << STEP;
}

/* The least and the largest class there is; nothing where first > last. */
AVX2 static inline void edges_avx2(const uint8_t *classes, int chunks, int *first, int *last) {
    __m256i least = _mm256_set1_epi8(CLASSES), most = _mm256_set1_epi8(-1); /* CLOSED is -1 where octets have signs */
    for (int i = 0; i < chunks; i++) {
        __m256i here = _mm256_loadu_si256((const __m256i *)(classes + STEP * i));
        least = _mm256_min_epu8(least, here), most = _mm256_max_epi8(most, here);
    }
    __m128i low = _mm_min_epu8(_mm256_castsi256_si128(least), _mm256_extracti128_si256(least, 1));
    __m128i high = _mm_max_epi8(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    low = _mm_min_epu8(low, _mm_srli_si128(low, 8)), high = _mm_max_epi8(high, _mm_srli_si128(high, 8));
    low = _mm_min_epu8(low, _mm_srli_si128(low, 4)), high = _mm_max_epi8(high, _mm_srli_si128(high, 4));
    low = _mm_min_epu8(low, _mm_srli_si128(low, 2)), high = _mm_max_epi8(high, _mm_srli_si128(high, 2));
    low = _mm_min_epu8(low, _mm_srli_si128(low, 1)), high = _mm_max_epi8(high, _mm_srli_si128(high, 1));
    *first = _mm_cvtsi128_si32(low) & UINT8_MAX, *last = (int8_t)_mm_cvtsi128_si32(high);
}

AVX2 static inline uint32_t sum_avx2(__m256i octets) {
    __m256i sums = _mm256_sad_epu8(octets, _mm256_setzero_si256());
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return (uint32_t)(_mm_cvtsi128_si32(half) + _mm_extract_epi32(half, 2));
}

/* Up to MOST_COUNTED chunks by class, six classes at a time: counts [CLASSES]. Which classes there are, a bit for each. */
AVX2 static uint32_t count_avx2(const uint8_t *classes, int chunks, uint32_t *counts) {
    enum { TOGETHER = 6 };
    int first, last;
    uint32_t there = 0, found[CLASSES + TOGETHER - 1] = {0}; /* so many from the last one on are looked at, too */
    edges_avx2(classes, chunks, &first, &last);
    for (int c = first; c <= last; c += TOGETHER) {
        __m256i seen[TOGETHER];
        for (int i = 0; i < TOGETHER; i++)
            seen[i] = _mm256_setzero_si256();
        for (int k = 0; k < chunks; k++) {
            __m256i here = _mm256_loadu_si256((const __m256i *)(classes + STEP * k));
            for (int i = 0; i < TOGETHER; i++)
                seen[i] = _mm256_sub_epi8(seen[i], _mm256_cmpeq_epi8(here, _mm256_set1_epi8((char)(c + i))));
        }
        for (int i = 0; i < TOGETHER; i++) {
            found[c + i] = sum_avx2(seen[i]);
            there |= (uint32_t)((uint64_t)(found[c + i] != 0) << (c + i));
        }
    }
    memcpy(counts, found, CLASSES * sizeof *counts);
    return there;
}

/* All ones in the octets whose bits are set. */
AVX2 static inline __m256i widen_avx2(uint32_t bits) {
    const __m256i octet = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    __m256i found = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)bits), octet), bit);
    return _mm256_cmpeq_epi8(found, bit);
}

/* STEP magnitudes, of which those whose bits are set become one more: they are even. */
AVX2 static inline void set_bits_avx2(uint16_t *magnitude, uint32_t bits) {
    __m256i ones = _mm256_and_si256(_mm256_permute4x64_epi64(widen_avx2(bits), _MM_SHUFFLE(3, 1, 2, 0)),
                                    _mm256_set1_epi8(1));
    __m256i *to = (__m256i *)magnitude, zero = _mm256_setzero_si256();
    _mm256_storeu_si256(to, _mm256_or_si256(_mm256_loadu_si256(to), _mm256_unpacklo_epi8(ones, zero)));
    _mm256_storeu_si256(to + 1, _mm256_or_si256(_mm256_loadu_si256(to + 1), _mm256_unpackhi_epi8(ones, zero)));
}
#endif

/* A bit each of up to STEP magnitudes: whether they are `least` or more. */
static uint32_t reach_plain(const uint16_t *magnitude, int count, int shift, int least) {
    uint32_t found = 0;
    for (int i = 0; i < count; i++)
        found |= (uint32_t)(magnitude[i] >> shift >= least) << i;
    return found;
}

/* Which of up to STEP magnitudes are no zeros. */
static inline __attribute__((always_inline)) uint32_t some_of(const uint16_t *here, int count, int vector) {
#if HAVE_AVX2
    if (vector && count == STEP)
        return some_avx2(here);
#endif
    return reach_plain(here, count, 0, 1);
}
