/* What a job sees of its data: which rows of the training part it trains on and which it sets
 * aside (D1). See data.h. Everything that takes rows for a job takes them through a view, so that
 * the coordinator, replay and the statistics cannot disagree. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/base/rng.h"
#include "common/data/data.h"

/* One class of the training part. `count` of its `rows` rows are chosen. */
typedef struct class_share {
    int32_t class;
    uint32_t rows, least, most, count;
} class_share;

/* ---- how many rows of each class ---- */

/* How far the class is below its exact share of `wanted` rows among `all`, times `all`. */
static int64_t deficit(const class_share *s, uint64_t wanted, uint64_t all) {
    return (int64_t)(wanted * s->rows) - (int64_t)(all * s->count);
}

/* The class that takes the next row (`up`), or gives one back. Ties go to the lowest class. */
static class_share *next_share(class_share *shares, uint32_t count, uint64_t wanted, uint64_t all,
                               bool up) {
    class_share *found = NULL;
    for (uint32_t i = 0; i < count; i++) {
        class_share *s = &shares[i];
        if (up ? s->count >= s->most : s->count <= s->least) continue;
        const int64_t own = deficit(s, wanted, all);
        const int64_t other = found ? deficit(found, wanted, all) : 0;
        if (!found || (up ? own > other : own < other)) found = s;
    }
    return found;
}

/* Largest remainders within [least, most]: sets the counts of all classes to `wanted` in all. */
static void share_out(class_share *shares, uint32_t count, uint64_t wanted) {
    uint64_t all = 0, sum = 0;
    for (uint32_t i = 0; i < count; i++) all += shares[i].rows;
    for (uint32_t i = 0; i < count; i++) {
        class_share *s = &shares[i];
        s->count = (uint32_t)(wanted * s->rows / all);
        if (s->count < s->least) s->count = s->least;
        if (s->count > s->most) s->count = s->most;
        sum += s->count;
    }
    for (; sum < wanted; sum++) next_share(shares, count, wanted, all, true)->count++;
    for (; sum > wanted; sum--) next_share(shares, count, wanted, all, false)->count--;
}

/* ---- the draw ---- */

/* `of`: for each class the place of its share. Classes without rows have none. */
static uint32_t find_shares(const cop_data_part *part, bool by_class, class_share *shares,
                            uint32_t *of, int32_t classes) {
    uint32_t count = 0;
    if (!by_class) {
        shares[0] = (class_share){.rows = part->count};
        return 1;
    }
    for (uint32_t r = 0; r < part->count; r++) of[part->labels[r]]++;
    for (int32_t c = 0; c < classes; c++) {
        if (!of[c]) continue;
        shares[count] = (class_share){.class = c, .rows = of[c]};
        of[c] = count++;
    }
    return count;
}

static const class_share *rarest(const class_share *shares, uint32_t count) {
    const class_share *found = shares;
    for (uint32_t i = 1; i < count; i++)
        if (shares[i].rows < found->rows) found = &shares[i];
    return found;
}

static cop_err check_room(const cop_data *data, const cop_data_cut *cut, uint32_t used,
                          const class_share *shares, uint32_t count, cop_error *error) {
    const class_share *rare = rarest(shares, count);
    char number[16];
    if (used < count)
        return cop_fail(error, COP_ERR_INPUT,
                        "data.samples is %u: the data have %u classes, so class %s (%u of the "
                        "training samples) would have no training sample; expected at least %u",
                        used, count, cop_data_class(data, rare->class, number), rare->rows, count);
    if (cut->validation > used - count)
        return cop_fail(error, COP_ERR_INPUT,
                        "data.validation is %u of %u samples: class %s (%u of the training "
                        "samples) would have no training sample; expected at most %u",
                        cut->validation, used, cop_data_class(data, rare->class, number),
                        rare->rows, used - count);
    return COP_OK;
}

/* The first 8 bytes of the SHA-256 of the samples and then the labels. */
static uint64_t hash_values(const cop_data_part *part) {
    cop_sha256 hash;
    unsigned char bytes[32];
    uint64_t seed;
    cop_sha256_init(&hash);
    cop_sha256_update(&hash, part->samples, part->count * part->stride);
    cop_sha256_update(&hash, part->labels, part->count * sizeof *part->labels);
    cop_sha256_final(&hash, bytes);
    memcpy(&seed, bytes, sizeof seed); /* little-endian, as all of it */
    return seed;
}

enum { UNUSED, TRAIN, VALIDATION };

/* The first rows of each class, in the order of the permutation, are set aside, the next are
 * trained on. marks: what becomes of each row. */
static cop_err draw(const cop_data *data, const cop_data_cut *cut, uint32_t used,
                    class_share *shares, uint32_t *of, unsigned char *marks, cop_error *error) {
    const cop_data_part *part = &data->train;
    const uint32_t count = find_shares(part, cut->by_class, shares, of, data->classes);
    COP_TRY(check_room(data, cut, used, shares, count, error));
    for (uint32_t i = 0; i < count; i++) shares[i].least = 1, shares[i].most = shares[i].rows;
    share_out(shares, count, used);
    for (uint32_t i = 0; i < count; i++) { /* `rows` are now those that are used */
        shares[i].rows = shares[i].count;
        shares[i].least = 0;
        shares[i].most = shares[i].count - 1;
    }
    share_out(shares, count, cut->validation);
    /* Not of the digest, which the shape enters: a table and pictures of the same values, such as
     * CSV and NPY have, are cut alike. */
    cop_permutation permutation;
    cop_permutation_init_for(&permutation, hash_values(part), COP_RNG_SPLIT, 0, part->count);
    for (uint32_t i = 0; i < part->count; i++) {
        const uint32_t row = cop_permutation_at(&permutation, i);
        class_share *s = &shares[cut->by_class ? of[part->labels[row]] : 0];
        if (!s->rows) continue;
        s->rows--;
        marks[row] = s->count ? VALIDATION : TRAIN;
        if (s->count) s->count--;
    }
    return COP_OK;
}

/* Training rows, then validation rows, each in the order of the data. */
static void list_rows(const unsigned char *marks, uint32_t count, const cop_data_view *view) {
    uint32_t train = 0, validation = view->train;
    for (uint32_t r = 0; r < count; r++) {
        if (marks[r] == TRAIN) view->rows[train++] = r;
        if (marks[r] == VALIDATION) view->rows[validation++] = r;
    }
    COP_ASSERT(train == view->train && validation == view->train + view->validation);
}

static cop_err make_rows(const cop_data *data, const cop_data_cut *cut, cop_data_view *view,
                         cop_error *error) {
    const uint32_t used = view->train + view->validation;
    const size_t classes = (size_t)data->classes;
    class_share *shares = cop_alloc_array(classes, sizeof *shares);
    uint32_t *of = cop_alloc_array(classes, sizeof *of);
    unsigned char *marks = cop_alloc_array(data->train.count, sizeof *marks);
    view->rows = cop_alloc_array(used, sizeof *view->rows);
    cop_err e = shares && of && marks && view->rows
                    ? draw(data, cut, used, shares, of, marks, error)
                    : cop_no_memory(error);
    if (!e) list_rows(marks, data->train.count, view);
    cop_free(shares);
    cop_free(of);
    cop_free(marks);
    return e;
}

/* ---- views ---- */

cop_err cop_data_view_make(const cop_data *data, const cop_data_cut *cut, cop_data_view *out,
                           cop_error *error) {
    uint32_t all = data->train.count;
    *out = (cop_data_view){0};
    if (cut->samples > all)
        return cop_fail(error, COP_ERR_INPUT,
                        "data.samples is %u: data set %s has %u training samples", cut->samples,
                        data->name, all);
    const uint32_t used = cut->samples ? cut->samples : all;
    if (cut->validation >= used)
        return cop_fail(
            error, COP_ERR_INPUT,
            "data.validation is %u: at least one of the %u samples must be left for training",
            cut->validation, used);
    cop_data_view view = {.data = data,
                          .train = used - cut->validation,
                          .validation = cut->validation,
                          .test = data->test.count};
    const bool whole = used == all && !cut->validation;
    cop_err e = COP_OK;
    if (cut->split == COP_SPLIT_STRATIFIED && !whole) e = make_rows(data, cut, &view, error);
    if (e)
        cop_data_view_fini(&view);
    else
        *out = view;
    return e;
}

void cop_data_view_fini(cop_data_view *view) {
    cop_free(view->rows);
    *view = (cop_data_view){0};
}

uint32_t cop_data_view_row(const cop_data_view *view, uint32_t place) {
    COP_ASSERT(place < view->train + view->validation);
    return view->rows ? view->rows[place] : place;
}

/* The row as sample `at` of the room. */
static void put(const cop_data_part *part, uint32_t row, uint32_t at, const cop_data_room *room) {
    COP_ASSERT(at < room->count && (at + (size_t)1) * part->stride <= room->bytes);
    const cop_data_room rest = {.samples = (char *)room->samples + at * part->stride,
                                .bytes = room->bytes - at * part->stride,
                                .labels = room->labels + at,
                                .count = room->count - at};
    cop_data_gather(part, &row, 1, &rest);
}

void cop_data_view_gather(const cop_data_view *view, const uint32_t *places, uint32_t count,
                          const cop_data_room *out) {
    for (uint32_t i = 0; i < count; i++)
        put(&view->data->train, cop_data_view_row(view, places[i]), i, out);
}

void cop_data_view_evaluated(const cop_data_view *view, bool test, uint32_t first, uint32_t count,
                             const cop_data_room *out) {
    if (test) {
        cop_data_copy(&view->data->test, first, count, out);
        return;
    }
    COP_ASSERT(first <= view->validation && count <= view->validation - first);
    for (uint32_t i = 0; i < count; i++)
        put(&view->data->train, cop_data_view_row(view, view->train + first + i), i, out);
}

cop_err cop_data_view_classes(const cop_data_view *view, uint32_t *train, uint32_t *validation,
                              cop_error *error) {
    const cop_data *data = view->data;
    memset(train, 0, (size_t)data->classes * sizeof *train);
    if (validation) memset(validation, 0, (size_t)data->classes * sizeof *validation);
    for (uint32_t i = 0; i < view->train; i++)
        train[data->train.labels[cop_data_view_row(view, i)]]++;
    for (uint32_t i = 0; validation && i < view->validation; i++)
        validation[data->train.labels[cop_data_view_row(view, view->train + i)]]++;
    for (uint32_t r = 0; r < data->train.count; r++) {
        const int32_t class = data->train.labels[r];
        char number[16];
        if (!train[class])
            return cop_fail(error, COP_ERR_INPUT,
                            "class %s has no training sample: expected data.split: stratified, or "
                            "a smaller data.validation",
                            cop_data_class(data, class, number));
    }
    return COP_OK;
}
