/* LABELS: quick threads
 * Data sets of a coordinator: names, content, uploads and copies in memory, also with a full disk,
 * lost rows, and clients that announce wrong lengths.
 * WRAPS: stat rename unlink */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <uv.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "coordinator/store/datasets.h"
#include "coordinator/store/loaded.h"

static atomic_int stats;
int __real_stat(const char *path, struct stat *info);
int __wrap_stat(const char *path, struct stat *info);
int __wrap_stat(const char *path, struct stat *info) {
    atomic_fetch_add(&stats, 1);
    return __real_stat(path, info);
}

/* The number of the rename or unlink call that fails; 0: none. */
static int fail_at;

static bool is_due(void) {
    const bool due = fail_at > 0 && --fail_at == 0;
    if (due) errno = EACCES;
    return due;
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to) {
    return is_due() ? -1 : __real_rename(from, to);
}

int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path) {
    return is_due() ? -1 : __real_unlink(path);
}

typedef struct place {
    char folder[64], state[96], offered[96];
    coord_store *store;
    coord_datasets *sets;
    uint64_t quota;
} place;

static void open_place(place *p) {
    char path[128];
    cop_error error = {0};
    snprintf(path, sizeof path, "%s/store.sqlite", p->state);
    if (coord_store_open(path, &p->store, &error)) fail_msg("%s", error.text);
    if (coord_datasets_open(p->store, p->state, p->offered, p->quota, &p->sets, &error))
        fail_msg("%s", error.text);
}

static void close_place(place *p) {
    coord_datasets_close(p->sets);
    coord_store_close(p->store);
    p->sets = NULL;
    p->store = NULL;
}

static int set_up(void **state) {
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

static int tear_down(void **state) {
    place *p = *state;
    if (p->sets) close_place(p);
    cop_folder_remove(p->folder, NULL);
    cop_log_configure(COP_LOG_INFO, false);
    free(p);
    return 0;
}

static void execute(const place *p, const char *sql) {
    sqlite3 *db;
    char path[128];
    snprintf(path, sizeof path, "%s/store.sqlite", p->state);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* ---- packs and uploads ---- */

enum { PACK = 384 };

/* Four samples of two features, in two classes; the same for training and test. */
static void make_pack(unsigned char seed, char bytes[PACK], char digest[65]) {
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

static cop_err make_offer_of(place *p, const coord_offerer *who, offer *o, const char *name,
                             const char *digest, uint64_t size, uint32_t chunks, bool *complete,
                             size_t *missing, cop_error *error) {
    uint32_t *indices = NULL;
    coppice__api__offer_data_request__init(&o->request);
    o->request.name = (char *)(uintptr_t)name;
    o->request.digest = (char *)(uintptr_t)digest;
    o->request.has_bytes = 1;
    o->request.bytes = size;
    for (uint32_t i = 0; i < chunks; i++) o->chunks[i] = (ProtobufCBinaryData){32, o->hashes[i]};
    o->request.chunks = o->chunks;
    o->request.n_chunks = chunks;
    const cop_err e =
        coord_datasets_offer(p->sets, &o->request, who, complete, &indices, missing, error);
    cop_free(indices);
    return e;
}

/* The identity without certificates. */
static cop_err make_offer(place *p, offer *o, const char *name, const char *digest, uint64_t size,
                          uint32_t chunks, bool *complete, size_t *missing, cop_error *error) {
    const coord_offerer all = {"", COORD_UPLOADS_MAX};
    return make_offer_of(p, &all, o, name, digest, size, chunks, complete, missing, error);
}

static cop_buffer *buffer_of(const void *bytes, size_t size) {
    cop_buffer *b = cop_buffer_create(size);
    assert_non_null(b);
    memcpy(b->data, bytes, size);
    return b;
}

static cop_err put(place *p, const char *digest, uint32_t index, const void *bytes, size_t size,
                   cop_error *error) {
    uint32_t missing = 0;
    cop_buffer *b = buffer_of(bytes, size);
    const cop_err e = coord_datasets_put(p->sets, digest, index, b, &missing, error);
    cop_buffer_release(b);
    return e;
}

/* A complete upload, as `submit --data` does it. */
static cop_err upload(place *p, unsigned char seed, const char *name, char digest[65],
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
    return coord_datasets_commit(p->sets, digest, NULL, 0, &set, error);
}

static bool has_pack(const place *p, const char *digest) {
    char path[256];
    snprintf(path, sizeof path, "%s/data/%s.pack", p->state, digest);
    return cop_file_exists(path);
}

/* "name name ..." in the order of the list, without the built-in set. */
static const char *names_of(place *p) {
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

static cop_err remove_set(place *p, const char *name, cop_error *error) {
    coord_dataset removed;
    return coord_datasets_remove(p->sets, name, &removed, error);
}

/* Limits the size of files of this process, to simulate a full disk. */
static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void fill_disk(struct sigaction *before) {
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGXFSZ, &ignore, before);
    limit_files(4096);
}

static void empty_disk(const struct sigaction *before) {
    limit_files(RLIM_INFINITY);
    sigaction(SIGXFSZ, before, NULL);
}

/* ---- names and content ---- */

static void test_data_set_names_survive_a_reopen(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], b[65];
    if (upload(p, 1, "with spaces", a, &error)) fail_msg("%s", error.text);
    if (upload(p, 2, "b", b, &error)) fail_msg("%s", error.text);
    close_place(p);
    open_place(p);
    assert_string_equal(names_of(p), "with spaces b");
    cop_data *data = NULL;
    assert_int_equal(coord_datasets_load(p->sets, "with spaces", &data, &error), COP_OK);
    assert_int_equal(data->train.count, 4);
    cop_data_destroy(data);
}

static void test_removing_a_name_removes_content_only_with_the_last_name(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], again[65];
    if (upload(p, 1, "mine", a, &error)) fail_msg("%s", error.text);
    if (upload(p, 1, "theirs", again, &error)) fail_msg("%s", error.text);
    coord_datasets_use(p->sets, a); /* a job that uses it */
    assert_int_equal(remove_set(p, "mine", &error), COP_OK);
    assert_string_equal(names_of(p), "theirs");
    assert_true(has_pack(p, a));
    assert_int_equal(remove_set(p, "theirs", &error), COP_ERR_IN_USE);
    assert_int_equal(remove_set(p, a, &error), COP_ERR_IN_USE);
    assert_true(has_pack(p, a));
    coord_datasets_release(p->sets, a);
    assert_int_equal(remove_set(p, "theirs", &error), COP_OK);
    assert_string_equal(names_of(p), "");
    assert_false(has_pack(p, a));
    assert_int_equal(remove_set(p, "theirs", &error), COP_ERR_NOT_FOUND);
    close_place(p);
    open_place(p);
    assert_string_equal(names_of(p), "");
}

static void test_name_means_its_newest_content(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], b[65], found[65];
    cop_data *data = NULL;
    if (upload(p, 1, "x", a, &error) || upload(p, 2, "x", b, &error) ||
        upload(p, 1, "x", a, &error))
        fail_msg("%s", error.text);
    for (int life = 0; life < 2; life++) {
        assert_int_equal(coord_datasets_load(p->sets, "x", &data, &error), COP_OK);
        cop_hex32(data->digest, found);
        cop_data_destroy(data);
        assert_string_equal(found, a);
        close_place(p);
        open_place(p);
    }
    assert_int_equal(remove_set(p, "x", &error), COP_OK);
    assert_true(!has_pack(p, a) && has_pack(p, b));
}

static void test_failed_removal_on_a_full_disk_can_be_repeated(void **state) {
    place *p = *state;
    cop_error error = {0};
    struct sigaction before;
    char a[65], again[65];
    if (upload(p, 1, "x", a, &error) || upload(p, 1, "y", again, &error))
        fail_msg("%s", error.text);
    fill_disk(&before);
    const cop_err one = remove_set(p, "x", &error), all = remove_set(p, a, &error);
    empty_disk(&before);
    assert_int_not_equal(one, COP_OK);
    assert_int_not_equal(all, COP_OK);
    assert_string_equal(names_of(p), "x y");
    assert_true(has_pack(p, a));
    assert_int_equal(remove_set(p, a, &error), COP_OK);
    assert_string_equal(names_of(p), "");
    assert_false(has_pack(p, a));
}

/* Whichever system call fails, the names and the pack are all there or all gone, even after a
 * restart. */
static void test_failed_removal_of_a_file_keeps_all_names(void **state) {
    place *p = *state;
    for (int k = 1; k <= 2; k++) {
        cop_error error = {0};
        char a[65], again[65];
        if (upload(p, 1, "x", a, &error) || upload(p, 1, "y", again, &error))
            fail_msg("%s", error.text);
        fail_at = k;
        const cop_err removed = remove_set(p, a, &error);
        fail_at = 0;
        for (int life = 0; life < 2; life++) {
            assert_string_equal(names_of(p), removed ? "x y" : "");
            assert_true(has_pack(p, a) == (removed != COP_OK));
            close_place(p);
            open_place(p);
        }
    }
}

/* The process ends between any two steps of remove_content. */
static void test_interrupted_removal_is_undone_or_completed_at_the_next_start(void **state) {
    place *p = *state;
    for (int rows_gone = 0; rows_gone < 2; rows_gone++) {
        cop_error error = {0};
        char a[65], pack[256], gone[256];
        if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
        close_place(p);
        snprintf(pack, sizeof pack, "%s/data/%s.pack", p->state, a);
        snprintf(gone, sizeof gone, "%s/data/%s.pack.gone", p->state, a);
        assert_int_equal(rename(pack, gone), 0);
        if (rows_gone) execute(p, "DELETE FROM data_sets");
        open_place(p);
        assert_string_equal(names_of(p), rows_gone ? "" : "x");
        assert_true(has_pack(p, a) == !rows_gone);
        assert_false(cop_file_exists(gone));
    }
}

static void test_failed_upload_on_a_full_disk_can_be_repeated(void **state) {
    place *p = *state;
    cop_error error = {0};
    struct sigaction before;
    char a[65];
    fill_disk(&before);
    const cop_err full = upload(p, 1, "x", a, &error);
    empty_disk(&before);
    assert_int_not_equal(full, COP_OK);
    assert_string_equal(names_of(p), "");
    assert_false(has_pack(p, a));
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    assert_string_equal(names_of(p), "x");
}

static void test_upload_announced_again_on_a_full_disk_keeps_its_chunks(void **state) {
    place *p = *state;
    cop_error error = {0};
    struct sigaction before;
    char bytes[PACK], digest[65];
    bool complete;
    size_t missing = 0;
    offer o = {0};
    coord_dataset set;
    make_pack(1, bytes, digest);
    cop_sha256_of(bytes, PACK, o.hashes[0]);
    assert_int_equal(make_offer(p, &o, "x", digest, PACK, 1, &complete, &missing, &error), COP_OK);
    assert_int_equal(put(p, digest, 0, bytes, PACK, &error), COP_OK);
    fill_disk(&before);
    limit_files(0);
    const cop_err full = make_offer(p, &o, "y", digest, PACK, 1, &complete, &missing, &error);
    empty_disk(&before);
    assert_int_not_equal(full, COP_OK);
    assert_int_equal(coord_datasets_commit(p->sets, digest, NULL, 0, &set, &error), COP_OK);
    assert_string_equal(names_of(p), "x");
}

/* A job's data set without row and pack is uploaded again, then the job ends. */
static void test_job_may_use_a_data_set_without_a_row(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], path[256];
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    close_place(p);
    execute(p, "DELETE FROM data_sets");
    snprintf(path, sizeof path, "%s/data/%s.pack", p->state, a);
    assert_int_equal(cop_file_remove(path, &error), COP_OK);
    open_place(p);
    coord_datasets_use(p->sets, a);
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    assert_int_equal(remove_set(p, "x", &error), COP_ERR_IN_USE);
    coord_datasets_release(p->sets, a);
    assert_int_equal(remove_set(p, "x", &error), COP_OK);
}

static void test_pack_without_a_row_gets_a_name(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], name[40];
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    close_place(p);
    execute(p, "DELETE FROM data_sets");
    open_place(p);
    snprintf(name, sizeof name, "recovered-%.12s", a);
    assert_string_equal(names_of(p), name);
    assert_int_equal(remove_set(p, name, &error), COP_OK);
    assert_false(has_pack(p, a));
}

static void test_invalid_data_set_rows_are_skipped(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], sql[1000];
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    close_place(p);
    snprintf(sql, sizeof sql,
             "INSERT INTO data_sets(name, digest, bytes, train, test, classes, rank, dim0, dim1, "
             "dim2) SELECT 'a', 'nonsense', 1, 1, 1, 1, 1, 1, 0, 0 UNION SELECT 'b', '%s', -1, 1, "
             "1, 1, 1, 1, 0, 0 UNION SELECT 'c', '%s', 1, 1, 1, 1, 4, 1, 0, 0 UNION SELECT 'd', "
             "'%s', 1, 1e19, 1, 1, 1, 1, 0, 0 UNION SELECT '', '%s', 1, 1, 1, 1, 1, 1, 0, 0 UNION "
             "SELECT '%s', '%s', 1, 1, 1, 1, 1, 1, 0, 0",
             a, a, a, a, a, a);
    execute(p, sql);
    open_place(p);
    assert_string_equal(names_of(p), "x");
}

/* As written by store version 3. */
static void test_text_index_of_older_versions_is_imported_once(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], path[256], text[400];
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    close_place(p);
    execute(p, "DROP TABLE data_sets; ALTER TABLE meta DROP COLUMN last_evaluation;"
               "UPDATE meta SET version = 3");
    snprintf(path, sizeof path, "%s/data/index", p->state);
    snprintf(text, sizeof text,
             "%s 384 4 4 2 1 2 0 0 old name\n%s 384 4 4 2 1 2 0 0 other\nnonsense\n", a, a);
    assert_int_equal(cop_file_write_text(path, text, &error), COP_OK);
    open_place(p);
    assert_string_equal(names_of(p), "old name other");
    assert_false(cop_file_exists(path));
    assert_int_equal(remove_set(p, "other", &error), COP_OK);
    close_place(p);
    open_place(p);
    assert_string_equal(names_of(p), "old name");
}

static void test_damaged_pack_is_replaced_by_a_new_upload(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], path[256];
    cop_data *data = NULL;
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    close_place(p);
    snprintf(path, sizeof path, "%s/data/%s.pack", p->state, a);
    assert_int_equal(cop_file_write_text(path, "damaged", &error), COP_OK);
    open_place(p);
    assert_int_equal(coord_datasets_load(p->sets, a, &data, &error), COP_ERR_CORRUPT);
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    assert_int_equal(coord_datasets_load(p->sets, a, &data, &error), COP_OK);
    cop_data_destroy(data);
}

/* ---- lengths of uploads ---- */

/* The client announces a small size, but the hash of a large chunk. */
static void test_chunk_must_have_the_announced_length(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], bytes[PACK], path[256];
    bool complete;
    size_t missing;
    offer o = {0};
    make_pack(1, bytes, a);
    char *large = calloc(1, 1 << 20);
    cop_sha256_of(large, 1 << 20, o.hashes[0]);
    assert_int_equal(make_offer(p, &o, "x", a, 10, 1, &complete, &missing, &error), COP_OK);
    assert_int_equal(put(p, a, 0, large, 1 << 20, &error), COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "1048576 bytes: expected 10"));
    snprintf(path, sizeof path, "%s/data/upload/%s", p->state, a);
    assert_false(cop_folder_exists(path)); /* it can never become a data set */
    assert_int_equal(put(p, a, 0, large, 1 << 20, &error), COP_ERR_NOT_FOUND);
    free(large);
}

static void test_damage_in_transit_costs_only_one_chunk(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], bytes[PACK];
    bool complete;
    size_t missing;
    coord_dataset set;
    offer o = {0};
    make_pack(1, bytes, a);
    cop_sha256_of(bytes, PACK, o.hashes[0]);
    assert_int_equal(make_offer(p, &o, "x", a, PACK, 1, &complete, &missing, &error), COP_OK);
    assert_int_equal(put(p, a, 1, bytes, PACK, &error), COP_ERR_INPUT);
    assert_int_equal(put(p, a, 0, bytes, PACK - 1, &error), COP_ERR_INPUT);
    bytes[200] ^= 1;
    assert_int_equal(put(p, a, 0, bytes, PACK, &error), COP_ERR_CORRUPT);
    bytes[200] ^= 1;
    assert_int_equal(coord_datasets_commit(p->sets, a, NULL, 0, &set, &error), COP_ERR_INPUT);
    assert_int_equal(put(p, a, 0, bytes, PACK, &error), COP_OK);
    assert_int_equal(coord_datasets_commit(p->sets, a, NULL, 0, &set, &error), COP_OK);
    assert_int_equal(set.train, 4);
}

/* Announces upload `number` as `owner`, who may have four at a time. */
static cop_err offer_as(place *p, const char *owner, unsigned char number) {
    const coord_offerer who = {owner, 4};
    char digest[65], bytes[PACK];
    bool complete;
    size_t missing;
    cop_error error = {0};
    offer o = {0};
    make_pack(number, bytes, digest);
    cop_sha256_of(bytes, PACK, o.hashes[0]);
    return make_offer_of(p, &who, &o, "x", digest, PACK, 1, &complete, &missing, &error);
}

static void test_no_identity_can_use_all_uploads(void **state) {
    place *p = *state;
    for (unsigned char i = 0; i < 4; i++) assert_int_equal(offer_as(p, "a", i), COP_OK);
    assert_int_equal(offer_as(p, "a", 4), COP_ERR_LIMIT);
    assert_int_equal(offer_as(p, "a", 3), COP_OK); /* it continues */
    assert_int_equal(offer_as(p, "b", 3), COP_OK); /* and still belongs to the first owner */
    assert_int_equal(offer_as(p, "b", 4), COP_OK);
    close_place(p);
    open_place(p);
    assert_int_equal(offer_as(p, "a", 5), COP_ERR_LIMIT);
    assert_int_equal(offer_as(p, "b", 5), COP_OK);
    char digest[65], bytes[PACK];
    coord_dataset set;
    cop_error error = {0};
    make_pack(0, bytes, digest);
    assert_int_equal(put(p, digest, 0, bytes, PACK, &error), COP_OK);
    assert_int_equal(coord_datasets_commit(p->sets, digest, NULL, 0, &set, &error), COP_OK);
    assert_string_equal(set.name, "x");
    assert_int_equal(offer_as(p, "a", 6), COP_OK);
}

static void test_quota_includes_running_uploads(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], b[65], bytes[PACK];
    bool complete;
    size_t missing;
    offer o = {0};
    close_place(p);
    p->quota = 2 * PACK;
    open_place(p);
    make_pack(1, bytes, a);
    make_pack(2, bytes, b);
    assert_int_equal(make_offer(p, &o, "a", a, PACK + 1, 1, &complete, &missing, &error), COP_OK);
    assert_int_equal(make_offer(p, &o, "b", b, PACK, 1, &complete, &missing, &error),
                     COP_ERR_LIMIT);
    close_place(p); /* after a restart, too */
    open_place(p);
    assert_int_equal(make_offer(p, &o, "b", b, PACK, 1, &complete, &missing, &error),
                     COP_ERR_LIMIT);
    assert_int_equal(make_offer(p, &o, "a", a, PACK + 1, 1, &complete, &missing, &error), COP_OK);
    assert_int_equal(make_offer(p, &o, "b", b, PACK - 1, 1, &complete, &missing, &error), COP_OK);
}

/* Another client announces the same set with other chunks; this does not disturb the upload. */
static void test_other_announcement_of_a_set_keeps_the_chunks_of_an_upload(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], bytes[PACK];
    bool complete;
    size_t missing;
    coord_dataset set;
    offer mine = {0}, other = {0}, longer = {0};
    make_pack(1, bytes, a);
    cop_sha256_of(bytes, PACK, mine.hashes[0]);
    cop_sha256_of("false", 5, other.hashes[0]);
    memcpy(longer.hashes[0], mine.hashes[0], 32);
    assert_int_equal(make_offer(p, &other, "o", a, 5, 1, &complete, &missing, &error), COP_OK);
    assert_int_equal(make_offer(p, &mine, "x", a, PACK, 1, &complete, &missing, &error), COP_OK);
    assert_int_equal(make_offer(p, &longer, "l", a, PACK + 1, 1, &complete, &missing, &error),
                     COP_OK);
    assert_int_equal(put(p, a, 0, bytes, PACK, &error), COP_OK);
    assert_int_equal(put(p, a, 0, "false", 5, &error), COP_OK);
    assert_int_equal(make_offer(p, &longer, "l", a, PACK + 1, 1, &complete, &missing, &error),
                     COP_OK);
    close_place(p); /* after a restart, too */
    open_place(p);
    assert_int_equal(make_offer(p, &mine, "x", a, PACK, 1, &complete, &missing, &error), COP_OK);
    assert_int_equal(missing, 0);
    if (coord_datasets_commit(p->sets, a, NULL, 0, &set, &error)) fail_msg("%s", error.text);
    assert_true(has_pack(p, a));
    char path[256], **names;
    size_t count;
    snprintf(path, sizeof path, "%s/data/upload", p->state);
    assert_int_equal(cop_folder_list(path, &names, &count, NULL), COP_OK);
    cop_free(names);
    assert_int_equal(count, 0); /* the set is complete, so no upload is left */
}

/* Chunks of 4 MiB: chunks from before a restart are not sent again. The bytes are not the announced
 * set. */
static void test_upload_continues_after_a_restart_and_an_invalid_one_is_dropped(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], bytes[PACK], path[256];
    bool complete;
    size_t missing;
    coord_dataset set;
    offer o = {0};
    make_pack(1, bytes, a);
    char *chunk = calloc(1, COP_CHUNK_SIZE);
    cop_sha256_of(chunk, COP_CHUNK_SIZE, o.hashes[0]);
    cop_sha256_of(chunk, 5, o.hashes[1]);
    assert_int_equal(make_offer(p, &o, "x", a, COP_CHUNK_SIZE + 5, 2, &complete, &missing, &error),
                     COP_OK);
    assert_int_equal(missing, 2);
    assert_int_equal(put(p, a, 0, chunk, COP_CHUNK_SIZE, &error), COP_OK);
    close_place(p);
    open_place(p);
    assert_int_equal(make_offer(p, &o, "x", a, COP_CHUNK_SIZE + 5, 2, &complete, &missing, &error),
                     COP_OK);
    assert_int_equal(missing, 1);
    assert_int_equal(put(p, a, 1, chunk, 5, &error), COP_OK);
    assert_int_equal(coord_datasets_commit(p->sets, a, NULL, 0, &set, &error), COP_ERR_CORRUPT);
    snprintf(path, sizeof path, "%s/data/upload/%s", p->state, a);
    assert_false(cop_folder_exists(path));
    free(chunk);
}

static void test_chunk_does_not_search_for_all_other_chunks(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], bytes[PACK];
    bool complete;
    size_t missing;
    offer o = {0};
    make_pack(1, bytes, a);
    char *chunk = calloc(1, COP_CHUNK_SIZE);
    for (int i = 0; i < 16; i++) cop_sha256_of(chunk, COP_CHUNK_SIZE, o.hashes[i]);
    assert_int_equal(
        make_offer(p, &o, "x", a, 16 * COP_CHUNK_SIZE, 16, &complete, &missing, &error), COP_OK);
    const int before = atomic_load(&stats);
    assert_int_equal(put(p, a, 3, chunk, COP_CHUNK_SIZE, &error), COP_OK);
    assert_true(atomic_load(&stats) - before < 4);
    free(chunk);
}

/* ---- in memory ---- */

static void test_all_users_of_a_data_set_share_one_copy(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65];
    cop_data *x = NULL, *y = NULL;
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    assert_int_equal(coord_datasets_load(p->sets, "x", &x, &error), COP_OK);
    assert_int_equal(coord_datasets_load(p->sets, a, &y, &error), COP_OK);
    assert_ptr_equal(x->pack->data, y->pack->data);
    cop_data_destroy(x);
    cop_data_destroy(y);
    assert_false(coord_datasets_tidy_is_due(p->sets, cop_clock_ns()));
    const uint64_t later = cop_clock_ns() + COORD_LOADED_KEPT_NS;
    assert_true(coord_datasets_tidy_is_due(p->sets, later));
    coord_datasets_tidy(p->sets, later);
    assert_false(coord_datasets_tidy_is_due(p->sets, later));
}

static void test_offered_file_is_read_again_after_a_change(void **state) {
    place *p = *state;
    cop_error error = {0};
    char path[128];
    cop_data *x = NULL, *y = NULL, *z = NULL;
    snprintf(path, sizeof path, "%s/own.csv", p->offered);
    assert_int_equal(cop_file_write_text(path, "1,2,0\n3,4,1\n5,6,0\n", &error), COP_OK);
    if (coord_datasets_load(p->sets, "own.csv", &x, &error)) fail_msg("%s", error.text);
    assert_int_equal(coord_datasets_load(p->sets, "own.csv", &y, &error), COP_OK);
    assert_ptr_equal(x->pack->data, y->pack->data);
    assert_int_equal(cop_file_write_text(path, "1,2,0\n3,4,1\n5,7,0\n", &error), COP_OK);
    assert_int_equal(coord_datasets_load(p->sets, "own.csv", &z, &error), COP_OK);
    assert_memory_not_equal(x->digest, z->digest, 32);
    cop_data_destroy(x);
    cop_data_destroy(y);
    cop_data_destroy(z);
}

typedef struct reading {
    coord_loaded *loaded;
    atomic_int count;
} reading;

static cop_err read_slowly(void *context, cop_data **out, cop_error *error) {
    reading *r = context;
    char bytes[PACK], digest[65];
    make_pack(1, bytes, digest);
    cop_clock_sleep_ms(50);
    if (atomic_fetch_add(&r->count, 1) == 0)
        return cop_fail(error, COP_ERR_IO, "the first one fails");
    cop_buffer *pack = buffer_of(bytes, PACK);
    const cop_err e = cop_data_from_pack(pack, "x", out, error);
    cop_buffer_release(pack);
    return e;
}

static void get_one(void *context) {
    reading *r = context;
    cop_data *data = NULL;
    while (coord_loaded_get(r->loaded, "x", 1, read_slowly, r, &data, NULL)) continue;
    cop_data_destroy(data);
}

static void test_simultaneous_requests_share_one_reading(void **state) {
    uv_thread_t threads[8];
    reading r = {.loaded = coord_loaded_create()};
    (void)state;
    assert_non_null(r.loaded);
    for (int i = 0; i < 8; i++) assert_int_equal(uv_thread_create(&threads[i], get_one, &r), 0);
    for (int i = 0; i < 8; i++) uv_thread_join(&threads[i]);
    assert_int_equal(atomic_load(&r.count), 2); /* one of them failed */
    coord_loaded_destroy(r.loaded);
}

int main(void) {
#define SETS_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SETS_TEST(test_data_set_names_survive_a_reopen),
        SETS_TEST(test_removing_a_name_removes_content_only_with_the_last_name),
        SETS_TEST(test_name_means_its_newest_content),
        SETS_TEST(test_failed_removal_on_a_full_disk_can_be_repeated),
        SETS_TEST(test_failed_removal_of_a_file_keeps_all_names),
        SETS_TEST(test_interrupted_removal_is_undone_or_completed_at_the_next_start),
        SETS_TEST(test_failed_upload_on_a_full_disk_can_be_repeated),
        SETS_TEST(test_upload_announced_again_on_a_full_disk_keeps_its_chunks),
        SETS_TEST(test_job_may_use_a_data_set_without_a_row),
        SETS_TEST(test_pack_without_a_row_gets_a_name),
        SETS_TEST(test_invalid_data_set_rows_are_skipped),
        SETS_TEST(test_text_index_of_older_versions_is_imported_once),
        SETS_TEST(test_damaged_pack_is_replaced_by_a_new_upload),
        SETS_TEST(test_chunk_must_have_the_announced_length),
        SETS_TEST(test_other_announcement_of_a_set_keeps_the_chunks_of_an_upload),
        SETS_TEST(test_damage_in_transit_costs_only_one_chunk),
        SETS_TEST(test_no_identity_can_use_all_uploads),
        SETS_TEST(test_quota_includes_running_uploads),
        SETS_TEST(test_upload_continues_after_a_restart_and_an_invalid_one_is_dropped),
        SETS_TEST(test_chunk_does_not_search_for_all_other_chunks),
        SETS_TEST(test_all_users_of_a_data_set_share_one_copy),
        SETS_TEST(test_offered_file_is_read_again_after_a_change),
        cmocka_unit_test(test_simultaneous_requests_share_one_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
