/* Reed-Solomon over blocks of interleaved codewords; twin of payload/link/frames/reed_solomon.py, which has the code's words.
 *
 * Tables, all octets, so that no value of theirs leads outside: exp 512, log 256, symbols to the usual basis 256 and
 * back 256, what a first symbol takes from the `parity` symbols behind it [256, parity]. */
#include "kernel.h"

enum { RS_SYMBOLS = 255, RS_MOST_PARITY = 32, RS_EXP = 0, RS_LOG = 512, RS_USUAL = 768, RS_BACK = 1024, RS_TAKEN = 1280 };
enum { RS_MOST_BLOCKS = 1 << 20, RS_MOST_INTERLEAVE = 8 };

static uint8_t rs_times(const uint8_t *t, uint8_t x, uint8_t y) {
    return x && y ? t[RS_EXP + t[RS_LOG + x] + t[RS_LOG + y]] : 0;
}

/* y is not 0. */
static uint8_t rs_over(const uint8_t *t, uint8_t x, uint8_t y) {
    return x ? t[RS_EXP + t[RS_LOG + x] + RS_SYMBOLS - t[RS_LOG + y]] : 0;
}

/* A polynomial of n coefficients, lowest power first, at b^power with power below 255. */
static uint8_t rs_value(const uint8_t *t, const uint8_t *poly, int n, int power) {
    uint8_t sum = 0;
    for (int k = 0, at = 0; k < n; k++) {
        if (poly[k])
            sum ^= t[RS_EXP + t[RS_LOG + poly[k]] + at];
        at += power;
        at -= at >= RS_SYMBOLS ? RS_SYMBOLS : 0;
    }
    return sum;
}

/* work [symbols + parity] divided by the generator: the remainder is its last `parity` symbols. */
static void rs_divide_32(const uint8_t *taken, uint8_t *work, int symbols) {
    for (int k = 0; k < symbols; k++) {
        const uint8_t *row = taken + 32 * (size_t)work[k];
        for (int j = 0; j < 32; j++)
            work[k + 1 + j] ^= row[j];
    }
}

static void rs_divide_16(const uint8_t *taken, uint8_t *work, int symbols) {
    for (int k = 0; k < symbols; k++) {
        const uint8_t *row = taken + 16 * (size_t)work[k];
        for (int j = 0; j < 16; j++)
            work[k + 1 + j] ^= row[j];
    }
}

static void rs_divide(const uint8_t *t, uint8_t *work, int symbols, int parity) {
    (parity == 32 ? rs_divide_32 : rs_divide_16)(t + RS_TAKEN, work, symbols);
}

/* The error locator [parity + 1], lowest power first (Massey 1969); its degree, or -1 where there is none of at most
 * half the parity. */
static int rs_locator(const uint8_t *t, const uint8_t *syndromes, int parity, uint8_t *locator) {
    uint8_t before[RS_MOST_PARITY + 1] = {1}, kept[RS_MOST_PARITY + 1], last = 1;
    int length = 0, gap = 1;
    memset(locator, 0, (size_t)parity + 1);
    locator[0] = 1;
    for (int n = 0; n < parity; n++) {
        uint8_t wrong = syndromes[n];
        for (int i = 1; i <= length; i++)
            wrong ^= rs_times(t, locator[i], syndromes[n - i]);
        if (wrong == 0) {
            gap++;
            continue;
        }
        uint8_t factor = rs_over(t, wrong, last);
        memcpy(kept, locator, (size_t)parity + 1);
        for (int i = 0; i + gap <= parity; i++)
            locator[i + gap] ^= rs_times(t, factor, before[i]);
        if (2 * length <= n) {
            memcpy(before, kept, (size_t)parity + 1);
            length = n + 1 - length, gap = 1, last = wrong;
        } else {
            gap++;
        }
    }
    return length <= parity / 2 && locator[length] ? length : -1;
}

/* Powers of b at which the errors lie, those with locator(b^-power) = 0; how many. */
static int rs_search(const uint8_t *t, const uint8_t *locator, int degree, int count, uint8_t *powers) {
    uint8_t sums[RS_SYMBOLS + 1];
    int found = 0;
    memset(sums, locator[0], sizeof sums);
    for (int k = 1; k <= degree; k++) {
        if (!locator[k])
            continue;
        for (int p = 0, at = t[RS_LOG + locator[k]]; p < count; p++) {
            sums[p] ^= t[RS_EXP + at];
            at -= k;
            at += at < 0 ? RS_SYMBOLS : 0;
        }
    }
    for (int p = 0; p < count; p++)
        if (!sums[p]) {
            if (found == degree)
                return found + 1;
            powers[found++] = (uint8_t)p;
        }
    return found;
}

/* The values of the errors at these powers (Forney 1965). */
static void rs_values(const uint8_t *t, const uint8_t *syndromes, int parity, const uint8_t *locator, int degree,
                      const uint8_t *powers, uint8_t *values) {
    uint8_t evaluator[RS_MOST_PARITY] = {0}, slope[RS_MOST_PARITY] = {0};
    int first = 128 - parity / 2;
    for (int i = 0; i <= degree; i++)
        for (int j = 0; i + j < degree; j++) /* beyond the degree the products cancel */
            evaluator[i + j] ^= rs_times(t, locator[i], syndromes[j]);
    for (int k = 1; k <= degree; k += 2)
        slope[k - 1] = locator[k];
    for (int n = 0; n < degree; n++) {
        int power = powers[n], back = power ? RS_SYMBOLS - power : 0;
        uint8_t below = rs_value(t, slope, degree, back);
        uint8_t value = below ? rs_over(t, rs_value(t, evaluator, degree, back), below) : 0;
        values[n] = rs_times(t, value, t[RS_EXP + power * (RS_SYMBOLS + 1 - first) % RS_SYMBOLS]);
    }
}

/* Corrects a word [symbols + parity] in place; how many symbols, or -1. */
static int rs_decode_word(const uint8_t *t, uint8_t *word, int symbols, int parity) {
    uint8_t work[RS_SYMBOLS + RS_MOST_PARITY + 1], backwards[RS_MOST_PARITY], syndromes[RS_MOST_PARITY];
    uint8_t locator[RS_MOST_PARITY + 1], powers[RS_MOST_PARITY], values[RS_MOST_PARITY], any = 0;
    int count = symbols + parity, first = 128 - parity / 2;
    memcpy(work, word, (size_t)count);
    rs_divide(t, work, symbols, parity);
    for (int j = 0; j < parity; j++) {
        any |= work[symbols + j];
        backwards[parity - 1 - j] = t[RS_USUAL + work[symbols + j]];
    }
    if (!any)
        return 0;
    for (int j = 0; j < parity; j++)
        syndromes[j] = rs_value(t, backwards, parity, first + j);
    int degree = rs_locator(t, syndromes, parity, locator);
    if (degree < 1 || rs_search(t, locator, degree, count, powers) != degree)
        return -1;
    rs_values(t, syndromes, parity, locator, degree, powers, values);
    for (int n = 0; n < degree; n++)
        word[count - 1 - powers[n]] ^= t[RS_BACK + values[n]];
    return degree;
}

static int rs_refused(Span blocks, Span tables, int n, int symbols, int parity, int interleave) {
    if (!within(n, 0, RS_MOST_BLOCKS) || (parity != 16 && parity != 32) || !within(symbols, 1, RS_SYMBOLS - parity) ||
        !within(interleave, 1, RS_MOST_INTERLEAVE))
        return OUT_OF_RANGE;
    size_t octets = (size_t)n * (size_t)(symbols + parity) * (size_t)interleave;
    if (!HOLDS(tables, uint8_t, RS_TAKEN + 256 * parity) || (n && !HOLDS(blocks, uint8_t, octets)))
        return BUFFER_TOO_SMALL;
    return 0;
}

/* blocks [n, (symbols + parity) x interleave]: fills in the parity. */
EXPORT int nadir_rs_encode(Span blocks, Span tables, int n, int symbols, int parity, int interleave) {
    int refused = rs_refused(blocks, tables, n, symbols, parity, interleave), count = symbols + parity;
    if (refused)
        return refused;
    for (int b = 0; b < n; b++)
        for (int c = 0; c < interleave; c++) {
            uint8_t work[RS_SYMBOLS + 1] = {0}, *block = (uint8_t *)blocks.at + (size_t)b * count * interleave + c;
            for (int k = 0; k < symbols; k++)
                work[k] = block[k * interleave];
            rs_divide(tables.at, work, symbols, parity);
            for (int k = symbols; k < count; k++)
                block[k * interleave] = work[k];
        }
    return 0;
}

/* blocks as above are corrected in place; corrected [n, interleave] says how many symbols, or -1. */
EXPORT int nadir_rs_decode(Span blocks, Span tables, int n, int symbols, int parity, int interleave, Span corrected) {
    int refused = rs_refused(blocks, tables, n, symbols, parity, interleave), count = symbols + parity;
    if (refused)
        return refused;
    if (n && !HOLDS(corrected, int8_t, (size_t)n * interleave))
        return BUFFER_TOO_SMALL;
    for (int b = 0; b < n; b++)
        for (int c = 0; c < interleave; c++) {
            uint8_t word[RS_SYMBOLS], *block = (uint8_t *)blocks.at + (size_t)b * count * interleave + c;
            for (int k = 0; k < count; k++)
                word[k] = block[k * interleave];
            int found = rs_decode_word(tables.at, word, symbols, parity);
            ((int8_t *)corrected.at)[b * interleave + c] = (int8_t)found;
            for (int k = 0; found > 0 && k < count; k++)
                block[k * interleave] = word[k];
        }
    return 0;
}
