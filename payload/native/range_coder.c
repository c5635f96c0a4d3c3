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

static inline int take(Decoder *coder, const uint32_t *lower, int symbols) {
    uint64_t scale = coder->range >> 24, quantile = coder->offset / scale;
    if (quantile >> 24) {
        coder->failed = 1;
        return 0;
    }
    int first = 0, last = symbols; /* lower[first] <= quantile < lower[last] */
    while (last - first > 1) {
        int middle = (first + last) / 2;
        if (lower[middle] <= quantile)
            first = middle;
        else
            last = middle;
    }
    coder->offset -= scale * lower[first];
    coder->range = scale * (lower[first + 1] - lower[first]);
    if (coder->range < (uint64_t)1 << 32) {
        coder->range <<= 32;
        coder->offset = coder->offset << 32 | next_word(coder);
    }
    return first;
}
