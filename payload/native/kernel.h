/* What every chapter of the kernel needs: sizes, how a caller's arrays are handed over, which loops to take. */
#ifndef NADIR_KERNEL_H
#define NADIR_KERNEL_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAVE_AVX2 1
#define AVX2 __attribute__((target("avx2")))
#else
#define HAVE_AVX2 0
#endif

#define EXPORT __attribute__((visibility("default")))
/* Loops that a compiler turns into vectors by itself, once for any processor and once for AVX2. */
#if HAVE_AVX2 && defined(__gnu_linux__)
#define VECTORISED __attribute__((target_clones("avx2", "default")))
#else
#define VECTORISED
#endif

enum { COEFFICIENTS = 64, BLOCK = 8, CLASSES = 32, CLASS_OFFSET = 23, LOGIT_BITS = 8, KNOWN_LIMIT = 15 };
enum { ACTIVITY_CENTRE = 16, LONGEST_RUN = 64, GUESSES = 256, ESCAPE = 16, SIZE_CLASSES = 8, REFINEMENTS = 3, ZONES = 4 };
enum { MAX_BANDS = 16, SUMS = 4, MAX_FEATURES = 3 + 5 + 2 * (MAX_BANDS - 1) + 2 * (ZONES + 1), PAD = 2 };
enum { MAX_SIDE = 4096, MAX_CELLS = MAX_SIDE / BLOCK, LATENT_BITS = 8, FOLD_LIMIT = 8191, FOLD_DOWN = 2 };
enum { STEP = 32 }; /* cells at a time: an AVX2 register of octets */
enum { MAX_LAYERS = 16, MAX_STEP = 1 << 24 };
/* What is wrong with octets, and, negative, with what the caller handed over. */
enum { NO_ENCODERS = 1, RUN_TOO_LONG = 2, TOO_SHORT = 3, SMALL_ESCAPE = 4 };
enum { BUFFER_TOO_SMALL = -1, OUT_OF_RANGE = -2, TABLES_DAMAGED = -3 };

/* An array of the caller's: where it begins and how long it is. NULL where there is none. */
typedef struct {
    void *at;
    size_t octets;
} Span;

/* Whether a span is there and holds `count` values of a type. */
#define HOLDS(span, type, count) ((span).at != NULL && (span).octets / sizeof(type) >= (size_t)(count))

static int within(int value, int least, int most) { return value >= least && value <= most; }

/* Tests set it to compare the plain loops with the vector ones, and those with what they do without pext, pdep and VNNI. */
enum { ALL_LOOPS, PLAIN_LOOPS, OLDER_LOOPS };
static int loops_taken;

static int use_avx2(void) {
#if HAVE_AVX2
    return loops_taken != PLAIN_LOOPS && __builtin_cpu_supports("avx2");
#else
    return 0;
#endif
}

#endif
