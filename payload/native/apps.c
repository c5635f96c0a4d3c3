/* What applications on board count: pixels that meet a formula, sums of a band under a mask, sums over windows. Twins of
 * `Formula.of` in payload/apps/formula.py and of the plain sums in payload/apps/counting.py. Whole numbers, so that any
 * order gives the same. */
#include "kernel.h"

enum { PIXELS = 256, MOST_INSTRUCTIONS = 1024, MOST_REACH = 31 };
/* An instruction: what it does, whether its values have 64 bits instead of 32, and two earlier instructions whose values
 * it takes, or a plane (BAND), or a number (CONSTANT). Truth is 0 or 1 in 32 bits; a comparison is wide where what it
 * compares is. WIDEN takes 32 bits. */
enum { BAND, CONSTANT, WIDEN, ADD, SUBTRACT, MULTIPLY, LESS, LESS_OR_EQUAL, EQUAL, AND, OR, NOT, OPERATIONS };

typedef struct {
    int64_t op, wide, a, b;
} Instruction;

/* Values of an instruction; apart from its neighbours' by no power of two, whose lines the cache would mix up. */
typedef struct {
    union {
        int32_t narrow[PIXELS];
        int64_t wide[PIXELS];
    };
    uint8_t apart[64];
} Slot;

static int is_truth(const Instruction *one) { return one->op >= LESS; }

/* Whether the values of an instruction have 64 bits. */
static int holds_wide(const Instruction *one) { return one->wide && !is_truth(one); }

static int instruction_is_sound(const Instruction *all, int at, int bands) {
    const Instruction *one = all + at;
    if (one->op < 0 || one->op >= OPERATIONS || one->wide < 0 || one->wide > 1)
        return 0;
    if (one->op == BAND)
        return !one->wide && one->a >= 0 && one->a < bands;
    if (one->op == CONSTANT)
        return one->wide || (one->a >= INT32_MIN && one->a <= INT32_MAX);
    if (one->a < 0 || one->a >= at || one->b < 0 || one->b >= at)
        return 0;
    const Instruction *left = all + one->a, *right = all + one->b;
    if (one->op == WIDEN)
        return one->wide && !holds_wide(left) && !is_truth(left);
    if (one->op >= AND)
        return !one->wide && is_truth(left) && is_truth(right);
    return !is_truth(left) && !is_truth(right) && holds_wide(left) == one->wide && holds_wide(right) == one->wide;
}

#define EACH(to, expression)                                                                                           \
    for (int i = 0; i < PIXELS; i++)                                                                                   \
        (to)[i] = (expression);                                                                                        \
    break

/* One instruction for PIXELS pixels, of which `count` are there. Sums and products are within bounds that the formula's
 * parser has found; unsigned, so that a program of anyone else's wraps. */
VECTORISED static void execute(const Instruction *one, Slot *restrict to, const Slot *left, const Slot *right,
                               const uint16_t *dn, int count) {
    const int32_t *a = left->narrow, *b = right->narrow;
    const int64_t *c = left->wide, *d = right->wide;
    int32_t *narrow = to->narrow;
    int64_t *wide = to->wide;
    switch (one->op * 2 + one->wide) {
    case BAND * 2:
        memset(narrow, 0, sizeof(to->narrow));
        for (int i = 0; i < count; i++)
            narrow[i] = dn[i];
        break;
    case WIDEN * 2 + 1: EACH(wide, a[i]);
    case ADD * 2: EACH(narrow, (int32_t)((uint32_t)a[i] + (uint32_t)b[i]));
    case ADD * 2 + 1: EACH(wide, (int64_t)((uint64_t)c[i] + (uint64_t)d[i]));
    case SUBTRACT * 2: EACH(narrow, (int32_t)((uint32_t)a[i] - (uint32_t)b[i]));
    case SUBTRACT * 2 + 1: EACH(wide, (int64_t)((uint64_t)c[i] - (uint64_t)d[i]));
    case MULTIPLY * 2: EACH(narrow, (int32_t)((uint32_t)a[i] * (uint32_t)b[i]));
    case MULTIPLY * 2 + 1: EACH(wide, (int64_t)((uint64_t)c[i] * (uint64_t)d[i]));
    case LESS * 2: EACH(narrow, a[i] < b[i]);
    case LESS * 2 + 1: EACH(narrow, c[i] < d[i]);
    case LESS_OR_EQUAL * 2: EACH(narrow, a[i] <= b[i]);
    case LESS_OR_EQUAL * 2 + 1: EACH(narrow, c[i] <= d[i]);
    case EQUAL * 2: EACH(narrow, a[i] == b[i]);
    case EQUAL * 2 + 1: EACH(narrow, c[i] == d[i]);
    case AND * 2: EACH(narrow, a[i] & b[i]);
    case OR * 2: EACH(narrow, a[i] | b[i]);
    case NOT * 2: EACH(narrow, !a[i]);
    }
}

/* Constants stand in their slots from the beginning. */
static void put_constants(const Instruction *all, int count, Slot *slots) {
    for (int k = 0; k < count; k++)
        for (int i = 0; all[k].op == CONSTANT && i < PIXELS; i++)
            if (all[k].wide)
                slots[k].wide[i] = all[k].a;
            else
                slots[k].narrow[i] = (int32_t)all[k].a;
}

/* Up to PIXELS pixels from `first` of every plane of `cells`: 1 where the last instruction says so. */
static void formula_run(const Instruction *all, int instructions, Slot *slots, const uint16_t *first, size_t cells,
                        int count, uint8_t *found) {
    for (int k = 0; k < instructions; k++) {
        int of_none = all[k].op == BAND || all[k].op == CONSTANT;
        const Slot *left = of_none ? slots : slots + all[k].a, *right = of_none ? slots : slots + all[k].b;
        if (all[k].op != CONSTANT)
            execute(all + k, slots + k, left, right, all[k].op == BAND ? first + cells * (size_t)all[k].a : NULL, count);
    }
    for (int i = 0; i < count; i++)
        found[i] = (uint8_t)slots[instructions - 1].narrow[i];
}

static int is_window(int size, int top, int left, int height, int width) {
    return within(top, 0, size) && within(left, 0, size) && within(height, 1, size - top) && within(width, 1, size - left);
}

/* found [h, w]: where the program holds for digital numbers [bands, size, size] in window (top, left, h, w). */
EXPORT int nadir_formula(Span program, int instructions, Span dn, int bands, int size, int top, int left, int height,
                         int width, Span scratch, Span found) {
    if (!within(instructions, 1, MOST_INSTRUCTIONS) || !within(size, 1, MAX_SIDE) || !within(bands, 1, 1 << 16))
        return OUT_OF_RANGE;
    size_t cells = (size_t)size * size;
    if (!HOLDS(program, Instruction, instructions) || !HOLDS(dn, uint16_t, bands * cells) || !HOLDS(scratch, Slot, instructions))
        return BUFFER_TOO_SMALL;
    const Instruction *all = program.at;
    for (int k = 0; k < instructions; k++)
        if (!instruction_is_sound(all, k, bands))
            return OUT_OF_RANGE;
    if (!is_window(size, top, left, height, width) || !is_truth(all + instructions - 1))
        return OUT_OF_RANGE;
    if (!HOLDS(found, uint8_t, (size_t)height * width))
        return BUFFER_TOO_SMALL;
    put_constants(all, instructions, scratch.at);
    for (int row = 0; row < height; row++)
        for (int col = 0; col < width; col += PIXELS)
            formula_run(all, instructions, scratch.at, (const uint16_t *)dn.at + (size_t)(top + row) * size + left + col,
                        cells, width - col < PIXELS ? width - col : PIXELS, (uint8_t *)found.at + (size_t)row * width + col);
    return 0;
}

VECTORISED static uint32_t masked_row(const uint16_t *dn, const uint8_t *mask, int width) {
    uint32_t sum = 0;
    for (int i = 0; i < width; i++)
        sum += dn[i] & (uint16_t)-(mask[i] != 0);
    return sum;
}

/* sum [1] of a plane [size, size] in a window (top, left, h, w) where mask [h, w] is not 0. */
EXPORT int nadir_masked_sum(Span plane, int size, int top, int left, int height, int width, Span mask, Span sum) {
    if (!within(size, 1, MAX_SIDE))
        return OUT_OF_RANGE;
    if (!HOLDS(plane, uint16_t, (size_t)size * size) || !HOLDS(sum, int64_t, 1))
        return BUFFER_TOO_SMALL;
    if (!is_window(size, top, left, height, width))
        return OUT_OF_RANGE;
    if (!HOLDS(mask, uint8_t, (size_t)height * width))
        return BUFFER_TOO_SMALL;
    int64_t total = 0;
    for (int row = 0; row < height; row++)
        total += masked_row((const uint16_t *)plane.at + (size_t)(top + row) * size + left,
                            (const uint8_t *)mask.at + (size_t)row * width, width);
    *(int64_t *)sum.at = total;
    return 0;
}

/* Adds a row [width] of values, or takes it away, where mask is not 0; values NULL: each counts 1. */
VECTORISED static void add_masked_row(int32_t *columns, const uint16_t *values, const uint8_t *mask, int width, int sign) {
    if (values)
        for (int i = 0; i < width; i++)
            columns[i] += sign * (values[i] & (uint16_t)-(mask[i] != 0));
    else
        for (int i = 0; i < width; i++)
            columns[i] += sign * (mask[i] != 0);
}

/* Sums of 2 reach + 1 neighbours of columns [width], between `reach` zeros on either side, made of sums of 2, 4, 8 ... */
VECTORISED static void sum_along(const int32_t *columns, int32_t *sums, int32_t *to, int width, int reach) {
    int length = 2 * reach + 1, padded = width + 2 * reach, at = 1, size = 1;
    memcpy(sums, columns, (size_t)padded * sizeof(int32_t));
    memcpy(to, columns, (size_t)width * sizeof(int32_t));
    while (2 * size <= length) {
        for (int i = 0; i + size < padded; i++)
            sums[i] += sums[i + size];
        padded -= size;
        size *= 2;
        if (length & size) {
            for (int i = 0; i < width; i++)
                to[i] += sums[at + i];
            at += size;
        }
    }
}

/* sums [h, w] over the windows around each pixel, as far as they lie in the area, of a plane [size, size] in a window
 * (top, left, h, w) where mask [h, w] is not 0; without a plane: how many these are. scratch [2 (w + 2 reach)]. */
EXPORT int nadir_window_sums(Span plane, int size, int top, int left, int height, int width, Span mask, int reach,
                              Span scratch, Span sums) {
    if (!within(size, 1, MAX_SIDE) || !within(reach, 0, MOST_REACH))
        return OUT_OF_RANGE;
    if (plane.at && !HOLDS(plane, uint16_t, (size_t)size * size))
        return BUFFER_TOO_SMALL;
    if (!is_window(size, top, left, height, width))
        return OUT_OF_RANGE;
    int padded = width + 2 * reach;
    size_t area = (size_t)height * width;
    if (!HOLDS(mask, uint8_t, area) || !HOLDS(sums, int32_t, area) || !HOLDS(scratch, int32_t, 2 * (size_t)padded))
        return BUFFER_TOO_SMALL;
    int32_t *columns = scratch.at;
    const uint16_t *values = plane.at ? (const uint16_t *)plane.at + (size_t)top * size + left : NULL;
    memset(columns, 0, (size_t)padded * sizeof(int32_t));
    for (int row = -reach; row < height; row++) {
        int enters = row + reach, leaves = row - reach - 1;
        if (enters < height)
            add_masked_row(columns + reach, values ? values + (size_t)enters * size : NULL,
                    (const uint8_t *)mask.at + (size_t)enters * width, width, 1);
        if (leaves >= 0)
            add_masked_row(columns + reach, values ? values + (size_t)leaves * size : NULL,
                    (const uint8_t *)mask.at + (size_t)leaves * width, width, -1);
        if (row >= 0)
            sum_along(columns, columns + padded, (int32_t *)sums.at + (size_t)row * width, width, reach);
    }
    return 0;
}
