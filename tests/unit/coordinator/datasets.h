/* What the tests of data sets and of uploads share: a state folder with a store, a small pack, and
 * uploads of it. */
#ifndef TESTS_UNIT_COORDINATOR_DATASETS_H
#define TESTS_UNIT_COORDINATOR_DATASETS_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "coordinator/store/datasets.h"

typedef struct place {
    char folder[64], state[96], offered[96];
    coord_store *store;
    coord_datasets *sets;
    uint64_t quota;
} place;

static inline void open_place(place *p) {
    char path[128];
    cop_error error = {0};
    snprintf(path, sizeof path, "%s/store.sqlite", p->state);
    if (coord_store_open(path, &p->store, &error)) fail_msg("%s", error.text);
    const coord_datasets_config config = {
        .store = p->store, .state_folder = p->state, .data_folder = p->offered, .quota = p->quota};
    if (coord_datasets_open(&config, &p->sets, &error)) fail_msg("%s", error.text);
}

static inline void close_place(place *p) {
    coord_datasets_close(p->sets);
    coord_store_close(p->store);
    p->sets = NULL;
    p->store = NULL;
}

static inline int set_up(void **state) {
    place *p = calloc(1, sizeof *p);
    strcpy(p->folder, "/tmp/coppice-sets-XXXXXX");
    if (!mkdtemp(p->folder)) return -1;
    snprintf(p->state, sizeof p->state, "%s/state", p->folder);
    snprintf(p->offered, sizeof p->offered, "%s/offered", p->folder);
    if (cop_folder_create(p->state, NULL) || cop_folder_create(p->offered, NULL)) return -1;
    cop_log_configure(COP_LOG_NONE, false);
    open_place(p);
    *state = p;
    return 0;
}

static inline int tear_down(void **state) {
    place *p = *state;
    if (p->sets) close_place(p);
    cop_folder_remove(p->folder, NULL);
    cop_log_configure(COP_LOG_INFO, false);
    free(p);
    return 0;
}

static inline void execute(const place *p, const char *sql) {
    sqlite3 *db;
    char path[128];
    snprintf(path, sizeof path, "%s/store.sqlite", p->state);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* ---- packs and uploads ---- */

enum { PACK = 384 };

/* Makes a pack of four samples of two features, in two classes. Its test samples equal its training
 * samples, which follow from `seed`. */
static inline void make_pack(unsigned char seed, char bytes[PACK], char digest[65]) {
    unsigned char hash[32];
    memset(bytes, 0, PACK);
    memcpy(bytes, "COPDATA1\2", 9);
    for (int part = 0; part < 2; part++) {
        char *p = bytes + 16 + 32 * part, *samples = bytes + 128 + 128 * part;
        cop_store_u32(p, COP_DATA_U8);
        cop_store_u32(p + 4, 1);
        cop_store_u32(p + 8, 2);
        cop_store_u32(p + 20, 4);
        for (int i = 0; i < 8; i++) samples[i] = (char)(31 * i + seed);
        for (uint32_t i = 0; i < 4; i++) cop_store_u32(samples + 64 + 4 * i, i % 2);
    }
    cop_sha256_of(bytes, PACK, hash);
    cop_hex32(hash, digest);
}

typedef struct offer {
    Coppice__Api__OfferDataRequest request;
    ProtobufCBinaryData chunks[16];
    unsigned char hashes[16][32];
} offer;

static inline cop_err make_offer_of(place *p, const coord_offerer *offerer, offer *o,
                                    const char *name, const char *digest, uint64_t size,
                                    uint32_t chunks, bool *complete, size_t *missing,
                                    cop_error *error) {
    coord_offer_result result;
    coppice__api__offer_data_request__init(&o->request);
    o->request.name = (char *)(uintptr_t)name;
    o->request.digest = (char *)(uintptr_t)digest;
    o->request.has_bytes = 1;
    o->request.bytes = size;
    for (uint32_t i = 0; i < chunks; i++) o->chunks[i] = (ProtobufCBinaryData){32, o->hashes[i]};
    o->request.chunks = o->chunks;
    o->request.n_chunks = chunks;
    const cop_err e = coord_datasets_offer(p->sets, &o->request, offerer, &result, error);
    *complete = result.complete;
    *missing = result.count;
    cop_free(result.missing);
    return e;
}

/* Makes an offer as a client without a certificate. */
static inline cop_err make_offer(place *p, offer *o, const char *name, const char *digest,
                                 uint64_t size, uint32_t chunks, bool *complete, size_t *missing,
                                 cop_error *error) {
    const coord_offerer all = {"", COORD_UPLOADS_MAX};
    return make_offer_of(p, &all, o, name, digest, size, chunks, complete, missing, error);
}

static inline cop_buffer *buffer_of(const void *bytes, size_t size) {
    cop_buffer *b = cop_buffer_create(size);
    assert_non_null(b);
    memcpy(b->data, bytes, size);
    return b;
}

static inline cop_err put(place *p, const char *digest, uint32_t index, const void *bytes,
                          size_t size, cop_error *error) {
    uint32_t missing = 0;
    cop_buffer *b = buffer_of(bytes, size);
    const coord_chunk chunk = {.digest = digest, .index = index, .bytes = b};
    const cop_err e = coord_datasets_put(p->sets, &chunk, &missing, error);
    cop_buffer_release(b);
    return e;
}

/* Offers, puts and commits a pack, as `coppice submit --data` does. */
static inline cop_err upload(place *p, unsigned char seed, const char *name, char digest[65],
                             cop_error *error) {
    char bytes[PACK];
    bool complete = false;
    size_t missing = 0;
    coord_dataset set;
    offer o = {0};
    make_pack(seed, bytes, digest);
    cop_sha256_of(bytes, PACK, o.hashes[0]);
    COP_TRY(make_offer(p, &o, name, digest, PACK, 1, &complete, &missing, error));
    if (complete) return COP_OK;
    COP_TRY(put(p, digest, 0, bytes, PACK, error));
    return coord_datasets_commit(p->sets, &(coord_commit){.digest = digest}, &set, error);
}

static inline bool has_pack(const place *p, const char *digest) {
    char path[256];
    snprintf(path, sizeof path, "%s/data/%s.pack", p->state, digest);
    return cop_file_exists(path);
}

/* The names of the data sets in the order of the list, separated by spaces, without the built-in
 * set. */
static inline const char *names_of(place *p) {
    static char text[1000];
    coord_dataset *sets = NULL;
    size_t count = 0, at = 0;
    text[0] = '\0';
    assert_int_equal(coord_datasets_list(p->sets, &sets, &count, NULL), COP_OK);
    for (size_t i = 0; i < count; i++)
        if (strcmp(sets[i].name, "synthetic-digits") != 0)
            at +=
                (size_t)snprintf(text + at, sizeof text - at, "%s%s", at ? " " : "", sets[i].name);
    cop_free(sets);
    return text;
}

static inline cop_err remove_set(place *p, const char *name, cop_error *error) {
    coord_dataset removed;
    return coord_datasets_remove(p->sets, name, &removed, error);
}

/* Limits the size of files of this process, to simulate a full disk. */
static inline void limit_files(rlim_t bytes) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static inline void fill_disk(struct sigaction *before) {
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGXFSZ, &ignore, before);
    limit_files(4096);
}

static inline void empty_disk(const struct sigaction *before) {
    limit_files(RLIM_INFINITY);
    sigaction(SIGXFSZ, before, NULL);
}

#define SETS_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
