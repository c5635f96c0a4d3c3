/* Pixels near to set ones, for the mask that users read; twin of `within` in sim/clouds/outline.py. */
#include "kernel.h"

/* away [h][w]: rows to the nearest set pixel of its column, more than `reach` where there is none. */
static void rows_away(const uint8_t *pixels, int h, int w, int reach, int32_t *away) {
    for (int i = 0; i < h * w; i++) {
        int above = i < w ? reach : away[i - w];
        away[i] = pixels[i] ? 0 : above < reach ? above + 1 : reach + 1;
    }
    for (int i = (h - 1) * w - 1; i >= 0; i--)
        away[i] = away[i + w] + 1 < away[i] ? away[i + w] + 1 : away[i];
}

/* near [h][w]: pixels that lie in the disc of half widths [reach + 1], by rows away, around a set one. away [h w + w + 1]. */
EXPORT int nadir_near(Span pixels, int h, int w, Span half_widths, int reach, Span away, Span near) {
    if (!within(h, 1, MAX_SIDE) || !within(w, 1, MAX_SIDE) || !within(reach, 0, 1 << 20))
        return OUT_OF_RANGE;
    size_t n = (size_t)h * w;
    if (!HOLDS(pixels, uint8_t, n) || !HOLDS(half_widths, int32_t, reach + 1) || !HOLDS(away, int32_t, n + w + 1) ||
        !HOLDS(near, uint8_t, n))
        return BUFFER_TOO_SMALL;
    int32_t *rows = away.at, *steps = rows + n;
    rows_away(pixels.at, h, w, reach, rows);
    for (int y = 0; y < h; y++) {
        memset(steps, 0, (w + 1) * sizeof *steps);
        for (int x = 0; x < w; x++) {
            int down = rows[y * w + x], half = down > reach ? -1 : ((const int32_t *)half_widths.at)[down];
            if (half < 0)
                continue;
            steps[half < x ? x - half : 0]++;
            steps[half < w - 1 - x ? x + half + 1 : w]--;
        }
        for (int x = 0, covered = 0; x < w; x++)
            ((uint8_t *)near.at)[y * w + x] = (covered += steps[x]) > 0;
    }
    return 0;
}
