/* Layers -> octets, group by group and class by class; twin of payload/codec/lapped/layers.py, with decoding.c. */
#include "kernel.h"

/* A coefficient takes two symbols of up to 24.01 bits, an escape and a sign at most: 8.2 octets. */
enum { MOST_OCTETS = 9, LAST_OCTETS = 64 };

static int longest_group_of(const Model *model) {
    int longest = 0;
    for (int g = 0; g < model->groups; g++)
        if (model->starts[g + 1] - model->starts[g] > longest)
            longest = model->starts[g + 1] - model->starts[g];
    return longest;
}

static size_t decoding_octets(int channels, int h, int w, int longest_group);

/* Of encoding's lists, or of what decoding needs. */
EXPORT size_t nadir_scratch_octets(int channels, int h, int w, int longest_group) {
    size_t cells = (size_t)longest_group * h * w;
    size_t lists = symbols_octets(channels, (size_t)h * w, cells) + cells + ROOM;
    size_t decoding = decoding_octets(channels, h, w, longest_group);
    size_t hits = sizeof(int32_t) * MAX_LAYERS * (size_t)channels;
    return hits + context_octets(channels, h, w) + (lists > decoding ? lists : decoding) + 64;
}

/* What the coarser layer knows, magnitude [C][h w] >> shift, of every channel. */
static void know_everything_coarser(Contexts *t, const uint16_t *magnitude, int shift) {
    for (int c = 0; c < t->model->bands * COEFFICIENTS; c++)
        know(t, c, magnitude + (size_t)c * t->h * t->w, shift, 1);
}

static void put_bits(Encoder *to, const uint32_t *lower, const Bits *bits) {
    Encoder coder = *to;
    size_t left = bits_in(bits);
    *bits->at = bits->bits;
    for (const uint64_t *at = bits->begin; left; at++) {
        uint64_t word = *at;
        for (size_t count = left < 64 ? left : 64; count; count--, left--, word >>= 1)
            put(&coder, lower, (int)(word & 1));
    }
    *to = coder;
}

/* What every layer of a tile is coded from: magnitude [C][h w] of the finest layer, negative [C][h w]; size128 [C][h w] of
 * the last one that is sent, or NULL: a magnitude of one that is not worth its octets is left out of it. */
typedef struct {
    const uint16_t *magnitude;
    const uint8_t *negative, *size128;
} Sent;

/* Octets of layer k behind its head: their end. Magnitudes >> shift are this layer's; hits [C] of them. `last`: nothing
 * is coded behind it. memory: of symbols_octets and of tokens. */
static uint8_t *encode_layer(Contexts *t, const Sent *sent, int k, int shift, int last, const int32_t *hits, int active,
                             uint8_t *memory, uint8_t *out) {
    const Model *model = t->model;
    const Layer *layer = t->layer;
    int n = t->h * t->w;
    size_t group_cells = (size_t)longest_group_of(model) * n;
    uint8_t *tokens = memory, *escapes;
    Symbols s;
    open_symbols(&s, model->bands * COEFFICIENTS, n, group_cells, tokens + group_cells + ROOM);
    escapes = s.escape;
    Encoder coder = {0, UINT64_MAX, out, out};
    for (int g = 0; g < model->groups && model->starts[g] < active; g++) {
        int begin = model->starts[g], end = model->starts[g + 1] < active ? model->starts[g + 1] : active;
        classes_of_group(t, begin, end);
        start_group(&s);
        for (int rank = begin; rank < end; rank++) {
            int channel = model->order[rank];
            size_t at = (size_t)channel * n;
            Channel c = {t->found + (size_t)(rank - begin) * t->span, sent->magnitude + at, sent->negative + at, NULL,
                         NULL, NULL, hits[channel]};
            if (sent->size128 && last && channel % COEFFICIENTS) /* block averages are few and worth much */
                c.size128 = sent->size128 + at;
            if (hits[channel] && !(last && end == active)) /* whatever comes behind looks at it */
                place_of_channel(t, channel, &c.known, &c.sums);
#if HAVE_AVX2
            if (use_pext() && t->w % STEP == 0)
                list_pext(&s, t, c, shift, k);
            else
#endif
                list_plain(&s, t, c, shift, k);
        }
        for (int c = 0; c < CLASSES; c++) {
            const uint8_t *end_of = list_tokens(&s.fresh[c], __builtin_ctz((unsigned)layer->longest[c]), tokens);
            put_all(&coder, layer->runs + c * (LONGEST_RUN + 2), tokens, end_of);
        }
        for (int c = 0; k == 0 && c < SIZE_CLASSES; c++)
            put_all(&coder, layer->size + c * (ESCAPE + 1), s.size_begin[c], s.size_end[c]);
        for (int c = 0; k && c < REFINEMENTS; c++)
            put_bits(&coder, layer->refinement + c * 3, &s.refined[c]);
    }
    finish(&coder);
    memcpy(coder.at, escapes, (size_t)(s.escape - escapes));
    return write_bits(&s.sign, coder.at + (s.escape - escapes));
}

/* Activities that `least` tells of: more need no octet. */
static int activities_of(Span least) {
    size_t count = least.octets / sizeof(int32_t);
    return count < 256 ? (int)count : 256;
}

/* What a layer begins with: how many channels by rank are there, and each band's activity, of which activity a begins at
 * least[a] significant coefficients besides block averages. hits [C]. */
static int head_of(const int16_t *order, const int32_t *hits, int channels, const int32_t *least, int activities,
                   uint8_t *activity) {
    int active = channels;
    while (active && hits[order[active - 1]] == 0)
        active--;
    for (int b = 0; b < channels / COEFFICIENTS; b++) {
        int32_t inner = 0;
        for (int c = 1; c < COEFFICIENTS; c++)
            inner += hits[b * COEFFICIENTS + c];
        activity[b] = 0;
        while (activity[b] + 1 < activities && inner >= least[activity[b] + 1])
            activity[b]++;
    }
    return active;
}

/* What encoding and decoding have in common to be checked. `octets_of`: of scratch memory. */
static int refuse(const Model *model, const Layer *layer, int k, int h, int w, int active, Span busy, Span scratch,
                  size_t (*octets_of)(int, int, int, int)) {
    if (!within(k, 0, MAX_LAYERS - 1) || !within(h, 1, MAX_CELLS) || !within(w, 1, MAX_CELLS))
        return OUT_OF_RANGE;
    if (!fits_model(model) || !fits_layer(model, layer, k))
        return TABLES_DAMAGED;
    int channels = model->bands * COEFFICIENTS;
    if (!within(active, 0, channels))
        return OUT_OF_RANGE;
    size_t octets = octets_of(channels, h, w, longest_group_of(model));
    return HOLDS(busy, int16_t, model->bands) && HOLDS(scratch, uint8_t, octets) ? 0 : BUFFER_TOO_SMALL;
}

/* Heads of layers, in the first of which most is missing: hits [layers][C], active [layers], activity [layers][B]. As of
 * head_of; layer k knows magnitude [C][n] >> (layers - 1 - k). */
EXPORT int nadir_heads(const Model *model, Span magnitude, int n, int layers, Span least, Span hits, Span active,
                       Span activity) {
    if (!fits_model(model))
        return TABLES_DAMAGED;
    if (!within(n, 1, MAX_CELLS * MAX_CELLS) || !within(layers, 1, MAX_LAYERS))
        return OUT_OF_RANGE;
    int bands = model->bands, channels = bands * COEFFICIENTS;
    if (!HOLDS(magnitude, uint16_t, (size_t)channels * n) || !HOLDS(least, int32_t, 1) ||
        !HOLDS(hits, int32_t, layers * channels) || !HOLDS(active, int32_t, layers) ||
        !HOLDS(activity, uint8_t, layers * bands))
        return BUFFER_TOO_SMALL;
    count_significant(magnitude.at, channels, n, layers, layers, hits.at);
    for (int k = 0; k < layers; k++)
        ((int32_t *)active.at)[k] = head_of(model->order, (const int32_t *)hits.at + k * channels, channels, least.at,
                                            activities_of(least), (uint8_t *)activity.at + k * bands);
    return 0;
}

/* The first `keep` of so many layers of a tile, each with its head (active: 16, activity: 8 x B), one behind the other:
 * ends [keep] in `out`. As encode_layer and head_of; the last one is cut behind last_active channels. */
EXPORT int nadir_encode(const Model *model, Span layers, int count, int keep, Span magnitude, Span negative,
                        Span size128, Span least, int last_active, int h, int w, Span scratch, Span out, Span ends) {
    if (!within(count, 1, MAX_LAYERS) || !within(keep, 1, count))
        return OUT_OF_RANGE;
    if (!HOLDS(layers, Layer, keep))
        return BUFFER_TOO_SMALL;
    int16_t busy[MAX_BANDS];
    const Span of_busy = {busy, sizeof busy};
    int refused = refuse(model, layers.at, 0, h, w, last_active, of_busy, scratch, nadir_scratch_octets);
    if (refused)
        return refused;
    for (int k = 1; k < keep; k++)
        if (!fits_layer(model, (const Layer *)layers.at + k, k))
            return TABLES_DAMAGED;
    int bands = model->bands, channels = bands * COEFFICIENTS, n = h * w;
    size_t all = (size_t)channels * n;
    if (!HOLDS(magnitude, uint16_t, all) || !HOLDS(negative, uint8_t, all) || (size128.at && !HOLDS(size128, uint8_t, all)) ||
        !HOLDS(least, int32_t, 1) || !HOLDS(out, uint8_t, keep * (MOST_OCTETS * all + LAST_OCTETS)) ||
        !HOLDS(ends, uint64_t, keep))
        return BUFFER_TOO_SMALL;
    Sent sent = {magnitude.at, negative.at, size128.at};
    int32_t *hits = scratch.at;
    uint8_t *memory = (uint8_t *)(hits + (size_t)MAX_LAYERS * channels), *to = out.at;
    count_significant(magnitude.at, channels, n, count, keep, hits);
    Contexts t;
    open_contexts(&t, model, layers.at, h, w, busy, memory);
    memory += context_octets(channels, h, w);
    for (int k = 0; k < keep; k++, hits += channels) {
        int last = k == keep - 1, active = head_of(model->order, hits, channels, least.at, activities_of(least), to + 2);
        active = last && last_active < active ? last_active : active;
        to[0] = (uint8_t)(active >> 8), to[1] = (uint8_t)active;
        for (int b = 0; b < bands; b++)
            busy[b] = (int16_t)(to[2 + b] - ACTIVITY_CENTRE);
        if (k)
            look_closer(&t, (const Layer *)layers.at + k);
        to = encode_layer(&t, &sent, k, count - 1 - k, last, hits, active, memory, to + 2 + bands);
        ((uint64_t *)ends.at)[k] = (uint64_t)(to - (uint8_t *)out.at);
    }
    return 0;
}
