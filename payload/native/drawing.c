/* Brushes of the generated scene; twins of what sim/scenes/demo_land.py and sim/scenes/demo.py say in numpy. The same
 * floats: both take the same operations in the same order. */
#include "kernel.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

/* One band [n] moves towards a colour by `weight`, the colour first multiplied by `shade` where there is one. */
VECTORISED static void blend(const float *weight, const float *shade, float colour, int n, float *restrict paint) {
    if (shade)
        for (int i = 0; i < n; i++)
            paint[i] += weight[i] * (colour * shade[i] - paint[i]);
    else
        for (int i = 0; i < n; i++)
            paint[i] += weight[i] * (colour - paint[i]);
}

/* paint [bands][n] towards colours [bands]; shade [n] or none. */
EXPORT int nadir_blend(Span weight, Span shade, Span colours, int bands, int n, Span paint) {
    if (!within(bands, 1, MAX_BANDS) || !within(n, 1, MAX_SIDE * MAX_SIDE))
        return OUT_OF_RANGE;
    if (!HOLDS(weight, float, n) || (shade.at && !HOLDS(shade, float, n)) || !HOLDS(colours, float, bands) ||
        !HOLDS(paint, float, (size_t)bands * n))
        return BUFFER_TOO_SMALL;
    for (int b = 0; b < bands; b++)
        blend(weight.at, shade.at, ((const float *)colours.at)[b], n, (float *)paint.at + (size_t)b * n);
    return 0;
}

static inline uint32_t hashed(uint32_t salt, uint32_t row, uint32_t col) {
    uint32_t hash = (row * 0x9E3779B1u + col * 0x85EBCA77u) ^ salt;
    hash ^= hash >> 15, hash *= 0x2C1B3C6Du;
    hash ^= hash >> 12, hash *= 0x297A2D39u;
    return hash ^ hash >> 15;
}

static inline float unit_of(uint32_t hash, int octet) {
    return (float)(int32_t)(hash >> 8 * octet & 0xFFFF) * 0x1p-16f;
}

/* What a pixel's place gives: its parcel's hash and the metres to its edge. */
VECTORISED static void parcels(const float *x, const float *y, const uint32_t *parish, const float *turns,
                               const uint32_t *salts, int n, uint32_t *restrict parcel, float *restrict edge) {
    for (int i = 0; i < n; i++) {
        float cosine = turns[parish[i] >> 4 & 15], sine = turns[16 + (parish[i] >> 4 & 15)];
        float u = x[i] * cosine + y[i] * sine, v = y[i] * cosine - x[i] * sine;
        float depth = 150.0f + 210.0f * unit_of(parish[i], 0), down = u / depth, row = floorf(down);
        uint32_t hash = hashed(salts[0], (uint32_t)(int32_t)row, parish[i]);
        float width = 80.0f + 260.0f * unit_of(hash, 1);
        v = v + 300.0f * unit_of(hash, 0);
        float across = v / width, col = floorf(across);
        parcel[i] = hashed(salts[1], (uint32_t)(int32_t)col, hash);
        float du = (down - row) * depth, dv = (across - col) * width;
        float far = depth - du, side = width - dv, near = du < far ? du : far;
        side = (dv < side ? dv : side) + 2.0f;
        edge[i] = near < side ? near : side;
    }
}

/* parcel, edge [n] of places x, y in metres and their parishes; turns [2][16]: cosines and sines; salts [2], mixed. */
EXPORT int nadir_parcels(Span x, Span y, Span parish, Span turns, Span salts, int n, Span parcel, Span edge) {
    if (!within(n, 1, MAX_SIDE * MAX_SIDE))
        return OUT_OF_RANGE;
    if (!HOLDS(x, float, n) || !HOLDS(y, float, n) || !HOLDS(parish, uint32_t, n) || !HOLDS(turns, float, 32) ||
        !HOLDS(salts, uint32_t, 2) || !HOLDS(parcel, uint32_t, n) || !HOLDS(edge, float, n))
        return BUFFER_TOO_SMALL;
    parcels(x.at, y.at, parish.at, turns.at, salts.at, n, parcel.at, edge.at);
    return 0;
}

/* Four octets of each half of a word, added. */
VECTORISED static void add_octets(const uint64_t *words, int n, float *restrict to) {
    for (int i = 0; i < n; i++) {
        uint64_t pairs = (words[i] & 0x00FF00FF00FF00FFu) + (words[i] >> 8 & 0x00FF00FF00FF00FFu);
        uint64_t sums = (pairs & 0x0000FFFF0000FFFFu) + (pairs >> 16 & 0x0000FFFF0000FFFFu);
        to[2 * i] = ((float)(int32_t)(uint32_t)sums - 510.0f) * (float)(1 / 147.8005);
        to[2 * i + 1] = ((float)(int32_t)(sums >> 32) - 510.0f) * (float)(1 / 147.8005);
    }
}

VECTORISED static void sense(const float *radiance, const float *noise, float read, float shot, int n,
                             uint16_t *restrict dn) {
    for (int i = 0; i < n; i++) {
        float level = radiance[i] * 10000.0f;
        level += noise[i] * sqrtf(read + shot * level);
        float count = rintf(level * 0.25f);
        count = count > 1.0f ? count : 1.0f;
        dn[i] = (uint16_t)((int32_t)(count < 4095.0f ? count : 4095.0f) * 4);
    }
}

/* dn [n], multiples of 4, of reflectances; words [n / 2] of noise, whose variance is read + shot x DN. */
EXPORT int nadir_sense(Span radiance, Span words, float read, float shot, int n, Span dn) {
    enum { CHUNK = 1024 };
    if (!within(n, 2, MAX_SIDE * MAX_SIDE) || n % 2)
        return OUT_OF_RANGE;
    if (!HOLDS(radiance, float, n) || !HOLDS(words, uint64_t, n / 2) || !HOLDS(dn, uint16_t, n))
        return BUFFER_TOO_SMALL;
    float noise[CHUNK];
    for (int i = 0; i < n; i += CHUNK) {
        int count = n - i < CHUNK ? n - i : CHUNK;
        add_octets((const uint64_t *)words.at + i / 2, count / 2, noise);
        sense((const float *)radiance.at + i, noise, read, shot, count, (uint16_t *)dn.at + i);
    }
    return 0;
}
