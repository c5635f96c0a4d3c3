/* Symbols <-> octets; twin of payload/codec/lapped/range_coder.py. */
#include "kernel.h"

typedef struct {
    uint64_t low, range;
    uint8_t *begin, *at;
} Encoder;

static inline void put_word(Encoder *coder, uint32_t word) {
    uint8_t *at = coder->at;
    at[0] = (uint8_t)(word >> 24), at[1] = (uint8_t)(word >> 16), at[2] = (uint8_t)(word >> 8), at[3] = (uint8_t)word;
    coder->at += 4;
}

static inline void carry(Encoder *coder) {
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

/* So many symbols of one table. */
static void put_all(Encoder *to, const uint32_t *lower, const uint8_t *symbols, const uint8_t *end) {
    Encoder coder = *to; /* a copy that need not be written back for every symbol */
    for (; symbols < end; symbols++)
        put(&coder, lower, *symbols);
    *to = coder;
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

/* Behind the end there are zeros. */
static inline uint32_t next_word(Decoder *coder) {
    uint32_t word = 0;
    if (coder->end - coder->at >= 4) {
        const uint8_t *at = coder->at;
        coder->at += 4;
        return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    }
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

static inline void widen(Decoder *coder) {
    if (coder->range < (uint64_t)1 << 32) {
        coder->range <<= 32;
        coder->offset = coder->offset << 32 | next_word(coder);
    }
}

static inline void narrow(Decoder *coder, uint64_t scale, uint32_t lower, uint32_t upper) {
    coder->offset -= scale * lower;
    coder->range = scale * (upper - lower);
    widen(coder);
}

/* The next of two symbols, without a division or a branch that nobody can foresee. */
static inline int take_bit(Decoder *coder, const uint32_t *lower) {
    uint64_t scale = coder->range >> 24, first = scale * lower[1], second = scale * (lower[2] - lower[1]);
    coder->failed |= coder->offset >= scale << 24;
    if (coder->failed)
        return 0;
    int bit = coder->offset >= first;
    uint64_t mask = -(uint64_t)bit;
    coder->offset -= first & mask;
    coder->range = (second & mask) | (first & ~mask);
    widen(coder);
    return bit;
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

/* The same, from a first guess by the quantile's first eight bits: mostly right, or next to it. */
static inline int take_guessed(Decoder *coder, const uint32_t *lower, const uint8_t *guess) {
    uint64_t scale;
    uint32_t quantile = quantile_of(coder, &scale);
    if (coder->failed)
        return 0;
    int first = guess[quantile >> 16];
    while (lower[first] > quantile) /* the first is 0, and what stands behind the last is above every quantile */
        first--;
    while (lower[first + 1] <= quantile)
        first++;
    narrow(coder, scale, lower[first], lower[first + 1]);
    return first;
}

/* The same of a few symbols, without a division or a branch: where each begins is compared. What comes of octets that no
 * encoder writes is a symbol, too; `failed` says so. */
static inline __attribute__((always_inline)) uint32_t take_few(Decoder *coder, const uint32_t *lower, int symbols) {
    uint64_t scale = coder->range >> 24, width = scale * lower[1], begins = width, begin = 0, range = width;
    uint32_t symbol = 0;
    coder->failed |= coder->offset >= scale << 24;
    for (int i = 1; i < symbols; i++) {
        uint64_t next = scale * (lower[i + 1] - lower[i]), beyond = -(uint64_t)(coder->offset >= begins);
        begin += beyond & width, range += beyond & (next - width);
        symbol -= (uint32_t)beyond;
        begins += next, width = next;
    }
    coder->offset -= begin;
    coder->range = range;
    widen(coder);
    return symbol;
}
