/* Matrix products of 16-bit integers with a scale a row, for the ground's decoder network: twice the speed of floats
 * where a processor multiplies pairs of them at once. Twin of `Product` in sim/ground/residual_network.py. */
#include "kernel.h"

#include <float.h>

#define SMALLEST 1e-30f /* below it a row's scale is no number that can be divided by */

enum { COLUMNS = 16, ROWS = 6, REST = 4, MAX_CHANNELS = 512 };

/* A row of integers, the largest of which is `limit` off zero, for values [channels]; its scale, times `unit`, turns them
 * back. Where there is nothing, or nothing finite, all are zero. */
static inline __attribute__((always_inline)) void round_row(const float *values, int channels, float limit, float unit,
                                                            int16_t *to, float *scale) {
    int32_t most = 0; /* the bits of a positive float rise with it */
    for (int i = 0; i < channels; i++) {
        int32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        bits &= INT32_MAX;
        most = bits > most ? bits : most;
    }
    float largest;
    memcpy(&largest, &most, sizeof largest);
    int fits = largest > SMALLEST && largest <= FLT_MAX;
    float times = fits ? limit / largest : 0.0f;
    *scale = fits ? largest / limit * unit : 0.0f;
    for (int i = 0; fits && i < channels; i++) {
        float value = values[i] * times;
        to[i] = (int16_t)(int)(value + (value >= 0.0f ? 0.5f : -0.5f));
    }
    if (!fits)
        memset(to, 0, (size_t)channels * sizeof *to);
}

static int fits_limit(float limit) { return limit >= 1.0f && limit <= (float)INT16_MAX; }

/* An array of products to fill: to [n][columns], or to add to; bias [columns] or NULL. */
typedef struct {
    float *at;
    const float *bias;
    int columns, add;
} Products;

static inline float whole(Products to, int row, int column, float product) {
    float *at = to.at + (size_t)row * to.columns + column;
    return (to.add ? *at : 0.0f) + ((to.bias ? to.bias[column] : 0.0f) + product);
}

/* COLUMNS columns of every row of a [n][2 pairs] by b [pairs][COLUMNS][2]. */
static void rows_plain(const int16_t *a, const float *scales, const int16_t *b, int n, int pairs, int column,
                           Products to) {
    for (int row = 0; row < n; row++, a += 2 * pairs) {
        uint32_t sum[COLUMNS] = {0};  /* wraps as the vectors' sums do, where nobody rounded the rows */
        for (int p = 0; p < pairs; p++)
            for (int i = 0; i < COLUMNS; i++) {
                const int16_t *by = b + ((size_t)p * COLUMNS + i) * 2;
                sum[i] += (uint32_t)(a[2 * p] * by[0]) + (uint32_t)(a[2 * p + 1] * by[1]);
            }
        for (int i = 0; i < COLUMNS; i++)
            to.at[(size_t)row * to.columns + column + i] = whole(to, row, column + i, scales[row] * (float)(int32_t)sum[i]);
    }
}

#if HAVE_AVX2
/* Without the two kinds of asm the compiler loads `right` for every row and moves every sum: half the speed. */
AVX2 static inline __attribute__((always_inline)) void rows_avx2(const int16_t *a, const float *scales,
                                                                 const int16_t *b, int rows, int pairs, int row,
                                                                 int column, Products to) {
    __m256i sum[ROWS][2];
    for (int r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (int p = 0; p < pairs; p++, b += 2 * COLUMNS) {
        __m256i left = _mm256_loadu_si256((const __m256i *)b), right = _mm256_loadu_si256((const __m256i *)b + 1);
        __asm__("" : "+x"(left), "+x"(right));
        for (int r = 0; r < rows; r++) {
            int32_t two;
            memcpy(&two, a + ((size_t)r * pairs + p) * 2, sizeof two);
            __m256i both = _mm256_set1_epi32(two);
            __m256i first = _mm256_madd_epi16(both, left), second = _mm256_madd_epi16(both, right);
            __asm__("vpaddd %1, %0, %0" : "+x"(sum[r][0]) : "x"(first));
            __asm__("vpaddd %1, %0, %0" : "+x"(sum[r][1]) : "x"(second));
        }
    }
    for (int r = 0; r < rows; r++)
        for (int half = 0; half < 2; half++) {
            int at = column + 8 * half;
            float *here = to.at + (size_t)(row + r) * to.columns + at;
            __m256 found = _mm256_mul_ps(_mm256_set1_ps(scales[r]), _mm256_cvtepi32_ps(sum[r][half]));
            found = _mm256_add_ps(to.bias ? _mm256_loadu_ps(to.bias + at) : _mm256_setzero_ps(), found);
            found = _mm256_add_ps(to.add ? _mm256_loadu_ps(here) : _mm256_setzero_ps(), found);
            _mm256_storeu_ps(here, found);
        }
}

AVX2 static void columns_avx2(const int16_t *a, const float *scales, const int16_t *b, int n, int pairs,
                                       int column, Products to) {
    int row = 0;
    for (; row + ROWS <= n; row += ROWS)
        rows_avx2(a + (size_t)row * 2 * pairs, scales + row, b, ROWS, pairs, row, column, to);
    for (; row + REST <= n; row += REST)
        rows_avx2(a + (size_t)row * 2 * pairs, scales + row, b, REST, pairs, row, column, to);
    for (; row < n; row++)
        rows_avx2(a + (size_t)row * 2 * pairs, scales + row, b, 1, pairs, row, column, to);
}
#endif

static void multiply(const int16_t *a, const float *scales, const int16_t *b, int n, int pairs, Products to) {
    for (int column = 0; column < to.columns; column += COLUMNS, b += (size_t)2 * COLUMNS * pairs)
#if HAVE_AVX2
        if (use_avx2())
            columns_avx2(a, scales, b, n, pairs, column, to);
        else
#endif
            rows_plain(a, scales, b, n, pairs, column, to);
}

/* to [batches][n][columns] f32 = (add: what is there) + bias + scales x (a by weights). a [batches][n][channels] i16,
 * scales [batches][n], weights [batches][columns / 16][channels / 2][16][2] i16, bias [columns] or none. Whoever rounded
 * the rows keeps their sums within 32 bits. */
EXPORT int nadir_multiply(Span a, Span scales, Span weights, Span bias, int add, int batches, int n, int channels,
                          int columns, Span to) {
    if (!within(batches, 1, 64) || !within(n, 1, MAX_CELLS * MAX_CELLS) || !within(channels, 2, MAX_CHANNELS) ||
        channels % 2 || !within(columns, COLUMNS, MAX_CHANNELS) || columns % COLUMNS)
        return OUT_OF_RANGE;
    size_t rows = (size_t)batches * n;
    if (!HOLDS(a, int16_t, rows * channels) || !HOLDS(scales, float, rows) ||
        !HOLDS(weights, int16_t, (size_t)batches * channels * columns) || !HOLDS(to, float, rows * columns) ||
        (bias.at && !HOLDS(bias, float, columns)))
        return BUFFER_TOO_SMALL;
    for (int k = 0; k < batches; k++) {
        Products products = {(float *)to.at + (size_t)k * n * columns, bias.at, columns, add};
        multiply((const int16_t *)a.at + (size_t)k * n * channels, (const float *)scales.at + (size_t)k * n,
                 (const int16_t *)weights.at + (size_t)k * channels * columns, n, channels / 2, products);
    }
    return 0;
}
