/* Features -> the class of a coefficient's chance; the other half of payload/codec/lapped/context_model.py. */
#include "kernel.h"

static int log2_eighths(int value) {
    float exact = (float)value;
    int32_t bits;
    memcpy(&bits, &exact, sizeof bits);
    return (bits >> 20) - (127 << 3);
}

static int class_of(int logit) {
    int c = (logit >> LOGIT_BITS) + CLASS_OFFSET;
    return c < 0 ? 0 : c >= CLASSES ? CLASSES - 1 : c;
}

static void classes_plain(const Contexts *t, int channel, const int16_t *base, int first, uint8_t *found,
                          int16_t *logits) {
    const Layer *l = t->layer;
    const int8_t *weight = l->weight + (size_t)channel * t->features, *gain = l->gain + channel * SUMS;
    for (int i = 0; i < t->span; i++) {
        int logit = first + (base ? base[i] : 0), f = 0;
        for (int e = 0; e < SUMS; e++) {
            int sum = l->floor[e];
            for (; f < t->ends[e]; f++) {
                int x = t->x[f][i];
                sum += l->mix[f] * x;
                logit += weight[f] * log2_eighths(x + 1);
            }
            logit += gain[e] * log2_eighths(sum);
        }
        found[i] = (uint8_t)class_of(logit);
        if (logits)
            logits[i] = (int16_t)logit;
    }
}

#if HAVE_AVX2
/* 8 log2 of sixteen positive 16-bit integers. */
AVX2 static __m256i log2_avx2(__m256i values) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i low = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_unpacklo_epi16(values, zero)));
    __m256i high = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_unpackhi_epi16(values, zero)));
    __m256i both = _mm256_packs_epi32(_mm256_srli_epi32(low, 20), _mm256_srli_epi32(high, 20));
    return _mm256_sub_epi16(both, _mm256_set1_epi16(127 << 3));
}

AVX2 static __m256i two_octets(int8_t first, int8_t second) {
    return _mm256_set1_epi16((int16_t)((uint8_t)first | (uint16_t)(uint8_t)second << 8));
}

/* Features two by two: where they lie and what they are multiplied with. An odd one pairs with itself at no weight. */
typedef struct {
    const uint8_t *first, *second;
    __m256i weights;
} Pair;

/* Pairs of those features that are not nothing. */
AVX2 static int pairs_of(const Contexts *t, const uint8_t *features, int count, const int8_t *weight, Pair *pairs) {
    int some[MAX_FEATURES], all = 0;
    for (int i = 0; i < count; i++)
        if (t->x[features[i]] != t->nothing)
            some[all++] = features[i];
    for (int i = 0; i < all; i += 2) {
        int f = some[i], next = i + 1 < all ? some[i + 1] : -1;
        *pairs++ = (Pair){t->x[f], t->x[next < 0 ? f : next], two_octets(weight[f], next < 0 ? 0 : weight[next])};
    }
    return (all + 1) / 2;
}

AVX2 static __m256i table_of_logs(void) {
    uint8_t table[16];
    for (int x = 0; x < 16; x++)
        table[x] = (uint8_t)log2_eighths(x + 1);
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
}

/* Every channel of a band looks at the same zones: their logarithms, ready to be multiplied. */
AVX2 static void log_zones_avx2(Contexts *t) {
    const __m256i logs = table_of_logs();
    for (int k = 0; k < 5 * t->model->bands; k++) {
        const uint8_t *block = t->block + (size_t)k * t->plane + inner(t);
        const uint8_t *around = t->around + (size_t)k * t->plane + inner(t);
        uint8_t *to = t->zone_logs + (size_t)k * 2 * t->span;
        for (int i = 0; i < t->span && t->block_some[k]; i += STEP, to += 2 * STEP) {
            __m256i a = _mm256_shuffle_epi8(logs, _mm256_loadu_si256((const __m256i *)(block + i)));
            __m256i b = _mm256_shuffle_epi8(logs, _mm256_loadu_si256((const __m256i *)(around + i)));
            _mm256_storeu_si256((__m256i *)to, _mm256_unpacklo_epi8(a, b));
            _mm256_storeu_si256((__m256i *)(to + STEP), _mm256_unpackhi_epi8(a, b));
        }
    }
}

/* As classes_plain, 32 cells at a time in 16-bit sums: payload/codec/lapped/tables.py has refused tables that could
 * pass those. Features that are nothing add nothing. */
AVX2 static void classes_avx2(const Contexts *t, int channel, const int16_t *base, int first, uint8_t *found,
                              int16_t *logits) {
    const Layer *l = t->layer;
    const int8_t *gain = l->gain + channel * SUMS, *weight = l->weight + (size_t)channel * t->features;
    const int zones = t->ends[2], band = channel / COEFFICIENTS;
    Pair weighted[MAX_FEATURES], mixed[MAX_FEATURES], logged[ZONES + 1];
    int ends[SUMS], all = 0, logs_there = 0, own = 0;
    while (own < l->weights && l->weighted[own] < zones)
        own++;
    int weights = pairs_of(t, l->weighted, own, weight, weighted);
    for (int z = 0; z < ZONES + 1; z++) {
        const int8_t *w = weight + zones + 2 * z;
        const uint8_t *pairs = t->zone_logs + (size_t)(5 * band + z) * 2 * t->span;
        if (t->block_some[5 * band + z] && (w[0] || w[1]))
            logged[logs_there++] = (Pair){pairs, NULL, two_octets(w[0], w[1])};
    }
    for (int e = 0, begin = 0; e < SUMS; begin = l->mixed_ends[e++]) {
        int pairs = pairs_of(t, l->mixed + begin, l->mixed_ends[e] - begin, l->mix, mixed + all);
        ends[e] = all += pairs;
        if (pairs == 0)
            first += gain[e] * log2_eighths(l->floor[e]);
    }
    const __m256i logs = table_of_logs(), constant = _mm256_set1_epi16((int16_t)first);
    const __m256i offset = _mm256_set1_epi16(CLASS_OFFSET), most = _mm256_set1_epi8(CLASSES - 1);
    const int span = t->span;
    for (int i = 0; i < span; i += STEP) {
        __m256i low = constant, high = constant;
        if (base != NULL) {
            __m256i here = _mm256_loadu_si256((const __m256i *)(base + i));
            __m256i next = _mm256_loadu_si256((const __m256i *)(base + i + 16));
            low = _mm256_add_epi16(low, _mm256_permute2x128_si256(here, next, 0x20)); /* as octets unpack: 0-7, 16-23 */
            high = _mm256_add_epi16(high, _mm256_permute2x128_si256(here, next, 0x31)); /* 8-15, 24-31 */
        }
        for (const Pair *p = logged; p < logged + logs_there; p++) {
            const __m256i *at = (const __m256i *)(p->first + 2 * i);
            low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_loadu_si256(at), p->weights));
            high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_loadu_si256(at + 1), p->weights));
        }
        for (const Pair *p = weighted; p < weighted + weights; p++) {
            __m256i a = _mm256_shuffle_epi8(logs, _mm256_loadu_si256((const __m256i *)(p->first + i)));
            __m256i b = _mm256_shuffle_epi8(logs, _mm256_loadu_si256((const __m256i *)(p->second + i)));
            low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), p->weights));
            high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), p->weights));
        }
        for (int e = 0, pair = 0; e < SUMS; e++) {
            if (pair == ends[e])
                continue; /* of nothing: the constant holds it */
            __m256i sum_low = _mm256_set1_epi16(l->floor[e]), sum_high = sum_low;
            for (; pair < ends[e]; pair++) {
                __m256i a = _mm256_loadu_si256((const __m256i *)(mixed[pair].first + i));
                __m256i b = _mm256_loadu_si256((const __m256i *)(mixed[pair].second + i));
                __m256i both = _mm256_unpacklo_epi8(a, b);
                sum_low = _mm256_add_epi16(sum_low, _mm256_maddubs_epi16(both, mixed[pair].weights));
                both = _mm256_unpackhi_epi8(a, b);
                sum_high = _mm256_add_epi16(sum_high, _mm256_maddubs_epi16(both, mixed[pair].weights));
            }
            const __m256i times = _mm256_set1_epi16(gain[e]);
            low = _mm256_add_epi16(low, _mm256_mullo_epi16(times, log2_avx2(sum_low)));
            high = _mm256_add_epi16(high, _mm256_mullo_epi16(times, log2_avx2(sum_high)));
        }
        if (logits) {
            _mm256_storeu_si256((__m256i *)(logits + i), _mm256_permute2x128_si256(low, high, 0x20));
            _mm256_storeu_si256((__m256i *)(logits + i + 16), _mm256_permute2x128_si256(low, high, 0x31));
        }
        low = _mm256_add_epi16(_mm256_srai_epi16(low, LOGIT_BITS), offset);
        high = _mm256_add_epi16(_mm256_srai_epi16(high, LOGIT_BITS), offset);
        __m256i c = _mm256_min_epu8(_mm256_packus_epi16(low, high), most);
        _mm256_storeu_si256((__m256i *)(found + i), c);
    }
}
#endif

/* What a channel's logits begin with: a number, and for block averages one more for the place among 8 x 8 blocks. */
static const int16_t *bases_of(const Contexts *t, int channel, int *first) {
    int band = channel / COEFFICIENTS;
    *first = t->layer->base[channel] + t->layer->activity[channel] * t->busy[band];
    if (channel % COEFFICIENTS)
        return NULL;
    memset(t->base, 0, (size_t)t->span * sizeof *t->base);
    for (int row = 0; row < t->h; row++)
        for (int col = 0; col < t->w; col++)
            t->base[row * t->pitch + col] = t->layer->position[band * COEFFICIENTS + row % BLOCK * BLOCK + col % BLOCK];
    return t->base;
}

/* found[r - begin][span]: classes of the channels of the ranks begin..end. */
static void classes_of_group(Contexts *t, int begin, int end) {
    sum_zones(t);
#if HAVE_AVX2
    if (use_avx2())
        log_zones_avx2(t);
#endif
    for (int rank = begin; rank < end; rank++) {
        int channel = t->model->order[rank], first;
        uint8_t *found = t->found + (size_t)(rank - begin) * t->span;
        const int16_t *base = bases_of(t, channel, &first);
        int16_t *logits = t->logits ? t->logits + (size_t)(rank - begin) * t->span : NULL;
        features_of(t, channel, t->layer->used);
#if HAVE_AVX2
        if (use_avx2()) {
            classes_avx2(t, channel, base, first, found, logits);
            continue;
        }
#endif
        classes_plain(t, channel, base, first, found, logits);
    }
}
