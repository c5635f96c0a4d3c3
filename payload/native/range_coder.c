/* Symbols <-> octets; twin of payload/codec/lapped/range_coder.py. */
#include "kernel.h"

typedef struct {
    uint64_t low, range;
    uint8_t *begin, *at;
} Encoder;

static void put_word(Encoder *coder, uint32_t word) {
    for (int i = 0; i < 4; i++)
        *coder->at++ = (uint8_t)(word >> (24 - 8 * i));
}

static void carry(Encoder *coder) {
    uint8_t *at = coder->at;
    while (at > coder->begin && ++*--at == 0)
        ;
}

static inline void put(Encoder *coder, const uint32_t *lower, int symbol) {
    uint64_t scale = coder->range >> 24, add = scale * lower[symbol];
    coder->range = scale * (lower[symbol + 1] - lower[symbol]);
    coder->low += add;
    if (coder->low < add)
        carry(coder);
    if (coder->range < (uint64_t)1 << 32) {
        put_word(coder, (uint32_t)(coder->low >> 32));
        coder->range <<= 32;
        coder->low <<= 32;
    }
}

static void finish(Encoder *coder) {
    if (coder->range == UINT64_MAX)
        return;
    uint64_t point = coder->low + UINT32_MAX;
    if (point < coder->low)
        carry(coder);
    put_word(coder, (uint32_t)(point >> 32));
    if ((coder->low + coder->range) >> 32 == point >> 32)
        put_word(coder, 0);
}

typedef struct {
    uint64_t offset, range;
    const uint8_t *at, *end;
    int failed;
} Decoder;

static uint32_t next_word(Decoder *coder) {
    uint32_t word = 0;
    for (int i = 0; i < 4; i++)
        word = word << 8 | (coder->at < coder->end ? *coder->at++ : 0);
    return word;
}

static void open_decoder(Decoder *coder, const uint8_t *octets, size_t count) {
    coder->at = octets, coder->end = octets + count, coder->failed = 0;
    coder->offset = (uint64_t)next_word(coder) << 32;
    coder->offset |= next_word(coder);
    coder->range = UINT64_MAX;
}

/* Where in the counts the next symbol lies, and the unit of that. */
static inline uint32_t quantile_of(Decoder *coder, uint64_t *scale) {
    *scale = coder->range >> 24;
    uint64_t quantile = coder->offset / *scale;
    coder->failed |= quantile >> 24 != 0;
    return coder->failed ? 0 : (uint32_t)quantile;
}

static inline void narrow(Decoder *coder, uint64_t scale, uint32_t lower, uint32_t upper) {
    coder->offset -= scale * lower;
    coder->range = scale * (upper - lower);
    if (coder->range < (uint64_t)1 << 32) {
        coder->range <<= 32;
        coder->offset = coder->offset << 32 | next_word(coder);
    }
}

/* The next of so many symbols; 0 once something has failed. */
static inline int take(Decoder *coder, const uint32_t *lower, int symbols) {
    uint64_t scale;
    uint32_t quantile = quantile_of(coder, &scale);
    if (coder->failed)
        return 0;
    int first = 0, last = symbols; /* lower[first] <= quantile < lower[last] */
    while (last - first > 1) {
        int middle = (first + last) / 2;
        if (lower[middle] <= quantile)
            first = middle;
        else
            last = middle;
    }
    narrow(coder, scale, lower[first], lower[first + 1]);
    return first;
}

#if HAVE_AVX2
/* The same of one symbol more than a multiple of eight: compared with all at once. */
AVX2 static inline int take_avx2(Decoder *coder, const uint32_t *lower, int symbols) {
    uint64_t scale;
    uint32_t quantile = quantile_of(coder, &scale);
    if (coder->failed)
        return 0;
    __m256i here = _mm256_set1_epi32((int)quantile), above = _mm256_setzero_si256();
    for (int i = 1; i < symbols; i += 8) {
        __m256i eight = _mm256_loadu_si256((const __m256i *)(lower + i));
        above = _mm256_add_epi32(above, _mm256_cmpgt_epi32(eight, here)); /* counts are below 2^25 */
    }
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(above), _mm256_extracti128_si256(above, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(1, 0, 3, 2)));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(2, 3, 0, 1)));
    int first = symbols - 1 + _mm_cvtsi128_si32(half);
    narrow(coder, scale, lower[first], lower[first + 1]);
    return first;
}
#endif
