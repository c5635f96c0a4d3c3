/* The cloud network in integers, layer by layer as payload/clouds/layers.py lays it out; what OpenVINO computes.
 *
 * Activations are octets [channels / 16][side + 4][side + 4][16] with zeros around them, so that no convolution asks
 * where the picture ends; each layer ends in shifts, because all scales are powers of two. */
#include "kernel.h"

enum { GROUP = 16, AROUND = 2, QUAD = 4, MOST_WIDTH = 1024, MOST_QUADS = MOST_WIDTH / 2, MOST_SHIFT = 20, MOST_BIAS = 1 << 24 };
/* Columns of the table of layers; what is added has half the side where LAYER_HALF is set. */
enum { LAYER_KERNEL, LAYER_STRIDE, LAYER_SIDE, LAYER_WIDTH_IN, LAYER_WIDTH, LAYER_IN, LAYER_OUT, LAYER_ADDED, LAYER_HALF,
       LAYER_QUAD_COUNT, LAYER_QUADS, LAYER_WEIGHTS, LAYER_CHANNELS, LAYER_SIGNED, LAYER_COLUMNS };

/* kernel 1: every channel from all, in the order of `quads` of four channels each, two quads together; 3 or 5: every
 * channel from itself, its weights in quads of places. */
typedef struct {
    int kernel, stride, side, width_in, width, half, is_signed, quad_count;
    const int32_t *quads;
    const uint8_t *in, *added; /* added: NULL where nothing is */
    uint8_t *out;
    const int8_t *weights;
    const int32_t *bias, *down, *up; /* of each channel: v = bias + sum + (added << up), rounded by `down` bits */
} Convolution;

static int quads_of(int kernel) { return (kernel * kernel + QUAD - 1) / QUAD; }

static size_t place(int side, int group, int y, int x) {
    int wide = side + 2 * AROUND;
    return (((size_t)group * wide + y + AROUND) * wide + x + AROUND) * GROUP;
}

static size_t octets_of(int width, int side) {
    size_t wide = (size_t)side + 2 * AROUND;
    return wide * wide * (size_t)width;
}

static const uint8_t *added_at(const Convolution *l, int group, int y, int x) {
    if (l->added == NULL)
        return NULL;
    return l->added + (l->half ? place(l->side / 2, group, y / 2, x / 2) : place(l->side, group, y, x));
}

static void without_edges(uint8_t *picture, int width, int side) {
    size_t row = (size_t)(side + 2 * AROUND) * GROUP, edge = AROUND * GROUP;
    for (int g = 0; g < width / GROUP; g++, picture += (side + 2 * AROUND) * row) {
        memset(picture, 0, AROUND * row);
        memset(picture + (side + AROUND) * row, 0, AROUND * row);
        for (int y = AROUND; y < side + AROUND; y++) {
            memset(picture + y * row, 0, edge);
            memset(picture + (y + 1) * row - edge, 0, edge);
        }
    }
}

/* Half to even, as the runtimes round; down >= 1. */
static int32_t rounded(int32_t v, int32_t down) { return (v + (1 << (down - 1)) - 1 + (v >> down & 1)) >> down; }

static void end_plain(const Convolution *l, const int32_t *sums, int group, int y, int x) {
    const uint8_t *added = added_at(l, group, y, x);
    uint8_t *out = l->out + place(l->side, group, y, x);
    int32_t least = l->is_signed ? -128 : 0, most = l->is_signed ? 127 : 255;
    for (int c = 0; c < GROUP; c++) {
        int at = group * GROUP + c;
        int32_t v = rounded(l->bias[at] + sums[c] + (added ? (int32_t)added[c] << l->up[at] : 0), l->down[at]);
        out[c] = (uint8_t)(v < least ? least : v > most ? most : v);
    }
}

static size_t quad_at(int side, int quad) { return place(side, quad / QUAD, -AROUND, -AROUND) + quad % QUAD * QUAD; }

/* weights [width / 16][quads][16][4] */
static void dense_plain(const Convolution *l, int group, int y, int x) {
    int32_t sums[GROUP] = {0};
    const int8_t *w = l->weights + (size_t)group * GROUP * QUAD * l->quad_count;
    for (int q = 0; q < l->quad_count; q++) {
        const uint8_t *four = l->in + place(l->side, 0, y, x) + quad_at(l->side, l->quads[q]);
        for (int c = 0; c < GROUP; c++, w += QUAD)
            for (int k = 0; k < QUAD; k++)
                sums[c] += four[k] * w[k];
    }
    end_plain(l, sums, group, y, x);
}

/* weights [width / 16][places / 4][16][4] */
static void depthwise_plain(const Convolution *l, int group, int y, int x) {
    int32_t sums[GROUP] = {0};
    const int8_t *w = l->weights + (size_t)group * GROUP * QUAD * quads_of(l->kernel);
    int side = l->side * l->stride, reach = l->kernel / 2;
    for (int t = 0; t < l->kernel * l->kernel; t++) {
        int row = y * l->stride + t / l->kernel - reach, col = x * l->stride + t % l->kernel - reach;
        const uint8_t *from = l->in + place(side, group, row, col);
        const int8_t *weight = w + t / QUAD * GROUP * QUAD + t % QUAD;
        for (int c = 0; c < GROUP; c++)
            sums[c] += from[c] * weight[QUAD * c];
    }
    end_plain(l, sums, group, y, x);
}

static void plain(const Convolution *l) {
    for (int y = 0; y < l->side; y++)
        for (int x = 0; x < l->side; x++)
            for (int g = 0; g < l->width / GROUP; g++)
                (l->kernel == 1 ? dense_plain : depthwise_plain)(l, g, y, x);
}

#if HAVE_AVX2
#define VNNI __attribute__((target("avx2,avx512vl,avx512vnni")))
static int use_vnni(void) {
    return loops_taken == ALL_LOOPS && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

/* What ends the sums of eight channels, or of four channels of two positions. */
typedef struct {
    __m256i bias, down, up, nudge;
} Ending;

AVX2 static Ending ending(__m256i bias, __m256i down, __m256i up) {
    __m256i one = _mm256_set1_epi32(1), half = _mm256_srli_epi32(_mm256_sllv_epi32(one, down), 1);
    return (Ending){bias, down, up, _mm256_sub_epi32(half, one)};
}

AVX2 static Ending ending_8(const Convolution *l, int channel) {
    return ending(_mm256_loadu_si256((const __m256i *)(l->bias + channel)),
                  _mm256_loadu_si256((const __m256i *)(l->down + channel)),
                  _mm256_loadu_si256((const __m256i *)(l->up + channel)));
}

AVX2 static __m256i twice(const void *from) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)from));
}

AVX2 static __m256i rounded_8(__m256i v, const Ending *e) {
    __m256i odd = _mm256_and_si256(_mm256_srav_epi32(v, e->down), _mm256_set1_epi32(1));
    return _mm256_srav_epi32(_mm256_add_epi32(_mm256_add_epi32(v, e->nudge), odd), e->down);
}

AVX2 static __m256i with_added(__m256i sum, const uint8_t *added, const Ending *e) {
    __m256i values = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)added));
    return _mm256_add_epi32(sum, _mm256_sllv_epi32(values, e->up));
}

/* The sums of four octets times their weights, for eight channels. */
AVX2 static __m256i plus_four(__m256i sum, __m256i octets, __m256i weights) {
    __m256i pairs = _mm256_maddubs_epi16(octets, weights); /* 2 x 255 x 64 fits 16 bits */
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* The same of two times four, whose pairs of products fit 16 bits together: that is how they were chosen. */
AVX2 static inline __m256i plus_eight(__m256i sum, __m256i first, __m256i second, const int8_t *w) {
    __m256i a = _mm256_maddubs_epi16(first, _mm256_loadu_si256((const __m256i *)w));
    __m256i b = _mm256_maddubs_epi16(second, _mm256_loadu_si256((const __m256i *)(w + GROUP * QUAD)));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(a, b), _mm256_set1_epi16(1)));
}

typedef __m256i (*PlusEight)(__m256i sum, __m256i first, __m256i second, const int8_t *w);

/* The same where a processor adds up products of octets by itself: they are exact at any size. */
VNNI static inline __m256i plus_eight_vnni(__m256i sum, __m256i first, __m256i second, const int8_t *w) {
    sum = _mm256_dpbusd_epi32(sum, first, _mm256_loadu_si256((const __m256i *)w));
    return _mm256_dpbusd_epi32(sum, second, _mm256_loadu_si256((const __m256i *)(w + GROUP * QUAD)));
}

AVX2 static __m256i same_four(const uint8_t *four) {
    int32_t octets;
    memcpy(&octets, four, sizeof octets);
    return _mm256_set1_epi32(octets);
}

/* Sixteen channels of two positions, from the sums of eight each: rounded, as octets. added: of both, or NULL. */
AVX2 static inline __attribute__((always_inline)) __m256i ended(__m256i a, __m256i b, __m256i c, __m256i d, const Ending *e,
                                                                const uint8_t *near, const uint8_t *far, int is_signed) {
    if (near != NULL) {
        a = with_added(a, near, e), b = with_added(b, near + 8, e + 1);
        c = with_added(c, far, e), d = with_added(d, far + 8, e + 1);
    }
    a = _mm256_packs_epi32(rounded_8(a, e), rounded_8(b, e + 1));
    c = _mm256_packs_epi32(rounded_8(c, e), rounded_8(d, e + 1));
    __m256i octets = is_signed ? _mm256_packs_epi16(a, c) : _mm256_packus_epi16(a, c);
    return _mm256_permutevar8x32_epi32(octets, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Four positions of a row, sixteen channels each: eight sums stay in registers. at: the positions' first channels;
 * offsets: of the quads from there; added: of the first and the last two positions, or NULL; e [2];
 * plus: plus_eight, or what does the same. */
AVX2 static inline __attribute__((always_inline)) void dense_four(const Convolution *l, const uint8_t *at, const int *offsets,
                                                                  const int8_t *w, const Ending *e, const uint8_t *added,
                                                                  uint8_t *out, PlusEight plus) {
    __m256i a0 = e[0].bias, a1 = a0, a2 = a0, a3 = a0, b0 = e[1].bias, b1 = b0, b2 = b0, b3 = b0, first, second;
#pragma GCC unroll 1
    for (int q = 0; q < l->quad_count; q += 2, w += 2 * GROUP * QUAD) {
        const uint8_t *one = at + offsets[q], *two = at + offsets[q + 1];
        first = same_four(one), second = same_four(two);
        a0 = plus(a0, first, second, w), b0 = plus(b0, first, second, w + 32);
        first = same_four(one + 16), second = same_four(two + 16);
        a1 = plus(a1, first, second, w), b1 = plus(b1, first, second, w + 32);
        first = same_four(one + 32), second = same_four(two + 32);
        a2 = plus(a2, first, second, w), b2 = plus(b2, first, second, w + 32);
        first = same_four(one + 48), second = same_four(two + 48);
        a3 = plus(a3, first, second, w), b3 = plus(b3, first, second, w + 32);
    }
    int step = l->half ? 0 : GROUP;
    const uint8_t *later = added == NULL ? NULL : added + (l->half ? GROUP : 2 * GROUP);
    __m256i *to = (__m256i *)out;
    _mm256_storeu_si256(to, ended(a0, b0, a1, b1, e, added, added + step, l->is_signed));
    _mm256_storeu_si256(to + 1, ended(a2, b2, a3, b3, e, later, later + step, l->is_signed));
}

AVX2 static inline __attribute__((always_inline)) void dense(const Convolution *l, PlusEight plus) {
    int offsets[MOST_QUADS], groups = l->width / GROUP;
    Ending e[MOST_WIDTH / 8];
    for (int q = 0; q < l->quad_count; q++)
        offsets[q] = (int)quad_at(l->side, l->quads[q]);
    for (int k = 0; k < 2 * groups; k++)
        e[k] = ending_8(l, 8 * k);
    for (int y = 0; y < l->side; y++)
        for (int g = 0; g < groups; g++) {
            const uint8_t *at = l->in + place(l->side, 0, y, 0), *added = added_at(l, g, y, 0);
            const int8_t *w = l->weights + (size_t)g * GROUP * QUAD * l->quad_count;
            uint8_t *out = l->out + place(l->side, g, y, 0);
            for (int x = 0; x < l->side; x += 4)
                dense_four(l, at + x * GROUP, offsets, w, e + 2 * g,
                           added == NULL ? NULL : added + (l->half ? x / 2 : x) * GROUP, out + x * GROUP, plus);
        }
}

VNNI static void dense_vnni(const Convolution *l) { dense(l, plus_eight_vnni); }

AVX2 static void dense_avx2(const Convolution *l) {
    if (use_vnni())
        dense_vnni(l);
    else
        dense(l, plus_eight);
}

/* Two positions of a row, sixteen channels each, from four places at a time. offsets [4 quads]: of the places; e [4]. */
AVX2 static inline __attribute__((always_inline)) void depthwise_two(const uint8_t *centre, const int8_t *w, int quads,
                                                                     const int *offsets, int stride, const Ending *e,
                                                                     uint8_t *out) {
    __m256i s0 = e[0].bias, s1 = e[1].bias, s2 = e[2].bias, s3 = e[3].bias, p[QUAD];
    for (int q = 0; q < quads; q++, w += GROUP * QUAD) {
        for (int k = 0; k < QUAD; k++) {
            const uint8_t *at = centre + offsets[QUAD * q + k];
            p[k] = stride == 1 ? _mm256_loadu_si256((const __m256i *)at)
                               : _mm256_loadu2_m128i((const __m128i *)(at + 2 * GROUP), (const __m128i *)at);
        }
        __m256i a = _mm256_unpacklo_epi8(p[0], p[1]), b = _mm256_unpacklo_epi8(p[2], p[3]);
        __m256i c = _mm256_unpackhi_epi8(p[0], p[1]), d = _mm256_unpackhi_epi8(p[2], p[3]);
        s0 = plus_four(s0, _mm256_unpacklo_epi16(a, b), twice(w));
        s1 = plus_four(s1, _mm256_unpackhi_epi16(a, b), twice(w + 16));
        s2 = plus_four(s2, _mm256_unpacklo_epi16(c, d), twice(w + 32));
        s3 = plus_four(s3, _mm256_unpackhi_epi16(c, d), twice(w + 48));
    }
    __m256i near = _mm256_packs_epi32(rounded_8(s0, e), rounded_8(s1, e + 1));
    __m256i far = _mm256_packs_epi32(rounded_8(s2, e + 2), rounded_8(s3, e + 3));
    _mm256_storeu_si256((__m256i *)out, _mm256_packus_epi16(near, far));
}

AVX2 static inline __attribute__((always_inline)) void depthwise_rows(const Convolution *l, const int *offsets, int stride,
                                                                      int group) {
    const int8_t *w = l->weights + (size_t)group * GROUP * QUAD * quads_of(l->kernel);
    Ending e[4];
    for (int k = 0; k < 4; k++) {
        int channel = group * GROUP + 4 * k;
        e[k] = ending(twice(l->bias + channel), twice(l->down + channel), _mm256_setzero_si256());
    }
    for (int y = 0; y < l->side; y++)
        for (int x = 0; x < l->side; x += 2)
            depthwise_two(l->in + place(l->side * stride, group, y * stride, x * stride), w, quads_of(l->kernel), offsets,
                          stride, e, l->out + place(l->side, group, y, x));
}

AVX2 static void depthwise_avx2(const Convolution *l) {
    int offsets[2 * GROUP] = {0}, wide = l->side * l->stride + 2 * AROUND, reach = l->kernel / 2;
    for (int t = 0; t < l->kernel * l->kernel; t++)
        offsets[t] = ((t / l->kernel - reach) * wide + t % l->kernel - reach) * GROUP;
    for (int g = 0; g < l->width / GROUP; g++)
        if (l->stride == 1)
            depthwise_rows(l, offsets, 1, g);
        else
            depthwise_rows(l, offsets, 2, g);
}

/* Sixteen rows of sixteen octets -> sixteen columns of them, `pitch` apart. */
AVX2 static void turned(const uint8_t *rows, int8_t *columns, size_t pitch) {
    __m128i a[2][GROUP];
    for (int i = 0; i < GROUP; i++)
        a[0][i] = _mm_loadu_si128((const __m128i *)(rows + (size_t)i * GROUP));
    for (int turn = 0; turn < 4; turn++)
        for (int i = 0; i < GROUP / 2; i++) {
            const __m128i *from = a[turn & 1];
            a[~turn & 1][2 * i] = _mm_unpacklo_epi8(from[i], from[i + GROUP / 2]);
            a[~turn & 1][2 * i + 1] = _mm_unpackhi_epi8(from[i], from[i + GROUP / 2]);
        }
    for (int i = 0; i < GROUP; i++)
        _mm_storeu_si128((__m128i *)(columns + i * pitch), a[0][i]);
}
#endif

static void convolve(const Convolution *l) {
    without_edges(l->out, l->width, l->side);
#if HAVE_AVX2
    if (use_avx2() && l->side % 4 == 0) {
        (l->kernel == 1 ? dense_avx2 : depthwise_avx2)(l);
        return;
    }
#endif
    plain(l);
}

/* planes [count][n][n] -> patches of k x k as channels [count k k] of [n / k, n / k] positions: plane, row, column. */
static inline __attribute__((always_inline)) void patches_of(const uint8_t *planes, int count, int n, int k, uint8_t *out) {
    int side = n / k;
    for (int c = 0; c < count; c++)
        for (int row = 0; row < n; row++) {
            int tap = (c * k + row % k) * k;
            const uint8_t *from = planes + ((size_t)c * n + row) * n;
            uint8_t *to = out + place(side, tap / GROUP, row / k, 0) + tap % GROUP;
            for (int x = 0; x < side; x++)
                memcpy(to + (size_t)x * GROUP, from + (size_t)x * k, k);
        }
}

/* Octets [width / 16][side][side][16] between their edges -> [width][side][side]. */
static void channels_first(const uint8_t *picture, int width, int side, int8_t *out) {
    for (int g = 0; g < width / GROUP; g++)
        for (int y = 0; y < side; y++) {
            const uint8_t *row = picture + place(side, g, y, 0);
            int8_t *to = out + ((size_t)g * GROUP * side + y) * side;
            size_t pitch = (size_t)side * side;
            int x = 0;
#if HAVE_AVX2
            for (; use_avx2() && x + GROUP <= side; x += GROUP)
                turned(row + x * GROUP, to + x, pitch);
#endif
            for (; x < side; x++)
                for (int c = 0; c < GROUP; c++)
                    to[c * pitch + x] = (int8_t)row[x * GROUP + c];
        }
}

/* Arrays that a table of layers points into. */
typedef struct {
    Span quads, weights, bias, down, up, arena;
} Network;

static int holds_from(Span span, size_t element, int32_t first, size_t count) {
    return span.at != NULL && first >= 0 && span.octets / element >= (size_t)first && span.octets / element - first >= count;
}

static int shifts_fit(const int32_t *shifts, int count, int least) {
    for (int i = 0; i < count; i++)
        if (!within(shifts[i], least, MOST_SHIFT))
            return 0;
    return 1;
}

static int quads_fit(const int32_t *quads, int count, int width_in) {
    for (int q = 0; q < count; q++)
        if (!within(quads[q], 0, width_in / QUAD - 1))
            return 0;
    return count % 2 == 0;
}

static int biases_fit(const int32_t *bias, int count) {
    for (int i = 0; i < count; i++)
        if (!within(bias[i], -MOST_BIAS, MOST_BIAS))
            return 0;
    return 1;
}

/* A row of the table as a layer; 0 where it would lead outside or sums would not fit. */
static int read_layer(const int32_t *row, const Network *net, Convolution *l) {
    int kernel = row[LAYER_KERNEL], stride = row[LAYER_STRIDE], side = row[LAYER_SIDE], half = row[LAYER_HALF];
    int width = row[LAYER_WIDTH], width_in = row[LAYER_WIDTH_IN], first = row[LAYER_CHANNELS], added = row[LAYER_ADDED];
    if ((kernel != 1 && kernel != 3 && kernel != 5) || !within(stride, 1, kernel == 1 ? 1 : 2) ||
        !within(side, 1, MAX_CELLS) || !within(width, GROUP, MOST_WIDTH) || !within(width_in, GROUP, MOST_WIDTH) ||
        width % GROUP || width_in % GROUP || (kernel > 1 && (width != width_in || added >= 0)) || !within(half, 0, 1) ||
        (half && side % 2))
        return 0;
    int quads = row[LAYER_QUAD_COUNT];
    if (!within(quads, 0, MOST_QUADS) || !holds_from(net->quads, sizeof *l->quads, row[LAYER_QUADS], quads) ||
        !holds_from(net->weights, 1, row[LAYER_WEIGHTS], (size_t)width * QUAD * (kernel == 1 ? quads : quads_of(kernel))) ||
        !holds_from(net->bias, sizeof *l->bias, first, width) || !holds_from(net->down, sizeof *l->down, first, width) ||
        !holds_from(net->up, sizeof *l->up, first, width) ||
        !holds_from(net->arena, 1, row[LAYER_IN], octets_of(width_in, side * stride)) ||
        !holds_from(net->arena, 1, row[LAYER_OUT], octets_of(width, side)) ||
        (added >= 0 && !holds_from(net->arena, 1, added, octets_of(width, half ? side / 2 : side))))
        return 0;
    uint8_t *arena = net->arena.at;
    *l = (Convolution){
        kernel, stride, side, width_in, width, half, row[LAYER_SIGNED] != 0, quads,
        (const int32_t *)net->quads.at + row[LAYER_QUADS],
        arena + row[LAYER_IN], added < 0 ? NULL : arena + added, arena + row[LAYER_OUT],
        (const int8_t *)net->weights.at + row[LAYER_WEIGHTS],
        (const int32_t *)net->bias.at + first, (const int32_t *)net->down.at + first, (const int32_t *)net->up.at + first,
    };
    return quads_fit(l->quads, quads, width_in) && shifts_fit(l->down, width, 1) && shifts_fit(l->up, width, 0) && biases_fit(l->bias, width);
}

/* logits [width of the last layer][side][side] of planes [count][n][n], cut into patches of cell x cell. */
EXPORT int nadir_cloud_network(Span planes, int count, int n, int cell, Span layers, int layer_count, Span quads,
                               Span weights, Span bias, Span down, Span up, Span arena, Span logits) {
    if (!within(count, 1, 2 * MAX_BANDS + 4) || !within(n, 1, MAX_SIDE / 2) || (cell != 2 && cell != 4) || n % cell ||
        !within(layer_count, 1, 64))
        return OUT_OF_RANGE;
    if (!HOLDS(planes, uint8_t, (size_t)count * n * n) || !HOLDS(layers, int32_t, layer_count * LAYER_COLUMNS) ||
        quads.at == NULL || weights.at == NULL || bias.at == NULL || down.at == NULL || up.at == NULL || arena.at == NULL)
        return BUFFER_TOO_SMALL;
    Network net = {quads, weights, bias, down, up, arena};
    Convolution l;
    for (int i = 0; i < layer_count; i++) {
        if (!read_layer((const int32_t *)layers.at + i * LAYER_COLUMNS, &net, &l))
            return TABLES_DAMAGED;
        if (i == 0) {
            if (l.kernel != 1 || l.width_in != count * cell * cell || l.side != n / cell)
                return TABLES_DAMAGED;
            uint8_t *patches = (uint8_t *)arena.at + (l.in - (const uint8_t *)arena.at);
            if (cell == 2)
                patches_of(planes.at, count, n, 2, patches);
            else
                patches_of(planes.at, count, n, 4, patches);
        }
        if (i == layer_count - 1 && !HOLDS(logits, int8_t, (size_t)l.width * l.side * l.side))
            return BUFFER_TOO_SMALL;
        convolve(&l);
    }
    channels_first(l.out, l.width, l.side, logits.at);
    return 0;
}
