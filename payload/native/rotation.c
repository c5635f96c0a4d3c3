/* Bands -> rotated bands; twin of payload/codec/rotation.py. The eigenvectors in doubles, all else in integers. */
#include "kernel.h"

enum { ANGLES = 4096, MATRIX_BITS = 14 };

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

/* Adds values to their sum and edges so far. */
VECTORISED static void sum_values(const uint16_t *values, int n, uint64_t *sum, uint16_t *least, uint16_t *most) {
    uint64_t total = *sum;
    uint16_t low = *least, high = *most;
    for (int i = 0; i < n; i++) {
        total += values[i];
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    *sum = total, *least = low, *most = high;
}

/* One companded band, its sum and edges: looked at while it lies in the first cache. */
static void compand(const uint16_t *dn, const uint16_t *table, int n, uint16_t *values, uint64_t *sum, uint16_t *least,
                    uint16_t *most) {
    enum { CHUNK = 4096 };
    *sum = 0, *least = UINT16_MAX, *most = 0;
    for (int begin = 0; begin < n; begin += CHUNK) {
        int end = n - begin < CHUNK ? n : begin + CHUNK;
        for (int i = begin; i < end; i++)
            values[i] = table[dn[i]];
        sum_values(values + begin, end - begin, sum, least, most);
    }
}

/* Companded bands, their sums and edges. dn, values [bands, n] u16, table [65536]; sums, least and most [bands]. */
EXPORT int nadir_compand(Span dn, Span table, int bands, int n, Span values, Span sums, Span least, Span most) {
    if (!within(bands, 1, MAX_BANDS) || !within(n, 1, MAX_SIDE * MAX_SIDE))
        return OUT_OF_RANGE;
    if (!HOLDS(dn, uint16_t, bands * n) || !HOLDS(table, uint16_t, 65536) || !HOLDS(values, uint16_t, bands * n) ||
        !HOLDS(sums, uint64_t, bands) || !HOLDS(least, uint16_t, bands) || !HOLDS(most, uint16_t, bands))
        return BUFFER_TOO_SMALL;
    for (int b = 0; b < bands; b++)
        compand((const uint16_t *)dn.at + (size_t)b * n, table.at, n, (uint16_t *)values.at + (size_t)b * n,
                (uint64_t *)sums.at + b, (uint16_t *)least.at + b, (uint16_t *)most.at + b);
    return 0;
}

static void mirror(uint64_t *products, int bands) {
    for (int a = 0; a < bands; a++)
        for (int b = 0; b < a; b++)
            products[a * bands + b] = products[b * bands + a];
}

static void products_of(const uint16_t *values, int bands, int n, const uint64_t *sums, const uint16_t *least,
                        const uint16_t *most, uint64_t *products) {
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
    mirror(products, bands);
}

/* Products [bands, bands] of companded bands, of which sums and edges are known. */
EXPORT int nadir_products(Span values, int bands, int n, Span sums, Span least, Span most, Span products) {
    if (!within(bands, 1, MAX_BANDS) || !within(n, 1, MAX_SIDE * MAX_SIDE))
        return OUT_OF_RANGE;
    if (!HOLDS(values, uint16_t, bands * n) || !HOLDS(sums, uint64_t, bands) || !HOLDS(least, uint16_t, bands) ||
        !HOLDS(most, uint16_t, bands) || !HOLDS(products, uint64_t, bands * bands))
        return BUFFER_TOO_SMALL;
    products_of(values.at, bands, n, sums.at, least.at, most.at, products.at);
    return 0;
}

/* `count` differences between two stretches of a band, within the limit. */
VECTORISED static void subtract(const uint16_t *x, const uint16_t *y, int count, int limit, int16_t *to) {
    for (int i = 0; i < count; i++) {
        int32_t d = (int32_t)y[i] - x[i];
        d = d > limit ? limit : d;
        to[i] = (int16_t)(d < -limit ? -limit : d);
    }
}

VECTORISED static int64_t product_of_differences(const int16_t *x, const int16_t *y, int count) {
    int64_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += (int32_t)x[i] * y[i];
    return sum;
}

/* Adds the products of differences between a stretch of every band and that which lies `away` behind it. */
static void add_differences(const uint16_t *values, int bands, size_t band, int away, int count, int limit,
                            int64_t *products) {
    int16_t found[MAX_BANDS][MAX_SIDE];
    for (int b = 0; b < bands; b++)
        subtract(values + b * band, values + b * band + away, count, limit, found[b]);
    for (int a = 0; a < bands; a++)
        for (int b = a; b < bands; b++)
            products[a * bands + b] += product_of_differences(found[a], found[b], count);
}

/* Products [bands, bands] of differences between pixels `distance` apart, along every `lines`-th row and from it. */
EXPORT int nadir_difference_products(Span values, int bands, int side, int distance, int lines, int limit,
                                     Span products) {
    if (!within(bands, 1, MAX_BANDS) || !within(side, 1, MAX_SIDE) || !within(distance, 1, side - 1) ||
        !within(lines, 1, MAX_SIDE) || !within(limit, 0, 32767))
        return OUT_OF_RANGE;
    size_t band = (size_t)side * side;
    if (!HOLDS(values, uint16_t, bands * band) || !HOLDS(products, int64_t, bands * bands))
        return BUFFER_TOO_SMALL;
    memset(products.at, 0, sizeof(int64_t) * bands * bands);
    for (int y = 0; y < side; y += lines) {
        const uint16_t *row = (const uint16_t *)values.at + (size_t)y * side;
        add_differences(row, bands, band, distance, side - distance, limit, products.at);
        if (y + distance < side)
            add_differences(row, bands, band, distance * side, side, limit, products.at);
    }
    mirror(products.at, bands);
    return 0;
}

/* Cyclic Jacobi, step by step as payload/codec/rotation.py has it: a [n][n] becomes diagonal, rows of v the vectors.
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

/* cos and sin of ANGLES angles. */
typedef struct {
    const double *cosines, *sines;
} Circle;

/* The angle that turns (c, s) onto the first axis best; of two alike the first. */
static int angle_of(const Circle *circle, double c, double s) {
    int near = (int)(lrint(atan2(s, c) * (ANGLES / (2 * 3.141592653589793))) & (ANGLES - 1)), best = near;
    double reached = -HUGE_VAL;
    for (int i = near - 1; i <= near + 1; i++) {
        int angle = i & (ANGLES - 1);
        double along = c * circle->cosines[angle] + s * circle->sines[angle];
        if (along > reached)
            best = angle, reached = along;
    }
    return best;
}

/* Columns p and q of a matrix [n][n] become cos p + sin q and cos q - sin p. */
static void turn(double *matrix, int n, int p, int q, double cos, double sin) {
    for (double *row = matrix; row < matrix + n * n; row += n) {
        double x = row[p], y = row[q];
        row[p] = cos * x + sin * y, row[q] = cos * y - sin * x;
    }
}

/* Eigenvectors of a covariance [n][n], strongest first, each with a positive sum, as rows. */
static void eigenvectors(const double *covariance, int n, int sweeps, double *vectors) {
    double a[MAX_BANDS * MAX_BANDS], v[MAX_BANDS * MAX_BANDS];
    memcpy(a, covariance, (size_t)(n * n) * sizeof *a);
    for (int i = 0; i < n * n; i++)
        v[i] = i % (n + 1) == 0;
    jacobi(a, v, n, sweeps);
    uint32_t left = (1u << n) - 1;
    for (int rank = 0; rank < n; rank++) {
        int best = __builtin_ctz(left);
        for (int k = best + 1; k < n; k++)
            if (left >> k & 1 && a[k * n + k] > a[best * n + best])
                best = k;
        left &= ~(1u << best);
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += v[best * n + i];
        for (int i = 0; i < n; i++)
            vectors[rank * n + i] = sum >= 0 ? v[best * n + i] : -v[best * n + i];
    }
}

/* Givens angles whose product is the nearest rotation to eigenvectors [n][n], which are spoilt. */
static void angles_of(const Circle *circle, double *vectors, int n, int32_t *angles) {
    for (int p = 0; p < n - 1; p++)
        for (int q = p + 1; q < n; q++, angles++) {
            *angles = angle_of(circle, vectors[p * n + p], vectors[p * n + q]);
            turn(vectors, n, p, q, circle->cosines[*angles], circle->sines[*angles]);
        }
}

/* The matrix [n][n] of unit 2^-14 that angles make, row by row; 0 where the circle is none. */
static int matrix_of(const Circle *circle, const int32_t *angles, int n, int32_t *matrix) {
    double turned[MAX_BANDS * MAX_BANDS];
    for (int i = 0; i < n * n; i++)
        turned[i] = i % (n + 1) == 0;
    angles += n * (n - 1) / 2;
    for (int p = n - 2; p >= 0; p--)
        for (int q = n - 1; q > p; q--) {
            int angle = *--angles;
            turn(turned, n, p, q, circle->cosines[angle], -circle->sines[angle]);
        }
    for (int i = 0; i < n * n; i++) {
        if (!(fabs(turned[i]) <= 2.0))
            return 0;
        matrix[i] = (int32_t)lrint(turned[i] * (1 << MATRIX_BITS));
    }
    return 1;
}

static int fits_circle(Span cosines, Span sines) { return HOLDS(cosines, double, ANGLES) && HOLDS(sines, double, ANGLES); }

/* Angles [B (B - 1) / 2] of the rotation that makes a covariance [B][B] diagonal, and a bound [1] on what it makes of bands
 * that reach so far [B] from their means. */
EXPORT int nadir_fit(Span covariance, int bands, int sweeps, Span cosines, Span sines, Span far, Span angles,
                     Span bound) {
    if (!within(bands, 1, MAX_BANDS) || !within(sweeps, 0, 100))
        return OUT_OF_RANGE;
    if (!HOLDS(covariance, double, bands * bands) || !fits_circle(cosines, sines) || !HOLDS(far, int32_t, bands) ||
        !HOLDS(angles, int32_t, bands * (bands - 1) / 2) || !HOLDS(bound, int64_t, 1))
        return BUFFER_TOO_SMALL;
    const Circle circle = {cosines.at, sines.at};
    double vectors[MAX_BANDS * MAX_BANDS];
    int32_t matrix[MAX_BANDS * MAX_BANDS];
    int64_t most = 0;
    eigenvectors(covariance.at, bands, sweeps, vectors);
    angles_of(&circle, vectors, bands, angles.at);
    if (!matrix_of(&circle, angles.at, bands, matrix))
        return TABLES_DAMAGED;
    for (int k = 0; k < bands; k++) {
        int64_t reach = 0;
        for (int b = 0; b < bands; b++)
            reach += (int64_t)abs(matrix[k * bands + b]) * ((const int32_t *)far.at)[b];
        most = reach > most ? reach : most;
    }
    *(int64_t *)bound.at = most >> MATRIX_BITS;
    return 0;
}

/* Rounds and halves a sum of products of unit 2^-14, within the limit. */
static inline int16_t rotated_value(int64_t sum, int shift, int32_t half, int limit) {
    int64_t y = ((sum >> 14) + half) >> shift;
    y = y > limit ? limit : y;
    return (int16_t)(y < -limit ? -limit : y);
}

/* One rotated band where sums may pass 32 bits: more than four bands, or four with means at the end of the range. Three
 * products fit 32 bits, since a row is of unit length: 3^.5 x 2^14 x 65535. */
VECTORISED static void rotate_wide(const uint16_t *values, const int32_t *row, const int32_t *means, int bands, int n,
                                   int shift, int limit, int16_t *to) {
    enum { CHUNK = 512, TOGETHER = 3 };
    int32_t half = shift ? 1 << (shift - 1) : 0;
    for (int begin = 0; begin < n; begin += CHUNK) {
        int count = n - begin < CHUNK ? n - begin : CHUNK;
        int32_t part[CHUNK];
        int64_t sum[CHUNK];
        for (int i = 0; i < count; i++)
            sum[i] = 1 << 13;
        for (int first = 0; first < bands; first += TOGETHER) {
            memset(part, 0, sizeof part);
            for (int b = first; b < bands && b < first + TOGETHER; b++) {
                const uint16_t *from = values + (size_t)b * n + begin;
                int32_t m = row[b], mean = means[b];
                for (int i = 0; i < count; i++)
                    part[i] += m * ((int32_t)from[i] - mean);
            }
            for (int i = 0; i < count; i++)
                sum[i] += part[i];
        }
        for (int i = 0; i < count; i++)
            to[begin + i] = rotated_value(sum[i], shift, half, limit);
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

#if HAVE_AVX2
/* As rotate_narrow, sixteen pixels and two bands at a time: less 2^15, values fit 16 bits with a sign, and what that takes
 * away is the same in every pixel. Sums may pass 32 bits on the way and come back. Entries of a row are below 2^15. */
AVX2 static void rotate_avx2(const uint16_t *values, const int32_t *row, const int32_t *means, int bands, int n, int shift,
                             int limit, int16_t *to) {
    const __m256i top = _mm256_set1_epi16(INT16_MIN), half = _mm256_set1_epi32(shift ? 1 << (shift - 1) : 0);
    const __m256i most = _mm256_set1_epi16((int16_t)limit), least = _mm256_set1_epi16((int16_t)-limit);
    const __m128i down = _mm_cvtsi32_si128(shift);
    uint32_t constant = 1 << 13;
    for (int b = 0; b < bands; b++)
        constant += (uint32_t)(row[b] * ((1 << 15) - means[b]));
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256i low = _mm256_set1_epi32((int32_t)constant), high = low;
        for (int b = 0; b < bands; b += 2) {
            int next = b + 1 < bands ? b + 1 : b; /* an odd one meets itself at no weight */
            uint32_t second = b + 1 < bands ? (uint32_t)row[next] : 0;
            __m256i times = _mm256_set1_epi32((int32_t)((uint32_t)row[b] & UINT16_MAX) | (int32_t)(second << 16));
            __m256i x = _mm256_loadu_si256((const __m256i *)(values + (size_t)b * n + i));
            __m256i y = _mm256_loadu_si256((const __m256i *)(values + (size_t)next * n + i));
            x = _mm256_xor_si256(x, top), y = _mm256_xor_si256(y, top);
            low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(x, y), times));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(x, y), times));
        }
        low = _mm256_sra_epi32(_mm256_add_epi32(_mm256_srai_epi32(low, 14), half), down);
        high = _mm256_sra_epi32(_mm256_add_epi32(_mm256_srai_epi32(high, 14), half), down);
        __m256i both = _mm256_max_epi16(_mm256_min_epi16(_mm256_packs_epi32(low, high), most), least);
        _mm256_storeu_si256((__m256i *)(to + i), both);
    }
    for (; i < n; i++) {
        int64_t sum = 1 << 13;
        for (int b = 0; b < bands; b++)
            sum += (int64_t)row[b] * (values[(size_t)b * n + i] - means[b]);
        to[i] = rotated_value(sum, shift, shift ? 1 << (shift - 1) : 0, limit);
    }
}
#endif

/* The largest magnitude that a sum of this row's products can reach. */
static int64_t reach_of(const int32_t *row, const int32_t *means, int bands) {
    int64_t reach = 1 << 13;
    for (int b = 0; b < bands; b++) {
        int64_t far = means[b] > 65535 - means[b] ? means[b] : 65535 - means[b];
        reach += (row[b] < 0 ? -(int64_t)row[b] : row[b]) * far;
    }
    return reach;
}

/* Rotated bands [bands, n] i16 of a tile whose pixels are all valid, by the matrix of angles [B (B - 1) / 2], of which row
 * k gives rotated band k; means [bands] of uint16. */
EXPORT int nadir_rotate(Span values, Span angles, Span cosines, Span sines, Span means, int bands, int n, int shift,
                        int limit, Span rotated) {
    if (!within(bands, 1, MAX_BANDS) || !within(n, 1, MAX_SIDE * MAX_SIDE) || !within(shift, 0, 15) ||
        !within(limit, 0, 32767))
        return OUT_OF_RANGE;
    if (!HOLDS(values, uint16_t, bands * n) || !HOLDS(angles, int32_t, bands * (bands - 1) / 2) ||
        !fits_circle(cosines, sines) || !HOLDS(means, int32_t, bands) || !HOLDS(rotated, int16_t, bands * n))
        return BUFFER_TOO_SMALL;
    for (int i = 0; i < bands * (bands - 1) / 2; i++)
        if (!within(((const int32_t *)angles.at)[i], 0, ANGLES - 1))
            return OUT_OF_RANGE;
    const Circle circle = {cosines.at, sines.at};
    int32_t matrix[MAX_BANDS * MAX_BANDS];
    if (!matrix_of(&circle, angles.at, bands, matrix))
        return TABLES_DAMAGED;
    const int32_t *mean = means.at, *row = matrix;
    for (int b = 0; b < bands; b++)
        if (!within(mean[b], 0, 65535))
            return OUT_OF_RANGE;
    for (int k = 0; k < bands; k++, row += bands) {
        int16_t *to = (int16_t *)rotated.at + (size_t)k * n;
        int64_t squares = 0;
        for (int b = 0; b < bands; b++)
            squares += (int64_t)row[b] * row[b];
        if (squares > 5 << 26) /* no row of a rotation: those have 2^28, and a little for rounding */
            return OUT_OF_RANGE;
        int narrow = reach_of(row, mean, bands) <= INT32_MAX;
#if HAVE_AVX2
        if (narrow && use_avx2()) {
            rotate_avx2(values.at, row, mean, bands, n, shift, limit, to);
            continue;
        }
#endif
        if (narrow)
            rotate_narrow(values.at, row, mean, bands, n, shift, limit, to);
        else
            rotate_wide(values.at, row, mean, bands, n, shift, limit, to);
    }
    return 0;
}
