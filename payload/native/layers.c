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
    return context_octets(channels, h, w) + (lists > decoding ? lists : decoding) + 64;
}

/* hits [C] of the coarser layer, or NULL where they are not known: a channel without any is known to be zeros. */
static void know_everything_coarser(Contexts *t, const uint16_t *magnitude, int shift, const int32_t *hits) {
    for (int c = 0; c < t->model->bands * COEFFICIENTS; c++)
        if (hits == NULL || hits[c])
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

/* Octets of layer k behind its head (active, activity): how many it took of `out`. magnitude [C][h w] of the finest
 * layer, shift >> makes it this one's; negative [C][h w]; hits [C] of this layer, those of the coarser one before them.
 * size128 [C][h w], in the finest layer, or NULL: a magnitude of one that is not worth its octets is cleared. */
static size_t encode(const Model *model, const Layer *layer, int k, uint16_t *magnitude, const uint8_t *negative,
                     const uint8_t *size128, const int32_t *hits, int shift, int h, int w, int active,
                     const int16_t *busy, uint8_t *scratch, uint8_t *out) {
    int channels = model->bands * COEFFICIENTS, n = h * w, longest_group = longest_group_of(model);
    Contexts t;
    open_contexts(&t, model, layer, h, w, busy, scratch);
    if (k)
        know_everything_coarser(&t, magnitude, shift + 1, hits - channels);
    size_t group_cells = (size_t)longest_group * n;
    uint8_t *tokens = scratch + context_octets(channels, h, w), *escapes;
    Symbols s;
    open_symbols(&s, channels, n, group_cells, tokens + group_cells + ROOM);
    escapes = s.escape;
    Encoder coder = {0, UINT64_MAX, out, out};
    for (int g = 0; g < model->groups && model->starts[g] < active; g++) {
        int begin = model->starts[g], end = model->starts[g + 1] < active ? model->starts[g + 1] : active;
        classes_of_group(&t, begin, end);
        start_group(&s);
        for (int rank = begin; rank < end; rank++) {
            int channel = model->order[rank];
            size_t at = (size_t)channel * n;
            Channel c = {t.found + (size_t)(rank - begin) * t.span, magnitude + at, negative + at, NULL, hits[channel]};
            if (size128 && channel % COEFFICIENTS) /* block averages are few and worth much */
                c.size128 = size128 + at;
#if HAVE_AVX2
            if (use_pext() && w % STEP == 0)
                list_pext(&s, &t, c, shift, k);
            else
#endif
                list_plain(&s, &t, c, shift, k);
            if (hits[channel])
                know(&t, channel, magnitude + at, shift, 0);
        }
        for (int c = 0; c < CLASSES; c++) {
            const uint8_t *last = list_tokens(&s.fresh[c], __builtin_ctz((unsigned)layer->longest[c]), tokens);
            put_all(&coder, layer->runs + c * (LONGEST_RUN + 2), tokens, last);
        }
        for (int c = 0; k == 0 && c < SIZE_CLASSES; c++)
            put_all(&coder, layer->size + c * (ESCAPE + 1), s.size_begin[c], s.size_end[c]);
        for (int c = 0; k && c < REFINEMENTS; c++)
            put_bits(&coder, layer->refinement + c * 3, &s.refined[c]);
    }
    finish(&coder);
    memcpy(coder.at, escapes, (size_t)(s.escape - escapes));
    coder.at += s.escape - escapes;
    return (size_t)(write_bits(&s.sign, coder.at) - out);
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

/* As `encode`; hits [k + 1][C] of the layers up to this one, written: how many octets of `out` are its own. */
EXPORT int nadir_encode(const Model *model, const Layer *layer, int k, Span magnitude, Span negative, Span size128,
                        Span hits, int shift, int h, int w, int active, Span busy, Span scratch, Span out,
                        size_t *written) {
    int refused = refuse(model, layer, k, h, w, active, busy, scratch, nadir_scratch_octets);
    if (refused || !within(shift, 0, MAX_LAYERS - 1))
        return refused ? refused : OUT_OF_RANGE;
    size_t channels = (size_t)model->bands * COEFFICIENTS, all = channels * h * w;
    if (!HOLDS(magnitude, uint16_t, all) || !HOLDS(negative, uint8_t, all) ||
        !HOLDS(hits, int32_t, (k + 1) * channels) || !HOLDS(out, uint8_t, MOST_OCTETS * all + LAST_OCTETS) ||
        (size128.at && !HOLDS(size128, uint8_t, all)))
        return BUFFER_TOO_SMALL;
    *written = encode(model, layer, k, magnitude.at, negative.at, size128.at, (const int32_t *)hits.at + k * channels,
                      shift, h, w, active, busy.at, scratch.at, out.at);
    return 0;
}
