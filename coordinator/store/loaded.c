/* Data sets in memory. See loaded.h. */
#include "coordinator/store/loaded.h"

#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/limits.h"

#define PLACES 64

typedef struct place {
    char key[COP_NAME_MAX], digest[65]; /* key: "": free */
    uint64_t stamp, used_ns;
    bool loading;
    cop_data *data; /* a reference; NULL while it is being read */
} place;

struct coord_loaded {
    uv_mutex_t mutex;
    uv_cond_t read; /* some reading ended */
    place places[PLACES];
};

coord_loaded *coord_loaded_create(void) {
    coord_loaded *l = cop_alloc(sizeof *l);
    if (!l) return NULL;
    uv_mutex_init(&l->mutex);
    uv_cond_init(&l->read);
    return l;
}

void coord_loaded_destroy(coord_loaded *l) {
    if (!l) return;
    for (int i = 0; i < PLACES; i++) cop_data_destroy(l->places[i].data);
    uv_mutex_destroy(&l->mutex);
    uv_cond_destroy(&l->read);
    cop_free(l);
}

/* ---- places: under the mutex ---- */

static place *find(coord_loaded *l, const char *key, uint64_t stamp) {
    for (place *p = l->places; p < l->places + PLACES; p++) {
        if (p->data && strcmp(p->digest, key) == 0) return p;
        if (*p->key && p->stamp == stamp && strcmp(p->key, key) == 0) return p;
    }
    return NULL;
}

/* Does nobody but this table refer to its set? Two keys may have led to the same. */
static bool is_idle(const coord_loaded *l, const place *p) {
    unsigned here = 0;
    for (const place *o = l->places; p->data && o < l->places + PLACES; o++)
        here += o->data == p->data;
    return p->data && cop_data_references(p->data) == here;
}

/* A free one, or that of the set which nobody has used for longest; its set goes to *old. NULL: all
 * are in use. */
static place *take_place(coord_loaded *l, cop_data **old) {
    place *oldest = NULL;
    for (place *p = l->places; p < l->places + PLACES; p++) {
        if (!*p->key) return p;
        if (is_idle(l, p) && (!oldest || p->used_ns < oldest->used_ns)) oldest = p;
    }
    if (oldest) *old = oldest->data;
    return oldest;
}

/* What must go by now: the oldest idle one, if it was not used for long, or if the idle ones have
 * too many bytes and it is not the only one. */
static place *find_due(coord_loaded *l, uint64_t now) {
    place *oldest = NULL;
    uint64_t bytes = 0;
    uint32_t count = 0;
    for (place *p = l->places; p < l->places + PLACES; p++) {
        if (!is_idle(l, p)) continue;
        if (!oldest || p->used_ns < oldest->used_ns) oldest = p;
        bytes += p->data->pack->size;
        count++;
    }
    if (!oldest) return NULL;
    const bool old = now > oldest->used_ns && now - oldest->used_ns >= COORD_LOADED_KEPT_NS;
    return old || (count > 1 && bytes > COORD_LOADED_SPARE) ? oldest : NULL;
}

bool coord_loaded_is_due(coord_loaded *l, uint64_t now) {
    uv_mutex_lock(&l->mutex);
    const bool due = find_due(l, now) != NULL;
    uv_mutex_unlock(&l->mutex);
    return due;
}

void coord_loaded_trim(coord_loaded *l, uint64_t now) {
    for (bool more = true; more;) {
        uv_mutex_lock(&l->mutex);
        place *p = find_due(l, now);
        cop_data *data = p ? p->data : NULL;
        if (p) *p = (place){.stamp = 0};
        uv_mutex_unlock(&l->mutex);
        more = data != NULL;
        cop_data_destroy(data);
    }
}

/* ---- getting ---- */

/* The reading of `p` ended, with `data` or NULL. Returns what its caller gets: the same content may
 * be there already, for another key; then `data` goes to *twice. */
static cop_data *end_reading(coord_loaded *l, place *p, cop_data *data, cop_data **twice) {
    uv_mutex_lock(&l->mutex);
    char digest[65] = "";
    if (data) cop_hex32(data->digest, digest);
    for (place *o = l->places; data && o < l->places + PLACES; o++) {
        if (!o->data || strcmp(o->digest, digest) != 0) continue;
        *twice = data;
        data = o->data;
        break;
    }
    p->loading = false;
    if (data) {
        snprintf(p->digest, sizeof p->digest, "%s", digest);
        p->data = cop_data_hold(data);
        p->used_ns = cop_clock_ns();
        if (*twice) cop_data_hold(data); /* the caller's */
    } else {
        *p = (place){.stamp = 0};
    }
    uv_cond_broadcast(&l->read);
    uv_mutex_unlock(&l->mutex);
    return data;
}

static cop_err read_into(coord_loaded *l, place *p, coord_loader load, void *context,
                         cop_data **out, cop_error *error) {
    cop_data *data = NULL, *twice = NULL;
    cop_err e = load(context, &data, error);
    if (e == COP_ERR_NO_MEMORY) { /* what is only kept in case goes first */
        coord_loaded_trim(l, UINT64_MAX);
        e = load(context, &data, error);
    }
    *out = end_reading(l, p, e ? NULL : data, &twice);
    cop_data_destroy(twice);
    return e;
}

cop_err coord_loaded_get(coord_loaded *l, const char *key, uint64_t stamp, coord_loader load,
                         void *context, cop_data **out, cop_error *error) {
    cop_data *old = NULL;
    COP_ASSERT(*key && strlen(key) < COP_NAME_MAX);
    coord_loaded_trim(l, cop_clock_ns());
    uv_mutex_lock(&l->mutex);
    place *p;
    while ((p = find(l, key, stamp)) && p->loading) uv_cond_wait(&l->read, &l->mutex);
    if (p) {
        *out = cop_data_hold(p->data);
        p->used_ns = cop_clock_ns();
    } else if ((p = take_place(l, &old))) {
        *p = (place){.stamp = stamp, .loading = true};
        snprintf(p->key, sizeof p->key, "%s", key);
    }
    const bool reading = p && p->loading;
    uv_mutex_unlock(&l->mutex);
    cop_data_destroy(old);
    if (reading) return read_into(l, p, load, context, out, error);
    return p ? COP_OK : load(context, out, error);
}
