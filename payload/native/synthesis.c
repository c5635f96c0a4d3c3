/* Magnitudes and signs -> rotated bands -> DN: the flown transform undone, on the ground; twin of
 * payload/codec/lapped/synthesis.py. Floats: sums are taken in another order than numpy's, which may move a sample by
 * 1 DN. The plain loop and the vector one add in the same order. */
#include "kernel.h"

enum { NARROW = 2 * BLOCK, WIDE = 4 * BLOCK, MARGIN = (WIDE - BLOCK) / 2 };

/* to[size][size] of a plane of `pitch` += level x function [size][size]. */
static inline void add_plain(const float *function, int size, float level, float *to, int pitch) {
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++)
            to[(size_t)y * pitch + x] += level * function[y * size + x];
}

#if HAVE_AVX2
AVX2 static inline void add_avx2(const float *function, int size, float level, float *to, int pitch) {
    __m256 times = _mm256_set1_ps(level);
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x += 8) {
            float *at = to + (size_t)y * pitch + x;
            __m256 part = _mm256_mul_ps(times, _mm256_loadu_ps(function + y * size + x));
            _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), part));
        }
}

/* One row of blocks of one coefficient: levels [w], of which zeros cost next to nothing. */
AVX2 static void add_row_avx2(const float *levels, int w, const float *function, int size, float *to, int pitch) {
    for (int c = 0; c < w; c += 8) {
        __m256 eight = _mm256_loadu_ps(levels + c);
        int hit = _mm256_movemask_ps(_mm256_cmp_ps(eight, _mm256_setzero_ps(), _CMP_NEQ_UQ));
        for (; hit; hit &= hit - 1) {
            int at = c + __builtin_ctz((unsigned)hit);
            if (size == NARROW)
                add_avx2(function, NARROW, levels[at], to + BLOCK * at, pitch);
            else
                add_avx2(function, WIDE, levels[at], to + BLOCK * at, pitch);
        }
    }
}
#endif

static void add_row(const float *levels, int w, const float *function, int size, float *to, int pitch) {
#if HAVE_AVX2
    if (use_avx2() && w % 8 == 0) {
        add_row_avx2(levels, w, function, size, to, pitch);
        return;
    }
#endif
    for (int c = 0; c < w; c++)
        if (levels[c] != 0)
            add_plain(function, size, levels[c], to + BLOCK * c, pitch);
}

/* Levels of a row of blocks, in steps: what stands between two indices is rebuilt `inside` of it. Whether any is not
 * zero. */
VECTORISED static int levels_of(const uint16_t *magnitude, const uint8_t *negative, int w, float inside,
                                float *levels) {
    uint16_t any = 0;
    for (int c = 0; c < w; c++)
        any |= magnitude[c];
    for (int c = 0; c < w && any; c++) {
        float level = magnitude[c] ? (float)magnitude[c] + inside : 0.0f;
        levels[c] = negative[c] ? -level : level;
    }
    return any != 0;
}

/* What lies beyond an edge belongs to the pixels that it mirrors. plane [side + 2 MARGIN][side + 2 MARGIN]. */
VECTORISED static void fold(float *plane, int side, float *band) {
    int pitch = side + 2 * MARGIN;
    for (int i = 0; i < MARGIN; i++) {
        const float *above = plane + (size_t)(MARGIN - 1 - i) * pitch;
        const float *below = plane + (size_t)(MARGIN + side + i) * pitch;
        float *first = plane + (size_t)(MARGIN + i) * pitch, *last = plane + (size_t)(MARGIN + side - 1 - i) * pitch;
        for (int x = 0; x < pitch; x++)
            first[x] += above[x];
        for (int x = 0; x < pitch; x++)
            last[x] += below[x];
    }
    for (int y = 0; y < side; y++) {
        float *line = plane + (size_t)(MARGIN + y) * pitch + MARGIN;
        for (int i = 0; i < MARGIN; i++)
            line[i] += line[-1 - i];
        for (int i = 0; i < MARGIN; i++)
            line[side - 1 - i] += line[side + i];
        memcpy(band + (size_t)y * side, line, (size_t)side * sizeof(float));
    }
}

/* One row of blocks of one coefficient, from where it stands: as given, or from magnitudes and signs. */
typedef struct {
    const float *levels; /* [bands * 64, h, h], or NULL, and then */
    const uint16_t *magnitude;
    const uint8_t *negative;
    const float *inside, *averages; /* [bands * 64], [bands, h, h] */
} Coefficients;

static const float *row_of(Coefficients from, int band, int function, int row, int cells, float *scratch) {
    size_t channel = (size_t)band * COEFFICIENTS + function, blocks = (size_t)cells * cells;
    size_t at = channel * blocks + (size_t)row * cells;
    if (from.levels)
        return from.levels + at;
    if (!function)
        return from.averages + band * blocks + (size_t)row * cells;
    return levels_of(from.magnitude + at, from.negative + at, cells, from.inside[channel], scratch) ? scratch : NULL;
}

/* Rotated bands [bands, 8 h, 8 h] f32 in steps. narrow [64, 16, 16] and wide [64, 32, 32] f32 are the functions, and
 * is_wide [64] says which are taken wide. plane [(8 h + 24) (8 h + 24)]. */
static void synthesis(Coefficients from, const float *narrow, const float *wide, const uint8_t *is_wide, int bands,
                      int cells, float *plane, float *rotated) {
    int side = BLOCK * cells, pitch = side + 2 * MARGIN;
    float scratch[MAX_CELLS];
    for (int b = 0; b < bands; b++) {
        memset(plane, 0, (size_t)pitch * pitch * sizeof(float));
        for (int row = 0; row < cells; row++)
            for (int f = 0; f < COEFFICIENTS; f++) {
                const float *levels = row_of(from, b, f, row, cells, scratch);
                if (levels == NULL)
                    continue;
                int size = is_wide[f] ? WIDE : NARROW, to = MARGIN - (size - BLOCK) / 2;
                const float *function = size == WIDE ? wide + f * WIDE * WIDE : narrow + f * NARROW * NARROW;
                add_row(levels, cells, function, size, plane + (size_t)(BLOCK * row + to) * pitch + to, pitch);
            }
        fold(plane, side, rotated + (size_t)b * side * side);
    }
}

/* Either levels [bands * 64, cells, cells] f32, or magnitude, negative, inside [bands * 64] and averages. */
EXPORT int nadir_synthesis(Span levels, Span magnitude, Span negative, Span inside, Span averages, Span narrow,
                           Span wide, Span is_wide, int bands, int cells, Span plane, Span rotated) {
    if (!within(bands, 1, MAX_BANDS) || !within(cells, 2, MAX_CELLS))
        return OUT_OF_RANGE;
    size_t blocks = (size_t)cells * cells, pitch = (size_t)BLOCK * cells + 2 * MARGIN;
    size_t samples = bands * COEFFICIENTS * blocks;
    int given = levels.at != NULL ? HOLDS(levels, float, samples)
                                  : HOLDS(magnitude, uint16_t, samples) && HOLDS(negative, uint8_t, samples) &&
                                        HOLDS(inside, float, bands * COEFFICIENTS) &&
                                        HOLDS(averages, float, bands * blocks);
    if (!given || !HOLDS(narrow, float, COEFFICIENTS * NARROW * NARROW) ||
        !HOLDS(wide, float, COEFFICIENTS * WIDE * WIDE) || !HOLDS(is_wide, uint8_t, COEFFICIENTS) ||
        !HOLDS(plane, float, pitch * pitch) || !HOLDS(rotated, float, samples))
        return BUFFER_TOO_SMALL;
    Coefficients from = {levels.at, magnitude.at, negative.at, inside.at, averages.at};
    synthesis(from, narrow.at, wide.at, is_wide.at, bands, cells, plane.at, rotated.at);
    return 0;
}

/* Companded values of one band, of `count` pixels: a row of the matrix over all bands, and the mean. */
VECTORISED static void turn_back(const float *rotated, const float *row, float mean, int bands, size_t n, int count,
                                 float *values) {
    for (int i = 0; i < count; i++)
        values[i] = mean;
    for (int b = 0; b < bands; b++) {
        const float *from = rotated + b * n;
        float times = row[b];
        for (int i = 0; i < count; i++)
            values[i] += times * from[i];
    }
    for (int i = 0; i < count; i++) { /* what is no number becomes 0, too */
        values[i] = values[i] > 0.0f ? values[i] : 0.0f;
        values[i] = values[i] < 65535.0f ? values[i] : 65535.0f;
    }
}

/* DN [bands, n] u16 of rotated bands [bands, n]: matrix [bands, bands] and means [bands] give companded values, table
 * [65537] the DN of each whole one; between two of them along a line. */
EXPORT int nadir_unrotate(Span rotated, Span matrix, Span means, Span table, int bands, int n, Span dn) {
    enum { CHUNK = 512 };
    if (!within(bands, 1, MAX_BANDS) || !within(n, 1, MAX_SIDE * MAX_SIDE))
        return OUT_OF_RANGE;
    size_t samples = (size_t)bands * n;
    if (!HOLDS(rotated, float, samples) || !HOLDS(matrix, float, bands * bands) || !HOLDS(means, float, bands) ||
        !HOLDS(table, float, 65537) || !HOLDS(dn, uint16_t, samples))
        return BUFFER_TOO_SMALL;
    const float *expanded = table.at;
    float values[CHUNK];
    for (int begin = 0; begin < n; begin += CHUNK) {
        int count = n - begin < CHUNK ? n - begin : CHUNK;
        for (int b = 0; b < bands; b++) {
            uint16_t *to = (uint16_t *)dn.at + (size_t)b * n + begin;
            turn_back((const float *)rotated.at + begin, (const float *)matrix.at + b * bands,
                      ((const float *)means.at)[b], bands, (size_t)n, count, values);
            for (int i = 0; i < count; i++) {
                int whole = (int)values[i];
                float low = expanded[whole], found = low + (values[i] - (float)whole) * (expanded[whole + 1] - low);
                found = found > 0.0f ? found + 0.5f : 0.0f;
                to[i] = found < 65535.0f ? (uint16_t)(int)found : 65535;
            }
        }
    }
    return 0;
}
