/* What both sides know of a coefficient, and its features; twin of payload/codec/lapped/context_model.py. */
#include "kernel.h"

typedef struct {
    const Model *model;
    const Layer *layer;
    int h, w, pitch, plane, span; /* a plane: h + 4 rows of w + 4; span: the inner rows, whole vectors */
    int features, ends[SUMS];
    const int16_t *busy; /* [B] activity less its centre */
    uint8_t *known;      /* [C + 1][plane] */
    uint8_t *some;       /* [C] whether anything is known of a channel but zeros */
    uint16_t *sums;      /* [B][4][plane] of what is known, by zone */
    uint8_t *block;      /* [B][5][plane] */
    uint8_t *around;     /* [B][5][plane] */
    uint8_t changed[MAX_BANDS * ZONES]; /* whether sums of a zone are others than `block` was made of */
    uint8_t *block_some; /* [B][5] whether there is anything but zeros in a plane of `block`, hence of `around` */
    uint8_t *cross;      /* [C][span] sums over the four next blocks, where `crossed` [C] says so */
    uint8_t *crossed;
    uint8_t *added;      /* [F][span] features that are sums of other channels */
    const uint8_t *x[MAX_FEATURES]; /* [F] of a channel, each [span]; `nothing` where all are zero or nobody looks */
    const uint8_t *nothing;
    uint8_t *zone_logs;  /* [B][5][span / 32][64] logarithms of `block` and `around`, octet by octet in turns */
    uint8_t *found;      /* [C][span] classes of the group's channels, in its order */
    int16_t *base;       /* [span] */
    int16_t *logits;     /* [group][span] of the group's channels; NULL where only classes are wanted */
} Contexts;

static int plane_of(int h, int w) { return (h + 2 * PAD) * (w + 2 * PAD) + 2 * STEP; }
static int span_of(int h, int w) { return (h * (w + 2 * PAD) + STEP - 1) / STEP * STEP; }

static size_t context_octets(int channels, int h, int w) {
    int bands = channels / COEFFICIENTS;
    return (size_t)(channels + 1 + 10 * bands) * plane_of(h, w) +
           (size_t)(MAX_FEATURES + 2 * channels + 10 * bands + 2) * span_of(h, w) + 2 * channels + 5 * bands +
           sizeof(uint16_t) * ((size_t)(bands * ZONES + 1) * plane_of(h, w) + 1);
}

static size_t inner(const Contexts *t) { return (size_t)PAD * t->pitch + PAD; }

static void open_contexts(Contexts *t, const Model *model, const Layer *layer, int h, int w, const int16_t *busy,
                          uint8_t *scratch) {
    int channels = model->bands * COEFFICIENTS;
    t->model = model, t->layer = layer, t->busy = busy, t->logits = NULL;
    t->h = h, t->w = w, t->pitch = w + 2 * PAD, t->plane = plane_of(h, w), t->span = span_of(h, w);
    t->ends[0] = 3, t->ends[1] = 8, t->ends[2] = 8 + 2 * (model->bands - 1), t->ends[3] = t->ends[2] + 10;
    t->features = t->ends[3];
    t->known = scratch;
    t->block = t->known + (size_t)(channels + 1) * t->plane;
    t->around = t->block + (size_t)5 * model->bands * t->plane;
    t->added = t->around + (size_t)5 * model->bands * t->plane;
    t->cross = t->added + (size_t)MAX_FEATURES * t->span;
    t->zone_logs = t->cross + (size_t)channels * t->span;
    t->found = t->zone_logs + (size_t)10 * model->bands * t->span;
    t->some = t->found + (size_t)channels * t->span;
    t->crossed = t->some + channels;
    t->block_some = t->crossed + channels;
    t->base = (int16_t *)(((uintptr_t)(t->block_some + 5 * model->bands) + 1) & ~(uintptr_t)1);
    t->sums = (uint16_t *)(t->base + t->span);
    memset(t->sums, 0, (size_t)model->bands * ZONES * t->plane * sizeof *t->sums);
    memset(t->known, 0, (size_t)(channels + 1) * t->plane);
    memset(t->changed, 0, sizeof t->changed);
    memset(t->block_some, 0, (size_t)5 * model->bands);
    memset(t->some, 0, (size_t)channels);
    memset(t->crossed, 0, (size_t)channels);
    t->nothing = t->known + (size_t)channels * t->plane + inner(t);
}

static int know_plain(const uint16_t *from, int count, int shift, int twice, uint8_t *to) {
    int some = 0;
    for (int i = 0; i < count; i++) {
        unsigned here = (unsigned)(from[i] >> shift) << twice;
        to[i] = (uint8_t)(here < KNOWN_LIMIT ? here : KNOWN_LIMIT);
        some |= to[i];
    }
    return some;
}

#if HAVE_AVX2
AVX2 static int know_avx2(const uint16_t *from, int count, int shift, int twice, uint8_t *to) {
    const __m256i limit = _mm256_set1_epi16(KNOWN_LIMIT);
    const __m128i down = _mm_cvtsi32_si128(shift), up = _mm_cvtsi32_si128(twice);
    __m256i any = _mm256_setzero_si256();
    int i = 0;
    for (; i + 16 <= count; i += 16) {
        __m256i here = _mm256_srl_epi16(_mm256_loadu_si256((const __m256i *)(from + i)), down);
        here = _mm256_min_epu16(_mm256_sll_epi16(_mm256_min_epu16(here, limit), up), limit);
        any = _mm256_or_si256(any, here);
        here = _mm256_packus_epi16(here, here);
        _mm_storeu_si128((__m128i *)(to + i),
                         _mm256_castsi256_si128(_mm256_permute4x64_epi64(here, _MM_SHUFFLE(3, 1, 2, 0))));
    }
    return know_plain(from + i, count - i, shift, twice, to + i) | !_mm256_testz_si256(any, any);
}
#endif

VECTORISED static void add_plane(uint16_t *restrict to, const uint8_t *restrict from, int n, int sign) {
    for (int i = 0; i < n; i++)
        to[i] = (uint16_t)(sign > 0 ? to[i] + from[i] : to[i] - from[i]);
}

/* What is known of a channel [h][w] from its magnitudes, doubled if `twice`. */
static void know(Contexts *t, int channel, const uint16_t *magnitude, int shift, int twice) {
    uint8_t *plane = t->known + (size_t)channel * t->plane, *to = plane + inner(t);
    int zone = t->model->zone[channel % COEFFICIENTS], some = 0, vector = use_avx2();
    uint16_t *sums = t->sums + (size_t)(channel / COEFFICIENTS * ZONES + zone) * t->plane;
    if (t->some[channel] && zone >= 0)
        add_plane(sums, plane, t->plane, -1);
    if (zone >= 0)
        t->changed[channel / COEFFICIENTS * ZONES + zone] = 1;
    for (int row = 0; row < t->h; row++) {
#if HAVE_AVX2
        if (vector)
            some |= know_avx2(magnitude + row * t->w, t->w, shift, twice, to + row * t->pitch);
#endif
        if (!vector)
            some |= know_plain(magnitude + row * t->w, t->w, shift, twice, to + row * t->pitch);
    }
    t->some[channel] = some != 0;
    t->crossed[channel] = 0;
    if (some && zone >= 0)
        add_plane(sums, plane, t->plane, 1);
}

/* Where what is known of a channel [h][pitch] is written, and summed up for its zone (NULL: for none). */
static void place_of_channel(Contexts *t, int channel, uint8_t **known, uint16_t **sums) {
    int zone = t->model->zone[channel % COEFFICIENTS];
    *known = t->known + (size_t)channel * t->plane + inner(t);
    *sums = zone < 0 ? NULL : t->sums + (size_t)(channel / COEFFICIENTS * ZONES + zone) * t->plane + inner(t);
    if (zone >= 0)
        t->changed[channel / COEFFICIENTS * ZONES + zone] = 1;
    t->some[channel] = 1;
    t->crossed[channel] = 0;
}

/* What was known becomes twice as much, and so do its sums. */
VECTORISED static void double_plane(uint8_t *restrict known, uint16_t *restrict sums, int n) {
    for (int i = 0; i < n; i++) {
        uint8_t here = known[i], twice = (uint8_t)(here < KNOWN_LIMIT / 2 + 1 ? 2 * here : KNOWN_LIMIT);
        known[i] = twice;
        sums[i] = (uint16_t)(sums[i] + (uint8_t)(twice - here));
    }
}

/* From a layer to the next finer one, of which everything so far is the coarser one. */
static void look_closer(Contexts *t, const Layer *layer) {
    uint16_t *unused = t->sums + (size_t)t->model->bands * ZONES * t->plane; /* written anew by sum_zones */
    t->layer = layer;
    memset(t->changed, 1, sizeof t->changed);
    for (int c = 0; c < t->model->bands * COEFFICIENTS; c++) {
        int zone = t->model->zone[c % COEFFICIENTS];
        uint16_t *sums = zone < 0 ? unused : t->sums + (size_t)(c / COEFFICIENTS * ZONES + zone) * t->plane;
        if (t->some[c])
            double_plane(t->known + (size_t)c * t->plane, sums, t->plane);
        t->crossed[c] = 0;
    }
}

/* min(15, a + b + c + d) of places o away from `from`, over the span. */
static inline __attribute__((always_inline)) void sum_four(const uint8_t *a, const uint8_t *b, const uint8_t *c,
                                                           const uint8_t *d, int span, uint8_t *restrict to) {
    for (int i = 0; i < span; i++) {
        uint8_t sum = (uint8_t)(a[i] + b[i] + c[i] + d[i]);
        to[i] = sum < KNOWN_LIMIT ? sum : KNOWN_LIMIT;
    }
}

/* What is known of every block and of the eight around it, by zone of its own band, and of all other bands. */
VECTORISED static void sum_zones(Contexts *t) {
    int bands = t->model->bands, plane = t->plane, p = t->pitch, span = t->span;
    uint16_t *restrict whole = t->sums + (size_t)bands * ZONES * plane; /* of all bands, then of one */
    if (memchr(t->changed, 1, sizeof t->changed) == NULL)
        return;
    memset(whole, 0, (size_t)plane * sizeof *whole);
    for (int k = 0; k < bands * ZONES; k++)
        for (int i = 0; i < plane; i++)
            whole[i] = (uint16_t)(whole[i] + t->sums[(size_t)k * plane + i]);
    for (int b = 0; b < bands; b++) {
        const uint16_t *own = t->sums + (size_t)b * ZONES * plane;
        uint8_t *restrict block = t->block + (size_t)5 * b * plane;
        for (int z = 0; z < ZONES; z++) {
            if (!t->changed[b * ZONES + z])
                continue;
            for (int i = 0; i < plane; i++) {
                uint16_t sum = own[(size_t)z * plane + i];
                block[(size_t)z * plane + i] = (uint8_t)(sum < KNOWN_LIMIT ? sum : KNOWN_LIMIT);
            }
        }
        for (int i = 0; i < plane; i++) {
            uint16_t sum = (uint16_t)(whole[i] - own[i] - own[plane + i] - own[2 * plane + i] - own[3 * plane + i]);
            block[(size_t)ZONES * plane + i] = (uint8_t)(sum < KNOWN_LIMIT ? sum : KNOWN_LIMIT);
        }
    }
    for (int k = 0; k < 5 * bands; k++) {
        uint8_t some = 0;
        if (k % 5 < ZONES && !t->changed[k / 5 * ZONES + k % 5])
            continue;
        for (int i = 0; i < plane; i++)
            some |= t->block[(size_t)k * plane + i];
        t->block_some[k] = some;
        const uint8_t *from = t->block + (size_t)k * plane + inner(t);
        uint8_t *restrict to = t->around + (size_t)k * plane + inner(t);
        for (int i = 0; i < span; i++) {
            uint8_t sum = (uint8_t)(from[i - p - 1] + from[i - p] + from[i - p + 1] + from[i - 1] + from[i + 1] +
                                    from[i + p - 1] + from[i + p] + from[i + p + 1]);
            to[i] = sum < KNOWN_LIMIT ? sum : KNOWN_LIMIT;
        }
    }
    memset(t->changed, 0, sizeof t->changed);
}

/* Sums over the four blocks next to each, of one channel. */
static inline const uint8_t *cross_of(Contexts *t, int channel) {
    const uint8_t *own = t->known + (size_t)channel * t->plane + inner(t);
    uint8_t *to = t->cross + (size_t)channel * t->span;
    if (!t->some[channel])
        return t->nothing;
    if (!t->crossed[channel])
        sum_four(own - t->pitch, own + t->pitch, own - 1, own + 1, t->span, to);
    t->crossed[channel] = 1;
    return to;
}

static inline const uint8_t *known_of(const Contexts *t, int channel) {
    int some = channel < t->model->bands * COEFFICIENTS && t->some[channel];
    return some ? t->known + (size_t)channel * t->plane + inner(t) : t->nothing;
}

/* x of one channel; those not `used` [F] may be left out. */
VECTORISED static void features_of(Contexts *t, int channel, const uint8_t *used) {
    const Model *m = t->model;
    const uint8_t *own = known_of(t, channel);
    int channels = m->bands * COEFFICIENTS, span = t->span, p = t->pitch, f = 3;
    for (int i = 0; i < t->features; i++)
        t->x[i] = t->nothing;
    if (used[0])
        t->x[0] = cross_of(t, channel);
    if (used[1] && own != t->nothing) {
        sum_four(own - p - 1, own - p + 1, own + p - 1, own + p + 1, span, t->added);
        t->x[1] = t->added;
    }
    if (used[2] && own != t->nothing) {
        sum_four(own - 2 * p, own + 2 * p, own - 2, own + 2, span, t->added + span);
        t->x[2] = t->added + span;
    }
    for (int k = 0; k < 5; k++, f++) {
        const int16_t *next = m->neighbours + ((size_t)k * channels + channel) * 4;
        const uint8_t *from[4];
        int some = 0;
        for (int i = 0; i < 4; i++)
            some |= (from[i] = known_of(t, next[i])) != t->nothing;
        if (k < 2) { /* a single neighbour */
            t->x[f] = from[0];
        } else if (used[f] && some) {
            uint8_t *to = t->added + (size_t)f * span;
            sum_four(from[0], from[1], from[2], from[3], span, to);
            t->x[f] = to;
        }
    }
    for (int turn = 1; turn < m->bands; turn++) {
        int other = (channel + turn * COEFFICIENTS) % channels;
        t->x[f++] = known_of(t, other);
        if (used[f])
            t->x[f] = cross_of(t, other);
        f++;
    }
    for (int z = 0; z < ZONES + 1; z++, f += 2) {
        size_t k = (size_t)(5 * (channel / COEFFICIENTS) + z), at = k * t->plane + inner(t);
        if (t->block_some[k])
            t->x[f] = t->block + at, t->x[f + 1] = t->around + at;
    }
}
