/* Strings of bits, in words of 64: the first is the lowest of the first word. */
#include "kernel.h"

/* A string that grows. `bits` holds the `count` (< 64) of the open word. */
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

/* So many zeros. */
static inline void append_zeros(Bits *to, size_t count) {
    size_t all = (size_t)to->count + count, whole = all >> 6;
    *to->at = to->bits;
    for (size_t i = 1; i <= whole; i++)
        to->at[i] = 0;
    to->at += whole;
    to->bits = whole ? 0 : to->bits;
    to->count = (int)(all & 63);
}

static inline size_t bits_in(const Bits *bits) { return (size_t)(bits->at - bits->begin) * 64 + (size_t)bits->count; }

static size_t words_for(size_t bits) { return bits / 64 + 2; }

static void start(Bits *bits) { bits->at = bits->begin, bits->bits = 0, bits->count = 0; }

/* Every octet with its bits in the other order. */
static inline uint64_t turn_octets(uint64_t word) {
    word = (word >> 1 & 0x5555555555555555u) | (word & 0x5555555555555555u) << 1;
    word = (word >> 2 & 0x3333333333333333u) | (word & 0x3333333333333333u) << 2;
    return (word >> 4 & 0x0f0f0f0f0f0f0f0fu) | (word & 0x0f0f0f0f0f0f0f0fu) << 4;
}

/* As octets, the first bit the highest of its octet; the last octet is filled up with zeros. */
static uint8_t *write_bits(const Bits *bits, uint8_t *out) {
    size_t octets = (bits_in(bits) + 7) / 8;
    *bits->at = bits->bits;
    for (size_t i = 0; i < octets; i += 8) {
        uint64_t word = turn_octets(bits->begin[i / 8]);
        for (size_t j = i; j < i + 8 && j < octets; j++, word >>= 8)
            *out++ = (uint8_t)word;
    }
    return out;
}

/* 64 bits from the one at `at` on; the word behind them is read as well. */
static inline uint64_t bits_at(const uint64_t *words, size_t at) {
    size_t word = at >> 6, beyond = at & 63;
    return words[word] >> beyond | words[word + 1] << 1 << (63 - beyond);
}

/* Whether a bit of begin..end is set. */
static inline int any_bit(const uint64_t *words, size_t begin, size_t end) {
    if (begin == end)
        return 0;
    size_t first = begin >> 6, last = (end - 1) >> 6;
    uint64_t above = UINT64_MAX << (begin & 63), below = UINT64_MAX >> (63 - ((end - 1) & 63));
    if (first == last)
        return (words[first] & above & below) != 0;
    uint64_t found = (words[first] & above) | (words[last] & below);
    for (size_t i = first + 1; i < last; i++)
        found |= words[i];
    return found != 0;
}

/* The inverse of `write_bits`: words_for(bits) words. */
static void read_bits(const uint8_t *octets, size_t bits, uint64_t *words) {
    size_t count = (bits + 7) / 8;
    memset(words, 0, words_for(bits) * sizeof *words);
    for (size_t i = 0; i < count; i += 8) {
        uint64_t word = 0;
        for (size_t j = i; j < i + 8 && j < count; j++)
            word |= (uint64_t)octets[j] << 8 * (j - i);
        words[i / 8] = turn_octets(word);
    }
}
