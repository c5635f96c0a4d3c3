/* Rotated bands -> latents, what flight/encoder.onnx computes; twin of payload/codec/lapped/transform.py. */
#include "kernel.h"

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

/* Whether sums of four values of so many lines fit 16 bits. */
VECTORISED static int fold_whole(const int16_t *line, size_t values) {
    int16_t least = 0, most = 0;
    for (size_t i = 0; i < values; i++) {
        least = line[i] < least ? line[i] : least;
        most = line[i] > most ? line[i] : most;
    }
    return least >= -FOLD_LIMIT && most <= FOLD_LIMIT;
}

/* The same of the 16 lines around a row of blocks. */
static int row_folds_whole(const int16_t *band, int side, int row) {
    int first = BLOCK * row - BLOCK / 2, end = first + 2 * BLOCK;
    first = first < 0 ? 0 : first, end = end > side ? side : end;
    return fold_whole(band + (size_t)first * side, (size_t)(end - first) * side);
}

/* Where sums of 32 functions go: a row of latents each, multiplied by 2^up, and added to what is there if `add`. */
typedef struct {
    int32_t *to[32];
    int up[32], add;
} Sums;

/* 32 functions, of which the first half is even from left to right, over folded lines [8][side + 8]. */
static void multiply_plain(const int16_t *lines, const int16_t *weights, int side, const Sums *sums) {
    int pitch = side + BLOCK;
    for (int c = 0; c < side / BLOCK; c++)
        for (int f = 0; f < 32; f++) {
            int32_t sum = 0, sign = f < 16 ? 1 : -1;
            for (int i = 0; i < BLOCK; i++)
                for (int j = 0; j < BLOCK; j++) {
                    const int16_t *line = lines + i * pitch + BLOCK * c;
                    sum += weights[f * COEFFICIENTS + i * BLOCK + j] * (line[j] + sign * line[15 - j]);
                }
            sums->to[f][c] = sum * (1 << sums->up[f]) + (sums->add ? sums->to[f][c] : 0);
        }
}

#if HAVE_AVX2
/* Pairs of places that meet in one multiply-add, of eight cells: [even or odd from left to right][pair]. */
enum { OCTET = 8, TOGETHER = 4 }; /* cells of a register; of those, as many as make up a row of a usual tile */
typedef __m256i Pairs[2][COEFFICIENTS / 2];

AVX2 static inline void pairs_avx2(const int16_t *lines, int pitch, Pairs pairs) {
    const __m128i mirror = _mm_set_epi8(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    for (int i = 0; i < BLOCK; i++) {
        __m256i both[2][4]; /* cells k and k + 4 */
        for (int k = 0; k < 4; k++) {
            const int16_t *near = lines + i * pitch + BLOCK * k, *far = near + 4 * BLOCK;
            __m256i a = _mm256_set_m128i(_mm_loadu_si128((const __m128i *)far), _mm_loadu_si128((const __m128i *)near));
            __m256i b = _mm256_set_m128i(_mm_loadu_si128((const __m128i *)(far + BLOCK)),
                                         _mm_loadu_si128((const __m128i *)(near + BLOCK)));
            b = _mm256_shuffle_epi8(b, _mm256_broadcastsi128_si256(mirror));
            both[0][k] = _mm256_add_epi16(a, b);
            both[1][k] = _mm256_sub_epi16(a, b);
        }
        for (int sign = 0; sign < 2; sign++) {
            __m256i *m = both[sign], *to = pairs[sign] + 4 * i;
            __m256i a = _mm256_unpacklo_epi32(m[0], m[1]), b = _mm256_unpacklo_epi32(m[2], m[3]);
            to[0] = _mm256_unpacklo_epi64(a, b), to[1] = _mm256_unpackhi_epi64(a, b);
            a = _mm256_unpackhi_epi32(m[0], m[1]), b = _mm256_unpackhi_epi32(m[2], m[3]);
            to[2] = _mm256_unpacklo_epi64(a, b), to[3] = _mm256_unpackhi_epi64(a, b);
        }
    }
}

/* Four functions from `f` on, of eight cells or twice as many from `c` on. */
AVX2 static inline __attribute__((always_inline)) void add_up_avx2(const Pairs *pairs, int octets, const int16_t *weights,
                                                                   int f, int c, const Sums *sums) {
    __m256i sum[4][2];
    for (int k = 0; k < 4; k++)
        sum[k][0] = sum[k][1] = _mm256_setzero_si256();
    for (int p = 0; p < COEFFICIENTS / 2; p++)
        for (int k = 0; k < 4; k++) {
            int32_t two;
            memcpy(&two, weights + (f + k) * COEFFICIENTS + 2 * p, sizeof two);
            for (int o = 0; o < octets; o++)
                sum[k][o] = _mm256_add_epi32(sum[k][o], _mm256_madd_epi16(pairs[o][f / 16][p], _mm256_set1_epi32(two)));
        }
    for (int k = 0; k < 4; k++)
        for (int o = 0; o < octets; o++) {
            __m256i *to = (__m256i *)(sums->to[f + k] + c + OCTET * o);
            __m256i found = _mm256_sll_epi32(sum[k][o], _mm_cvtsi32_si128(sums->up[f + k]));
            _mm256_storeu_si256(to, sums->add ? _mm256_add_epi32(found, _mm256_loadu_si256(to)) : found);
        }
}

/* As multiply_plain. A function's latents are written side by side: those of several lie in the same places of a cache. */
AVX2 static void multiply_avx2(const int16_t *lines, const int16_t *weights, int side, const Sums *sums) {
    int pitch = side + BLOCK, octets = side / BLOCK / OCTET;
    for (int begin = 0; begin < octets; begin += TOGETHER) {
        int count = octets - begin < TOGETHER ? octets - begin : TOGETHER;
        Pairs pairs[TOGETHER];
        for (int o = 0; o < count; o++)
            pairs_avx2(lines + (begin + o) * OCTET * BLOCK, pitch, pairs[o]);
        for (int f = 0; f < 32; f += 4) {
            int o = 0;
            for (; o + 2 <= count; o += 2)
                add_up_avx2((const Pairs *)pairs + o, 2, weights, f, (begin + o) * OCTET, sums);
            if (o < count)
                add_up_avx2((const Pairs *)pairs + o, 1, weights, f, (begin + o) * OCTET, sums);
        }
    }
}
#endif

/* A part of the lines around a row of blocks of a band; `to`: its latents, from that row on. */
static void transform_row(const int16_t *band, int side, int row, Part part, int add, const int16_t *weights,
                          const int32_t *functions, const int32_t *shift, int16_t *scratch, int32_t *to) {
    int cells = side / BLOCK, pitch = side + BLOCK;
    fold_lines(band, side, row, part, scratch, scratch + BLOCK * pitch);
    for (int odd = 0; odd < 2; odd++) {
        const int16_t *lines = scratch + (odd ? BLOCK * pitch : 0), *of_parity = weights + odd * 32 * COEFFICIENTS;
        Sums sums = {.add = add};
        for (int f = 0; f < 32; f++) {
            int function = functions[odd * 32 + f];
            sums.to[f] = to + (size_t)function * cells * cells, sums.up[f] = shift[function] + part.up;
        }
#if HAVE_AVX2
        if (use_avx2() && cells % OCTET == 0)
            multiply_avx2(lines, of_parity, side, &sums);
        else
#endif
            multiply_plain(lines, of_parity, side, &sums);
    }
}

/* Latents [bands, 64, cells, cells] i32 in 2^-8 of a rotated value, from rotated [bands, side, side] i16. weights
 * [64 functions][64 places of the upper left quarter], sixteen functions of each parity: even in both directions,
 * odd in columns, odd in rows, odd in both; functions [64] says which each is, shift [64] what makes its sums
 * multiples of 2^-8. Rows of blocks too bright for 16 bits go through in two parts, which the transform, linear,
 * adds up. scratch: 16 (side + 8) i16. */
static void transform(const int16_t *rotated, const int16_t *weights, const int32_t *functions, const int32_t *shift,
                      int bands, int side, int16_t *scratch, int32_t *latents) {
    static const Part whole = {0, -1, 0}, upper = {FOLD_DOWN, -1, FOLD_DOWN}, lower = {0, (1 << FOLD_DOWN) - 1, 0};
    int cells = side / BLOCK;
    for (int b = 0; b < bands; b++) {
        const int16_t *band = rotated + (size_t)b * side * side;
        int all_whole = fold_whole(band, (size_t)side * side);
        for (int row = 0; row < cells; row++) {
            int32_t *to = latents + ((size_t)b * COEFFICIENTS * cells + row) * cells;
            if (all_whole || row_folds_whole(band, side, row)) {
                transform_row(band, side, row, whole, 0, weights, functions, shift, scratch, to);
                continue;
            }
            transform_row(band, side, row, upper, 0, weights, functions, shift, scratch, to);
            transform_row(band, side, row, lower, 1, weights, functions, shift, scratch, to);
        }
    }
}

/* Sums fit 32 bits: refused where a function's weights, at their shift, add up to more than rotated values allow. */
EXPORT int nadir_transform(Span rotated, Span weights, Span functions, Span shift, int bands, int side, Span scratch,
                           Span latents) {
    if (!within(bands, 1, MAX_BANDS) || !within(side, BLOCK, MAX_SIDE) || side % BLOCK)
        return OUT_OF_RANGE;
    size_t pixels = (size_t)bands * side * side;
    if (!HOLDS(rotated, int16_t, pixels) || !HOLDS(weights, int16_t, COEFFICIENTS * COEFFICIENTS) ||
        !HOLDS(functions, int32_t, COEFFICIENTS) || !HOLDS(shift, int32_t, COEFFICIENTS) ||
        !HOLDS(scratch, int16_t, 2 * BLOCK * (side + BLOCK)) ||
        !HOLDS(latents, int32_t, pixels))
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
    transform(rotated.at, weights.at, functions.at, shift.at, bands, side, scratch.at, latents.at);
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
