/* Makes views, which list the rows of the training part that a job trains on and those that it sets
 * aside (D1). See data.h. All code that needs the rows of a job takes them from a view, so the
 * coordinator, replay and the statistics always use the same rows. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/base/rng.h"
#include "common/data/data.h"

/* One class of the training part, and the number of its rows that are chosen. */
typedef struct class_share {
    int32_t class;
    uint32_t rows;  /* number of its rows */
    uint32_t min;   /* least number of rows to choose */
    uint32_t max;   /* largest number of rows to choose */
    uint32_t count; /* number of rows that are chosen */
} class_share;

enum { UNUSED, TRAIN, VALIDATION };

/* A stratified draw in progress. */
typedef struct draw {
    const cop_data *data;
    const cop_data_selection *selection;
    uint32_t used;       /* number of rows to train on or to set aside */
    class_share *shares; /* [share_count] one for each class that has rows */
    uint32_t share_count;
    uint32_t *share_of;   /* [classes] the index of each class in `shares` */
    unsigned char *marks; /* [rows of the training part] UNUSED, TRAIN or VALIDATION */
} draw;

/* ---- the number of rows of each class ---- */

/* The difference between the exact share of a class in `wanted` rows out of `all`, and its count,
 * times `all`. It is positive if the count is below the exact share. */
static int64_t deficit(const class_share *s, uint64_t wanted, uint64_t all) {
    return (int64_t)(wanted * s->rows) - (int64_t)(all * s->count);
}

/* Returns the class that gets one more row (`up` true) or gives one row back (`up` false). Among
 * classes of equal deficit it is the one with the lowest number. NULL: all classes have reached
 * their maximum or minimum. */
static class_share *next_share(class_share *shares, uint32_t count, uint64_t wanted, uint64_t all,
                               bool up) {
    class_share *found = NULL;
    for (uint32_t i = 0; i < count; i++) {
        class_share *s = &shares[i];
        if (up ? s->count >= s->max : s->count <= s->min) continue;
        const int64_t own = deficit(s, wanted, all);
        const int64_t other = found ? deficit(found, wanted, all) : 0;
        if (!found || (up ? own > other : own < other)) found = s;
    }
    return found;
}

/* Sets the counts of the classes so that their sum is `wanted`, by the method of largest
 * remainders, within the minima and maxima of the classes. */
static void share_out(class_share *shares, uint32_t count, uint64_t wanted) {
    uint64_t all = 0, sum = 0;
    for (uint32_t i = 0; i < count; i++) all += shares[i].rows;
    COP_ASSERT(wanted <= all && all > 0);
    for (uint32_t i = 0; i < count; i++) {
        class_share *s = &shares[i];
        s->count = (uint32_t)(wanted * s->rows / all);
        if (s->count < s->min) s->count = s->min;
        if (s->count > s->max) s->count = s->max;
        sum += s->count;
    }
    for (; sum < wanted; sum++) {
        class_share *s = next_share(shares, count, wanted, all, true);
        COP_ASSERT(s != NULL); /* the sum of the maxima is at least `wanted` */
        s->count++;
    }
    for (; sum > wanted; sum--) {
        class_share *s = next_share(shares, count, wanted, all, false);
        COP_ASSERT(s != NULL); /* the sum of the minima is at most `wanted` */
        s->count--;
    }
}

/* ---- the draw ---- */

/* Makes a share for each class that has rows. If the selection is not by class, makes one share for
 * all rows. */
static void find_shares(draw *d) {
    const cop_data_part *part = &d->data->train;
    if (!d->selection->by_class) {
        d->shares[0] = (class_share){.rows = part->count};
        d->share_count = 1;
        return;
    }
    for (uint32_t r = 0; r < part->count; r++) d->share_of[part->labels[r]]++;
    for (int32_t c = 0; c < d->data->classes; c++) {
        if (!d->share_of[c]) continue;
        d->shares[d->share_count] = (class_share){.class = c, .rows = d->share_of[c]};
        d->share_of[c] = d->share_count++;
    }
    COP_ASSERT(d->share_count >= 1);
}

/* The class with the fewest rows. */
static const class_share *rarest(const draw *d) {
    const class_share *found = d->shares;
    for (uint32_t i = 1; i < d->share_count; i++)
        if (d->shares[i].rows < found->rows) found = &d->shares[i];
    return found;
}

/* Fails with INPUT if a class would have no row to train on. */
static cop_err check_shares(const draw *d, cop_error *error) {
    const class_share *rare = rarest(d);
    const uint32_t count = d->share_count;
    char number[16];
    if (d->used < count)
        return cop_fail(error, COP_ERR_INPUT,
                        "data.samples is %u: the data have %u classes, so class %s (%u of the "
                        "training samples) would have no training sample; expected at least %u",
                        d->used, count, cop_data_class(d->data, rare->class, number), rare->rows,
                        count);
    if (d->selection->validation > d->used - count)
        return cop_fail(error, COP_ERR_INPUT,
                        "data.validation is %u of %u samples: class %s (%u of the training "
                        "samples) would have no training sample; expected at most %u",
                        d->selection->validation, d->used,
                        cop_data_class(d->data, rare->class, number), rare->rows, d->used - count);
    return COP_OK;
}

/* The first 8 bytes of the SHA-256 of samples and labels, as a little-endian number. */
static uint64_t hash_values(const cop_data_part *part) {
    cop_sha256 hash;
    unsigned char bytes[32];
    uint64_t seed;
    cop_sha256_init(&hash);
    cop_sha256_update(&hash, part->samples, part->count * part->stride);
    cop_sha256_update(&hash, part->labels, part->count * sizeof *part->labels);
    cop_sha256_final(&hash, bytes);
    memcpy(&seed, bytes, sizeof seed);
    return seed;
}

/* Marks the rows in the order of a random permutation. The first s->count rows of each class are
 * set aside, and the next ones are trained on, until s->rows rows of the class are marked. */
static void mark_rows(draw *d) {
    const cop_data_part *part = &d->data->train;
    cop_permutation permutation;
    /* The seed is a hash of samples and labels, not the digest, which also covers the shape. So a
     * table (CSV) and images (NPY) of the same values get the same split. */
    cop_permutation_init_for(&permutation, hash_values(part), COP_RNG_SPLIT, 0, part->count);
    for (uint32_t i = 0; i < part->count; i++) {
        const uint32_t row = cop_permutation_at(&permutation, i);
        class_share *s = &d->shares[d->selection->by_class ? d->share_of[part->labels[row]] : 0];
        if (!s->rows) continue;
        s->rows--;
        d->marks[row] = s->count ? VALIDATION : TRAIN;
        if (s->count) s->count--;
    }
}

static cop_err draw_rows(draw *d, cop_error *error) {
    find_shares(d);
    COP_TRY(check_shares(d, error));
    for (uint32_t i = 0; i < d->share_count; i++) {
        d->shares[i].min = 1;
        d->shares[i].max = d->shares[i].rows;
    }
    share_out(d->shares, d->share_count, d->used);
    for (uint32_t i = 0; i < d->share_count; i++) { /* `rows`: now the rows in use */
        class_share *s = &d->shares[i];
        s->rows = s->count;
        s->min = 0;
        s->max = s->count - 1;
    }
    share_out(d->shares, d->share_count, d->selection->validation);
    mark_rows(d);
    return COP_OK;
}

/* Lists the training rows, then the validation rows, each in the order of the data. */
static void list_rows(const draw *d, const cop_data_view *view) {
    uint32_t train = 0, validation = view->train;
    for (uint32_t r = 0; r < d->data->train.count; r++) {
        if (d->marks[r] == TRAIN) view->rows[train++] = r;
        if (d->marks[r] == VALIDATION) view->rows[validation++] = r;
    }
    COP_ASSERT(train == view->train && validation == view->train + view->validation);
}

static cop_err make_rows(const cop_data_selection *selection, cop_data_view *view,
                         cop_error *error) {
    const cop_data *data = view->data;
    const size_t classes = (size_t)data->classes;
    draw d = {.data = data, .selection = selection, .used = view->train + view->validation};
    d.shares = cop_alloc_array(classes, sizeof *d.shares);
    d.share_of = cop_alloc_array(classes, sizeof *d.share_of);
    d.marks = cop_alloc_array(data->train.count, sizeof *d.marks);
    view->rows = cop_alloc_array(d.used, sizeof *view->rows);
    cop_err e = d.shares && d.share_of && d.marks && view->rows ? draw_rows(&d, error)
                                                                : cop_no_memory(error);
    if (!e) list_rows(&d, view);
    cop_free(d.shares);
    cop_free(d.share_of);
    cop_free(d.marks);
    return e;
}

/* ---- views ---- */

cop_err cop_data_view_make(const cop_data *data, const cop_data_selection *selection,
                           cop_data_view *out, cop_error *error) {
    const uint32_t all = data->train.count;
    COP_ASSERT(selection->split == COP_SPLIT_STRATIFIED || selection->split == COP_SPLIT_LAST);
    *out = (cop_data_view){0};
    if (selection->samples > all)
        return cop_fail(error, COP_ERR_INPUT,
                        "data.samples is %u: data set %s has %u training samples",
                        selection->samples, data->name, all);
    const uint32_t used = selection->samples ? selection->samples : all;
    if (selection->validation >= used)
        return cop_fail(
            error, COP_ERR_INPUT,
            "data.validation is %u: at least one of the %u samples must be left for training",
            selection->validation, used);
    cop_data_view view = {.data = data,
                          .train = used - selection->validation,
                          .validation = selection->validation,
                          .test = data->test.count};
    const bool whole = used == all && !selection->validation;
    cop_err e = COP_OK;
    if (selection->split == COP_SPLIT_STRATIFIED && !whole) e = make_rows(selection, &view, error);
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

/* Copies a row and its label to index `at` of the destination. */
static void copy_row(const cop_data_part *part, uint32_t row, uint32_t at,
                     const cop_data_destination *to) {
    COP_ASSERT(at < to->count && (at + (size_t)1) * part->stride <= to->bytes);
    const cop_data_destination rest = {.samples = (char *)to->samples + at * part->stride,
                                       .bytes = to->bytes - at * part->stride,
                                       .labels = to->labels + at,
                                       .count = to->count - at};
    cop_data_gather(part, &row, 1, &rest);
}

void cop_data_view_gather(const cop_data_view *view, const uint32_t *places, uint32_t count,
                          const cop_data_destination *out) {
    for (uint32_t i = 0; i < count; i++)
        copy_row(&view->data->train, cop_data_view_row(view, places[i]), i, out);
}

void cop_data_view_evaluated(const cop_data_view *view, bool test, uint32_t first, uint32_t count,
                             const cop_data_destination *out) {
    if (test) {
        cop_data_copy(&view->data->test, first, count, out);
        return;
    }
    COP_ASSERT(first <= view->validation && count <= view->validation - first);
    for (uint32_t i = 0; i < count; i++)
        copy_row(&view->data->train, cop_data_view_row(view, view->train + first + i), i, out);
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
