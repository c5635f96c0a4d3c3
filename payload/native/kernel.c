/* The payload's hot loops in C: optional, octet for octet what the payload's Python files define in numpy.
 *
 *   statistics, jacobi, rotate   payload/codec/rotation.py   bands -> rotated bands; jacobi in doubles, all else in integers
 *   transform, second_level      payload/codec/lapped/transform.py    rotated bands -> latents, what flight/encoder.onnx computes
 *   quantise                     payload/codec/lapped/quantiser.py  latents -> magnitudes and signs
 *   encode, decode               payload/codec/lapped/context_model.py, payload/codec/lapped/layers.py, payload/codec/lapped/range_coder.py
 *   cloud_*                      payload/clouds/gate.py     bands -> the cloud network's planes, logits -> cells of cloud
 *
 * payload/native/library.py calls these through ctypes; scratch memory is the caller's. Where the processor has AVX2 the loops
 * that take most of the time use it; the plain ones beside them give the same integers (tests compare all three).
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAVE_AVX2 1
#define AVX2 __attribute__((target("avx2")))
#else
#define HAVE_AVX2 0
#endif

#define EXPORT __attribute__((visibility("default")))
/* Loops that a compiler turns into vectors by itself, once for any processor and once for AVX2. */
#if HAVE_AVX2 && defined(__gnu_linux__)
#define VECTORISED __attribute__((target_clones("avx2", "default")))
#else
#define VECTORISED
#endif

enum { COEFFICIENTS = 64, BLOCK = 8, CLASSES = 32, CLASS_OFFSET = 23, LOGIT_BITS = 8, KNOWN_LIMIT = 15 };
enum { ACTIVITY_CENTRE = 16, LONGEST_RUN = 64, ESCAPE = 16, SIZE_CLASSES = 8, REFINEMENTS = 3, ZONES = 4 };
enum { MAX_BANDS = 16, SUMS = 4, MAX_FEATURES = 3 + 5 + 2 * (MAX_BANDS - 1) + 2 * (ZONES + 1), PAD = 2 };
enum { MAX_SIDE = 4096, MAX_CELLS = MAX_SIDE / BLOCK, LATENT_BITS = 8, FOLD_LIMIT = 8191, FOLD_DOWN = 2 };
enum { STEP = 32 }; /* cells at a time: an AVX2 register of octets */
enum { MAX_LAYERS = 16, MAX_STEP = 1 << 24 };
/* What is wrong with octets, and, negative, with what the caller handed over. */
enum { NO_ENCODERS = 1, RUN_TOO_LONG = 2, TOO_SHORT = 3, SMALL_ESCAPE = 4 };
enum { BUFFER_TOO_SMALL = -1, OUT_OF_RANGE = -2, TABLES_DAMAGED = -3 };

/* An array of the caller's: where it begins and how long it is. NULL where there is none. */
typedef struct {
    void *at;
    size_t octets;
} Span;

/* Whether a span is there and holds `count` values of a type. */
#define HOLDS(span, type, count) ((span).at != NULL && (span).octets / sizeof(type) >= (size_t)(count))

static int within(int value, int least, int most) { return value >= least && value <= most; }

static int plain_only; /* tests set it to compare the plain loops with the vector ones */

EXPORT void nadir_plain_only(int on) { plain_only = on; }

static int use_avx2(void) {
#if HAVE_AVX2
    return !plain_only && __builtin_cpu_supports("avx2");
#else
    return 0;
#endif
}

/* --- rotation ------------------------------------------------------------------------------------------------------ */

static uint64_t product_plain(const uint16_t *x, const uint16_t *y, int n) {
    uint64_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += (uint32_t)x[i] * y[i];
    return sum;
}

#if HAVE_AVX2
/* Sum of (x - x0)(y - y0) where those fit 15 bits. */
AVX2 static uint64_t product_avx2(const uint16_t *x, const uint16_t *y, int n, uint16_t x0, uint16_t y0) {
    const __m256i zero = _mm256_setzero_si256(), from_x = _mm256_set1_epi16((int16_t)x0);
    const __m256i from_y = _mm256_set1_epi16((int16_t)y0);
    __m256i sum = zero;
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256i a = _mm256_sub_epi16(_mm256_loadu_si256((const __m256i *)(x + i)), from_x);
        __m256i b = _mm256_sub_epi16(_mm256_loadu_si256((const __m256i *)(y + i)), from_y);
        __m256i two = _mm256_madd_epi16(a, b);
        sum = _mm256_add_epi64(sum, _mm256_unpacklo_epi32(two, zero));
        sum = _mm256_add_epi64(sum, _mm256_unpackhi_epi32(two, zero));
    }
    uint64_t parts[4], rest = 0;
    _mm256_storeu_si256((__m256i *)parts, sum);
    for (; i < n; i++)
        rest += (uint32_t)(x[i] - x0) * (uint32_t)(y[i] - y0);
    return parts[0] + parts[1] + parts[2] + parts[3] + rest;
}
#endif

VECTORISED static void sum_band(const uint16_t *values, int n, uint64_t *sum, uint16_t *least, uint16_t *most) {
    uint64_t total = 0;
    uint16_t low = 65535, high = 0;
    for (int i = 0; i < n; i++) {
        total += values[i];
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    *sum = total, *least = low, *most = high;
}

/* Companded bands and what the covariance needs. dn, values [bands, n] u16, table [65536]; sums [bands], products
 * [bands, bands], least and most [bands]. */
static void statistics(const uint16_t *dn, const uint16_t *table, int bands, int n, uint16_t *values, uint64_t *sums,
                       uint64_t *products, uint16_t *least, uint16_t *most) {
    for (int i = 0; i < bands * n; i++)
        values[i] = table[dn[i]];
    for (int b = 0; b < bands; b++)
        sum_band(values + (size_t)b * n, n, sums + b, least + b, most + b);
    for (int a = 0; a < bands; a++)
        for (int b = a; b < bands; b++) {
            const uint16_t *x = values + (size_t)a * n, *y = values + (size_t)b * n;
            uint64_t *to = products + a * bands + b;
#if HAVE_AVX2
            if (use_avx2() && most[a] - least[a] < 1 << 15 && most[b] - least[b] < 1 << 15) {
                uint64_t x0 = least[a], y0 = least[b];
                *to = product_avx2(x, y, n, least[a], least[b]) + x0 * sums[b] + y0 * sums[a] - (uint64_t)n * x0 * y0;
                continue;
            }
#endif
            *to = product_plain(x, y, n);
        }
    for (int a = 0; a < bands; a++)
        for (int b = 0; b < a; b++)
            products[a * bands + b] = products[b * bands + a];
}

EXPORT int nadir_statistics(Span dn, Span table, int bands, int n, Span values, Span sums, Span products, Span least,
                            Span most) {
    if (!within(bands, 1, MAX_BANDS) || !within(n, 1, MAX_SIDE * MAX_SIDE))
        return OUT_OF_RANGE;
    if (!HOLDS(dn, uint16_t, bands * n) || !HOLDS(table, uint16_t, 65536) || !HOLDS(values, uint16_t, bands * n) ||
        !HOLDS(sums, uint64_t, bands) || !HOLDS(products, uint64_t, bands * bands) ||
        !HOLDS(least, uint16_t, bands) || !HOLDS(most, uint16_t, bands))
        return BUFFER_TOO_SMALL;
    statistics(dn.at, table.at, bands, n, values.at, sums.at, products.at, least.at, most.at);
    return 0;
}

/* Cyclic Jacobi, step by step as payload/codec/rotation.py has it: what is a [n][n] becomes diagonal, rows of v the vectors.
 * Compiled without contraction, so the doubles are the same. */
static void jacobi(double *a, double *v, int n, int sweeps) {
    for (int sweep = 0; sweep < sweeps; sweep++)
        for (int p = 0; p < n - 1; p++)
            for (int q = p + 1; q < n; q++) {
                double both = a[p * n + q];
                if (!(fabs(both) > 1e-14 * (fabs(a[p * n + p]) + fabs(a[q * n + q]))))
                    continue;
                double theta = (a[q * n + q] - a[p * n + p]) / (2.0 * both), size = fabs(theta);
                double root = size < 1e150 ? sqrt(theta * theta + 1.0) : size;
                double t = (theta >= 0 ? 1.0 : -1.0) / (size + root), c = 1.0 / sqrt(t * t + 1.0), s = t * c;
                for (int k = 0; k < n; k++) {
                    double x = a[k * n + p], y = a[k * n + q];
                    a[k * n + p] = c * x - s * y, a[k * n + q] = s * x + c * y;
                }
                for (int k = 0; k < n; k++) {
                    double x = a[p * n + k], y = a[q * n + k];
                    a[p * n + k] = c * x - s * y, a[q * n + k] = s * x + c * y;
                    x = v[p * n + k], y = v[q * n + k];
                    v[p * n + k] = c * x - s * y, v[q * n + k] = s * x + c * y;
                }
            }
}

EXPORT int nadir_jacobi(Span a, Span v, int n, int sweeps) {
    if (!within(n, 1, MAX_BANDS) || !within(sweeps, 0, 100))
        return OUT_OF_RANGE;
    if (!HOLDS(a, double, n * n) || !HOLDS(v, double, n * n))
        return BUFFER_TOO_SMALL;
    jacobi(a.at, v.at, n, sweeps);
    return 0;
}

/* Rounds and halves a sum of products of unit 2^-14, within the limit. */
static inline int16_t rotated_value(int64_t sum, int shift, int32_t half, int limit) {
    int64_t y = ((sum >> 14) + half) >> shift;
    y = y > limit ? limit : y;
    return (int16_t)(y < -limit ? -limit : y);
}

/* One rotated band where sums may pass 32 bits: more than four bands, or four whose means lie at the end of the range. */
static void rotate_wide(const uint16_t *values, const int32_t *row, const int32_t *means, int bands, int n, int shift,
                        int limit, int16_t *to) {
    int32_t half = shift ? 1 << (shift - 1) : 0;
    for (int i = 0; i < n; i++) {
        int64_t sum = 1 << 13;
        for (int b = 0; b < bands; b++)
            sum += (int64_t)row[b] * (values[(size_t)b * n + i] - means[b]);
        to[i] = rotated_value(sum, shift, half, limit);
    }
}

/* The same where sums fit 32 bits. */
VECTORISED static void rotate_narrow(const uint16_t *values, const int32_t *row, const int32_t *means, int bands,
                                     int n, int shift, int limit, int16_t *to) {
    int32_t half = shift ? 1 << (shift - 1) : 0;
    for (int begin = 0; begin < n; begin += 512) {
        int count = n - begin < 512 ? n - begin : 512;
        int32_t sum[512];
        for (int i = 0; i < count; i++)
            sum[i] = 1 << 13;
        for (int b = 0; b < bands; b++) {
            const uint16_t *from = values + (size_t)b * n + begin;
            int32_t m = row[b], mean = means[b];
            for (int i = 0; i < count; i++)
                sum[i] += m * ((int32_t)from[i] - mean);
        }
        for (int i = 0; i < count; i++) {
            int32_t y = ((sum[i] >> 14) + half) >> shift;
            y = y > limit ? limit : y;
            y = y < -limit ? -limit : y;
            to[begin + i] = (int16_t)y;
        }
    }
}

/* The largest magnitude that a sum of this row's products can reach. */
static int64_t reach_of(const int32_t *row, const int32_t *means, int bands) {
    int64_t reach = 1 << 13;
    for (int b = 0; b < bands; b++) {
        int64_t far = means[b] > 65535 - means[b] ? means[b] : 65535 - means[b];
        reach += (row[b] < 0 ? -(int64_t)row[b] : row[b]) * far;
    }
    return reach;
}

/* Rotated bands [bands, n] i16 of a tile whose pixels are all valid. matrix [bands, bands] in 2^-14, row k gives rotated
 * band k; means [bands] of uint16. */
EXPORT int nadir_rotate(Span values, Span matrix, Span means, int bands, int n, int shift, int limit, Span rotated) {
    if (!within(bands, 1, MAX_BANDS) || !within(n, 1, MAX_SIDE * MAX_SIDE) || !within(shift, 0, 15) ||
        !within(limit, 0, 32767))
        return OUT_OF_RANGE;
    if (!HOLDS(values, uint16_t, bands * n) || !HOLDS(matrix, int32_t, bands * bands) ||
        !HOLDS(means, int32_t, bands) || !HOLDS(rotated, int16_t, bands * n))
        return BUFFER_TOO_SMALL;
    const int32_t *mean = means.at, *row = matrix.at;
    for (int b = 0; b < bands; b++)
        if (!within(mean[b], 0, 65535))
            return OUT_OF_RANGE;
    for (int k = 0; k < bands; k++, row += bands) {
        int16_t *to = (int16_t *)rotated.at + (size_t)k * n;
        if (reach_of(row, mean, bands) <= INT32_MAX)
            rotate_narrow(values.at, row, mean, bands, n, shift, limit, to);
        else
            rotate_wide(values.at, row, mean, bands, n, shift, limit, to);
    }
    return 0;
}

/* --- transform ----------------------------------------------------------------------------------------------------- */

/* How lines go into 16 bits: ((value >> down) & mask), the whole value or one of two parts. */
typedef struct {
    int down, mask, up; /* up: how far the part's sums stand to the left */
} Part;

/* A line of a tile [side], a part of it, with half a block of mirror image at both ends. */
static inline void extend(const int16_t *line, int side, Part part, int16_t *wide) {
    int half = BLOCK / 2;
    for (int i = 0; i < side; i++)
        wide[half + i] = (int16_t)((line[i] >> part.down) & part.mask);
    for (int i = 0; i < half; i++) {
        wide[half - 1 - i] = wide[half + i];
        wide[half + side + i] = wide[half + side - 1 - i];
    }
}

static const int16_t *line_of(const int16_t *band, int side, int row, int i) {
    int line = BLOCK * row + i - BLOCK / 2;
    return band + (size_t)(line < 0 ? -1 - line : line >= side ? 2 * side - 1 - line : line) * side;
}

/* The 16 lines around a row of blocks, the upper eight with their mirror image below added (even) or subtracted (odd):
 * both [8][side + 8]. */
VECTORISED static void fold_lines(const int16_t *band, int side, int row, Part part, int16_t *even, int16_t *odd) {
    int pitch = side + BLOCK;
    int16_t upper[MAX_SIDE + BLOCK], lower[MAX_SIDE + BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        extend(line_of(band, side, row, i), side, part, upper);
        extend(line_of(band, side, row, 15 - i), side, part, lower);
        for (int x = 0; x < pitch; x++) {
            even[i * pitch + x] = (int16_t)(upper[x] + lower[x]);
            odd[i * pitch + x] = (int16_t)(upper[x] - lower[x]);
        }
    }
}

/* Whether sums of four values of the 16 lines around a row of blocks fit 16 bits. */
VECTORISED static int folds_whole(const int16_t *band, int side, int row) {
    int16_t least = 0, most = 0;
    for (int i = 0; i < 2 * BLOCK; i++) {
        const int16_t *line = line_of(band, side, row, i);
        for (int x = 0; x < side; x++) {
            least = line[x] < least ? line[x] : least;
            most = line[x] > most ? line[x] : most;
        }
    }
    return least >= -FOLD_LIMIT && most <= FOLD_LIMIT;
}

/* 16 functions, even or odd from left to right as `sign` says, over folded lines [8][side + 8]: to[function][cells]. */
static void multiply_plain(const int16_t *lines, const int16_t *weights, int side, int sign, int32_t *const *to) {
    int pitch = side + BLOCK;
    for (int c = 0; c < side / BLOCK; c++)
        for (int f = 0; f < 16; f++) {
            int32_t sum = 0;
            for (int i = 0; i < BLOCK; i++)
                for (int j = 0; j < BLOCK; j++) {
                    const int16_t *line = lines + i * pitch + BLOCK * c;
                    sum += weights[f * COEFFICIENTS + i * BLOCK + j] * (line[j] + sign * line[15 - j]);
                }
            to[f][c] = sum;
        }
}

#if HAVE_AVX2
/* The same for both signs, eight cells and eight functions at a time; pairs of places meet in one multiply-add. */
AVX2 static void multiply_avx2(const int16_t *lines, const int16_t *weights, int side, int32_t *const *to) {
    const __m128i mirror = _mm_set_epi8(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    int pitch = side + BLOCK;
    for (int c = 0; c < side / BLOCK; c += 8) {
        __m256i pairs[2][COEFFICIENTS / 2]; /* [sign][pair of places], 8 cells */
        for (int i = 0; i < BLOCK; i++) {
            __m256i both[2][4]; /* cells k and k + 4 */
            for (int k = 0; k < 4; k++) {
                const int16_t *near = lines + i * pitch + BLOCK * (c + k), *far = near + 4 * BLOCK;
                __m256i a = _mm256_set_m128i(_mm_loadu_si128((const __m128i *)far),
                                             _mm_loadu_si128((const __m128i *)near));
                __m256i b = _mm256_set_m128i(_mm_loadu_si128((const __m128i *)(far + BLOCK)),
                                             _mm_loadu_si128((const __m128i *)(near + BLOCK)));
                b = _mm256_shuffle_epi8(b, _mm256_broadcastsi128_si256(mirror));
                both[0][k] = _mm256_add_epi16(a, b);
                both[1][k] = _mm256_sub_epi16(a, b);
            }
            for (int sign = 0; sign < 2; sign++) {
                __m256i *m = both[sign], *to_pairs = pairs[sign] + 4 * i;
                __m256i a = _mm256_unpacklo_epi32(m[0], m[1]), b = _mm256_unpacklo_epi32(m[2], m[3]);
                to_pairs[0] = _mm256_unpacklo_epi64(a, b), to_pairs[1] = _mm256_unpackhi_epi64(a, b);
                a = _mm256_unpackhi_epi32(m[0], m[1]), b = _mm256_unpackhi_epi32(m[2], m[3]);
                to_pairs[2] = _mm256_unpacklo_epi64(a, b), to_pairs[3] = _mm256_unpackhi_epi64(a, b);
            }
        }
        for (int f = 0; f < 32; f += 8) {
            __m256i sum[8];
            for (int k = 0; k < 8; k++)
                sum[k] = _mm256_setzero_si256();
            for (int p = 0; p < COEFFICIENTS / 2; p++)
                for (int k = 0; k < 8; k++) {
                    int32_t two;
                    memcpy(&two, weights + (f + k) * COEFFICIENTS + 2 * p, sizeof two);
                    sum[k] = _mm256_add_epi32(sum[k], _mm256_madd_epi16(pairs[f / 16][p], _mm256_set1_epi32(two)));
                }
            for (int k = 0; k < 8; k++)
                _mm256_storeu_si256((__m256i *)(to[f + k] + c), sum[k]);
        }
    }
}
#endif

/* Latents [bands, 64, cells, cells] i32 in 2^-8 of a rotated value, from rotated [bands, side, side] i16. weights [64
 * functions][64 places of the upper left quarter], sixteen functions of each parity: even in both directions, odd in
 * columns, odd in rows, odd in both; functions [64] says which each is, shift [64] what makes its sums multiples of
 * 2^-8. Rows of blocks too bright for 16 bits go through in two parts, which the transform, linear, adds up. scratch: 16
 * (side + 8) i16; part_sums [32][cells]. */
static void transform(const int16_t *rotated, const int16_t *weights, const int32_t *functions, const int32_t *shift,
                      int bands, int side, int16_t *scratch, int32_t *part_sums, int32_t *latents) {
    static const Part whole[] = {{0, -1, 0}}, halves[] = {{FOLD_DOWN, -1, FOLD_DOWN}, {0, (1 << FOLD_DOWN) - 1, 0}};
    int cells = side / BLOCK, pitch = side + BLOCK, vector = use_avx2() && cells % 8 == 0;
    for (int b = 0; b < bands; b++)
        for (int row = 0; row < cells; row++) {
            const int16_t *band = rotated + (size_t)b * side * side;
            int parts = folds_whole(band, side, row) ? 1 : 2;
            for (int i = 0; i < parts; i++) {
                Part part = parts == 1 ? whole[i] : halves[i];
                fold_lines(band, side, row, part, scratch, scratch + BLOCK * pitch);
                for (int odd = 0; odd < 2; odd++) {
                    const int16_t *lines = scratch + (odd ? BLOCK * pitch : 0);
                    const int16_t *w = weights + odd * 32 * COEFFICIENTS;
                    int32_t *to[32];
                    for (int f = 0; f < 32; f++)
                        to[f] = part_sums + (size_t)f * cells;
#if HAVE_AVX2
                    if (vector)
                        multiply_avx2(lines, w, side, to);
#endif
                    for (int sign = 0; sign < 2 && !vector; sign++)
                        multiply_plain(lines, w + sign * 16 * COEFFICIENTS, side, sign ? -1 : 1, to + sign * 16);
                    for (int f = 0; f < 32; f++) {
                        int function = functions[odd * 32 + f], times = 1 << (shift[function] + part.up);
                        int32_t *sum = latents + ((size_t)(b * COEFFICIENTS + function) * cells + row) * cells;
                        for (int c = 0; c < cells; c++)
                            sum[c] = times * to[f][c] + (i ? sum[c] : 0);
                    }
                }
            }
        }
}

/* Sums fit 32 bits where no function's weights, at their shift, add up to more than the largest rotated value allows. */
EXPORT int nadir_transform(Span rotated, Span weights, Span functions, Span shift, int bands, int side, Span scratch,
                           Span part_sums, Span latents) {
    if (!within(bands, 1, MAX_BANDS) || !within(side, BLOCK, MAX_SIDE) || side % BLOCK)
        return OUT_OF_RANGE;
    size_t pixels = (size_t)bands * side * side;
    if (!HOLDS(rotated, int16_t, pixels) || !HOLDS(weights, int16_t, COEFFICIENTS * COEFFICIENTS) ||
        !HOLDS(functions, int32_t, COEFFICIENTS) || !HOLDS(shift, int32_t, COEFFICIENTS) ||
        !HOLDS(scratch, int16_t, 2 * BLOCK * (side + BLOCK)) ||
        !HOLDS(part_sums, int32_t, COEFFICIENTS / 2 * (side / BLOCK)) || !HOLDS(latents, int32_t, pixels))
        return BUFFER_TOO_SMALL;
    for (int f = 0; f < COEFFICIENTS; f++) {
        int function = ((const int32_t *)functions.at)[f];
        if (!within(function, 0, COEFFICIENTS - 1) || !within(((const int32_t *)shift.at)[function], 0, LATENT_BITS))
            return TABLES_DAMAGED;
        int64_t sum = 0;
        for (int i = 0; i < COEFFICIENTS; i++)
            sum += abs(((const int16_t *)weights.at)[f * COEFFICIENTS + i]);
        if (4 * sum * 32768 << ((const int32_t *)shift.at)[function] > INT32_MAX)
            return TABLES_DAMAGED;
    }
    transform(rotated.at, weights.at, functions.at, shift.at, bands, side, scratch.at, part_sums.at, latents.at);
    return 0;
}

/* 8 x 8 DCT over block averages, in place: coefficient 0 of latents [bands][64][h][w]. basis [8][8]. */
static void second_level(int32_t *latents, const int64_t *basis, int bands, int h, int w, int bits) {
    int64_t rows[BLOCK * BLOCK];
    for (int b = 0; b < bands; b++)
        for (int top = 0; top < h; top += BLOCK)
            for (int left = 0; left < w; left += BLOCK) {
                int32_t *at = latents + (size_t)b * COEFFICIENTS * h * w + (size_t)top * w + left;
                for (int u = 0; u < BLOCK; u++)
                    for (int c = 0; c < BLOCK; c++) {
                        int64_t sum = 0;
                        for (int m = 0; m < BLOCK; m++)
                            sum += basis[u * BLOCK + m] * at[(size_t)m * w + c];
                        rows[u * BLOCK + c] = sum;
                    }
                for (int u = 0; u < BLOCK; u++)
                    for (int v = 0; v < BLOCK; v++) {
                        int64_t sum = (int64_t)1 << (2 * bits - 1);
                        for (int m = 0; m < BLOCK; m++)
                            sum += basis[v * BLOCK + m] * rows[u * BLOCK + m];
                        at[(size_t)u * w + v] = (int32_t)(sum >> 2 * bits);
                    }
            }
}

EXPORT int nadir_second_level(Span latents, Span basis, int bands, int h, int w, int bits) {
    if (!within(bands, 1, MAX_BANDS) || !within(h, BLOCK, MAX_CELLS) || !within(w, BLOCK, MAX_CELLS) || h % BLOCK ||
        w % BLOCK || !within(bits, 1, 12))
        return OUT_OF_RANGE;
    if (!HOLDS(latents, int32_t, bands * COEFFICIENTS * h * w) || !HOLDS(basis, int64_t, BLOCK * BLOCK))
        return BUFFER_TOO_SMALL;
    for (int i = 0; i < BLOCK * BLOCK; i++)
        if (llabs(((const int64_t *)basis.at)[i]) > 1 << bits)
            return TABLES_DAMAGED;
    second_level(latents.at, basis.at, bands, h, w, bits);
    return 0;
}

/* |latent|; the least there is counts as one more. */
static inline int32_t size_of(int32_t latent) {
    latent = latent < -INT32_MAX ? -INT32_MAX : latent;
    return latent < 0 ? -latent : latent;
}

/* One latent, whatever its size. */
static uint16_t magnitude_of(int32_t latent, uint32_t step) {
    uint64_t size = 5 * (uint64_t)(latent < 0 ? -(int64_t)latent : latent), q = (size + step) / (5 * (uint64_t)step);
    return q > 65535 ? 65535 : (uint16_t)q;
}

/* Magnitudes floor(|latent| / step + 1/5), at most 65535, signs, and sizes in 128ths of a step, over n latents.
 * Division is by a float reciprocal and one correction, which is exact below 2^28: |latent| < 2^26 and steps up to 2^24. */
VECTORISED static void quantise(const int32_t *latents, int n, uint32_t step, uint16_t *magnitude, uint8_t *negative,
                                uint8_t *size128) {
    enum { CHUNK = 512 };
    float per_step = 128.0f / (float)step;
    int32_t divisor = 5 * (int32_t)step;
    float inverse = 1.0f / (float)divisor;
    for (int begin = 0; begin < n; begin += CHUNK) {
        int count = n - begin < CHUNK ? n - begin : CHUNK;
        const int32_t *from = latents + begin;
        int32_t any = 0;
        for (int i = 0; i < count; i++)
            any |= size_of(from[i]);
        if (any >> 26) {
            for (int i = 0; i < count; i++)
                magnitude[begin + i] = magnitude_of(from[i], step);
        } else {
            for (int i = 0; i < count; i++) {
                int32_t size = 5 * size_of(from[i]) + (int32_t)step;
                int32_t q = (int32_t)((float)size * inverse), left = size - q * divisor;
                q += (left >= divisor) - (left < 0);
                magnitude[begin + i] = (uint16_t)(q > 65535 ? 65535 : q);
            }
        }
        for (int i = 0; i < count; i++) {
            int32_t size = size_of(from[i]);
            float share = (float)size * per_step;
            negative[begin + i] = from[i] < 0;
            size128[begin + i] = (uint8_t)(int32_t)(share < 255.0f ? share : 255.0f);
        }
    }
}

EXPORT int nadir_quantise(Span latents, int n, uint32_t step, Span magnitude, Span negative, Span size128) {
    if (!within(n, 0, INT32_MAX) || step < 1 || step > MAX_STEP)
        return OUT_OF_RANGE;
    if (!HOLDS(latents, int32_t, n) || !HOLDS(magnitude, uint16_t, n) || !HOLDS(negative, uint8_t, n) ||
        !HOLDS(size128, uint8_t, n))
        return BUFFER_TOO_SMALL;
    quantise(latents.at, n, step, magnitude.at, negative.at, size128.at);
    return 0;
}

/* Squared error left after 0, 1, ..., `layers` layers, in sixteenths of a rotated value, squared and summed:
 * left [layers + 1]. inside [layers]: where a cell of each layer is rebuilt, in 64ths of it. */
VECTORISED static void errors(const int32_t *latents, int n, uint32_t step, int layers, const int32_t *inside,
                              uint64_t *left) {
    enum { CHUNK = 512 };
    uint16_t magnitude[CHUNK];
    uint8_t negative[CHUNK], size128[CHUNK];
    for (int begin = 0; begin < n; begin += CHUNK) {
        int count = n - begin < CHUNK ? n - begin : CHUNK;
        const int32_t *from = latents + begin;
        int32_t any = 0;
        for (int i = 0; i < count; i++)
            any |= size_of(from[i]);
        quantise(from, count, step, magnitude, negative, size128);
        for (int k = 0; k <= layers; k++) {
            int missing = layers - k;
            int64_t wide = (int64_t)step << (k ? missing : 0), start = k ? inside[k - 1] * wide >> 6 : 0;
            uint64_t sum = 0;
            if (any >> 26 == 0 && wide >> 26 == 0) { /* everything fits 32 bits */
                for (int i = 0; i < count; i++) {
                    int32_t size = size_of(from[i]), kept = k ? magnitude[i] >> missing : 0;
                    int32_t level = kept ? kept * (int32_t)wide + (int32_t)start : 0;
                    uint32_t cut = (uint32_t)(size > level ? size - level : level - size) >> 4;
                    sum += (uint64_t)cut * cut;
                }
            } else {
                for (int i = 0; i < count; i++) {
                    int64_t size = from[i] < 0 ? -(int64_t)from[i] : from[i], kept = k ? magnitude[i] >> missing : 0;
                    int64_t level = kept ? kept * wide + start : 0;
                    uint64_t cut = (uint64_t)(size > level ? size - level : level - size) >> 4;
                    sum += cut * cut;
                }
            }
            left[k] += sum;
        }
    }
}

EXPORT int nadir_errors(Span latents, int n, uint32_t step, int layers, Span inside, Span left) {
    if (!within(n, 0, INT32_MAX) || step < 1 || step > MAX_STEP || !within(layers, 1, MAX_LAYERS))
        return OUT_OF_RANGE;
    if (!HOLDS(latents, int32_t, n) || !HOLDS(inside, int32_t, layers) || !HOLDS(left, uint64_t, layers + 1))
        return BUFFER_TOO_SMALL;
    errors(latents.at, n, step, layers, inside.at, left.at);
    return 0;
}

/* Significant coefficients of every channel in every layer, hits [layers, channels]; layer k knows magnitude >>
 * (layers - 1 - k). */
VECTORISED static void count_significant(const uint16_t *magnitude, int channels, int n, int layers, int32_t *hits) {
    for (int c = 0; c < channels; c++)
        for (int k = 0; k < layers; k++) {
            uint16_t least = (uint16_t)(1 << (layers - 1 - k));
            int32_t all = 0;
            for (int begin = 0; begin < n; begin += 4096) { /* counted in 16 bits, as the values are */
                const uint16_t *from = magnitude + (size_t)c * n + begin;
                uint16_t count = 0;
                for (int i = 0; i < (n - begin < 4096 ? n - begin : 4096); i++)
                    count = (uint16_t)(count + (from[i] >= least));
                all += count;
            }
            hits[k * channels + c] = all;
        }
}

EXPORT int nadir_count(Span magnitude, int channels, int n, int layers, Span hits) {
    if (!within(channels, 1, MAX_BANDS * COEFFICIENTS) || !within(n, 1, MAX_CELLS * MAX_CELLS) ||
        !within(layers, 1, MAX_LAYERS))
        return OUT_OF_RANGE;
    if (!HOLDS(magnitude, uint16_t, channels * n) || !HOLDS(hits, int32_t, layers * channels))
        return BUFFER_TOO_SMALL;
    count_significant(magnitude.at, channels, n, layers, hits.at);
    return 0;
}

/* --- the context model --------------------------------------------------------------------------------------------- */

/* What Python hands over, once per bundle and layer. Arrays as in payload/codec/lapped/context_model.py; `lower` are cumulative counts. */
typedef struct {
    int32_t bands, groups;
    const int16_t *order;      /* [C] channel by rank */
    const int32_t *starts;     /* [groups + 1] ranks */
    const int16_t *neighbours; /* [5][C][4] channels next in frequency, C where there is none */
    const int8_t *zone;        /* [64] */
    size_t octets[4];          /* of the arrays above */
} Model;

typedef struct {
    const int8_t *weight;     /* [C][F] */
    const int8_t *gain;       /* [C][4] */
    const int8_t *mix;        /* [F] */
    const int16_t *floor;     /* [4] */
    const int16_t *base;      /* [C] */
    const int16_t *position;  /* [B][64] */
    const int16_t *activity;  /* [C] */
    const uint32_t *runs;     /* [32][66] */
    const int32_t *longest;   /* [32] */
    const uint32_t *refinement; /* [3][3] */
    const uint32_t *size;       /* [8][17] */
    const uint8_t *worth;       /* [32] 128ths of a step from which on a magnitude of one is worth its octets */
    const uint8_t *used;        /* [F] whether a feature has any weight, or a place in a sum that has gain */
    const uint8_t *weighted;    /* features with weights, `weights` of them */
    const uint8_t *mixed;       /* features of the sums that have gain: those of sum e end at mixed_ends[e] */
    const int32_t *mixed_ends;  /* [4] */
    int32_t weights;
    size_t octets[16]; /* of the arrays above */
} Layer;

static int feature_count(int bands) { return 3 + 5 + 2 * (bands - 1) + 2 * (ZONES + 1); }

VECTORISED static int all_within(const int16_t *values, int n, int least, int most) {
    int16_t low = INT16_MAX, high = INT16_MIN;
    for (int i = 0; i < n; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    return n == 0 || (low >= least && high <= most);
}

/* Whether a model's arrays are as long as they must be and point at nothing outside. */
static int fits_model(const Model *m) {
    if (!within(m->bands, 1, MAX_BANDS) || !within(m->groups, 1, m->bands * COEFFICIENTS))
        return 0;
    int channels = m->bands * COEFFICIENTS;
    const size_t wanted[] = {2 * channels, 4 * (m->groups + 1), 2 * 5 * 4 * channels, COEFFICIENTS};
    for (int i = 0; i < 4; i++)
        if (m->octets[i] < wanted[i])
            return 0;
    int rising = m->starts[0] == 0 && m->starts[m->groups] == channels;
    for (int g = 0; g < m->groups; g++)
        rising = rising && m->starts[g] < m->starts[g + 1];
    for (int i = 0; i < COEFFICIENTS; i++)
        rising = rising && within(m->zone[i], -1, ZONES - 1);
    return rising && all_within(m->order, channels, 0, channels - 1) &&
           all_within(m->neighbours, 5 * 4 * channels, 0, channels);
}

/* Whether cumulative counts of so many symbols rise from 0 to 2^24. */
static int rises(const uint32_t *lower, int symbols) {
    int found = lower[0] == 0 && lower[symbols] == 1 << 24;
    for (int i = 0; i < symbols; i++)
        found &= lower[i] < lower[i + 1];
    return found;
}

static int all_below(const uint8_t *values, int n, int limit) {
    int found = 1;
    for (int i = 0; i < n; i++)
        found &= values[i] < limit;
    return found;
}

static int lists_fit(const Layer *l, int features) {
    const int32_t *ends = l->mixed_ends;
    if (!within(l->weights, 0, features) || l->octets[13] < (size_t)l->weights || ends[0] < 0 || ends[0] > ends[1] ||
        ends[1] > ends[2] || ends[2] > ends[3] || ends[3] > features || l->octets[14] < (size_t)ends[3])
        return 0;
    return all_below(l->weighted, l->weights, features) && all_below(l->mixed, ends[3], features);
}

/* The same of a layer's arrays, and whether its symbol tables are distributions. */
static int fits_layer(const Model *m, const Layer *l, int k) {
    size_t c = (size_t)m->bands * COEFFICIENTS, f = (size_t)feature_count(m->bands);
    const size_t wanted[] = {c * f, SUMS * c, f, 2 * SUMS, 2 * c, 2 * c, 2 * c, 4 * CLASSES * (LONGEST_RUN + 2),
                             4 * CLASSES, 4 * 3 * REFINEMENTS, 4 * SIZE_CLASSES * (ESCAPE + 1), CLASSES, f, 0, 0,
                             4 * SUMS};
    for (int i = 0; i < 16; i++)
        if (l->octets[i] < wanted[i])
            return 0;
    int found = lists_fit(l, (int)f);
    for (int i = 0; found && i < CLASSES; i++)
        found = within(l->longest[i], 1, LONGEST_RUN) && (l->longest[i] & (l->longest[i] - 1)) == 0 &&
                rises(l->runs + i * (LONGEST_RUN + 2), l->longest[i] + 1);
    for (int i = 0; found && i < (k ? REFINEMENTS : SIZE_CLASSES); i++)
        found = k ? rises(l->refinement + i * 3, 2) : rises(l->size + i * (ESCAPE + 1), ESCAPE);
    return found;
}

typedef struct {
    const Model *model;
    const Layer *layer;
    int h, w, pitch, plane, span; /* a plane: h + 4 rows of w + 4; span: the inner rows, whole vectors */
    int features, ends[SUMS];
    const int16_t *busy; /* [B] activity less its centre */
    uint8_t *known;      /* [C + 1][plane] */
    uint8_t *some;       /* [C] whether anything is known of a channel but zeros */
    uint16_t *sums;      /* [B][4][plane] of what is known, by zone */
    uint8_t *block;      /* [B][5][plane] */
    uint8_t *around;     /* [B][5][plane] */
    uint8_t *block_some; /* [B][5] whether there is anything but zeros in a plane of `block`, hence of `around` */
    uint8_t *cross;      /* [C][span] sums over the four next blocks, where `crossed` [C] says so */
    uint8_t *crossed;
    uint8_t *added;      /* [F][span] features that are sums of other channels */
    const uint8_t *x[MAX_FEATURES]; /* [F] of a channel, each [span]; `nothing` where all are zero or nobody looks */
    const uint8_t *nothing;
    uint8_t *zone_logs;  /* [B][5][span / 32][64] logarithms of `block` and `around`, octet by octet in turns */
    uint8_t *found;      /* [C][span] classes of the group's channels, in its order */
    int16_t *base;       /* [span] */
} Contexts;

static int plane_of(int h, int w) { return (h + 2 * PAD) * (w + 2 * PAD) + 2 * STEP; }
static int span_of(int h, int w) { return (h * (w + 2 * PAD) + STEP - 1) / STEP * STEP; }

static size_t context_octets(int channels, int h, int w) {
    int bands = channels / COEFFICIENTS;
    return (size_t)(channels + 1 + 10 * bands) * plane_of(h, w) +
           (size_t)(MAX_FEATURES + 2 * channels + 10 * bands + 2) * span_of(h, w) + 2 * channels + 5 * bands +
           sizeof(uint16_t) * ((size_t)(bands * ZONES + 1) * plane_of(h, w) + 1);
}

static size_t inner(const Contexts *t) { return (size_t)PAD * t->pitch + PAD; }

static void open_contexts(Contexts *t, const Model *model, const Layer *layer, int h, int w, const int16_t *busy,
                          uint8_t *scratch) {
    int channels = model->bands * COEFFICIENTS;
    t->model = model, t->layer = layer, t->busy = busy;
    t->h = h, t->w = w, t->pitch = w + 2 * PAD, t->plane = plane_of(h, w), t->span = span_of(h, w);
    t->ends[0] = 3, t->ends[1] = 8, t->ends[2] = 8 + 2 * (model->bands - 1), t->ends[3] = t->ends[2] + 10;
    t->features = t->ends[3];
    t->known = scratch;
    t->block = t->known + (size_t)(channels + 1) * t->plane;
    t->around = t->block + (size_t)5 * model->bands * t->plane;
    t->added = t->around + (size_t)5 * model->bands * t->plane;
    t->cross = t->added + (size_t)MAX_FEATURES * t->span;
    t->zone_logs = t->cross + (size_t)channels * t->span;
    t->found = t->zone_logs + (size_t)10 * model->bands * t->span;
    t->some = t->found + (size_t)channels * t->span;
    t->crossed = t->some + channels;
    t->block_some = t->crossed + channels;
    t->base = (int16_t *)(((uintptr_t)(t->block_some + 5 * model->bands) + 1) & ~(uintptr_t)1);
    t->sums = (uint16_t *)(t->base + t->span);
    memset(t->sums, 0, (size_t)model->bands * ZONES * t->plane * sizeof *t->sums);
    memset(t->known, 0, (size_t)(channels + 1) * t->plane);
    memset(t->some, 0, (size_t)channels);
    memset(t->crossed, 0, (size_t)channels);
    t->nothing = t->known + (size_t)channels * t->plane + inner(t);
}

static int know_plain(const uint16_t *from, int count, int shift, int twice, uint8_t *to) {
    int some = 0;
    for (int i = 0; i < count; i++) {
        unsigned here = (unsigned)(from[i] >> shift) << twice;
        to[i] = (uint8_t)(here < KNOWN_LIMIT ? here : KNOWN_LIMIT);
        some |= to[i];
    }
    return some;
}

#if HAVE_AVX2
AVX2 static int know_avx2(const uint16_t *from, int count, int shift, int twice, uint8_t *to) {
    const __m256i limit = _mm256_set1_epi16(KNOWN_LIMIT);
    const __m128i down = _mm_cvtsi32_si128(shift), up = _mm_cvtsi32_si128(twice);
    __m256i any = _mm256_setzero_si256();
    int i = 0;
    for (; i + 16 <= count; i += 16) {
        __m256i here = _mm256_srl_epi16(_mm256_loadu_si256((const __m256i *)(from + i)), down);
        here = _mm256_min_epu16(_mm256_sll_epi16(_mm256_min_epu16(here, limit), up), limit);
        any = _mm256_or_si256(any, here);
        here = _mm256_packus_epi16(here, here);
        _mm_storeu_si128((__m128i *)(to + i),
                         _mm256_castsi256_si128(_mm256_permute4x64_epi64(here, _MM_SHUFFLE(3, 1, 2, 0))));
    }
    return know_plain(from + i, count - i, shift, twice, to + i) | !_mm256_testz_si256(any, any);
}
#endif

VECTORISED static void add_plane(uint16_t *restrict to, const uint8_t *restrict from, int n, int sign) {
    for (int i = 0; i < n; i++)
        to[i] = (uint16_t)(sign > 0 ? to[i] + from[i] : to[i] - from[i]);
}

/* What is known of a channel [h][w] from its magnitudes, doubled if `twice`. */
static void know(Contexts *t, int channel, const uint16_t *magnitude, int shift, int twice) {
    uint8_t *plane = t->known + (size_t)channel * t->plane, *to = plane + inner(t);
    int zone = t->model->zone[channel % COEFFICIENTS], some = 0, vector = use_avx2();
    uint16_t *sums = t->sums + (size_t)(channel / COEFFICIENTS * ZONES + zone) * t->plane;
    if (t->some[channel] && zone >= 0)
        add_plane(sums, plane, t->plane, -1);
    for (int row = 0; row < t->h; row++) {
#if HAVE_AVX2
        if (vector)
            some |= know_avx2(magnitude + row * t->w, t->w, shift, twice, to + row * t->pitch);
#endif
        if (!vector)
            some |= know_plain(magnitude + row * t->w, t->w, shift, twice, to + row * t->pitch);
    }
    t->some[channel] = some != 0;
    t->crossed[channel] = 0;
    if (some && zone >= 0)
        add_plane(sums, plane, t->plane, 1);
}

/* min(15, a + b + c + d) of places o away from `from`, over the span. */
static inline __attribute__((always_inline)) void sum_four(const uint8_t *a, const uint8_t *b, const uint8_t *c,
                                                           const uint8_t *d, int span, uint8_t *restrict to) {
    for (int i = 0; i < span; i++) {
        uint8_t sum = (uint8_t)(a[i] + b[i] + c[i] + d[i]);
        to[i] = sum < KNOWN_LIMIT ? sum : KNOWN_LIMIT;
    }
}

/* What is known of every block and of the eight around it, by zone of its own band, and of all other bands. */
VECTORISED static void sum_zones(Contexts *t) {
    int bands = t->model->bands, plane = t->plane, p = t->pitch, span = t->span;
    uint16_t *restrict whole = t->sums + (size_t)bands * ZONES * plane; /* of all bands, then of one */
    memset(whole, 0, (size_t)plane * sizeof *whole);
    for (int k = 0; k < bands * ZONES; k++)
        for (int i = 0; i < plane; i++)
            whole[i] = (uint16_t)(whole[i] + t->sums[(size_t)k * plane + i]);
    for (int b = 0; b < bands; b++) {
        const uint16_t *own = t->sums + (size_t)b * ZONES * plane;
        uint8_t *restrict block = t->block + (size_t)5 * b * plane;
        for (int z = 0; z < ZONES; z++)
            for (int i = 0; i < plane; i++) {
                uint16_t sum = own[(size_t)z * plane + i];
                block[(size_t)z * plane + i] = (uint8_t)(sum < KNOWN_LIMIT ? sum : KNOWN_LIMIT);
            }
        for (int i = 0; i < plane; i++) {
            uint16_t sum = (uint16_t)(whole[i] - own[i] - own[plane + i] - own[2 * plane + i] - own[3 * plane + i]);
            block[(size_t)ZONES * plane + i] = (uint8_t)(sum < KNOWN_LIMIT ? sum : KNOWN_LIMIT);
        }
    }
    for (int k = 0; k < 5 * bands; k++) {
        uint8_t some = 0;
        for (int i = 0; i < plane; i++)
            some |= t->block[(size_t)k * plane + i];
        t->block_some[k] = some;
        const uint8_t *from = t->block + (size_t)k * plane + inner(t);
        uint8_t *restrict to = t->around + (size_t)k * plane + inner(t);
        for (int i = 0; i < span; i++) {
            uint8_t sum = (uint8_t)(from[i - p - 1] + from[i - p] + from[i - p + 1] + from[i - 1] + from[i + 1] +
                                    from[i + p - 1] + from[i + p] + from[i + p + 1]);
            to[i] = sum < KNOWN_LIMIT ? sum : KNOWN_LIMIT;
        }
    }
}

/* Sums over the four blocks next to each, of one channel. */
static inline const uint8_t *cross_of(Contexts *t, int channel) {
    const uint8_t *own = t->known + (size_t)channel * t->plane + inner(t);
    uint8_t *to = t->cross + (size_t)channel * t->span;
    if (!t->some[channel])
        return t->nothing;
    if (!t->crossed[channel])
        sum_four(own - t->pitch, own + t->pitch, own - 1, own + 1, t->span, to);
    t->crossed[channel] = 1;
    return to;
}

static inline const uint8_t *known_of(const Contexts *t, int channel) {
    int some = channel < t->model->bands * COEFFICIENTS && t->some[channel];
    return some ? t->known + (size_t)channel * t->plane + inner(t) : t->nothing;
}

/* x of one channel. */
VECTORISED static void features_of(Contexts *t, int channel) {
    const Model *m = t->model;
    const uint8_t *used = t->layer->used, *own = known_of(t, channel);
    int channels = m->bands * COEFFICIENTS, span = t->span, p = t->pitch, f = 3;
    for (int i = 0; i < t->features; i++)
        t->x[i] = t->nothing;
    if (used[0])
        t->x[0] = cross_of(t, channel);
    if (used[1] && own != t->nothing) {
        sum_four(own - p - 1, own - p + 1, own + p - 1, own + p + 1, span, t->added);
        t->x[1] = t->added;
    }
    if (used[2] && own != t->nothing) {
        sum_four(own - 2 * p, own + 2 * p, own - 2, own + 2, span, t->added + span);
        t->x[2] = t->added + span;
    }
    for (int k = 0; k < 5; k++, f++) {
        const int16_t *next = m->neighbours + ((size_t)k * channels + channel) * 4;
        const uint8_t *from[4];
        int some = 0;
        for (int i = 0; i < 4; i++)
            some |= (from[i] = known_of(t, next[i])) != t->nothing;
        if (k < 2) { /* a single neighbour */
            t->x[f] = from[0];
        } else if (used[f] && some) {
            uint8_t *to = t->added + (size_t)f * span;
            sum_four(from[0], from[1], from[2], from[3], span, to);
            t->x[f] = to;
        }
    }
    for (int turn = 1; turn < m->bands; turn++) {
        int other = (channel + turn * COEFFICIENTS) % channels;
        t->x[f++] = known_of(t, other);
        if (used[f])
            t->x[f] = cross_of(t, other);
        f++;
    }
    for (int z = 0; z < ZONES + 1; z++, f += 2) {
        size_t k = (size_t)(5 * (channel / COEFFICIENTS) + z), at = k * t->plane + inner(t);
        if (t->block_some[k])
            t->x[f] = t->block + at, t->x[f + 1] = t->around + at;
    }
}

static int log2_eighths(int value) {
    float exact = (float)value;
    int32_t bits;
    memcpy(&bits, &exact, sizeof bits);
    return (bits >> 20) - (127 << 3);
}

static int class_of(int logit) {
    int c = (logit >> LOGIT_BITS) + CLASS_OFFSET;
    return c < 0 ? 0 : c >= CLASSES ? CLASSES - 1 : c;
}

static void classes_plain(const Contexts *t, int channel, const int16_t *base, int first, uint8_t *found) {
    const Layer *l = t->layer;
    const int8_t *weight = l->weight + (size_t)channel * t->features, *gain = l->gain + channel * SUMS;
    for (int i = 0; i < t->span; i++) {
        int logit = first + (base ? base[i] : 0), f = 0;
        for (int e = 0; e < SUMS; e++) {
            int sum = l->floor[e];
            for (; f < t->ends[e]; f++) {
                int x = t->x[f][i];
                sum += l->mix[f] * x;
                logit += weight[f] * log2_eighths(x + 1);
            }
            logit += gain[e] * log2_eighths(sum);
        }
        found[i] = (uint8_t)class_of(logit);
    }
}

#if HAVE_AVX2
/* 8 log2 of sixteen positive 16-bit integers. */
AVX2 static __m256i log2_avx2(__m256i values) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i low = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_unpacklo_epi16(values, zero)));
    __m256i high = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_unpackhi_epi16(values, zero)));
    __m256i both = _mm256_packs_epi32(_mm256_srli_epi32(low, 20), _mm256_srli_epi32(high, 20));
    return _mm256_sub_epi16(both, _mm256_set1_epi16(127 << 3));
}

AVX2 static __m256i two_octets(int8_t first, int8_t second) {
    return _mm256_set1_epi16((int16_t)((uint8_t)first | (uint16_t)(uint8_t)second << 8));
}

/* Features two by two: where they lie and what they are multiplied with. An odd one pairs with itself at no weight. */
typedef struct {
    const uint8_t *first, *second;
    __m256i weights;
} Pair;

/* Pairs of those features that are not nothing. */
AVX2 static int pairs_of(const Contexts *t, const uint8_t *features, int count, const int8_t *weight, Pair *pairs) {
    int some[MAX_FEATURES], all = 0;
    for (int i = 0; i < count; i++)
        if (t->x[features[i]] != t->nothing)
            some[all++] = features[i];
    for (int i = 0; i < all; i += 2) {
        int f = some[i], next = i + 1 < all ? some[i + 1] : -1;
        *pairs++ = (Pair){t->x[f], t->x[next < 0 ? f : next], two_octets(weight[f], next < 0 ? 0 : weight[next])};
    }
    return (all + 1) / 2;
}

AVX2 static __m256i table_of_logs(void) {
    uint8_t table[16];
    for (int x = 0; x < 16; x++)
        table[x] = (uint8_t)log2_eighths(x + 1);
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
}

/* Every channel of a band looks at the same zones: their logarithms, ready to be multiplied. */
AVX2 static void log_zones_avx2(Contexts *t) {
    const __m256i logs = table_of_logs();
    for (int k = 0; k < 5 * t->model->bands; k++) {
        const uint8_t *block = t->block + (size_t)k * t->plane + inner(t);
        const uint8_t *around = t->around + (size_t)k * t->plane + inner(t);
        uint8_t *to = t->zone_logs + (size_t)k * 2 * t->span;
        for (int i = 0; i < t->span && t->block_some[k]; i += STEP, to += 2 * STEP) {
            __m256i a = _mm256_shuffle_epi8(logs, _mm256_loadu_si256((const __m256i *)(block + i)));
            __m256i b = _mm256_shuffle_epi8(logs, _mm256_loadu_si256((const __m256i *)(around + i)));
            _mm256_storeu_si256((__m256i *)to, _mm256_unpacklo_epi8(a, b));
            _mm256_storeu_si256((__m256i *)(to + STEP), _mm256_unpackhi_epi8(a, b));
        }
    }
}

/* As classes_plain, 32 cells at a time in 16-bit sums: payload/codec/lapped/layers.py has refused tables that could pass those.
 * Features that are nothing add nothing. */
AVX2 static void classes_avx2(const Contexts *t, int channel, const int16_t *base, int first, uint8_t *found) {
    const Layer *l = t->layer;
    const int8_t *gain = l->gain + channel * SUMS, *weight = l->weight + (size_t)channel * t->features;
    const int zones = t->ends[2], band = channel / COEFFICIENTS;
    Pair weighted[MAX_FEATURES], mixed[MAX_FEATURES], logged[ZONES + 1];
    int ends[SUMS], all = 0, logs_there = 0, own = 0;
    while (own < l->weights && l->weighted[own] < zones)
        own++;
    int weights = pairs_of(t, l->weighted, own, weight, weighted);
    for (int z = 0; z < ZONES + 1; z++) {
        const int8_t *w = weight + zones + 2 * z;
        const uint8_t *pairs = t->zone_logs + (size_t)(5 * band + z) * 2 * t->span;
        if (t->block_some[5 * band + z] && (w[0] || w[1]))
            logged[logs_there++] = (Pair){pairs, NULL, two_octets(w[0], w[1])};
    }
    for (int e = 0, begin = 0; e < SUMS; begin = l->mixed_ends[e++]) {
        int pairs = pairs_of(t, l->mixed + begin, l->mixed_ends[e] - begin, l->mix, mixed + all);
        ends[e] = all += pairs;
        if (pairs == 0)
            first += gain[e] * log2_eighths(l->floor[e]);
    }
    const __m256i logs = table_of_logs(), constant = _mm256_set1_epi16((int16_t)first);
    const __m256i offset = _mm256_set1_epi16(CLASS_OFFSET), most = _mm256_set1_epi8(CLASSES - 1);
    const int span = t->span;
    for (int i = 0; i < span; i += STEP) {
        __m256i low = constant, high = constant;
        if (base != NULL) {
            __m256i here = _mm256_loadu_si256((const __m256i *)(base + i));
            __m256i next = _mm256_loadu_si256((const __m256i *)(base + i + 16));
            low = _mm256_add_epi16(low, _mm256_permute2x128_si256(here, next, 0x20)); /* as octets unpack: 0-7, 16-23 */
            high = _mm256_add_epi16(high, _mm256_permute2x128_si256(here, next, 0x31)); /* 8-15, 24-31 */
        }
        for (const Pair *p = logged; p < logged + logs_there; p++) {
            const __m256i *at = (const __m256i *)(p->first + 2 * i);
            low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_loadu_si256(at), p->weights));
            high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_loadu_si256(at + 1), p->weights));
        }
        for (const Pair *p = weighted; p < weighted + weights; p++) {
            __m256i a = _mm256_shuffle_epi8(logs, _mm256_loadu_si256((const __m256i *)(p->first + i)));
            __m256i b = _mm256_shuffle_epi8(logs, _mm256_loadu_si256((const __m256i *)(p->second + i)));
            low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), p->weights));
            high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), p->weights));
        }
        for (int e = 0, pair = 0; e < SUMS; e++) {
            if (pair == ends[e])
                continue; /* of nothing: the constant holds it */
            __m256i sum_low = _mm256_set1_epi16(l->floor[e]), sum_high = sum_low;
            for (; pair < ends[e]; pair++) {
                __m256i a = _mm256_loadu_si256((const __m256i *)(mixed[pair].first + i));
                __m256i b = _mm256_loadu_si256((const __m256i *)(mixed[pair].second + i));
                __m256i both = _mm256_unpacklo_epi8(a, b);
                sum_low = _mm256_add_epi16(sum_low, _mm256_maddubs_epi16(both, mixed[pair].weights));
                both = _mm256_unpackhi_epi8(a, b);
                sum_high = _mm256_add_epi16(sum_high, _mm256_maddubs_epi16(both, mixed[pair].weights));
            }
            const __m256i times = _mm256_set1_epi16(gain[e]);
            low = _mm256_add_epi16(low, _mm256_mullo_epi16(times, log2_avx2(sum_low)));
            high = _mm256_add_epi16(high, _mm256_mullo_epi16(times, log2_avx2(sum_high)));
        }
        low = _mm256_add_epi16(_mm256_srai_epi16(low, LOGIT_BITS), offset);
        high = _mm256_add_epi16(_mm256_srai_epi16(high, LOGIT_BITS), offset);
        __m256i c = _mm256_min_epu8(_mm256_packus_epi16(low, high), most);
        _mm256_storeu_si256((__m256i *)(found + i), c);
    }
}
#endif

/* What a channel's logits begin with: a number, and for block averages one more for the place among 8 x 8 blocks. */
static const int16_t *bases_of(const Contexts *t, int channel, int *first) {
    int band = channel / COEFFICIENTS;
    *first = t->layer->base[channel] + t->layer->activity[channel] * t->busy[band];
    if (channel % COEFFICIENTS)
        return NULL;
    memset(t->base, 0, (size_t)t->span * sizeof *t->base);
    for (int row = 0; row < t->h; row++)
        for (int col = 0; col < t->w; col++)
            t->base[row * t->pitch + col] = t->layer->position[band * COEFFICIENTS + row % BLOCK * BLOCK + col % BLOCK];
    return t->base;
}

/* found[r - begin][span]: classes of the channels of the ranks begin..end. */
static void classes_of_group(Contexts *t, int begin, int end) {
    sum_zones(t);
#if HAVE_AVX2
    if (use_avx2())
        log_zones_avx2(t);
#endif
    for (int rank = begin; rank < end; rank++) {
        int channel = t->model->order[rank], first;
        uint8_t *found = t->found + (size_t)(rank - begin) * t->span;
        const int16_t *base = bases_of(t, channel, &first);
        features_of(t, channel);
#if HAVE_AVX2
        if (use_avx2()) {
            classes_avx2(t, channel, base, first, found);
            continue;
        }
#endif
        classes_plain(t, channel, base, first, found);
    }
}

/* --- the range coder: that of payload/codec/lapped/range_coder.py ---------------------------------------------------------------- */

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

/* --- layers -------------------------------------------------------------------------------------------------------- */

/* Lists of symbols that are coded one after the other: runs by class, then sizes or refinements by theirs. */
enum { LISTS = CLASSES + SIZE_CLASSES, ROOM = 16 };
/* A coefficient takes two symbols of up to 24.01 bits, an escape and a sign at most: 8.2 octets. */
enum { MOST_OCTETS = 9, LAST_OCTETS = 64 };

static int longest_group_of(const Model *model) {
    int longest = 0;
    for (int g = 0; g < model->groups; g++)
        if (model->starts[g + 1] - model->starts[g] > longest)
            longest = model->starts[g + 1] - model->starts[g];
    return longest;
}

EXPORT size_t nadir_scratch_octets(int channels, int h, int w, int longest_group) {
    size_t cells = (size_t)longest_group * h * w;
    return context_octets(channels, h, w) + LISTS * (cells + ROOM) + 4 * (size_t)channels * h * w + 64;
}

/* hits [C] of the coarser layer, or NULL where they are not known: a channel without any is known to be zeros. */
static void know_everything_coarser(Contexts *t, const uint16_t *magnitude, int shift, const int32_t *hits) {
    for (int c = 0; c < t->model->bands * COEFFICIENTS; c++)
        if (hits == NULL || hits[c])
            know(t, c, magnitude + (size_t)c * t->h * t->w, shift, 1);
}

typedef struct {
    uint8_t *begin[LISTS], *end[LISTS];
    uint32_t seen[CLASSES][4];  /* open ones of a class so far in the group; four columns: no count waits for the last */
    uint32_t after[CLASSES];    /* the same, up to and with the last significant one */
    int bits[CLASSES];          /* log2 of the longest run */
} Lists;

static inline uint32_t seen_of(const Lists *lists, int class) {
    const uint32_t *s = lists->seen[class];
    return s[0] + s[1] + s[2] + s[3];
}

/* `zeros` coefficients of a class that stayed zero, and then a significant one, or the group's end. */
static inline void token(Lists *lists, int class, uint32_t zeros, int one) {
    int bits = lists->bits[class];
    uint32_t whole = zeros >> bits, rest = zeros - (whole << bits);
    uint8_t *end = lists->end[class], longest = (uint8_t)(1 << bits);
    uint64_t eight = longest * 0x0101010101010101u;
    for (; whole > 8; whole -= 8, end += 8) /* hardly ever */
        memcpy(end, &eight, sizeof eight);
    memcpy(end, &eight, sizeof eight); /* lists have room for what is not meant */
    end += whole;
    if (one || rest)
        *end++ = (uint8_t)(one ? rest : longest);
    lists->end[class] = end;
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

#if HAVE_AVX2
AVX2 static uint32_t some_avx2(const uint16_t *magnitude, int shift) {
    const __m128i down = _mm_cvtsi32_si128(shift);
    __m256i a = _mm256_srl_epi16(_mm256_loadu_si256((const __m256i *)magnitude), down);
    __m256i b = _mm256_srl_epi16(_mm256_loadu_si256((const __m256i *)(magnitude + 16)), down);
    const __m256i zero = _mm256_setzero_si256();
    __m256i none = _mm256_packs_epi16(_mm256_cmpeq_epi16(a, zero), _mm256_cmpeq_epi16(b, zero));
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(none, _MM_SHUFFLE(3, 1, 2, 0)));
}

AVX2 static uint32_t equal_avx2(const uint8_t *classes, int class) {
    __m256i same = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)classes), _mm256_set1_epi8((char)class));
    return (uint32_t)_mm256_movemask_epi8(same);
}
#endif

/* What a layer's coefficients become: lists of symbols, escapes, signs. */
typedef struct {
    Lists lists;
    uint8_t *escape, *sign;
    uint64_t bits;
    int bit_count;
} Symbols;

static inline __attribute__((always_inline)) void list_channel(Symbols *s, const Contexts *t, const uint8_t *classes,
                                                               uint16_t *magnitude, const uint8_t *negative,
                                                               const uint8_t *size128, int shift, int k, int vector) {
    /* octets may alias anything: what is kept in locals need not be read again after each that is written */
    Lists *restrict lists = &s->lists;
    const uint8_t *restrict worth = t->layer->worth;
    uint8_t *sign = s->sign, *old_ends[REFINEMENTS];
    uint64_t bits = s->bits;
    int bit_count = s->bit_count, h = t->h, w = t->w, pitch = t->pitch;
    memcpy(old_ends, lists->end + CLASSES, sizeof old_ends);
    for (int row = 0; row < h; row++)
        for (int col = 0; col < w; col += STEP) {
            int count = w - col < STEP ? w - col : STEP;
            uint16_t *restrict from = magnitude + row * w + col;
            const uint8_t *restrict minus = negative + row * w + col;
            const uint8_t *restrict class = classes + row * pitch + col;
            Events events;
#if HAVE_AVX2
            if (vector && count == STEP) {
                events.some = some_avx2(from, shift);
                events.old = k && events.some ? some_avx2(from, shift + 1) : 0;
            } else
#endif
            {
                events = events_plain(from, count, shift, shift + 1);
                events.old = k ? events.old : 0;
            }
            uint32_t open = ~events.old;
            for (uint32_t fresh = events.some & open; fresh; fresh &= fresh - 1) {
                int at = __builtin_ctz(fresh), c = class[at], before = 0;
                if (size128 && from[at] == 1 && size128[row * w + col + at] < worth[c]) {
                    from[at] = 0; /* counts as a zero from here on */
                    continue;
                }
#if HAVE_AVX2
                if (vector && count == STEP)
                    before = __builtin_popcount(equal_avx2(class, c) & open & ((1u << at) - 1));
                else
#endif
                    for (int i = 0; i < at; i++)
                        before += class[i] == c && open >> i & 1;
                uint32_t here = seen_of(lists, c) + (uint32_t)before;
                token(lists, c, here - lists->after[c], 1);
                lists->after[c] = here + 1;
                if (k == 0) {
                    unsigned size = from[at] >> shift;
                    *lists->end[CLASSES + (c >> 2)]++ = (uint8_t)((size < ESCAPE ? size : ESCAPE) - 1);
                    if (size >= ESCAPE)
                        *s->escape++ = (uint8_t)(size >> 8), *s->escape++ = (uint8_t)size;
                }
                bits = bits << 1 | minus[at];
                if (++bit_count == 8)
                    *sign++ = (uint8_t)bits, bit_count = 0;
            }
            for (uint32_t old = events.old; old; old &= old - 1) {
                int at = __builtin_ctz(old);
                unsigned here = from[at] >> shift, size = here >> 1;
                *old_ends[(size < REFINEMENTS ? size : REFINEMENTS) - 1]++ = here & 1;
                lists->seen[class[at]][0]--; /* it is counted with all others below, but is not open */
            }
            if (count == STEP)
                for (int i = 0; i < STEP; i += 8) {
                    lists->seen[class[i]][0]++, lists->seen[class[i + 1]][1]++;
                    lists->seen[class[i + 2]][2]++, lists->seen[class[i + 3]][3]++;
                    lists->seen[class[i + 4]][0]++, lists->seen[class[i + 5]][1]++;
                    lists->seen[class[i + 6]][2]++, lists->seen[class[i + 7]][3]++;
                }
            else
                for (int i = 0; i < count; i++)
                    lists->seen[class[i]][i & 3]++;
        }
    if (k)
        memcpy(lists->end + CLASSES, old_ends, sizeof old_ends);
    s->sign = sign, s->bits = bits, s->bit_count = bit_count;
}

static void list_plain(Symbols *s, const Contexts *t, const uint8_t *classes, uint16_t *magnitude,
                       const uint8_t *negative, const uint8_t *size128, int shift, int k) {
    list_channel(s, t, classes, magnitude, negative, size128, shift, k, 0);
}

#if HAVE_AVX2
__attribute__((target("avx2,popcnt,bmi"))) static void list_avx2(Symbols *s, const Contexts *t, const uint8_t *classes,
                                                                 uint16_t *magnitude, const uint8_t *negative,
                                                                 const uint8_t *size128, int shift, int k) {
    list_channel(s, t, classes, magnitude, negative, size128, shift, k, 1);
}
#endif

/* Octets of layer k behind its head (active, activity): how many it took of `out`. magnitude [C][h w] of the finest layer,
 * shift >> makes it this one's; negative [C][h w]; hits [C] of this layer, those of the coarser one before them. size128
 * [C][h w], in the finest layer, or NULL: a magnitude of one that is not worth its octets is cleared. */
static size_t encode(const Model *model, const Layer *layer, int k, uint16_t *magnitude, const uint8_t *negative,
                     const uint8_t *size128, const int32_t *hits, int shift, int h, int w, int active,
                     const int16_t *busy, uint8_t *scratch, uint8_t *out) {
    int channels = model->bands * COEFFICIENTS, n = h * w, longest_group = longest_group_of(model);
    Contexts t;
    open_contexts(&t, model, layer, h, w, busy, scratch);
    if (k)
        know_everything_coarser(&t, magnitude, shift + 1, hits - channels);
    uint8_t *pool = scratch + context_octets(channels, h, w);
    uint8_t *escapes = pool + LISTS * ((size_t)longest_group * n + ROOM), *signs = escapes + 2 * (size_t)channels * n;
    Symbols s = {.escape = escapes, .sign = signs};
    for (int i = 0; i < LISTS; i++)
        s.lists.begin[i] = pool + (size_t)i * ((size_t)longest_group * n + ROOM);
    for (int c = 0; c < CLASSES; c++)
        s.lists.bits[c] = __builtin_ctz((unsigned)layer->longest[c]);
    Encoder coder = {0, UINT64_MAX, out, out};
    for (int g = 0; g < model->groups && model->starts[g] < active; g++) {
        int begin = model->starts[g], end = model->starts[g + 1] < active ? model->starts[g + 1] : active;
        classes_of_group(&t, begin, end);
        memset(s.lists.seen, 0, sizeof s.lists.seen);
        memset(s.lists.after, 0, sizeof s.lists.after);
        memcpy(s.lists.end, s.lists.begin, sizeof s.lists.end);
        for (int rank = begin; rank < end; rank++) {
            size_t at = (size_t)model->order[rank] * n;
            const uint8_t *classes = t.found + (size_t)(rank - begin) * t.span;
            /* block averages are few and worth much */
            const uint8_t *sizes = size128 && model->order[rank] % COEFFICIENTS ? size128 + at : NULL;
#if HAVE_AVX2
            if (use_avx2())
                list_avx2(&s, &t, classes, magnitude + at, negative + at, sizes, shift, k);
            else
#endif
                list_plain(&s, &t, classes, magnitude + at, negative + at, sizes, shift, k);
            if (hits[model->order[rank]])
                know(&t, model->order[rank], magnitude + at, shift, 0);
        }
        for (int c = 0; c < CLASSES; c++) {
            token(&s.lists, c, seen_of(&s.lists, c) - s.lists.after[c], 0);
            for (const uint8_t *list = s.lists.begin[c]; list < s.lists.end[c]; list++)
                put(&coder, layer->runs + c * (LONGEST_RUN + 2), *list);
        }
        for (int c = CLASSES; c < CLASSES + (k ? REFINEMENTS : SIZE_CLASSES); c++)
            for (const uint8_t *list = s.lists.begin[c]; list < s.lists.end[c]; list++)
                put(&coder, k ? layer->refinement + (c - CLASSES) * 3 : layer->size + (c - CLASSES) * (ESCAPE + 1),
                    *list);
    }
    finish(&coder);
    if (s.bit_count)
        *s.sign++ = (uint8_t)(s.bits << (8 - s.bit_count));
    memcpy(coder.at, escapes, (size_t)(s.escape - escapes));
    coder.at += s.escape - escapes;
    memcpy(coder.at, signs, (size_t)(s.sign - signs));
    return (size_t)(coder.at + (s.sign - signs) - out);
}

/* What encoding and decoding have in common to be checked. */
static int refuse(const Model *model, const Layer *layer, int k, int h, int w, int active, Span busy, Span scratch) {
    if (!within(k, 0, MAX_LAYERS - 1) || !within(h, 1, MAX_CELLS) || !within(w, 1, MAX_CELLS))
        return OUT_OF_RANGE;
    if (!fits_model(model) || !fits_layer(model, layer, k))
        return TABLES_DAMAGED;
    int channels = model->bands * COEFFICIENTS;
    if (!within(active, 0, channels))
        return OUT_OF_RANGE;
    size_t octets = nadir_scratch_octets(channels, h, w, longest_group_of(model));
    return HOLDS(busy, int16_t, model->bands) && HOLDS(scratch, uint8_t, octets) ? 0 : BUFFER_TOO_SMALL;
}

/* As `encode`; hits [k + 1][C] of the layers up to this one, written: how many octets of `out` are its own. */
EXPORT int nadir_encode(const Model *model, const Layer *layer, int k, Span magnitude, Span negative, Span size128,
                        Span hits, int shift, int h, int w, int active, Span busy, Span scratch, Span out,
                        size_t *written) {
    int refused = refuse(model, layer, k, h, w, active, busy, scratch);
    if (refused || !within(shift, 0, MAX_LAYERS - 1))
        return refused ? refused : OUT_OF_RANGE;
    size_t channels = (size_t)model->bands * COEFFICIENTS, all = channels * h * w;
    if (!HOLDS(magnitude, uint16_t, all) || !HOLDS(negative, uint8_t, all) || !HOLDS(hits, int32_t, (k + 1) * channels) ||
        !HOLDS(out, uint8_t, MOST_OCTETS * all + LAST_OCTETS) || (size128.at && !HOLDS(size128, uint8_t, all)))
        return BUFFER_TOO_SMALL;
    *written = encode(model, layer, k, magnitude.at, negative.at, size128.at, (const int32_t *)hits.at + k * channels,
                      shift, h, w, active, busy.at, scratch.at, out.at);
    return 0;
}

/* Marks the significant of a class: ones[place] over its `count` places. */
static int take_ones(Decoder *coder, const uint32_t *lower, int longest, int count, uint8_t *ones) {
    memset(ones, 0, (size_t)count);
    for (int place = 0; place < count;) {
        int run = take(coder, lower, longest + 1);
        if (coder->failed)
            return NO_ENCODERS;
        place += run;
        if (run == longest)
            continue;
        if (place >= count)
            return RUN_TOO_LONG;
        ones[place++] = 1;
    }
    return 0;
}

/* Layer k from its octets behind the head: here [C][h w], negative [C][h w] where it became significant. `here` comes
 * as twice the coarser layer's magnitudes. raw [2]: how many signs and escapes there were. 0, or why not. */
static int decode(const Model *model, const Layer *layer, int k, const uint8_t *octets, size_t count, int h, int w,
                  int active, const int16_t *busy, uint8_t *scratch, uint16_t *here, uint8_t *negative, uint64_t *raw) {
    int channels = model->bands * COEFFICIENTS, n = h * w, longest_group = longest_group_of(model), failed = 0;
    Contexts t;
    open_contexts(&t, model, layer, h, w, busy, scratch);
    if (k)
        know_everything_coarser(&t, here, 1, NULL);
    uint8_t *pool = scratch + context_octets(channels, h, w), *list[LISTS];
    for (int i = 0; i < LISTS; i++)
        list[i] = pool + (size_t)i * ((size_t)longest_group * n + ROOM);
    uint32_t *fresh = (uint32_t *)(((uintptr_t)(pool + LISTS * ((size_t)longest_group * n + ROOM)) + 3) & ~(uintptr_t)3);
    size_t signs = 0, escapes = 0;
    Decoder coder;
    open_decoder(&coder, octets, count);
    for (int g = 0; g < model->groups && model->starts[g] < active && !failed; g++) {
        int begin = model->starts[g], end = model->starts[g + 1] < active ? model->starts[g + 1] : active;
        int counts[LISTS] = {0};
        classes_of_group(&t, begin, end);
        for (int pass = 0; pass < 2 && !failed; pass++) { /* how many there are of every class, then what they are */
            int at[CLASSES] = {0};
            for (int rank = begin; rank < end; rank++) {
                size_t base = (size_t)model->order[rank] * n;
                for (int i = 0; i < n; i++) {
                    int c = t.found[(size_t)(rank - begin) * t.span + (size_t)(i / w) * t.pitch + i % w];
                    if (here[base + i] > 1) {
                        int size = here[base + i] >> 1 > REFINEMENTS ? REFINEMENTS : here[base + i] >> 1;
                        counts[CLASSES + size - 1] += pass == 0;
                    } else if (pass == 0) {
                        counts[c]++;
                    } else if (list[c][at[c]++]) {
                        here[base + i] = 1;
                        counts[CLASSES + (c >> 2)] += k == 0;
                        fresh[signs++] = (uint32_t)(base + i);
                    }
                }
            }
            for (int c = 0; c < CLASSES && pass == 0 && !failed; c++)
                failed = take_ones(&coder, layer->runs + c * (LONGEST_RUN + 2), layer->longest[c], counts[c], list[c]);
        }
        for (int c = 0; c < (k ? REFINEMENTS : SIZE_CLASSES) && !failed; c++)
            for (int i = 0; i < counts[CLASSES + c]; i++)
                list[CLASSES + c][i] =
                    (uint8_t)take(&coder, k ? layer->refinement + c * 3 : layer->size + c * (ESCAPE + 1),
                                  k ? 2 : ESCAPE);
        failed = failed ? failed : coder.failed ? NO_ENCODERS : 0;
        int at[SIZE_CLASSES] = {0};
        for (int rank = begin; rank < end && !failed; rank++) {
            uint16_t *to = here + (size_t)model->order[rank] * n;
            for (int i = 0; i < n; i++) {
                int c = t.found[(size_t)(rank - begin) * t.span + (size_t)(i / w) * t.pitch + i % w] >> 2;
                if (k && to[i] > 1) {
                    int size = to[i] >> 1 > REFINEMENTS ? REFINEMENTS : to[i] >> 1;
                    to[i] |= list[CLASSES + size - 1][at[size - 1]++];
                } else if (!k && to[i]) {
                    to[i] = (uint16_t)(1 + list[CLASSES + c][at[c]++]);
                    escapes += to[i] == ESCAPE;
                }
            }
            know(&t, model->order[rank], to, 0, 0);
        }
    }
    size_t octets_of_signs = (signs + 7) / 8;
    if (failed)
        return failed;
    raw[0] = signs, raw[1] = escapes;
    if (octets_of_signs + 2 * escapes > count)
        return TOO_SHORT;
    const uint8_t *sign = octets + count - octets_of_signs, *escape = sign - 2 * escapes;
    for (size_t i = 0; i < signs; i++) {
        negative[fresh[i]] = sign[i / 8] >> (7 - i % 8) & 1;
        if (k == 0 && here[fresh[i]] == ESCAPE) {
            here[fresh[i]] = (uint16_t)(escape[0] << 8 | escape[1]);
            if (here[fresh[i]] < ESCAPE)
                return SMALL_ESCAPE;
            escape += 2;
        }
    }
    return 0;
}

EXPORT int nadir_decode(const Model *model, const Layer *layer, int k, Span octets, int h, int w, int active, Span busy,
                        Span scratch, Span here, Span negative, Span raw) {
    int refused = refuse(model, layer, k, h, w, active, busy, scratch);
    if (refused)
        return refused;
    size_t all = (size_t)model->bands * COEFFICIENTS * h * w;
    if (octets.at == NULL || !HOLDS(here, uint16_t, all) || !HOLDS(negative, uint8_t, all) ||
        !HOLDS(raw, uint64_t, 2))
        return BUFFER_TOO_SMALL;
    return decode(model, layer, k, octets.at, octets.octets, h, w, active, busy.at, scratch.at, here.at, negative.at,
                  raw.at);
}

/* --- clouds: payload/clouds.py, around its network ---------------------------------------------------------------- */

enum { LEVELS = 256, CLOUD_CLASSES = 4, CELLS_AT_ONCE = 64 };

/* Integer roots, 255 at most, of four times the averages of n cells of c x c pixels; `rows` are the c rows' first. */
static void roots_plain(const uint16_t *rows, int width, int cell, int n, uint8_t *roots) {
    for (int i = 0; i < n; i++) {
        uint32_t sum = 0, root = 0;
        for (int y = 0; y < cell; y++)
            for (int x = 0; x < cell; x++)
                sum += rows[(size_t)y * width + cell * i + x];
        sum = sum * 4 / (uint32_t)(cell * cell);
        for (uint32_t bit = 128; bit; bit >>= 1)
            root |= (root | bit) * (root | bit) <= sum ? bit : 0;
        roots[i] = (uint8_t)root;
    }
}

#if HAVE_AVX2
/* Sums of the 8 pairs of neighbours among 16 pixels. */
AVX2 static __m256i pair_sums(const uint16_t *pixels) {
    __m256i a = _mm256_loadu_si256((const __m256i *)pixels);
    return _mm256_add_epi32(_mm256_and_si256(a, _mm256_set1_epi32(0xFFFF)), _mm256_srli_epi32(a, 16));
}

/* The root of 8 numbers: a correctly rounded root of an integer below 2^24 never reaches the next integer. */
AVX2 static __m256i roots_of(__m256i numbers) {
    return _mm256_cvttps_epi32(_mm256_min_ps(_mm256_sqrt_ps(_mm256_cvtepi32_ps(numbers)), _mm256_set1_ps(255.0f)));
}

AVX2 static __m256i roots_of_2(const uint16_t *rows, int width) {
    return roots_of(_mm256_add_epi32(pair_sums(rows), pair_sums(rows + width)));
}

AVX2 static __m256i roots_of_4(const uint16_t *rows, int width) {
    __m256i left = pair_sums(rows), right = pair_sums(rows + 16);
    for (int y = 1; y < 4; y++) {
        left = _mm256_add_epi32(left, pair_sums(rows + (size_t)y * width));
        right = _mm256_add_epi32(right, pair_sums(rows + (size_t)y * width + 16));
    }
    __m256i sums = _mm256_permute4x64_epi64(_mm256_hadd_epi32(left, right), 0xD8);
    return roots_of(_mm256_srli_epi32(sums, 2));
}

AVX2 static void roots_avx2(const uint16_t *rows, int width, int cell, int n, uint8_t *roots) {
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i part[4];
        for (int k = 0; k < 4; k++) {
            const uint16_t *from = rows + (size_t)cell * (i + 8 * k);
            part[k] = cell == 2 ? roots_of_2(from, width) : roots_of_4(from, width);
        }
        __m256i first = _mm256_packs_epi32(part[0], part[1]), second = _mm256_packs_epi32(part[2], part[3]);
        __m256i all = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(first, second), in_order);
        _mm256_storeu_si256((__m256i *)(roots + i), all);
    }
    roots_plain(rows + (size_t)cell * i, width, cell, n - i, roots + i);
}
#endif

static void roots_of_cells(const uint16_t *rows, int width, int cell, int n, uint8_t *roots) {
#if HAVE_AVX2
    if (use_avx2()) {
        roots_avx2(rows, width, cell, n, roots);
        return;
    }
#endif
    roots_plain(rows, width, cell, n, roots);
}

VECTORISED static int shows_one_value(const uint8_t *plane, int n) {
    uint8_t least = plane[0], most = plane[0];
    for (int i = 0; i < n; i++) {
        least = plane[i] < least ? plane[i] : least;
        most = plane[i] > most ? plane[i] : most;
    }
    return least == most;
}

static int floor_divided(int a, int b) { return a / b - (a % b < 0); } /* b > 0 */

/* Look-up [256] that stretches a band between two percentiles of the samples counted. */
static void stretch_table(const int32_t *counts, int samples, int low_permille, int high_permille, int least_span,
                          uint8_t *table) {
    int64_t below = 0;
    int low = 0, high = 0;
    for (int level = 0; level < LEVELS; level++) {
        below += counts[level];
        low += below * 1000 <= (int64_t)low_permille * samples;
        high += below * 1000 < (int64_t)high_permille * samples;
    }
    int span = high - low > least_span ? high - low : least_span;
    for (int level = 0; level < LEVELS; level++) {
        int value = 128 + floor_divided((2 * level - (low + high)) * 96, span);
        table[level] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

/* Every second value of a row of 2 n to one plane, the others to another. */
VECTORISED static void split_pairs(const uint8_t *row, int n, uint8_t *even, uint8_t *odd) {
    for (int i = 0; i < n; i++) {
        even[i] = row[2 * i];
        odd[i] = row[2 * i + 1];
    }
}

/* Roots of the quarters of n x n cells of 4 x 4 pixels, a plane for each quarter. */
static void quarters(const uint16_t *dn, int n, uint8_t *planes) {
    uint8_t roots[MAX_SIDE];
    for (int row = 0; row < 2 * n; row++) {
        roots_of_cells(dn + (size_t)row * 8 * n, 4 * n, 2, 2 * n, roots);
        uint8_t *to = planes + (size_t)(row & 1) * 2 * n * n + (size_t)(row >> 1) * n;
        split_pairs(roots, n, to, to + (size_t)n * n);
    }
}

/* The network's planes [2 bands, n, n] of a tile dn [bands, c n, c n] whose pixels are all valid, cells of c = 2 or 4
 * pixels: roots of averages, then the same stretched between percentiles of every 2nd in every 2nd row; with `detail`
 * (c = 4) four more, the quarters of the first band's cells. 0 where every band shows one value. */
static int cloud_planes(const uint16_t *dn, int bands, int n, int cell, int detail, int low_permille, int high_permille,
                        int least_span, uint8_t *planes) {
    int alike = 1, samples = ((n + 1) / 2) * ((n + 1) / 2), width = cell * n;
    for (int b = 0; b < bands; b++) {
        uint8_t *plane = planes + (size_t)b * n * n;
        for (int row = 0; row < n; row++) {
            const uint16_t *rows = dn + ((size_t)b * n + row) * cell * width;
            roots_of_cells(rows, width, cell, n, plane + (size_t)row * n);
        }
        alike = alike && shows_one_value(plane, n * n);
    }
    if (alike)
        return 0;
    if (detail)
        quarters(dn, n, planes + (size_t)2 * bands * n * n);
    for (int b = 0; b < bands; b++) {
        const uint8_t *plane = planes + (size_t)b * n * n;
        uint8_t *stretched = planes + (size_t)(bands + b) * n * n, table[LEVELS];
        int32_t counts[LEVELS] = {0};
        for (int row = 0; row < n; row += 2)
            for (int i = 0; i < n; i += 2)
                counts[plane[row * n + i]]++;
        stretch_table(counts, samples, low_permille, high_permille, least_span, table);
        for (int i = 0; i < n * n; i++)
            stretched[i] = table[plane[i]];
    }
    return 1;
}

EXPORT int nadir_cloud_planes(Span dn, int bands, int n, int cell, int detail, int low_permille, int high_permille,
                              int least_span, Span planes) {
    if ((cell != 2 && cell != 4) || !within(detail, 0, cell == 4) || !within(bands, 1, MAX_BANDS) ||
        !within(n, 1, MAX_SIDE / cell) || !within(low_permille, 0, 1000) || !within(high_permille, 0, 1000) ||
        !within(least_span, 1, LEVELS))
        return OUT_OF_RANGE;
    size_t cells = (size_t)n * n;
    if (!HOLDS(dn, uint16_t, bands * cells * cell * cell) || !HOLDS(planes, uint8_t, (2 * bands + 4 * detail) * cells))
        return BUFFER_TOO_SMALL;
    return cloud_planes(dn.at, bands, n, cell, detail, low_permille, high_permille, least_span, planes.at);
}

/* How far each logit [4, n] of up to 64 cells lies below the cell's largest. */
VECTORISED static void steps_below(const int8_t *logits, size_t n, int cells, uint8_t (*below)[CELLS_AT_ONCE]) {
    for (int i = 0; i < cells; i++) {
        int8_t a = logits[i] > logits[n + i] ? logits[i] : logits[n + i];
        int8_t b = logits[2 * n + i] > logits[3 * n + i] ? logits[2 * n + i] : logits[3 * n + i];
        int8_t most = a > b ? a : b;
        for (int k = 0; k < CLOUD_CLASSES; k++)
            below[k][i] = (uint8_t)(most - logits[k * n + i]);
    }
}

/* How many of up to 64 cells of these weights [4, 64] are cloud, thin cloud, and cloud beyond doubt, added to `counts`.
 * Every operation rounds once, as in numpy: sums of weights are exact. */
VECTORISED static void count_cells(float (*weight)[CELLS_AT_ONCE], int cells, float cloudy_above, float sure_above,
                                   int32_t *counts) {
    int32_t cloudy = 0, thin = 0, sure = 0;
    for (int i = 0; i < cells; i++) {
        float total = weight[0][i] + weight[1][i] + weight[2][i] + weight[3][i];
        float thick = weight[1][i] / total, thinner = weight[2][i] / total;
        cloudy += thick + thinner > cloudy_above;
        thin += (thick + thinner > cloudy_above) & (thinner > thick);
        sure += thick + thinner > sure_above;
    }
    counts[0] += cloudy, counts[1] += thin, counts[2] += sure;
}

/* Softmax of logits [4, n] by a table [256] of the exponentials of so many steps below the largest, counted. */
static void cloud_counts(const int8_t *logits, const float *exponentials, int n, float cloudy_above, float sure_above,
                         int32_t *counts) {
    float weight[CLOUD_CLASSES][CELLS_AT_ONCE];
    uint8_t below[CLOUD_CLASSES][CELLS_AT_ONCE];
    counts[0] = counts[1] = counts[2] = 0;
    for (int from = 0; from < n; from += CELLS_AT_ONCE) {
        int cells = n - from < CELLS_AT_ONCE ? n - from : CELLS_AT_ONCE;
        steps_below(logits + from, n, cells, below);
        for (int k = 0; k < CLOUD_CLASSES; k++)
            for (int i = 0; i < cells; i++)
                weight[k][i] = exponentials[below[k][i]];
        count_cells(weight, cells, cloudy_above, sure_above, counts);
    }
}

EXPORT int nadir_cloud_counts(Span logits, Span exponentials, int n, float cloudy_above, float sure_above,
                              Span counts) {
    if (!within(n, 1, MAX_SIDE * MAX_SIDE))
        return OUT_OF_RANGE;
    if (!HOLDS(logits, int8_t, CLOUD_CLASSES * (size_t)n) || !HOLDS(exponentials, float, LEVELS) ||
        !HOLDS(counts, int32_t, 3))
        return BUFFER_TOO_SMALL;
    cloud_counts(logits.at, exponentials.at, n, cloudy_above, sure_above, counts.at);
    return 0;
}

/* What an import of the module needs. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", "Hot loops; see payload/native/library.py.", -1, NULL,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModule_Create(&definition); }
