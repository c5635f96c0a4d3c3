/* Magnitudes and signs -> rotated bands -> DN: the flown transform undone, on the ground; twin of
 * payload/codec/lapped/synthesis.py. Floats: sums are taken in another order than numpy's, which may move a sample by
 * 1 DN. The plain loop and the vector one add in the same order. */
#include "kernel.h"

enum { NARROW = 2 * BLOCK, WIDE = 4 * BLOCK, MARGIN = (WIDE - BLOCK) / 2 };

/* What a coefficient of a block adds: so much of a function. */
typedef struct {
    const float *function;
    float level;
} Term;

/* Those of STEP blocks of a row whose functions are of one length. */
typedef struct {
    Term of[STEP][COEFFICIENTS];
    int count[STEP];
} Terms;

/* to[size][size] of a plane of `pitch` += the sum of so many terms. */
static inline void add_plain(const Term *terms, int count, int size, float *to, int pitch) {
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            float sum = 0;
            for (int k = 0; k < count; k++)
                sum += terms[k].level * terms[k].function[y * size + x];
            to[(size_t)y * pitch + x] += sum;
        }
}

#if HAVE_AVX2
enum { SUMS_HELD = 8 }; /* registers of eight sums each, which wait for all terms */

/* As many lines, from y on, as registers hold. */
AVX2 static inline __attribute__((always_inline)) void add_lines_avx2(const Term *terms, int count, int size, int y,
                                                                      float *to, int pitch) {
    __m256 sum[SUMS_HELD];
    for (int i = 0; i < SUMS_HELD; i++)
        sum[i] = _mm256_setzero_ps();
    for (int k = 0; k < count; k++) {
        __m256 level = _mm256_set1_ps(terms[k].level);
        const float *function = terms[k].function + y * size;
        for (int i = 0; i < SUMS_HELD; i++)
            sum[i] = _mm256_add_ps(sum[i], _mm256_mul_ps(level, _mm256_loadu_ps(function + 8 * i)));
    }
    for (int i = 0; i < SUMS_HELD; i++) {
        float *at = to + (size_t)(y + 8 * i / size) * pitch + 8 * i % size;
        _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), sum[i]));
    }
}

/* A few lines of every function at a time: they stay in the nearest cache. */
AVX2 static inline __attribute__((always_inline)) void add_terms_avx2(const Terms *terms, int blocks, int size, float *to,
                                                                      int pitch) {
    for (int y = 0; y < size; y += 8 * SUMS_HELD / size)
        for (int c = 0; c < blocks; c++)
            if (terms->count[c])
                add_lines_avx2(terms->of[c], terms->count[c], size, y, to + BLOCK * c, pitch);
}

AVX2 static void add_wide_avx2(const Terms *terms, int blocks, float *to, int pitch) {
    add_terms_avx2(terms, blocks, WIDE, to, pitch);
}

AVX2 static void add_narrow_avx2(const Terms *terms, int blocks, float *to, int pitch) {
    add_terms_avx2(terms, blocks, NARROW, to, pitch);
}
#endif

/* The terms of so many blocks; `to` is where the first one's functions begin. */
static inline __attribute__((always_inline)) void add_terms(const Terms *terms, int blocks, int size, float *to, int pitch,
                                                            int vector) {
#if HAVE_AVX2
    if (vector) {
        (size == WIDE ? add_wide_avx2 : add_narrow_avx2)(terms, blocks, to, pitch);
        return;
    }
#endif
    for (int c = 0; c < blocks; c++)
        if (terms->count[c])
            add_plain(terms->of[c], terms->count[c], size, to + BLOCK * c, pitch);
}

/* One row of blocks of one coefficient, from where it stands: levels in steps; or indices, of which what stands between
 * two is rebuilt `inside` of it. Zeros cost next to nothing. */
typedef struct {
    const float *levels; /* [w], or NULL, and then */
    const uint16_t *magnitude;
    const uint8_t *negative;
    float inside;
} Row;

static const float SIGNS[2] = {1.0f, -1.0f};

/* Terms of the `count` blocks from `first` on. */
static inline __attribute__((always_inline)) void note_row(Row row, int first, int count, const float *function,
                                                           Terms *terms, int vector) {
    for (int c = 0; row.levels && c < count; c++)
        if (row.levels[first + c] != 0)
            terms->of[c][terms->count[c]++] = (Term){function, row.levels[first + c]};
    uint32_t bits = row.levels ? 0 : some_of(row.magnitude + first, count, vector);
    for (; bits; bits &= bits - 1) {
        int c = __builtin_ctz(bits);
        float level = (float)row.magnitude[first + c] + row.inside;
        level *= SIGNS[row.negative[first + c] != 0]; /* no branch: nobody can foresee it */
        terms->of[c][terms->count[c]++] = (Term){function, level};
    }
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

/* Coefficients of a tile: as given, or as indices with their block averages. */
typedef struct {
    const float *levels; /* [bands * 64, h, h], or NULL, and then */
    const uint16_t *magnitude;
    const uint8_t *negative;
    const float *inside, *averages; /* [bands * 64], [bands, h, h] */
} Coefficients;

static inline Row row_of(Coefficients from, int band, int function, int row, int cells) {
    size_t channel = (size_t)band * COEFFICIENTS + function, blocks = (size_t)cells * cells;
    size_t at = channel * blocks + (size_t)row * cells;
    if (from.levels)
        return (Row){.levels = from.levels + at};
    if (!function)
        return (Row){.levels = from.averages + band * blocks + (size_t)row * cells};
    return (Row){NULL, from.magnitude + at, from.negative + at, from.inside[channel]};
}

/* The functions that coefficients are multiplied by: narrow [64, 16, 16], wide [64, 32, 32], and which [64] are wide. */
typedef struct {
    const float *narrow, *wide;
    const uint8_t *is_wide;
} Functions;

/* A row of blocks of a band, onto a plane [8 h + 24][8 h + 24]. */
static inline __attribute__((always_inline)) void add_blocks(Coefficients from, Functions by, int band, int row,
                                                             int cells, float *plane, int vector) {
    int pitch = BLOCK * cells + 2 * MARGIN;
    Terms narrow, wide;
    for (int first = 0; first < cells; first += STEP) {
        int count = cells - first < STEP ? cells - first : STEP;
        memset(narrow.count, 0, sizeof narrow.count), memset(wide.count, 0, sizeof wide.count);
        for (int f = 0; f < COEFFICIENTS; f++) {
            const float *function = by.is_wide[f] ? by.wide + f * WIDE * WIDE : by.narrow + f * NARROW * NARROW;
            Terms *terms = by.is_wide[f] ? &wide : &narrow;
            note_row(row_of(from, band, f, row, cells), first, count, function, terms, vector);
        }
        float *to = plane + (size_t)BLOCK * row * pitch + BLOCK * first;
        add_terms(&wide, count, WIDE, to, pitch, vector);
        add_terms(&narrow, count, NARROW, to + (size_t)(WIDE - NARROW) / 2 * (pitch + 1), pitch, vector);
    }
}

#if HAVE_AVX2
__attribute__((target("avx2,bmi"))) static void add_blocks_avx2(Coefficients from, Functions by, int band, int row,
                                                                int cells, float *plane) {
    add_blocks(from, by, band, row, cells, plane, 1);
}
#endif

/* Rotated bands [bands, 8 h, 8 h] f32 in steps. */
static void synthesis(Coefficients from, Functions by, int bands, int cells, float *plane, float *rotated) {
    int side = BLOCK * cells, pitch = side + 2 * MARGIN;
    for (int b = 0; b < bands; b++) {
        memset(plane, 0, (size_t)pitch * pitch * sizeof(float));
        for (int row = 0; row < cells; row++)
#if HAVE_AVX2
            if (use_avx2())
                add_blocks_avx2(from, by, b, row, cells, plane);
            else
#endif
                add_blocks(from, by, b, row, cells, plane, 0);
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
    synthesis(from, (Functions){narrow.at, wide.at, is_wide.at}, bands, cells, plane.at, rotated.at);
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

/* DN of companded values, between whole ones along a line. */
static void expand_plain(const float *values, const float *table, int count, uint16_t *dn) {
    for (int i = 0; i < count; i++) {
        int whole = (int)values[i];
        float low = table[whole], found = low + (values[i] - (float)whole) * (table[whole + 1] - low);
        found = found > 0.0f ? found + 0.5f : 0.0f;
        dn[i] = (uint16_t)(int)(found < 65535.0f ? found : 65535.0f);
    }
}

#if HAVE_AVX2
/* Each entry of the table and the next come in one look-up; a shuffle takes them apart. */
AVX2 static inline __m256i expand_eight(const float *values, const float *table) {
    __m256 value = _mm256_loadu_ps(values), zero = _mm256_setzero_ps();
    __m256i whole = _mm256_cvttps_epi32(value), order = _mm256_permute4x64_epi64(whole, _MM_SHUFFLE(3, 1, 2, 0));
    __m256d first = _mm256_i32gather_pd((const double *)table, _mm256_castsi256_si128(order), 4);
    __m256d second = _mm256_i32gather_pd((const double *)table, _mm256_extracti128_si256(order, 1), 4);
    __m256 a = _mm256_castpd_ps(first), b = _mm256_castpd_ps(second);
    __m256 low = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)), high = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1));
    __m256 beyond = _mm256_sub_ps(value, _mm256_cvtepi32_ps(whole));
    __m256 found = _mm256_add_ps(low, _mm256_mul_ps(beyond, _mm256_sub_ps(high, low)));
    found = _mm256_and_ps(_mm256_add_ps(found, _mm256_set1_ps(0.5f)), _mm256_cmp_ps(found, zero, _CMP_GT_OQ));
    return _mm256_cvttps_epi32(_mm256_min_ps(found, _mm256_set1_ps(65535.0f)));
}

AVX2 static void expand_avx2(const float *values, const float *table, int count, uint16_t *dn) {
    int i = 0;
    for (; i + 16 <= count; i += 16) {
        __m256i both = _mm256_packus_epi32(expand_eight(values + i, table), expand_eight(values + i + 8, table));
        _mm256_storeu_si256((__m256i *)(dn + i), _mm256_permute4x64_epi64(both, _MM_SHUFFLE(3, 1, 2, 0)));
    }
    expand_plain(values + i, table, count - i, dn + i);
}
#endif

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
    float values[CHUNK];
    for (int begin = 0; begin < n; begin += CHUNK) {
        int count = n - begin < CHUNK ? n - begin : CHUNK;
        for (int b = 0; b < bands; b++) {
            uint16_t *to = (uint16_t *)dn.at + (size_t)b * n + begin;
            turn_back((const float *)rotated.at + begin, (const float *)matrix.at + b * bands,
                      ((const float *)means.at)[b], bands, (size_t)n, count, values);
#if HAVE_AVX2
            if (use_avx2())
                expand_avx2(values, table.at, count, to);
            else
#endif
                expand_plain(values, table.at, count, to);
        }
    }
    return 0;
}
