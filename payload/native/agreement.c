/* Two pictures of one scene, pixel by pixel, for the ground's verification: twin of `Pixels` in sim/metrics/pixels.py.
 * Sums of integers are exact; those of doubles are taken in another order than numpy's. */
#include "kernel.h"

enum { PAIR_SUMS = 5, COVERS = 4, RATIO_BINS = 20001, ANGLE_BINS = 18001, WATER = 0, GREEN, BRIGHT, OTHER };

/* What is asked of every pixel: x, y [bands][n] and whether it counts [n]. zero is the DN of a count of 0. */
typedef struct {
    const uint16_t *x, *y;
    const uint8_t *valid;
    int bands, n, zero;
} Pictures;

/* Sums of x, y, x x, x y and (y - x)^2 of a band, and the largest error. */
VECTORISED static void sum_pictures(const uint16_t *x, const uint16_t *y, const uint8_t *valid, int n, int64_t *sums,
                                int64_t *most) {
    uint64_t a = 0, b = 0, aa = 0, ab = 0, squares = 0;
    uint32_t largest = 0;
    for (int i = 0; i < n; i++) {
        uint32_t p = valid[i] ? x[i] : 0, q = valid[i] ? y[i] : 0, error = p > q ? p - q : q - p;
        a += p, b += q, aa += (uint64_t)p * p, ab += (uint64_t)p * q, squares += (uint64_t)error * error;
        largest = error > largest ? error : largest;
    }
    sums[0] = (int64_t)a, sums[1] = (int64_t)b, sums[2] = (int64_t)aa, sums[3] = (int64_t)ab;
    sums[4] = (int64_t)squares;
    *most = largest > *most ? largest : *most;
}

static inline double ratio(double a, double b) { return a + b > 0 ? (a - b) / (a + b) : 0; }

/* The frozen rule for land cover, of reflectances. */
static inline int cover(double green, double red, double nir) {
    if (red > 0.3 && green > 0.3)
        return BRIGHT;
    if (ratio(green, nir) > 0 && nir < 0.15)
        return WATER;
    return ratio(nir, red) > 0.4 ? GREEN : OTHER;
}

/* The count of a DN in ratios: below 0 is noise, and would lead them out of -1 to 1. */
static inline double count_of(Pictures of, uint16_t dn) { return dn > of.zero ? dn - of.zero : 0; }

/* Between spectra of counts. */
static inline double angle_deg(Pictures of, int i) {
    double aa = 0, bb = 0, ab = 0;
    for (int b = 0; b < of.bands; b++) {
        double p = of.x[(size_t)b * of.n + i] - of.zero, q = of.y[(size_t)b * of.n + i] - of.zero;
        aa += p * p, bb += q * q, ab += p * q;
    }
    double norms = sqrt(aa * bb), cosine = norms > 0 ? ab / norms : 0;
    if (aa == 0 && bb == 0)
        return 0;
    return acos(cosine > 1 ? 1 : cosine) * (180 / 3.141592653589793);
}

/* Cover before and after [COVERS][COVERS], squared errors [COVERS] by the cover before. Gives NDWI's error. */
static double add_cover(Pictures of, const int32_t *roles, int i, int64_t *table, int64_t *squares) {
    const uint16_t *x = of.x + i, *y = of.y + i;
    double a[3], b[3]; /* reflectances: green, red, near infrared */
    for (int k = 0; k < 3; k++)
        a[k] = 1e-4 * count_of(of, x[(size_t)roles[k] * of.n]), b[k] = 1e-4 * count_of(of, y[(size_t)roles[k] * of.n]);
    int before = cover(a[0], a[1], a[2]), after = cover(b[0], b[1], b[2]);
    table[before * COVERS + after]++;
    for (int k = 0; k < of.bands; k++) {
        int64_t error = (int64_t)x[(size_t)k * of.n] - y[(size_t)k * of.n];
        squares[before] += error * error;
    }
    return fabs(ratio(a[0], a[2]) - ratio(b[0], b[2]));
}

static double vegetation_error(Pictures of, const int32_t *roles, int i) {
    size_t red = (size_t)roles[1] * of.n + i, nir = (size_t)roles[2] * of.n + i;
    double before = ratio(count_of(of, of.x[nir]), count_of(of, of.x[red]));
    return fabs(before - ratio(count_of(of, of.y[nir]), count_of(of, of.y[red])));
}

/* sums [bands][5], most [1], table [4][4], squares [4], errors [3]: NDWI, NDVI, angle; histograms of the last two. roles:
 * places of green, red and near infrared, negative where a band is not there. */
EXPORT int nadir_agreement(Span x, Span y, Span valid, int bands, int n, int zero, Span roles, Span sums, Span most,
                           Span table, Span squares, Span errors, Span ratio_bins, Span angle_bins) {
    if (!within(bands, 1, 512) || !within(n, 1, MAX_SIDE * MAX_SIDE) || !within(zero, 0, 1 << 15))
        return OUT_OF_RANGE;
    size_t samples = (size_t)bands * n;
    if (!HOLDS(x, uint16_t, samples) || !HOLDS(y, uint16_t, samples) || !HOLDS(valid, uint8_t, n) ||
        !HOLDS(roles, int32_t, 3) || !HOLDS(sums, int64_t, bands * PAIR_SUMS) || !HOLDS(most, int64_t, 1) ||
        !HOLDS(table, int64_t, COVERS * COVERS) || !HOLDS(squares, int64_t, COVERS) || !HOLDS(errors, double, 3) ||
        !HOLDS(ratio_bins, int64_t, RATIO_BINS) || !HOLDS(angle_bins, int64_t, ANGLE_BINS))
        return BUFFER_TOO_SMALL;
    const int32_t *places = roles.at;
    for (int k = 0; k < 3; k++)
        if (!within(places[k], -1, bands - 1))
            return OUT_OF_RANGE;
    int has_index = places[1] >= 0 && places[2] >= 0, has_cover = has_index && places[0] >= 0;
    Pictures of = {x.at, y.at, valid.at, bands, n, zero};
    for (int b = 0; b < bands; b++)
        sum_pictures(of.x + (size_t)b * n, of.y + (size_t)b * n, of.valid, n, (int64_t *)sums.at + b * PAIR_SUMS, most.at);
    for (int i = 0; i < n; i++) {
        if (!of.valid[i])
            continue;
        double *error = errors.at, angle = angle_deg(of, i);
        double vegetation = has_index ? vegetation_error(of, places, i) : 0;
        error[0] += has_cover ? add_cover(of, places, i, table.at, squares.at) : 0;
        error[1] += vegetation, error[2] += angle;
        ((int64_t *)ratio_bins.at)[(int)rint(vegetation * 10000)] += has_index;
        ((int64_t *)angle_bins.at)[(int)rint(angle * 100)]++;
    }
    return 0;
}
