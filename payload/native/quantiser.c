/* Latents -> magnitudes and signs, and the error that layers leave; twin of payload/codec/lapped/quantiser.py. */
#include "kernel.h"

/* |latent|; the least there is counts as one more. */
static inline int32_t size_of(int32_t latent) {
    latent = latent < -INT32_MAX ? -INT32_MAX : latent;
    return latent < 0 ? -latent : latent;
}

/* One latent, whatever its size. */
static uint16_t magnitude_of(int32_t latent, uint32_t step) {
    uint64_t size = 5 * (uint64_t)(latent < 0 ? -(int64_t)latent : latent), q = (size + step) / (5 * (uint64_t)step);
    return q > 65535 ? 65535 : (uint16_t)q;
}

#if HAVE_AVX2
/* Eight latents below 2^26: magnitudes in 32 bits; `share`: their sizes in 128ths. */
AVX2 static inline __m256i eight_avx2(__m256i latents, int32_t step, float inverse, float per_step, __m256i *share) {
    const __m256i divisor = _mm256_set1_epi32(5 * step);
    __m256i size = _mm256_abs_epi32(latents);
    __m256i five = _mm256_add_epi32(_mm256_add_epi32(size, _mm256_slli_epi32(size, 2)), _mm256_set1_epi32(step));
    __m256i q = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(five), _mm256_set1_ps(inverse)));
    __m256i left = _mm256_sub_epi32(five, _mm256_mullo_epi32(q, divisor));
    __m256 part = _mm256_mul_ps(_mm256_cvtepi32_ps(size), _mm256_set1_ps(per_step));
    *share = _mm256_cvttps_epi32(_mm256_min_ps(part, _mm256_set1_ps(255.0f)));
    q = _mm256_add_epi32(q, _mm256_srai_epi32(left, 31)); /* one less where it was too much, one more where too little */
    return _mm256_sub_epi32(q, _mm256_cmpgt_epi32(left, _mm256_sub_epi32(divisor, _mm256_set1_epi32(1))));
}

/* As `quantise`: how many of them, a multiple of sixteen; none where one is 2^26 or more. */
AVX2 static int quantise_avx2(const int32_t *latents, int count, int32_t step, float inverse, float per_step,
                              uint16_t *magnitude, uint8_t *negative, uint8_t *size128) {
    int i = 0;
    __m256i any = _mm256_setzero_si256();
    for (; i + 16 <= count; i += 16) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(latents + i)), share_a;
        __m256i b = _mm256_loadu_si256((const __m256i *)(latents + i + 8)), share_b;
        any = _mm256_or_si256(any, _mm256_or_si256(_mm256_abs_epi32(a), _mm256_abs_epi32(b)));
        __m256i first = eight_avx2(a, step, inverse, per_step, &share_a);
        __m256i both = _mm256_packus_epi32(first, eight_avx2(b, step, inverse, per_step, &share_b));
        _mm256_storeu_si256((__m256i *)(magnitude + i), _mm256_permute4x64_epi64(both, _MM_SHUFFLE(3, 1, 2, 0)));
        both = _mm256_permute4x64_epi64(_mm256_packus_epi32(share_a, share_b), _MM_SHUFFLE(3, 1, 2, 0));
        _mm_storeu_si128((__m128i *)(size128 + i),
                         _mm_packus_epi16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)));
        both = _mm256_packs_epi32(_mm256_srai_epi32(a, 31), _mm256_srai_epi32(b, 31));
        both = _mm256_permute4x64_epi64(both, _MM_SHUFFLE(3, 1, 2, 0));
        __m128i minus = _mm_packs_epi16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
        _mm_storeu_si128((__m128i *)(negative + i), _mm_and_si128(minus, _mm_set1_epi8(1)));
    }
    return _mm256_testz_si256(any, _mm256_set1_epi32((int)(UINT32_MAX << 26))) ? i : 0;
}
#endif

/* Magnitudes floor(|latent| / step + 1/5), at most 65535, signs, and sizes in 128ths of step << unsent, over n latents.
 * Division is by a float reciprocal and one correction, exact below 2^28: |latent| < 2^26 and steps up to 2^24. */
VECTORISED static void quantise(const int32_t *latents, int n, uint32_t step, int unsent, uint16_t *magnitude,
                                uint8_t *negative, uint8_t *size128) {
    enum { CHUNK = 512 };
    float per_step = 128.0f / (float)((uint64_t)step << unsent);
    int32_t divisor = 5 * (int32_t)step;
    float inverse = 1.0f / (float)divisor;
    for (int begin = 0; begin < n; begin += CHUNK) {
        int count = n - begin < CHUNK ? n - begin : CHUNK;
        const int32_t *from = latents + begin;
        int32_t any = 0;
        int done = 0;
#if HAVE_AVX2
        if (use_avx2())
            done = quantise_avx2(from, count, (int32_t)step, inverse, per_step, magnitude + begin, negative + begin,
                                 size128 + begin);
#endif
        for (int i = done; i < count; i++)
            any |= size_of(from[i]);
        if (any >> 26) {
            for (int i = done; i < count; i++)
                magnitude[begin + i] = magnitude_of(from[i], step);
        } else {
            for (int i = done; i < count; i++) {
                int32_t size = 5 * size_of(from[i]) + (int32_t)step;
                int32_t q = (int32_t)((float)size * inverse), left = size - q * divisor;
                q += (left >= divisor) - (left < 0);
                magnitude[begin + i] = (uint16_t)(q > 65535 ? 65535 : q);
            }
        }
        for (int i = done; i < count; i++) {
            int32_t size = size_of(from[i]);
            float share = (float)size * per_step;
            negative[begin + i] = from[i] < 0;
            size128[begin + i] = (uint8_t)(int32_t)(share < 255.0f ? share : 255.0f);
        }
    }
}

EXPORT int nadir_quantise(Span latents, int n, uint32_t step, int unsent, Span magnitude, Span negative, Span size128) {
    if (!within(n, 0, INT32_MAX) || step < 1 || step > MAX_STEP || !within(unsent, 0, MAX_LAYERS))
        return OUT_OF_RANGE;
    if (!HOLDS(latents, int32_t, n) || !HOLDS(magnitude, uint16_t, n) || !HOLDS(negative, uint8_t, n) ||
        !HOLDS(size128, uint8_t, n))
        return BUFFER_TOO_SMALL;
    quantise(latents.at, n, step, unsent, magnitude.at, negative.at, size128.at);
    return 0;
}

/* Squared error left after 0, 1, ..., `layers` layers, in sixteenths of a rotated value, squared and summed:
 * left [layers + 1]. inside [layers]: where a cell of each layer is rebuilt, in 64ths of it. */
VECTORISED static void errors(const int32_t *latents, int n, uint32_t step, int layers, const int32_t *inside,
                              uint64_t *left) {
    enum { CHUNK = 512 };
    uint16_t magnitude[CHUNK];
    uint8_t negative[CHUNK], size128[CHUNK];
    for (int begin = 0; begin < n; begin += CHUNK) {
        int count = n - begin < CHUNK ? n - begin : CHUNK;
        const int32_t *from = latents + begin;
        int32_t any = 0;
        for (int i = 0; i < count; i++)
            any |= size_of(from[i]);
        quantise(from, count, step, 0, magnitude, negative, size128);
        for (int k = 0; k <= layers; k++) {
            int missing = layers - k;
            int64_t wide = (int64_t)step << (k ? missing : 0), start = k ? inside[k - 1] * wide >> 6 : 0;
            uint64_t sum = 0;
            if (any >> 26 == 0 && wide >> 26 == 0) { /* everything fits 32 bits */
                for (int i = 0; i < count; i++) {
                    int32_t size = size_of(from[i]), kept = k ? magnitude[i] >> missing : 0;
                    int32_t level = kept ? kept * (int32_t)wide + (int32_t)start : 0;
                    uint32_t cut = (uint32_t)(size > level ? size - level : level - size) >> 4;
                    sum += (uint64_t)cut * cut;
                }
            } else {
                for (int i = 0; i < count; i++) {
                    int64_t size = from[i] < 0 ? -(int64_t)from[i] : from[i], kept = k ? magnitude[i] >> missing : 0;
                    int64_t level = kept ? kept * wide + start : 0;
                    uint64_t cut = (uint64_t)(size > level ? size - level : level - size) >> 4;
                    sum += cut * cut;
                }
            }
            left[k] += sum;
        }
    }
}

EXPORT int nadir_errors(Span latents, int n, uint32_t step, int layers, Span inside, Span left) {
    if (!within(n, 0, INT32_MAX) || step < 1 || step > MAX_STEP || !within(layers, 1, MAX_LAYERS))
        return OUT_OF_RANGE;
    if (!HOLDS(latents, int32_t, n) || !HOLDS(inside, int32_t, layers) || !HOLDS(left, uint64_t, layers + 1))
        return BUFFER_TOO_SMALL;
    errors(latents.at, n, step, layers, inside.at, left.at);
    return 0;
}

/* Significant coefficients of every channel in the first `keep` layers, hits [keep][channels]; layer k knows magnitude >>
 * (layers - 1 - k). */
VECTORISED static void count_significant(const uint16_t *magnitude, int channels, int n, int layers, int keep,
                                         int32_t *hits) {
    for (int c = 0; c < channels; c++) {
        uint16_t any = 0;
        for (int i = 0; i < n; i++)
            any |= magnitude[(size_t)c * n + i];
        for (int k = 0; k < keep; k++) {
            uint16_t least = (uint16_t)(1 << (layers - 1 - k));
            int32_t all = 0;
            for (int begin = 0; any >= least && begin < n; begin += 4096) { /* counted in 16 bits, as the values are */
                const uint16_t *from = magnitude + (size_t)c * n + begin;
                uint16_t count = 0;
                for (int i = 0; i < (n - begin < 4096 ? n - begin : 4096); i++)
                    count = (uint16_t)(count + (from[i] >= least));
                all += count;
            }
            hits[k * channels + c] = all;
        }
    }
}
