/* Layers <-> octets in the profile `dense`, channel by channel; twin of payload/codec/lapped/dense/layer.py.
 *
 * One function codes either way: where the coder writes, values are there before it is asked; where it reads, they are
 * filled in. */
#include "kernel.h"

/* More than a coefficient takes as plain bits, escapes left out. A coefficient takes 17 decisions of 17 bits at most. */
enum { PLAIN_OCTETS = 3, CHANNEL_OCTETS = 37, MOST_PARTS = 32 };

/* What Python hands over of a layer's tables: logits in 256ths of an octave. */
typedef struct {
    const uint32_t *squash;    /* [4096] chance of a yes in 2^-24 by logits from 0 on */
    const int16_t *of_class;   /* [32] of a coefficient to become significant */
    const int16_t *of_size;    /* [8][16] of a size to be more than 1, 2, ... */
    const int16_t *of_new_bit; /* [3] of a refinement to be 1 */
    size_t octets[4];
    uintptr_t complements[4];
} Given;

typedef struct {
    Contexts contexts;
    const Given *given;
    Mixture *mixture;
    Encoder *encoder; /* one of the two is there */
    Decoder *decoder;
    const uint8_t *enough; /* a layer that is written up to here is longer than plain bits */
    int k;
    int8_t *signs;       /* [C][plane] of what is known */
    uint16_t *now;       /* [h w] magnitudes of a channel in this layer, as far as they are known */
    uint16_t *before;    /* [h w] in the layer before */
    uint32_t *cells;     /* [h w] of a list of decisions */
    Decision *decisions; /* [h w] */
    uint8_t *bits;       /* [h w] */
    uint8_t *sizes;      /* [h w] of the decisions, in 128ths of a step: where magnitudes of one may be left out */
    uint8_t *seen;       /* [h + 2][w + 4] at most 7: what is known of the channel's coefficients decided on so far */
    const uint8_t *own;  /* what was known of the channel before, from its first coefficient on */
    uint8_t down[MAX_CELLS], across[MAX_CELLS]; /* which of MOST_PARTS parts of the tile a row and a column lie in */
    int leaves_out, rebuilt64;
    size_t escapes;
} Dense;

/* What the decisions of a channel look at besides features. */
typedef struct {
    int channel, band, function, zone; /* bands from the fourth on count as one; zone 0: block average */
    const int16_t *logits;             /* [span] of the bundle's context model */
} Place;

static const uint8_t SIX[16] = {0, 1, 2, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5};
static const uint8_t FOUR[16] = {0, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3};

static inline int at_most_15(int value) { return value < KNOWN_LIMIT ? value : KNOWN_LIMIT; }

/* The context model's logit, 0 where class 0 begins. */
static inline int logit_at(const Place *p, int i) {
    int logit = p->logits[i] + (CLASS_OFFSET << LOGIT_BITS);
    return logit < 0 ? 0 : logit < CLASSES << LOGIT_BITS ? logit : (CLASSES << LOGIT_BITS) - 1;
}

static inline int class_at(const Place *p, int i) { return logit_at(p, i) >> LOGIT_BITS; }

/* Sums over all other bands: the same function here, and in the four blocks beside. */
static inline void others_at(const Contexts *t, int i, int *here, int *beside) {
    *here = *beside = 0;
    for (int f = 8; f < t->ends[2]; f += 2)
        *here += t->x[f][i], *beside += t->x[f + 1][i];
    *here = at_most_15(*here), *beside = at_most_15(*beside);
}

/* Which of parts x parts of the tile a block lies in, of 32, 16, 8 or 4. */
static inline int part_of(const Dense *g, int row, int col, const int parts) {
    return g->down[row] / (MOST_PARTS / parts) * parts + g->across[col] / (MOST_PARTS / parts);
}

/* Between the logits of two classes. */
static inline int16_t given_at(const int16_t *of_class, int logit) {
    int from = logit < 1 << (LOGIT_BITS - 1) ? 0 : logit - (1 << (LOGIT_BITS - 1)), c = from >> LOGIT_BITS;
    c = c < CLASSES - 2 ? c : CLASSES - 2;
    int part = from - (c << LOGIT_BITS);
    part = part < 1 << LOGIT_BITS ? part : 1 << LOGIT_BITS;
    return (int16_t)(of_class[c] + (((of_class[c + 1] - of_class[c]) * part) >> LOGIT_BITS));
}

/* What was decided on in this layer already, and what was known before of the neighbours that are to come, of a place
 * in its channel. */
typedef struct {
    int above, left, corners, far, below, right;
} Near;

static inline Near near_at(const Dense *g, int row, int col) {
    const Contexts *t = &g->contexts;
    int pitch = t->w + 4;
    const uint8_t *seen = g->seen + (row + 2) * pitch + col + 2, *own = g->own + row * t->pitch + col;
    return (Near){seen[-pitch], seen[-1], seen[-pitch - 1] + seen[-pitch + 1], seen[-2 * pitch] + seen[-2],
                  own[t->pitch], own[1]};
}

static void significance(Decision *d, const Dense *g, const Place *p, int row, int col, const Layout *l) {
    const Contexts *t = &g->contexts;
    int i = row * t->pitch + col, here, beside, logit = logit_at(p, i), class = logit >> LOGIT_BITS, other[3] = {0, 0, 0};
    others_at(t, i, &here, &beside);
    const uint8_t *const *x = t->x, *const *zone = t->x + t->ends[2];
    int side = x[0][i], up = x[3][i], left = x[4][i], next = at_most_15(up + left);
    int all = 2 * side + x[1][i] + 2 * (up + left) + x[5][i] + x[6][i] + 2 * here + beside;
    int region = part_of(g, row, col, 8), spot = part_of(g, row, col, 16);
    int layer = g->k < 3 ? g->k : 3, b = p->band;
    for (int turn = 1; turn < t->model->bands && turn < 4; turn++)
        other[turn - 1] = SIX[x[6 + 2 * turn][i]];
    Near n = near_at(g, row, col);
    int hood = 4 * (n.above + n.left + n.below + n.right) + 2 * n.corners + n.far;
    const int words[MOST_WORDS] = {
        (((b * 6 + SIX[up]) * 6 + SIX[left]) * 4 + FOUR[x[5][i]]) * 3 + (x[6][i] < 2 ? x[6][i] : 2),
        ((b * 6 + SIX[here]) * 4 + FOUR[beside]) * 6 + SIX[next],
        (((b * 6 + SIX[zone[0][i]]) * 6 + SIX[zone[2][i]]) * 6 + SIX[zone[4][i]]) * 6 + SIX[zone[8][i]],
        (region * 4 + b) * 5 + p->zone,
        class * 32 + (log2_eighths(1 + all) >> 1),
        (spot * 4 + b) * 8 + (class >> 2),
        (((p->zone * 6 + SIX[n.above]) * 6 + SIX[n.left]) * 4 + FOUR[n.below]) * 4 + FOUR[n.right],
        (log2_eighths(1 + hood) >> 1) * 128 + (logit >> 6),
        part_of(g, row, col, MOST_PARTS) * 8 + (class >> 2),
        (((class >> 3) * 4 + b) * 6 + other[0]) * 36 + other[1] * 6 + other[2],
    };
    const int rows[MOST_SETS] = {
        layer * 5 + p->zone,
        layer * 32 + class,
        SIX[side] * 6 + SIX[next],
        b * COEFFICIENTS + p->function,
        region,
        SIX[here] * 6 + SIX[n.above + n.left],
    };
    set_decision(d, l, words, rows, given_at(g->given->of_class, logit));
}

/* Whether a size is more than v, or the next bit of one that is v so far. */
static void more(Decision *d, const Dense *g, const Place *p, int row, int col, int v, int16_t given,
                 const Layout *l) {
    const Contexts *t = &g->contexts;
    int i = row * t->pitch + col, here, beside, class = class_at(p, i), b = p->band;
    others_at(t, i, &here, &beside);
    const uint8_t *const *x = t->x;
    int side = x[0][i], place = row % BLOCK * BLOCK + col % BLOCK, region = part_of(g, row, col, 8);
    int all = 2 * side + x[1][i] + 2 * (x[3][i] + x[4][i]) + x[5][i] + x[6][i] + 2 * here + beside;
    const int words[MOST_WORDS] = {
        v * 32 + class,
        (v < 3 ? v : 3) * 256 + b * 64 + p->function,
        (v * 6 + SIX[side]) * 4 + FOUR[x[1][i]],
        (v * 6 + SIX[x[3][i]]) * 6 + SIX[x[4][i]],
        (v * 6 + SIX[here]) * 4 + b,
        p->function ? v * 16 + side : 256 + v * 64 + place,
        ((v < 7 ? v : 7) * 64 + region) * 4 + b,
    };
    const int rows[MOST_SETS] = {
        v, b * 5 + p->zone, class, b * COEFFICIENTS + p->function, log2_eighths(1 + all) >> 1,
    };
    set_decision(d, l, words, rows, given);
}

static inline int sign_at(const Dense *g, int channel, int i) {
    return g->signs[(size_t)channel * g->contexts.plane + inner(&g->contexts) + (size_t)i];
}

static void sign(Decision *d, const Dense *g, const Place *p, int row, int col, const Layout *l) {
    const Contexts *t = &g->contexts;
    int i = row * t->pitch + col, channels = t->model->bands * COEFFICIENTS, c = p->channel, f = p->function, b = p->band;
    int u = f / BLOCK, v = f % BLOCK, other[3] = {0, 0, 0};
    int left = sign_at(g, c, i - 1), right = sign_at(g, c, i + 1);
    int above = sign_at(g, c, i - t->pitch), below = sign_at(g, c, i + t->pitch);
    for (int turn = 1; turn < t->model->bands && turn < 4; turn++)
        other[turn - 1] = sign_at(g, (c + turn * COEFFICIENTS) % channels, i);
    int up2 = u > 1 ? sign_at(g, c - 2 * BLOCK, i) : 0, left2 = v > 1 ? sign_at(g, c - 2, i) : 0;
    int up1 = u > 0 ? sign_at(g, c - BLOCK, i) : 0, left1 = v > 0 ? sign_at(g, c - 1, i) : 0;
    int two = (other[0] + 1) * 3 + other[1] + 1, three = two * 3 + other[2] + 1;
    int region = part_of(g, row, col, 8), spot = part_of(g, row, col, 16), quarter = part_of(g, row, col, 4);
    const int words[MOST_WORDS] = {
        ((left + 1) * 3 + right + 1) * 64 + f,
        ((above + 1) * 3 + below + 1) * 64 + f,
        three * 4 + b,
        two * 256 + b * 64 + f,
        ((up2 + 1) * 3 + left2 + 1) * 64 + f,
        ((up1 + 1) * 3 + left1 + 1) * 64 + f,
        (region * 27 + three) * 4 + b,
        (spot * 4 + b) * 3 + other[2] + 1,
        ((quarter * 4 + b) * 27 + three) * 3 + (p->zone < 2 ? 0 : p->zone < 3 ? 1 : 2),
    };
    const int rows[MOST_SETS] = {
        b * 5 + p->zone,
        (left != 0) + (right != 0) + 3 * ((above != 0) + (below != 0)),
        (other[0] != 0) + 2 * (other[1] != 0) + 4 * (other[2] != 0),
    };
    set_decision(d, l, words, rows, 0);
}

static void code_list(Dense *g, const Layout *l, int count) {
    code_bits(g->mixture, l, g->given->squash, g->encoder, g->decoder, g->decisions, g->bits, NULL, 0, count);
}

/* What is decided on so far of a channel: nothing but what the layer before knows. */
static void see_coarser(Dense *g) {
    int w = g->contexts.w, n = g->contexts.h * w, pitch = w + 4;
    memset(g->seen, 0, (size_t)(g->contexts.h + 2) * pitch);
    for (int i = 0; i < n; i++)
        g->seen[(i / w + 2) * pitch + i % w + 2] = (uint8_t)(g->before[i] < 4 ? 2 * g->before[i] : 7);
}

/* Which coefficients of a channel become significant: those of a batch, of which each may look at the ones before it.
 * A magnitude of one in the last layer stays where it is worth its octets; block averages always do. */
static void code_batch(Dense *g, const Place *p, const Layout *l, int count, uint16_t *magnitude) {
    int w = g->contexts.w;
    const uint8_t *sizes = g->leaves_out && p->function ? g->sizes : NULL;
    code_bits(g->mixture, l, g->given->squash, g->encoder, g->decoder, g->decisions, g->bits, sizes, g->rebuilt64, count);
    for (int j = 0; j < count; j++) {
        int i = (int)g->cells[j];
        if (g->decoder)
            g->now[i] = g->bits[j];
        else if (g->now[i] && !g->bits[j])
            g->now[i] = magnitude[i] = 0;
        g->seen[(i / w + 2) * (w + 4) + i % w + 2] = g->bits[j];
    }
}

static void code_significance(Dense *g, const Place *p, uint16_t *magnitude, const uint8_t *size128) {
    Layout l = layout_of((int)g->mixture->generation, SIGNIFICANCE);
    int count = 0, w = g->contexts.w, n = g->contexts.h * w;
    see_coarser(g);
    for (int i = 0; i < n; i++) {
        if (g->before[i])
            continue;
        g->cells[count] = (uint32_t)i, g->bits[count] = g->now[i] != 0;
        g->sizes[count] = size128 && g->now[i] == 1 ? size128[i] : 255;
        significance(g->decisions + count++, g, p, i / w, i % w, &l);
        if (count == l.batch)
            code_batch(g, p, &l, count, magnitude), count = 0;
    }
    code_batch(g, p, &l, count, magnitude);
}

/* Sizes in the coarsest layer: those that are more than 1, of these the ones that are more than 2, ... */
static void code_sizes(Dense *g, const Place *p) {
    Layout l = layout_of((int)g->mixture->generation, SIZE);
    int w = g->contexts.w, n = g->contexts.h * w, count = n;
    for (int v = 1; v < ESCAPE && count; v++) {
        count = 0;
        for (int i = 0; i < n; i++)
            if (g->now[i] >= v) {
                int class = class_at(p, i / w * g->contexts.pitch + i % w);
                int16_t given = g->given->of_size[(class >> 2) * ESCAPE + v];
                g->cells[count] = (uint32_t)i, g->bits[count] = g->now[i] > v;
                more(g->decisions + count++, g, p, i / w, i % w, v, given, &l);
            }
        code_list(g, &l, count);
        for (int j = 0; j < count && g->decoder; j++)
            g->now[g->cells[j]] = (uint16_t)(g->now[g->cells[j]] + g->bits[j]);
    }
    for (int i = 0; i < n; i++)
        g->escapes += g->now[i] >= ESCAPE;
}

/* One bit more of what the layer before knows. */
static void code_refinements(Dense *g, const Place *p) {
    Layout l = layout_of((int)g->mixture->generation, REFINEMENT);
    int count = 0, w = g->contexts.w, n = g->contexts.h * w;
    for (int i = 0; i < n; i++)
        if (g->before[i]) {
            int v = g->before[i], rank = (v < REFINEMENTS ? v : REFINEMENTS) - 1;
            g->cells[count] = (uint32_t)i, g->bits[count] = g->now[i] & 1;
            more(g->decisions + count++, g, p, i / w, i % w, v < 7 ? v : 7, g->given->of_new_bit[rank], &l);
        }
    code_list(g, &l, count);
    for (int j = 0; j < count && g->decoder; j++)
        g->now[g->cells[j]] = (uint16_t)(g->now[g->cells[j]] | g->bits[j]);
}

/* Signs of what became significant, from and to negative [h w]. */
static void code_signs(Dense *g, const Place *p, uint8_t *negative) {
    Layout l = layout_of((int)g->mixture->generation, SIGN);
    int count = 0, w = g->contexts.w, n = g->contexts.h * w;
    int8_t *signs = g->signs + (size_t)p->channel * g->contexts.plane + inner(&g->contexts);
    for (int i = 0; i < n; i++)
        if (g->now[i] && !g->before[i]) {
            g->cells[count] = (uint32_t)i, g->bits[count] = negative[i];
            sign(g->decisions + count++, g, p, i / w, i % w, &l);
        }
    code_list(g, &l, count);
    for (int j = 0; j < count; j++) {
        int i = (int)g->cells[j];
        signs[i / w * g->contexts.pitch + i % w] = g->bits[j] ? -1 : 1;
        if (g->decoder)
            negative[i] = g->bits[j];
    }
}

static void code_channel(Dense *g, int channel, const int16_t *logits, uint16_t *magnitude, uint8_t *negative,
                         const uint8_t *size128, int shift) {
    uint8_t used[MAX_FEATURES];
    int n = g->contexts.h * g->contexts.w, band = channel / COEFFICIENTS;
    Place p = {channel, band < 3 ? band : 3, channel % COEFFICIENTS, 0, logits};
    p.zone = g->contexts.model->zone[p.function] + 1;
    for (int i = 0; i < n; i++) {
        g->now[i] = magnitude[i] >> shift;
        g->before[i] = g->k ? g->now[i] >> 1 : 0;
    }
    memset(used, 1, sizeof used);
    features_of(&g->contexts, channel, used);
    g->own = known_of(&g->contexts, channel);
    code_significance(g, &p, magnitude, size128);
    if (g->k)
        code_refinements(g, &p);
    else
        code_sizes(g, &p);
    code_signs(g, &p, negative);
    know(&g->contexts, channel, g->now, 0, 0);
    if (g->decoder)
        memcpy(magnitude, g->now, (size_t)n * sizeof *magnitude);
}

static void know_signs(Dense *g, const uint16_t *magnitude, const uint8_t *negative, int shift) {
    const Contexts *t = &g->contexts;
    int channels = t->model->bands * COEFFICIENTS;
    memset(g->signs, 0, (size_t)channels * t->plane);
    for (int c = 0; c < channels && g->k; c++)
        for (int row = 0; row < t->h; row++) {
            int8_t *to = g->signs + (size_t)c * t->plane + inner(t) + (size_t)row * t->pitch;
            for (int i = 0; i < t->w; i++, magnitude++, negative++)
                to[i] = (int8_t)(*magnitude >> shift ? *negative ? -1 : 1 : 0);
        }
}

/* Scratch memory: the contexts', and behind it what `open_dense` lays out. */
EXPORT size_t nadir_dense_octets(int channels, int h, int w, int longest_group) {
    size_t n = (size_t)h * w;
    return context_octets(channels, h, w) + n * (sizeof(Decision) + sizeof(uint32_t) + 2 * sizeof(uint16_t) + 2) +
           (size_t)(h + 2) * (size_t)(w + 4) +
           sizeof(int16_t) * (size_t)longest_group * span_of(h, w) + (size_t)channels * plane_of(h, w) + 64;
}

static void open_dense(Dense *g, const Model *model, int h, int w, uint8_t *scratch) {
    size_t channels = (size_t)model->bands * COEFFICIENTS, n = (size_t)h * w;
    uintptr_t behind = (uintptr_t)scratch + context_octets((int)channels, h, w);
    g->cells = (uint32_t *)((behind + 3) & ~(uintptr_t)3);
    g->decisions = (Decision *)(g->cells + n);
    g->now = (uint16_t *)(g->decisions + n);
    g->before = g->now + n;
    g->contexts.logits = (int16_t *)(g->before + n);
    g->signs = (int8_t *)(g->contexts.logits + (size_t)longest_group_of(model) * g->contexts.span);
    g->bits = (uint8_t *)(g->signs + channels * (size_t)g->contexts.plane);
    g->sizes = g->bits + n;
    g->seen = g->sizes + n;
    for (int row = 0; row < h; row++)
        g->down[row] = (uint8_t)(row * MOST_PARTS / h);
    for (int col = 0; col < w; col++)
        g->across[col] = (uint8_t)(col * MOST_PARTS / w);
}

/* A layer's active channels, either way. magnitude [C][h w]: the finest, shifted down by `shift`; where octets are read,
 * twice the layer before, and this layer's when it returns. size128 NULL: nothing is left out. */
static void code_layer(Dense *g, const Model *model, const Layer *layer, int h, int w, int active, const int16_t *busy,
                       uint8_t *scratch, uint16_t *magnitude, uint8_t *negative, const uint8_t *size128, int shift) {
    size_t n = (size_t)h * w;
    open_contexts(&g->contexts, model, layer, h, w, busy, scratch);
    open_dense(g, model, h, w, scratch);
    if (g->k)
        know_everything_coarser(&g->contexts, magnitude, shift + 1);
    know_signs(g, magnitude, negative, shift + 1);
    for (int i = 0; i < model->groups && model->starts[i] < active; i++) {
        int begin = model->starts[i], end = model->starts[i + 1] < active ? model->starts[i + 1] : active;
        classes_of_group(&g->contexts, begin, end);
        for (int rank = begin; rank < end && !(g->encoder && g->encoder->at > g->enough); rank++) {
            size_t at = (size_t)model->order[rank] * n;
            const int16_t *logits = g->contexts.logits + (size_t)(rank - begin) * g->contexts.span;
            code_channel(g, model->order[rank], logits, magnitude + at, negative + at, size128 ? size128 + at : NULL,
                         shift);
        }
    }
}

static int fits_given(const Given *given) {
    const void *const arrays[] = {given->squash, given->of_class, given->of_size, given->of_new_bit};
    const size_t wanted[] = {4 * LOGIT_SIDE, 2 * CLASSES, 2 * SIZE_CLASSES * ESCAPE, 2 * REFINEMENTS};
    int found = intact(arrays, given->complements, 4);
    for (int i = 0; i < 4; i++)
        found = found && given->octets[i] >= wanted[i];
    for (int i = 0; found && i < LOGIT_SIDE; i++)
        found = given->squash[i] >= 1 << 23 && given->squash[i] <= (1 << 24) - (1 << 8);
    return found && all_within(given->of_class, CLASSES, 1 - LOGIT_SIDE, LOGIT_SIDE - 1) &&
           all_within(given->of_size, SIZE_CLASSES * ESCAPE, 1 - LOGIT_SIDE, LOGIT_SIDE - 1) &&
           all_within(given->of_new_bit, REFINEMENTS, 1 - LOGIT_SIDE, LOGIT_SIDE - 1);
}

static int holds_mixture(Span memory, int generation) {
    return HOLDS(memory, uint8_t, nadir_mixture_octets(generation)) && (uintptr_t)memory.at % sizeof(int64_t) == 0;
}

/* The tile's mixture in memory of Python's. NULL where it does not fit, or was hit. */
static Mixture *mixture_in(Span memory) {
    if (!HOLDS(memory, Mixture, 1) || (uintptr_t)memory.at % sizeof(int64_t))
        return NULL;
    int64_t generation = ((Mixture *)memory.at)->generation;
    return generation >= 0 && generation < GENERATIONS && holds_mixture(memory, (int)generation) ? memory.at : NULL;
}

EXPORT int nadir_open_mixture(Span memory, int generation) {
    if (!within(generation, 0, GENERATIONS - 1))
        return OUT_OF_RANGE;
    if (!holds_mixture(memory, generation))
        return BUFFER_TOO_SMALL;
    open_mixture(memory.at, generation);
    return 0;
}

/* Escapes stand behind the range coder's words: sizes of 16 and more of the coarsest layer, 16 bits each. */
static uint8_t *put_escapes(const Model *model, int active, size_t n, const uint16_t *magnitude, int shift, uint8_t *to) {
    for (int rank = 0; rank < active; rank++)
        for (const uint16_t *m = magnitude + (size_t)model->order[rank] * n, *end = m + n; m < end; m++)
            if (*m >> shift >= ESCAPE)
                *to++ = (uint8_t)(*m >> shift >> 8), *to++ = (uint8_t)(*m >> shift);
    return to;
}

static int take_escapes(const Model *model, int active, size_t n, const Span *octets, size_t escapes, uint16_t *here) {
    if (2 * escapes > octets->octets)
        return TOO_SHORT;
    const uint8_t *from = (const uint8_t *)octets->at + octets->octets - 2 * escapes;
    for (int rank = 0; rank < active && escapes; rank++)
        for (uint16_t *m = here + (size_t)model->order[rank] * n, *end = m + n; m < end; m++)
            if (*m == ESCAPE) {
                *m = (uint16_t)(from[0] << 8 | from[1]);
                if (*m < ESCAPE)
                    return SMALL_ESCAPE;
                from += 2;
            }
    return 0;
}

/* As nadir_encode, in the profile `dense`. `mixture`: what the tile's layers before this one have taught. */
EXPORT int nadir_encode_dense(const Model *model, const Layer *layer, const Given *given, int k, Span magnitude,
                              Span negative, Span size128, int rebuilt64, int shift, int h, int w, int active,
                              Span busy, Span scratch, Span mixture, Span out, size_t *written) {
    int refused = refuse(model, layer, k, h, w, active, busy, scratch, nadir_dense_octets);
    if (refused || !within(shift, 0, MAX_LAYERS - 1) || !within(rebuilt64, 64, 128))
        return refused ? refused : OUT_OF_RANGE;
    if (!fits_given(given))
        return TABLES_DAMAGED;
    size_t n = (size_t)h * w, all = (size_t)model->bands * COEFFICIENTS * n;
    Encoder coder = {0, UINT64_MAX, out.at, out.at};
    Dense g = {.given = given, .mixture = mixture_in(mixture), .encoder = &coder, .k = k};
    g.enough = coder.begin + PLAIN_OCTETS * all;
    g.leaves_out = size128.at != NULL, g.rebuilt64 = rebuilt64;
    if (!g.mixture || !HOLDS(magnitude, uint16_t, all) || !HOLDS(negative, uint8_t, all) ||
        !HOLDS(out, uint8_t, PLAIN_OCTETS * all + CHANNEL_OCTETS * n + LAST_OCTETS) || (size128.at && !HOLDS(size128, uint8_t, all)))
        return BUFFER_TOO_SMALL;
    code_layer(&g, model, layer, h, w, active, busy.at, scratch.at, magnitude.at, negative.at, size128.at, shift);
    finish(&coder);
    if (k == 0 && coder.at <= g.enough)
        coder.at = put_escapes(model, active, n, magnitude.at, shift, coder.at);
    *written = (size_t)(coder.at - coder.begin);
    return 0;
}

/* As nadir_decode, in the profile `dense`. raw [1]: how many escapes there were. */
EXPORT int nadir_decode_dense(const Model *model, const Layer *layer, const Given *given, int k, Span octets, int h,
                              int w, int active, Span busy, Span scratch, Span mixture, Span here, Span negative,
                              Span raw) {
    int refused = refuse(model, layer, k, h, w, active, busy, scratch, nadir_dense_octets);
    if (refused)
        return refused;
    if (!fits_given(given))
        return TABLES_DAMAGED;
    size_t n = (size_t)h * w, all = (size_t)model->bands * COEFFICIENTS * n;
    Decoder coder;
    Dense g = {.given = given, .mixture = mixture_in(mixture), .decoder = &coder, .k = k};
    if (!g.mixture || octets.at == NULL || !HOLDS(here, uint16_t, all) || !HOLDS(negative, uint8_t, all) ||
        !HOLDS(raw, uint64_t, 1))
        return BUFFER_TOO_SMALL;
    open_decoder(&coder, octets.at, octets.octets);
    code_layer(&g, model, layer, h, w, active, busy.at, scratch.at, here.at, negative.at, NULL, 0);
    *(uint64_t *)raw.at = g.escapes;
    return coder.failed ? NO_ENCODERS : take_escapes(model, active, n, &octets, k ? 0 : g.escapes, here.at);
}
