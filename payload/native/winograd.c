/* Convolutions of 3 x 3 by Winograd's minimal filtering, for the ground's decoder network: the transforms around a matrix
 * product that the caller leaves to BLAS. Twin of sim/ground/residual_network.py. F(4 x 4, 3 x 3): 36 products for what
 * takes 144 (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016). */
#include "kernel.h"

enum { OUT = 4, IN = OUT + 2, POINTS = IN * IN, LANES = 32, MAX_CHANNELS = 4096 };

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

/* What is positive of x [cells, cells, channels], zeros beyond its edges -> spread [36][(cells / 4)^2][channels]. */
VECTORISED static void winograd_in(const float *x, int cells, int channels, float *spread) {
    int squares = cells / OUT;
    size_t plane = (size_t)squares * squares * channels;
    float d[POINTS][LANES], t[POINTS][LANES];
    for (int row = 0; row < squares; row++)
        for (int col = 0; col < squares; col++)
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
                float *to = spread + ((size_t)row * squares + col) * channels + c;
                for (int p = 0; p < POINTS; p++)
                    memcpy(to + p * plane, d[p], sizeof d[p]);
            }
}

/* Products [36][(cells / 4)^2][channels] -> what is positive of the convolution and its bias [cells, cells, channels]. */
VECTORISED static void winograd_out(const float *products, const float *bias, int cells, int channels, float *y) {
    int squares = cells / OUT;
    size_t plane = (size_t)squares * squares * channels;
    float m[POINTS][LANES], t[OUT * IN][LANES], found[OUT * OUT][LANES];
    for (int row = 0; row < squares; row++)
        for (int col = 0; col < squares; col++)
            for (int c = 0; c < channels; c += LANES) {
                const float *from = products + ((size_t)row * squares + col) * channels + c;
                for (int p = 0; p < POINTS; p++)
                    memcpy(m[p], from + p * plane, sizeof m[p]);
                for (int k = 0; k < IN; k++)
                    gather_line(m + k, IN, t + k, IN);
                for (int k = 0; k < OUT; k++)
                    gather_line(t + IN * k, 1, found + OUT * k, 1);
                for (int q = 0; q < OUT * OUT; q++) {
                    float *to = y + ((size_t)(OUT * row + q / OUT) * cells + OUT * col + q % OUT) * channels + c;
                    for (int i = 0; i < LANES; i++) {
                        float value = found[q][i] + bias[c + i];
                        to[i] = value > 0.0f ? value : 0.0f;
                    }
                }
            }
}

static int fits_winograd(int cells, int channels) {
    return within(cells, OUT, MAX_CELLS) && cells % OUT == 0 && within(channels, LANES, MAX_CHANNELS) &&
           channels % LANES == 0;
}

EXPORT int nadir_winograd_in(Span x, int cells, int channels, Span spread) {
    if (!fits_winograd(cells, channels))
        return OUT_OF_RANGE;
    size_t squares = (size_t)(cells / OUT) * (cells / OUT);
    if (!HOLDS(x, float, (size_t)cells * cells * channels) || !HOLDS(spread, float, POINTS * squares * channels))
        return BUFFER_TOO_SMALL;
    winograd_in(x.at, cells, channels, spread.at);
    return 0;
}

EXPORT int nadir_winograd_out(Span products, Span bias, int cells, int channels, Span y) {
    if (!fits_winograd(cells, channels))
        return OUT_OF_RANGE;
    size_t squares = (size_t)(cells / OUT) * (cells / OUT);
    if (!HOLDS(products, float, POINTS * squares * channels) || !HOLDS(bias, float, channels) ||
        !HOLDS(y, float, (size_t)cells * cells * channels))
        return BUFFER_TOO_SMALL;
    winograd_out(products.at, bias.at, cells, channels, y.at);
    return 0;
}
