/* Smooth noise of the generated scene; twin of `field` in sim/scenes/demo_noise.py. The same floats: both take the same
 * operations in the same order. */
#include "kernel.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

enum { OCTAVES = 24, BEYOND = 8 }; /* a coarse lattice may reach so many nodes further than the finest */

/* Nodes first..end-1 of a lattice. */
typedef struct {
    int first, end;
} Nodes;

static Nodes parents(Nodes fine) { return (Nodes){(fine.first >> 1) - 1, ((fine.end - 1) >> 1) + 2}; }

/* A line twice as fine, from coarse [n]: to [2 (n - 2)]. */
VECTORISED static void subdivide_line(const float *coarse, int n, float *restrict to) {
    for (int i = 0; i < n - 2; i++) {
        to[2 * i] = (coarse[i] + coarse[i + 2] + 6.0f * coarse[i + 1]) * 0.125f;
        to[2 * i + 1] = (coarse[i + 1] + coarse[i + 2]) * 0.5f;
    }
}

/* A line between three coarse ones: on the middle one, or half way to the last. */
VECTORISED static void between_lines(const float *a, const float *b, const float *c, int half, int n, float *restrict to) {
    if (half)
        for (int i = 0; i < n; i++)
            to[i] = (b[i] + c[i]) * 0.5f;
    else
        for (int i = 0; i < n; i++)
            to[i] = (a[i] + c[i] + 6.0f * b[i]) * 0.125f;
}

/* A row of hashed coefficients of nodes first..first+n-1: added to what is there, or in its place. */
VECTORISED static void add_fresh(uint32_t salt, int row, int first, int n, float amplitude, int add, float *restrict to) {
    uint32_t base = (uint32_t)row * 0x9E3779B1u;
    for (int i = 0; i < n; i++) {
        uint32_t mixed = (base + (uint32_t)(first + i) * 0x85EBCA77u) ^ salt;
        mixed ^= mixed >> 15, mixed *= 0x2C1B3C6Du;
        mixed ^= mixed >> 12, mixed *= 0x297A2D39u;
        mixed ^= mixed >> 15;
        float fresh = ((float)(int32_t)(mixed >> 8) * 0x1p-23f - 1.0f) * amplitude;
        to[i] = add ? to[i] + fresh : fresh;
    }
}

/* from [coarse rows][coarse cols] -> to [rows][cols]; wide [coarse rows][cols], line [2 coarse cols]. */
static void subdivide(const float *from, Nodes coarse_rows, Nodes coarse_cols, Nodes rows, Nodes cols, float *wide,
                      float *line, float *to) {
    int across = coarse_cols.end - coarse_cols.first, n = cols.end - cols.first;
    for (int r = 0; r < coarse_rows.end - coarse_rows.first; r++) {
        subdivide_line(from + (size_t)r * across, across, line);
        memcpy(wide + (size_t)r * n, line + cols.first - 2 * (coarse_cols.first + 1), (size_t)n * sizeof(float));
    }
    for (int row = rows.first; row < rows.end; row++, to += n) {
        int at = row - 2 * (coarse_rows.first + 1);
        const float *above = wide + (size_t)(at / 2) * n;
        between_lines(above, above + n, above + 2 * n, at & 1, n, to);
    }
}

/* to [h, w] f32: nodes row.., col.. of a field. salts, amplitudes [levels], finest first; amplitude 0 leaves a level out
 * unless it is the coarsest. scratch [3 (h + BEYOND) (w + BEYOND) + 2 (w + BEYOND)]. */
EXPORT int nadir_noise(Span salts, Span amplitudes, int levels, int row, int col, int h, int w, Span scratch, Span to) {
    if (!within(levels, 1, OCTAVES) || !within(h, 1, MAX_SIDE) || !within(w, 1, MAX_SIDE) ||
        !within(row, -(1 << 24), 1 << 24) || !within(col, -(1 << 24), 1 << 24))
        return OUT_OF_RANGE;
    size_t plane = (size_t)(h + BEYOND) * (w + BEYOND);
    if (!HOLDS(salts, uint32_t, levels) || !HOLDS(amplitudes, float, levels) ||
        !HOLDS(scratch, float, 3 * plane + 2 * (w + BEYOND)) || !HOLDS(to, float, (size_t)h * w))
        return BUFFER_TOO_SMALL;
    Nodes rows[OCTAVES] = {{row, row + h}}, cols[OCTAVES] = {{col, col + w}};
    for (int k = 1; k < levels; k++)
        rows[k] = parents(rows[k - 1]), cols[k] = parents(cols[k - 1]);
    float *coarse = scratch.at, *fine = coarse + plane, *wide = fine + plane, *line = wide + plane;
    for (int k = levels - 1; k >= 0; k--) {
        float amplitude = ((const float *)amplitudes.at)[k], *here = k ? fine : to.at;
        int coarsest = k == levels - 1, n = cols[k].end - cols[k].first;
        if (!coarsest)
            subdivide(coarse, rows[k + 1], cols[k + 1], rows[k], cols[k], wide, line, here);
        for (int r = rows[k].first; (coarsest || amplitude != 0.0f) && r < rows[k].end; r++)
            add_fresh(((const uint32_t *)salts.at)[k], r, cols[k].first, n, amplitude, !coarsest,
                      here + (size_t)(r - rows[k].first) * n);
        fine = coarse, coarse = here;
    }
    return 0;
}

/* 0 below `low`, 1 from 1 / times above it, a cubic between. */
VECTORISED static void smoothstep(const float *value, float low, float times, size_t n, float *restrict to) {
    for (size_t i = 0; i < n; i++) {
        float t = (value[i] - low) * times;
        t = t > 0.0f ? t : 0.0f;
        t = t < 1.0f ? t : 1.0f;
        to[i] = t * t * (3.0f - 2.0f * t);
    }
}

EXPORT int nadir_smoothstep(Span value, float low, float times, int n, Span to) {
    if (!within(n, 1, MAX_SIDE * MAX_SIDE))
        return OUT_OF_RANGE;
    if (!HOLDS(value, float, n) || !HOLDS(to, float, n))
        return BUFFER_TOO_SMALL;
    smoothstep(value.at, low, times, (size_t)n, to.at);
    return 0;
}

/* Places in a jittered grid [rows][cols] of the nearest point to each of n, one of the four cells around it. */
typedef struct {
    const float *east, *south, *first; /* [rows][cols] each; row and column of the first cell */
    float scale;                       /* cells a unit */
    int rows, cols;
} Jittered;

VECTORISED static int nearest(Jittered grid, const float *x, const float *y, int n, int32_t *to) {
    const int steps[4] = {0, 1, grid.cols, grid.cols + 1};
    for (int i = 0; i < n; i++) {
        float gx = x[i] * grid.scale, gy = y[i] * grid.scale, best = 9.0f;
        float row = floorf(gy - 0.5f) - grid.first[0], col = floorf(gx - 0.5f) - grid.first[1];
        if (!(row >= 0.0f && row < (float)(grid.rows - 1) && col >= 0.0f && col < (float)(grid.cols - 1)))
            return OUT_OF_RANGE;
        int at = (int)row * grid.cols + (int)col, owner = at;
        for (int k = 0; k < 4; k++) {
            float right = grid.east[at + steps[k]] - gx, down = grid.south[at + steps[k]] - gy;
            float distance = right * right + down * down;
            owner = distance < best ? at + steps[k] : owner;
            best = distance < best ? distance : best;
        }
        to[i] = owner;
    }
    return 0;
}

EXPORT int nadir_nearest(Span x, Span y, Span east, Span south, Span first, float scale, int rows, int cols, int n,
                         Span to) {
    if (!within(n, 1, MAX_SIDE * MAX_SIDE) || !within(rows, 2, MAX_SIDE) || !within(cols, 2, MAX_SIDE))
        return OUT_OF_RANGE;
    size_t cells = (size_t)rows * cols;
    if (!HOLDS(x, float, n) || !HOLDS(y, float, n) || !HOLDS(east, float, cells) || !HOLDS(south, float, cells) ||
        !HOLDS(first, float, 2) || !HOLDS(to, int32_t, n))
        return BUFFER_TOO_SMALL;
    return nearest((Jittered){east.at, south.at, first.at, scale, rows, cols}, x.at, y.at, n, to.at);
}
