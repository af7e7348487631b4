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
    char key[COP_NAME_MAX]; /* key of the source; "": the place is free */
    char digest[65];        /* digest of the content; "" while it is loading */
    uint64_t stamp;         /* time stamp of the source */
    uint64_t used_ns;       /* time of the last request for the set */
    bool loading;           /* a caller reads the set */
    cop_data *data;         /* a reference; NULL while it is loading */
} place;

struct coord_loaded {
    uv_mutex_t mutex;
    uv_cond_t load_ended;
    place places[PLACES];
};

coord_loaded *coord_loaded_create(void) {
    coord_loaded *l = cop_alloc(sizeof *l);
    if (!l) return NULL;
    uv_mutex_init(&l->mutex);
    uv_cond_init(&l->load_ended);
    return l;
}

void coord_loaded_destroy(coord_loaded *l) {
    if (!l) return;
    for (int i = 0; i < PLACES; i++) cop_data_destroy(l->places[i].data);
    uv_mutex_destroy(&l->mutex);
    uv_cond_destroy(&l->load_ended);
    cop_free(l);
}

/* ---- places: under the mutex ---- */

/* Returns the place of a set that was loaded for this key and stamp, or whose digest is the key.
 * The set may still be loading. NULL: there is none. */
static place *find(coord_loaded *l, const char *key, uint64_t stamp) {
    for (place *p = l->places; p < l->places + PLACES; p++) {
        if (p->data && strcmp(p->digest, key) == 0) return p;
        if (*p->key && p->stamp == stamp && strcmp(p->key, key) == 0) return p;
    }
    return NULL;
}

/* True: the place has a set to which only this table refers, perhaps from several places. */
static bool is_idle(const coord_loaded *l, const place *p) {
    unsigned own = 0;
    if (!p->data) return false;
    for (const place *o = l->places; o < l->places + PLACES; o++) own += o->data == p->data;
    COP_ASSERT(own >= 1 && own <= cop_data_references(p->data));
    return cop_data_references(p->data) == own;
}

/* Returns a free place. If there is none, returns the place of the idle set that was requested
 * least recently, and hands the place's reference to this set to the caller in *evicted. NULL: no
 * place is free or idle. */
static place *take_place(coord_loaded *l, cop_data **evicted) {
    place *oldest = NULL;
    for (place *p = l->places; p < l->places + PLACES; p++) {
        if (!*p->key) return p;
        if (is_idle(l, p) && (!oldest || p->used_ns < oldest->used_ns)) oldest = p;
    }
    if (oldest) *evicted = oldest->data;
    return oldest;
}

/* Returns the place of the set to drop now: the idle set that was requested least recently, if its
 * last request is at least COORD_LOADED_KEPT_NS old, or if there are several idle sets and they
 * have more than COORD_LOADED_SPARE bytes in total. NULL: no set is to be dropped. */
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

/* Called when the loading of `p` has ended. `data` is the loaded set; NULL: loading has failed.
 * Returns the set with a reference for the caller, or NULL after a failure. If the table already
 * has a copy of this content, which was loaded for another key, returns that copy. *duplicate is
 * then `data`, which the caller must destroy. */
static cop_data *end_loading(coord_loaded *l, place *p, cop_data *data, cop_data **duplicate) {
    char digest[65] = "";
    if (data) cop_hex32(data->digest, digest);
    uv_mutex_lock(&l->mutex);
    COP_ASSERT(p->loading && !p->data);
    for (place *o = l->places; data && o < l->places + PLACES; o++) {
        if (!o->data || strcmp(o->digest, digest) != 0) continue;
        *duplicate = data;
        data = o->data;
        break;
    }
    p->loading = false;
    if (data) {
        snprintf(p->digest, sizeof p->digest, "%s", digest);
        p->data = cop_data_hold(data);
        p->used_ns = cop_clock_ns();
        if (*duplicate) cop_data_hold(data); /* the caller's reference */
    } else {
        *p = (place){.stamp = 0};
    }
    uv_cond_broadcast(&l->load_ended);
    uv_mutex_unlock(&l->mutex);
    return data;
}

static cop_err load_into(coord_loaded *l, place *p, const coord_loaded_source *source,
                         cop_data **out, cop_error *error) {
    cop_data *data = NULL, *duplicate = NULL;
    cop_err e = source->load(source->context, &data, error);
    if (e == COP_ERR_NO_MEMORY) { /* drops all idle sets and tries again */
        coord_loaded_trim(l, UINT64_MAX);
        e = source->load(source->context, &data, error);
    }
    *out = end_loading(l, p, e ? NULL : data, &duplicate);
    cop_data_destroy(duplicate);
    return e;
}

cop_err coord_loaded_get(coord_loaded *l, const coord_loaded_source *source, cop_data **out,
                         cop_error *error) {
    cop_data *evicted = NULL;
    COP_ASSERT(*source->key && strlen(source->key) < COP_NAME_MAX);
    coord_loaded_trim(l, cop_clock_ns());
    uv_mutex_lock(&l->mutex);
    place *p;
    while ((p = find(l, source->key, source->stamp)) && p->loading)
        uv_cond_wait(&l->load_ended, &l->mutex);
    if (p) {
        *out = cop_data_hold(p->data);
        p->used_ns = cop_clock_ns();
    } else if ((p = take_place(l, &evicted))) {
        *p = (place){.stamp = source->stamp, .loading = true};
        snprintf(p->key, sizeof p->key, "%s", source->key);
    }
    const bool loading = p && p->loading;
    uv_mutex_unlock(&l->mutex);
    cop_data_destroy(evicted);
    if (loading) return load_into(l, p, source, out, error);
    return p ? COP_OK : source->load(source->context, out, error);
}
