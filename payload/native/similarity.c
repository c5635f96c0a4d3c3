/* Structural similarity of two pictures, for the ground's verification; twin of `SsimSums` in sim/metrics/similarity.py.
 * Same formulas in doubles; sums are taken in another order than numpy's. */
#include "kernel.h"

enum { RADIUS = 5, TAPS = 2 * RADIUS + 1, MAPS = 5, MAX_WIDTH = 2048 };

/* Row sums of a, b, a a, b b and a b under the window, for a line of two pictures: to [MAPS][width - 10]. */
VECTORISED static void weigh_line(const uint16_t *a, const uint16_t *b, const double *taps, int width, double *to) {
    double wide[MAPS][MAX_WIDTH];
    for (int i = 0; i < width; i++) {
        double x = a[i], y = b[i];
        wide[0][i] = x, wide[1][i] = y, wide[2][i] = x * x, wide[3][i] = y * y, wide[4][i] = x * y;
    }
    int inner = width - 2 * RADIUS;
    for (int m = 0; m < MAPS; m++, to += inner)
        for (int i = 0; i < inner; i++) {
            const double *here = wide[m] + i;
            double sum = taps[RADIUS] * here[RADIUS];
            for (int k = 0; k < RADIUS; k++)
                sum += taps[k] * (here[k] + here[TAPS - 1 - k]);
            to[i] = sum;
        }
}

/* Column sums of TAPS such lines: [MAPS][inner]. */
VECTORISED static void weigh_columns(const double *const *lines, const double *taps, int count, double *restrict to) {
    for (int i = 0; i < count; i++) {
        double sum = taps[RADIUS] * lines[RADIUS][i];
        for (int k = 0; k < RADIUS; k++)
            sum += taps[k] * (lines[k][i] + lines[TAPS - 1 - k][i]);
        to[i] = sum;
    }
}

/* Similarities over the windows of a line that count, summed for each of two ranges; constants [2][2] are C1 and C2. */
VECTORISED static void add_line(const double *means, const uint8_t *whole, int inner, const double *constants,
                                double *sums) {
    const double *a = means, *b = a + inner, *aa = b + inner, *bb = aa + inner, *ab = bb + inner;
    double first[MAX_WIDTH], second[MAX_WIDTH];
    for (int i = 0; i < inner; i++) {
        double product = 2 * a[i] * b[i], squares = a[i] * a[i] + b[i] * b[i];
        double covariance = 2 * ab[i] - product, spread = aa[i] + bb[i] - squares;
        first[i] = (product + constants[0]) * (covariance + constants[1]) /
                   ((squares + constants[0]) * (spread + constants[1]));
        second[i] = (product + constants[2]) * (covariance + constants[3]) /
                    ((squares + constants[2]) * (spread + constants[3]));
    }
    for (int i = 0; i < inner; i++)
        if (whole[i])
            sums[0] += first[i], sums[1] += second[i];
}

/* sums [2] of the similarity of a band of two pictures [h, w] over the windows of whole
 * [h - 10, w - 10]. scratch [(TAPS + 1) MAPS (w - 10)]. */
static void similarity(const uint16_t *a, const uint16_t *b, const uint8_t *whole, const double *taps, int h, int w,
                       const double *constants, double *scratch, double *sums) {
    int inner = w - 2 * RADIUS;
    double *ring = scratch, *means = ring + (size_t)TAPS * MAPS * inner;
    sums[0] = sums[1] = 0;
    for (int row = 0; row < h; row++) {
        weigh_line(a + (size_t)row * w, b + (size_t)row * w, taps, w, ring + (size_t)(row % TAPS) * MAPS * inner);
        if (row < TAPS - 1)
            continue;
        const double *lines[TAPS];
        for (int k = 0; k < TAPS; k++)
            lines[k] = ring + (size_t)((row - TAPS + 1 + k) % TAPS) * MAPS * inner;
        weigh_columns(lines, taps, MAPS * inner, means);
        add_line(means, whole + (size_t)(row - TAPS + 1) * inner, inner, constants, sums);
    }
}

EXPORT int nadir_similarity(Span a, Span b, Span whole, Span taps, int h, int w, Span constants, Span scratch, Span sums) {
    if (!within(h, TAPS, MAX_SIDE * MAX_CELLS) || !within(w, TAPS, MAX_WIDTH))
        return OUT_OF_RANGE;
    size_t inner = w - 2 * RADIUS, pixels = (size_t)h * w;
    if (!HOLDS(a, uint16_t, pixels) || !HOLDS(b, uint16_t, pixels) ||
        !HOLDS(whole, uint8_t, (h - 2 * RADIUS) * inner) || !HOLDS(taps, double, TAPS) || !HOLDS(constants, double, 4) ||
        !HOLDS(scratch, double, (TAPS + 1) * MAPS * inner) || !HOLDS(sums, double, 2))
        return BUFFER_TOO_SMALL;
    similarity(a.at, b.at, whole.at, taps.at, h, w, constants.at, scratch.at, sums.at);
    return 0;
}
