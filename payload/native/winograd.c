/* Convolutions of 3 x 3 by Winograd's minimal filtering, for the ground's decoder network: the transforms around matrix
 * products (products.c). Twin of sim/ground/residual_network.py. F(4 x 4, 3 x 3): 36 products for what takes 144 (Lavin &
 * Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016). */
#include "kernel.h"

enum { OUT = 4, IN = OUT + 2, POINTS = IN * IN, LANES = 32 };

/* B' of a line of six: to[k] for six values `step` apart. */
static inline void spread_line(const float (*from)[LANES], int step, float (*to)[LANES]) {
    const float *a = from[0], *b = from[step], *c = from[2 * step], *d = from[3 * step], *e = from[4 * step];
    const float *f = from[5 * step];
    for (int i = 0; i < LANES; i++) {
        float middle = e[i] - 4 * c[i], outer = d[i] - 4 * b[i], even = e[i] - c[i], odd = 2 * (d[i] - b[i]);
        to[0][i] = 4 * a[i] - 5 * c[i] + e[i];
        to[step][i] = middle + outer;
        to[2 * step][i] = middle - outer;
        to[3 * step][i] = even + odd;
        to[4 * step][i] = even - odd;
        to[5 * step][i] = 4 * b[i] - 5 * d[i] + f[i];
    }
}

/* A' of a line of six: four values. */
static inline void gather_line(const float (*from)[LANES], int step, float (*to)[LANES], int to_step) {
    const float *a = from[0], *b = from[step], *c = from[2 * step], *d = from[3 * step], *e = from[4 * step];
    const float *f = from[5 * step];
    for (int i = 0; i < LANES; i++) {
        float sum = b[i] + c[i], difference = b[i] - c[i], far_sum = d[i] + e[i], far_difference = d[i] - e[i];
        to[0][i] = a[i] + sum + far_sum;
        to[to_step][i] = difference + 2 * far_difference;
        to[2 * to_step][i] = sum + 4 * far_sum;
        to[3 * to_step][i] = difference + 8 * far_difference + f[i];
    }
}

/* What is positive of x [cells, cells, channels] around a square, zeros beyond the edges -> to [36][channels]. */
static inline __attribute__((always_inline)) void spread_square(const float *x, int cells, int channels, int row, int col,
                                                                float *to) {
    float d[POINTS][LANES], t[POINTS][LANES];
    for (int c = 0; c < channels; c += LANES) {
        for (int p = 0; p < POINTS; p++) {
            int y = OUT * row + p / IN - 1, z = OUT * col + p % IN - 1;
            int inside = y >= 0 && y < cells && z >= 0 && z < cells;
            const float *from = x + ((size_t)(inside ? y : 0) * cells + (inside ? z : 0)) * channels + c;
            for (int i = 0; i < LANES; i++)
                d[p][i] = inside && from[i] > 0.0f ? from[i] : 0.0f;
        }
        for (int k = 0; k < IN; k++)
            spread_line(d + k, IN, t + k);
        for (int k = 0; k < IN; k++)
            spread_line(t + IN * k, 1, d + IN * k);
        for (int p = 0; p < POINTS; p++)
            memcpy(to + (size_t)p * channels + c, d[p], sizeof d[p]);
    }
}

/* Integers [36][(cells / 4)^2][channels] and scales [36][(cells / 4)^2] of x; limits and units [36] as in round_rows. */
VECTORISED static void winograd_in(const float *x, int cells, int channels, const float *limits, const float *units,
                                   int16_t *spread, float *scales) {
    int squares = cells / OUT;
    size_t all = (size_t)squares * squares;
    float found[POINTS * MAX_CHANNELS];
    for (int row = 0; row < squares; row++)
        for (int col = 0; col < squares; col++) {
            size_t at = (size_t)row * squares + col;
            spread_square(x, cells, channels, row, col, found);
            for (int p = 0; p < POINTS; p++)
                round_row(found + (size_t)p * channels, channels, limits[p], units[p],
                          spread + (p * all + at) * channels, scales + p * all + at);
        }
}

/* What is positive of a square of the convolution and its bias, from products [36][`plane` apart] -> to [16][channels]. */
static inline __attribute__((always_inline)) void gather_square(const float *products, size_t plane, const float *bias,
                                                                int channels, float *to) {
    float m[POINTS][LANES], t[OUT * IN][LANES], found[OUT * OUT][LANES];
    for (int c = 0; c < channels; c += LANES) {
        for (int p = 0; p < POINTS; p++)
            memcpy(m[p], products + p * plane + c, sizeof m[p]);
        for (int k = 0; k < IN; k++)
            gather_line(m + k, IN, t + k, IN);
        for (int k = 0; k < OUT; k++)
            gather_line(t + IN * k, 1, found + OUT * k, 1);
        for (int q = 0; q < OUT * OUT; q++)
            for (int i = 0; i < LANES; i++) {
                float value = found[q][i] + bias[c + i];
                to[(size_t)q * channels + c + i] = value > 0.0f ? value : 0.0f;
            }
    }
}

/* Products [36][(cells / 4)^2][channels] -> integers [cells, cells, channels] of what is positive of the convolution and
 * its bias, and their scales [cells, cells]. */
VECTORISED static void winograd_out(const float *products, const float *bias, int cells, int channels, float limit,
                                    float unit, int16_t *y, float *scales) {
    int squares = cells / OUT;
    float found[OUT * OUT * MAX_CHANNELS];
    for (int row = 0; row < squares; row++)
        for (int col = 0; col < squares; col++) {
            gather_square(products + ((size_t)row * squares + col) * channels, (size_t)squares * squares * channels, bias,
                          channels, found);
            for (int q = 0; q < OUT * OUT; q++) {
                size_t at = (size_t)(OUT * row + q / OUT) * cells + OUT * col + q % OUT;
                round_row(found + (size_t)q * channels, channels, limit, unit, y + at * channels, scales + at);
            }
        }
}

static int fits_winograd(int cells, int channels) {
    return within(cells, OUT, MAX_CELLS) && cells % OUT == 0 && within(channels, LANES, MAX_CHANNELS) &&
           channels % LANES == 0;
}

EXPORT int nadir_winograd_in(Span x, int cells, int channels, Span limits, Span units, Span spread, Span scales) {
    if (!fits_winograd(cells, channels))
        return OUT_OF_RANGE;
    size_t squares = (size_t)(cells / OUT) * (cells / OUT);
    if (!HOLDS(x, float, (size_t)cells * cells * channels) || !HOLDS(limits, float, POINTS) ||
        !HOLDS(units, float, POINTS) || !HOLDS(spread, int16_t, POINTS * squares * channels) ||
        !HOLDS(scales, float, POINTS * squares))
        return BUFFER_TOO_SMALL;
    for (int p = 0; p < POINTS; p++)
        if (!fits_limit(((const float *)limits.at)[p]))
            return OUT_OF_RANGE;
    winograd_in(x.at, cells, channels, limits.at, units.at, spread.at, scales.at);
    return 0;
}

EXPORT int nadir_winograd_out(Span products, Span bias, int cells, int channels, float limit, float unit, Span y,
                              Span scales) {
    if (!fits_winograd(cells, channels) || !fits_limit(limit))
        return OUT_OF_RANGE;
    size_t squares = (size_t)(cells / OUT) * (cells / OUT), pixels = (size_t)cells * cells;
    if (!HOLDS(products, float, POINTS * squares * channels) || !HOLDS(bias, float, channels) ||
        !HOLDS(y, int16_t, pixels * channels) || !HOLDS(scales, float, pixels))
        return BUFFER_TOO_SMALL;
    winograd_out(products.at, bias.at, cells, channels, limit, unit, y.at, scales.at);
    return 0;
}
