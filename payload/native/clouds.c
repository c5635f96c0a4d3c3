/* Around the cloud network: bands -> its planes, its logits -> cells of cloud; twin of payload/clouds. */
#include "kernel.h"

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

/* Every 2nd value in every 2nd row of [n, n], counted by level; four counts of each, so that none waits for the last. */
static void count_samples(const uint8_t *plane, int n, int32_t *counts) {
    int32_t four[4][LEVELS] = {{0}};
    for (int row = 0; row < n; row += 2)
        for (int i = 0; i < n; i += 2)
            four[i >> 1 & 3][plane[row * n + i]]++;
    for (int level = 0; level < LEVELS; level++)
        counts[level] = four[0][level] + four[1][level] + four[2][level] + four[3][level];
}

/* The level below which a share of the samples lies: the first that makes it reach the share, or pass it. */
static int percentile(const int32_t *counts, int samples, int permille, int pass) {
    int64_t below = 0, share = (int64_t)permille * samples;
    int level = 0;
    for (int k = 0; k < LEVELS; k++) {
        below += counts[k];
        level += below * 1000 < share + pass;
    }
    return level;
}

/* Levels stretched between two percentiles: 128 + floor((2 level - low - high) 96 / span), 0 to 255. In floats: off by
 * less than a tenth of the half step of 1 / span that keeps whole quotients whole. */
VECTORISED static void stretch(const uint8_t *plane, int n, int low, int high, int least_span, uint8_t *restrict to) {
    float span = (float)(high - low > least_span ? high - low : least_span);
    float times = 192.0f / span, plus = 128.0f + (0.5f - 96.0f * (float)(low + high)) / span;
    for (int i = 0; i < n; i++) {
        int value = (int)((float)plane[i] * times + plus); /* what lies below 0 becomes 0, so this is the floor */
        value = value > 0 ? value : 0;
        to[i] = (uint8_t)(value < LEVELS - 1 ? value : LEVELS - 1);
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
        int32_t counts[LEVELS];
        count_samples(plane, n, counts);
        int low = percentile(counts, samples, low_permille, 1), high = percentile(counts, samples, high_permille, 0);
        stretch(plane, n * n, low, high, least_span, planes + (size_t)(bands + b) * n * n);
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

/* How many of up to 64 cells of these weights [4, 64] are cloud, thin cloud, and cloud beyond doubt, added to `counts`,
 * and which are cloud. Every operation rounds once, as in numpy: sums of weights are exact. */
VECTORISED static void count_cells(float (*weight)[CELLS_AT_ONCE], int cells, float cloudy_above, float sure_above,
                                   int32_t *counts, uint8_t *is_cloudy) {
    int32_t cloudy = 0, thin = 0, sure = 0;
    for (int i = 0; i < cells; i++) {
        float total = weight[0][i] + weight[1][i] + weight[2][i] + weight[3][i];
        float thick = weight[1][i] / total, thinner = weight[2][i] / total;
        is_cloudy[i] = thick + thinner > cloudy_above;
        cloudy += thick + thinner > cloudy_above;
        thin += (thick + thinner > cloudy_above) & (thinner > thick);
        sure += thick + thinner > sure_above;
    }
    counts[0] += cloudy, counts[1] += thin, counts[2] += sure;
}

VECTORISED static uint8_t least_of(const uint8_t *values, int n) {
    uint8_t least = 255;
    for (int i = 0; i < n; i++)
        least = values[i] < least ? values[i] : least;
    return least;
}

/* Softmax of logits [4, n] by a table [256] of the exponentials of so many steps below the largest, counted. Where the
 * likeliest cloud of 64 cells stays a hundredth below both thresholds beside the largest class alone, none is cloud. */
static void cloud_counts(const int8_t *logits, const float *exponentials, int n, float cloudy_above, float sure_above,
                         int32_t *counts, uint8_t *is_cloudy) {
    float weight[CLOUD_CLASSES][CELLS_AT_ONCE];
    uint8_t below[CLOUD_CLASSES][CELLS_AT_ONCE];
    float clear_up_to = 0.99f * (cloudy_above < sure_above ? cloudy_above : sure_above) * exponentials[0];
    counts[0] = counts[1] = counts[2] = 0;
    for (int from = 0; from < n; from += CELLS_AT_ONCE) {
        int cells = n - from < CELLS_AT_ONCE ? n - from : CELLS_AT_ONCE;
        steps_below(logits + from, n, cells, below);
        if (exponentials[least_of(below[1], cells)] + exponentials[least_of(below[2], cells)] < clear_up_to) {
            memset(is_cloudy + from, 0, cells);
            continue;
        }
        for (int k = 0; k < CLOUD_CLASSES; k++)
            for (int i = 0; i < cells; i++)
                weight[k][i] = exponentials[below[k][i]];
        count_cells(weight, cells, cloudy_above, sure_above, counts, is_cloudy + from);
    }
}

EXPORT int nadir_cloud_counts(Span logits, Span exponentials, int n, float cloudy_above, float sure_above,
                              Span counts, Span is_cloudy) {
    if (!within(n, 1, MAX_SIDE * MAX_SIDE))
        return OUT_OF_RANGE;
    if (!HOLDS(logits, int8_t, CLOUD_CLASSES * (size_t)n) || !HOLDS(exponentials, float, LEVELS) ||
        !HOLDS(counts, int32_t, 3) || !HOLDS(is_cloudy, uint8_t, n))
        return BUFFER_TOO_SMALL;
    cloud_counts(logits.at, exponentials.at, n, cloudy_above, sure_above, counts.at, is_cloudy.at);
    return 0;
}

/* ---- Closed cloud of a tile, smoothed (payload/clouds/gate.py) ---- */

enum { CROWD = 5, LEAST_CLOSED = 19, CROWD_REACH = CROWD / 2 };

/* Which of a row of up to 64 cells of these weights are cloud beyond doubt; thin cloud, too, where wanted. */
VECTORISED static void surely_cloud(float (*weight)[CELLS_AT_ONCE], int cells, float sure_above, int thin_too,
                                    uint8_t *sure) {
    for (int i = 0; i < cells; i++) {
        float total = weight[0][i] + weight[1][i] + weight[2][i] + weight[3][i];
        float thick = weight[1][i] / total, thinner = weight[2][i] / total;
        sure[i] = (thick + thinner > sure_above) & (thin_too | !(thinner > thick));
    }
}

/* Four times the averages of a row of cells of one band, rounded down. */
VECTORISED static void pairs_of_cells(const uint16_t *upper, const uint16_t *lower, int cells, int32_t *to) {
    for (int i = 0; i < cells; i++)
        to[i] = upper[2 * i] + upper[2 * i + 1] + lower[2 * i] + lower[2 * i + 1];
}

/* The same of cells of 2 or 4 pixels a side. */
static void four_averages(const uint16_t *at, int size, int cell, int32_t *to) {
    if (cell == 2) {
        pairs_of_cells(at, at + size, size / 2, to);
        return;
    }
    for (int i = 0; i < size / cell; i++) {
        uint32_t sum = 0;
        for (int row = 0; row < cell; row++)
            for (int col = 0; col < cell; col++)
                sum += at[(size_t)row * size + i * cell + col];
        to[i] = (int32_t)(sum >> 2);
    }
}

/* Of a row of accused cells those stay that the stricter witness finds hazy and white, with no bend in the blue. */
VECTORISED static void hear_witness(int32_t (*averages)[MAX_SIDE / 2], int cells, uint8_t *accused) {
    for (int i = 0; i < cells; i++) {
        int32_t blue = averages[0][i], green = averages[1][i], red = averages[2][i], total = blue + green + red;
        int32_t most = blue > green ? blue : green, least = blue < green ? blue : green;
        most = most > red ? most : red, least = least < red ? least : red;
        int32_t above = 3 * most - total, below = total - 3 * least, spread = 2 * (above > below ? above : below);
        accused[i] &= (2 * blue - red > 6400) & (300 * (total - 3 * green) <= 11 * total) & (10 * spread <= 3 * total);
    }
}

/* Cells [s h, s w] that are cloud beyond doubt to the network, by its logits [4, s, s, h, w]. */
static void accused_cells(const int8_t *logits, const float *exponentials, int s, int h, int w, float sure_above,
                          int thin_too, uint8_t *accused) {
    float weight[CLOUD_CLASSES][CELLS_AT_ONCE], clear_up_to = 0.99f * sure_above * exponentials[0];
    uint8_t below[CLOUD_CLASSES][CELLS_AT_ONCE], sure[CELLS_AT_ONCE];
    size_t n = (size_t)s * s * h * w;
    memset(accused, 0, n);
    for (int row = 0; row < s * s * h; row++)
        for (int from = 0; from < w; from += CELLS_AT_ONCE) {
            int cells = w - from < CELLS_AT_ONCE ? w - from : CELLS_AT_ONCE;
            steps_below(logits + (size_t)row * w + from, n, cells, below);
            if (exponentials[least_of(below[1], cells)] + exponentials[least_of(below[2], cells)] < clear_up_to)
                continue;
            for (int k = 0; k < CLOUD_CLASSES; k++)
                for (int i = 0; i < cells; i++)
                    weight[k][i] = exponentials[below[k][i]];
            surely_cloud(weight, cells, sure_above, thin_too, sure);
            uint8_t *to = accused + ((size_t)(row % h) * s + row / h / s) * s * w + (size_t)from * s + row / h % s;
            for (int i = 0; i < cells; i++)
                to[i * s] = sure[i];
        }
}

/* Of accused cells [size / cell, size / cell] those stay that the stricter witness accuses, too. */
static void closed_cells(const uint16_t *seen, int size, int cell, uint8_t *accused) {
    int32_t averages[3][MAX_SIDE / 2];
    int cells = size / cell;
    for (int row = 0; row < cells; row++) {
        if (memchr(accused + (size_t)row * cells, 1, cells) == NULL)
            continue;
        for (int band = 0; band < 3; band++)
            four_averages(seen + ((size_t)band * size + (size_t)row * cell) * size, size, cell, averages[band]);
        hear_witness(averages, cells, accused + (size_t)row * cells);
    }
}

static int inside(int place, int n) { return place < 0 ? 0 : place >= n ? n - 1 : place; }

/* Sums of CROWD values about each of a row, its ends repeated. */
VECTORISED static void around(const uint8_t *row, int n, uint8_t *sums) {
    for (int i = 0; i < n; i++)
        sums[i] = 0;
    for (int step = -CROWD_REACH; step <= CROWD_REACH; step++) {
        int from = step < 0 ? -step : 0, to = step > 0 ? n - step : n;
        for (int i = 0; i < from && i < n; i++)
            sums[i] += row[0];
        for (int i = from; i < to; i++)
            sums[i] += row[i + step];
        for (int i = to > 0 ? to : 0; i < n; i++)
            sums[i] += row[n - 1];
    }
}

VECTORISED static int keep_crowded(const uint8_t *const rows[CROWD], int n, uint8_t *closed) {
    int kept = 0;
    for (int i = 0; i < n; i++) {
        int sum = rows[0][i] + rows[1][i] + rows[2][i] + rows[3][i] + rows[4][i];
        closed[i] = closed[i] & (sum >= LEAST_CLOSED);
        kept += closed[i];
    }
    return kept;
}

/* Of closed cells [n, n] those in a crowd stay; how many. `sums` [n, n] is written over. */
static int crowded(uint8_t *closed, int n, uint8_t *sums) {
    int kept = 0;
    for (int row = 0; row < n; row++)
        around(closed + (size_t)row * n, n, sums + (size_t)row * n);
    for (int row = 0; row < n; row++) {
        const uint8_t *rows[CROWD];
        for (int k = 0; k < CROWD; k++)
            rows[k] = sums + (size_t)inside(row + k - CROWD_REACH, n) * n;
        kept += keep_crowded(rows, n, closed + (size_t)row * n);
    }
    return kept;
}

/* Values of a row of blocks [blocks] -> pixels, linear between the blocks' centres, constant beyond. */
VECTORISED static void between_centres(const float *values, int blocks, float *pixels) {
    for (int i = 0; i < BLOCK / 2; i++)
        pixels[i] = values[0], pixels[BLOCK * blocks - 1 - i] = values[blocks - 1];
    for (int b = 0; b + 1 < blocks; b++)
        for (int i = 0; i < BLOCK; i++) {
            float far = (float)(2 * i + 1) / (2 * BLOCK), step = (values[b + 1] - values[b]) * far;
            pixels[BLOCK / 2 + BLOCK * b + i] = step + values[b];
        }
}

/* One row of pixels between the rows of two blocks' centres; only those that are chosen. */
VECTORISED static void smooth_row(const float *upper, const float *lower, const float *upper_count,
                                  const float *lower_count, float far, const uint16_t *chosen, int n, uint16_t *to) {
    for (int i = 0; i < n; i++) {
        float count = (lower_count[i] - upper_count[i]) * far + upper_count[i];
        count = count > 0.25f ? count : 0.25f;
        float step = (lower[i] - upper[i]) * far, average = (step + upper[i]) / count + 0.5f;
        to[i] = (uint16_t)((to[i] & ~chosen[i]) | ((uint16_t)(int32_t)average & chosen[i]));
    }
}

/* Whether any of up to 64 pixels is chosen. */
VECTORISED static int any_chosen(const uint16_t *chosen, int n) {
    uint16_t any = 0;
    for (int i = 0; i < n; i++)
        any |= chosen[i];
    return any != 0;
}

/* Chosen cells [cells, cells] as pixels [size, size], all bits set where chosen. */
static void as_pixels(const uint8_t *chosen, int size, int cell, uint16_t *pixels) {
    int cells = size / cell;
    for (int row = 0; row < size; row++) {
        uint16_t *to = pixels + (size_t)row * size;
        if (row % cell != 0) {
            memcpy(to, to - size, size * sizeof(uint16_t));
            continue;
        }
        for (int i = 0; i < cells; i++)
            for (int k = 0; k < cell; k++)
                to[i * cell + k] = (uint16_t)-chosen[(size_t)(row / cell) * cells + i];
    }
}

VECTORISED static void add_chosen(const uint16_t *row, const uint16_t *chosen, int n, uint32_t *columns) {
    for (int i = 0; i < n; i++)
        columns[i] += row[i] & chosen[i];
}

VECTORISED static void count_chosen(const uint16_t *chosen, int n, uint32_t *columns) {
    for (int i = 0; i < n; i++)
        columns[i] += chosen[i] & 1;
}

/* Sums over the chosen pixels of each block, or with no picture their number, a row of blocks at a time; between their
 * centres along the row. [blocks, size] */
static void rows_of_sums(const uint16_t *dn, int size, const uint16_t *chosen, float *rows) {
    uint32_t columns[MAX_SIDE];
    float sums[MAX_CELLS];
    for (int b = 0; b < size / BLOCK; b++) {
        memset(columns, 0, size * sizeof(columns[0]));
        for (size_t at = (size_t)b * BLOCK * size; at < (size_t)(b + 1) * BLOCK * size; at += size)
            if (dn == NULL)
                count_chosen(chosen + at, size, columns);
            else
                add_chosen(dn + at, chosen + at, size, columns);
        for (int i = 0; i < size / BLOCK; i++) {
            uint32_t sum = 0;
            for (int k = 0; k < BLOCK; k++)
                sum += columns[i * BLOCK + k];
            sums[i] = (float)sum;
        }
        between_centres(sums, size / BLOCK, rows + (size_t)b * size);
    }
}

/* The chosen pixels of a tile [bands, size, size] smoothed in place. `rows` [2, blocks, size] is written over. */
static void smooth(uint16_t *dn, int bands, int size, const uint16_t *chosen, float *rows) {
    int blocks = size / BLOCK;
    float *counts = rows + (size_t)blocks * size;
    rows_of_sums(NULL, size, chosen, counts);
    for (int b = 0; b < bands; b++) {
        uint16_t *band = dn + (size_t)b * size * size;
        rows_of_sums(band, size, chosen, rows);
        for (int y = 0; y < size; y++) {
            int above = y < BLOCK / 2 ? 0 : (y - BLOCK / 2) / BLOCK, next = above + 1 < blocks ? above + 1 : above;
            int sixteenths = 2 * ((y + BLOCK / 2) % BLOCK) + 1;
            float far = y < BLOCK / 2 || above == next ? 0.0f : (float)sixteenths / (2 * BLOCK);
            for (int x = 0; x < size; x += CELLS_AT_ONCE) {
                int n = size - x < CELLS_AT_ONCE ? size - x : CELLS_AT_ONCE;
                size_t up = (size_t)above * size + x, down = (size_t)next * size + x, at = (size_t)y * size + x;
                if (any_chosen(chosen + at, n))
                    smooth_row(rows + up, rows + down, counts + up, counts + down, far, chosen + at, n, band + at);
            }
        }
    }
}

/* A tile dn [bands, size, size] whose pixels are all valid, with its closed cloud smoothed, size = s w cell: `flat`.
 * `seen` [3 or more, size, size]: what the witness looks at. How many cells were smoothed; with none `flat` is not
 * written. `cells` [2, s h, s w], `chosen` [size, size] and `rows` [2, blocks, size] are written over. */
EXPORT int nadir_flatten(Span logits, Span exponentials, int s, int h, int w, float sure_above, int thin_too, Span seen,
                         int cell, Span dn, int bands, Span cells, Span chosen, Span rows, Span flat) {
    if ((cell != 2 && cell != 4) || !within(s, 1, BLOCK) || !within(h, 1, MAX_SIDE) || h != w ||
        !within(thin_too, 0, 1) || !within(bands, 1, 512) || s * w > MAX_SIDE / cell || s * w * cell % BLOCK != 0)
        return OUT_OF_RANGE;
    size_t n = (size_t)s * s * h * w, pixels = n * cell * cell, size = (size_t)s * w * cell;
    if (!HOLDS(logits, int8_t, CLOUD_CLASSES * n) || !HOLDS(exponentials, float, LEVELS) ||
        !HOLDS(seen, uint16_t, 3 * pixels) || !HOLDS(dn, uint16_t, bands * pixels) || !HOLDS(cells, uint8_t, 2 * n) ||
        !HOLDS(chosen, uint16_t, pixels) || !HOLDS(rows, float, 2 * (size / BLOCK) * size) ||
        !HOLDS(flat, uint16_t, bands * pixels))
        return BUFFER_TOO_SMALL;
    uint8_t *closed = cells.at;
    accused_cells(logits.at, exponentials.at, s, h, w, sure_above, thin_too, closed);
    closed_cells(seen.at, (int)size, cell, closed);
    int kept = crowded(closed, s * w, closed + n);
    if (kept == 0)
        return 0;
    as_pixels(closed, (int)size, cell, chosen.at);
    memcpy(flat.at, dn.at, bands * pixels * sizeof(uint16_t));
    smooth(flat.at, bands, (int)size, chosen.at, rows.at);
    return kept;
}
