/* Fuzz target: the small files of a coordinator's state folder. The first byte chooses one of
 * - the index of the data sets, which becomes the rest of the input,
 * - the manifest of an upload, which becomes the rest of the input,
 * - the store. SQLite's file is large and mostly empty, so the input consists of changes of a valid
 *   file, each with a position and bytes. */
#include "common/base/hash.h"
#include "coordinator/store/datasets.h"
#include "coordinator/store/store.h"
#include "fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INDEX, MANIFEST, STORE, KINDS };

/* The digest of a data set whose pack exists. */
#define HALF_DIGEST  "22222222222222222222222222222222"
#define STATE_DIGEST HALF_DIGEST HALF_DIGEST

typedef struct good_state {
    char folder[128], *store;
    size_t store_size;
    cop_data *upload; /* the data set of an unfinished upload, whose only chunk has arrived */
    char upload_digest[65];
} good_state;
static good_state state_folder;

static void make_folder(const char *folder, const char *name) {
    char *path = cop_path_join(folder, name);
    FUZZ_CHECK(path && !cop_folder_create(path, NULL));
    cop_free(path);
}

static coord_store *open_store(const good_state *g, cop_error *error) {
    coord_store *store = NULL;
    char *path = cop_path_join(g->folder, "store.sqlite");
    FUZZ_CHECK(path);
    const cop_err e = coord_store_open(path, &store, error);
    FUZZ_CHECK(!e == !!store);
    cop_free(path);
    return store;
}

static void make_store(good_state *g) {
    cop_job *job = fuzz_job_of("name: fuzz\ndata: {source: tiny.pack}\nmodel: [linear: {units: "
                               "2}]\ntrain: {steps: 9, batch: 4, shards: 1}\noptimizer: {sgd: "
                               "{rate: 0.1}}\n",
                               g->upload);
    coord_store *store = open_store(g, NULL);
    FUZZ_CHECK(store);
    const coord_store_submission submission = {.job = 1,
                                               .name = "fuzz",
                                               .data_digest = STATE_DIGEST,
                                               .owner = "me",
                                               .spec = cop_job_pack(job),
                                               .key = (const unsigned char *)"0123456789abcdef",
                                               .created_ms = 1};
    coord_store_add_job(store, &submission, NULL, NULL);
    coord_store_add_step(store, 1, &(coord_store_step){.step = 1, .loss = 0.5, .seconds = 1});
    coord_store_add_epoch(
        store, 1,
        &(coord_store_epoch){.step = 1, .epoch = 1, .train_loss = 0.5, .train_error = 0.5});
    coord_store_add_evaluation(
        store, 1,
        &(coord_store_evaluation){
            .step = 1, .part = "test", .loss = 0.5, .error = 0.5, .seconds = 1});
    coord_store_set_state(store, 1, COORD_RUNNING, "");
    coord_store_close(store);
    cop_buffer_release(submission.spec);
    cop_job_release(job);
    g->store = fuzz_read(g->folder, "store.sqlite", &g->store_size);
}

static void make_state(good_state *g) {
    fuzz_folder(g->folder);
    make_folder(g->folder, "data");
    make_folder(g->folder, "data/upload");
    g->upload = fuzz_data();
    cop_hex32(g->upload->digest, g->upload_digest);
    fuzz_write(g->folder, "data/" STATE_DIGEST ".pack", "", 0);
    make_store(g);
}

static void remove_from(const char *folder, const char *name) {
    char *path = cop_path_join(folder, name);
    FUZZ_CHECK(path);
    if (cop_file_exists(path)) FUZZ_CHECK(!cop_file_remove(path, NULL));
    cop_free(path);
}

/* ---- data sets ---- */

/* Opens the data sets. The store is replaced by the valid one, which names no data sets. */
static coord_datasets *open_sets(const good_state *g, coord_store **store) {
    coord_datasets *sets = NULL;
    cop_error error = {0};
    remove_from(g->folder, "store.sqlite-wal");
    remove_from(g->folder, "store.sqlite-shm");
    fuzz_write(g->folder, "store.sqlite", g->store, g->store_size);
    *store = open_store(g, NULL);
    FUZZ_CHECK(*store);
    if (coord_datasets_open(&(coord_datasets_config){.store = *store, .state_folder = g->folder},
                            &sets, &error))
        fuzz_refused(&error);
    return sets;
}

static void take_index(const good_state *g, fuzz_bytes index) {
    coord_dataset *list = NULL;
    size_t count = 0;
    coord_store *store;
    fuzz_write(g->folder, "data/index", index.at, index.size);
    coord_datasets *sets = open_sets(g, &store);
    FUZZ_CHECK(sets);
    FUZZ_CHECK(!coord_datasets_list(sets, &list, &count, NULL));
    for (size_t i = 0; i < count; i++) {
        FUZZ_CHECK(strlen(list[i].name) < sizeof list[i].name && list[i].rank <= 3);
        FUZZ_CHECK(!list[i].digest[0] || strcmp(list[i].digest, STATE_DIGEST) == 0);
    }
    cop_free(list);
    coord_datasets_close(sets);
    coord_store_close(store);
}

/* Commits an upload with this manifest. It must become the data set of its digest, or be refused.
 */
static void take_manifest(const good_state *g, fuzz_bytes manifest) {
    char folder[96], name[128];
    coord_dataset found;
    cop_error error = {0};
    snprintf(folder, sizeof folder, "data/upload/%s", g->upload_digest);
    make_folder(g->folder, folder);
    snprintf(name, sizeof name, "%s/manifest", folder);
    fuzz_write(g->folder, name, manifest.at, manifest.size);
    snprintf(name, sizeof name, "%s/00000", folder);
    fuzz_write(g->folder, name, g->upload->pack->data, g->upload->pack->size);
    coord_store *store;
    coord_datasets *sets = open_sets(g, &store);
    FUZZ_CHECK(sets);
    if (coord_datasets_commit(sets, &(coord_commit){.digest = g->upload_digest}, &found, &error))
        fuzz_refused(&error);
    else
        FUZZ_CHECK(strcmp(found.digest, g->upload_digest) == 0 && found.train == 4);
    coord_datasets_close(sets);
    coord_store_close(store);
    snprintf(name, sizeof name, "data/%s.pack", g->upload_digest);
    remove_from(g->folder, name);
}

/* ---- the store ---- */

static cop_err visit_job(void *context, const coord_store_job *job) {
    cop_job *built = NULL;
    cop_error error = {0};
    (void)context;
    FUZZ_CHECK(strlen(job->name) < sizeof job->name && strlen(job->text) < sizeof job->text);
    if (cop_job_from_bytes(job->spec->data, job->spec->size, &built, &error))
        fuzz_refused(&error);
    else
        cop_job_release(built);
    return COP_OK;
}

static cop_err visit_event(void *context, const coord_store_event *event) {
    (void)context;
    FUZZ_CHECK(strlen(event->text) < sizeof event->text);
    return COP_OK;
}

static cop_err visit_set(void *context, const coord_dataset *set) {
    (void)context;
    FUZZ_CHECK(set->name[0] && strlen(set->name) < sizeof set->name && set->rank <= 3);
    FUZZ_CHECK(strlen(set->digest) == 64);
    return COP_OK;
}

static void read_store(const good_state *g) {
    cop_error error = {0};
    coord_store *store = open_store(g, &error);
    if (!store) {
        fuzz_refused(&error);
        return;
    }
    if (coord_store_each_job(store, 0, visit_job, NULL, &error)) fuzz_refused(&error);
    if (coord_store_each_event(store, &(coord_store_event_range){.job = 1, .limit = 100},
                               visit_event, NULL, &error))
        fuzz_refused(&error);
    if (coord_store_each_set(store, visit_set, NULL, &error)) fuzz_refused(&error);
    coord_store_last_job(store);
    coord_store_close(store);
}

static void take_store(const good_state *g, fuzz_bytes changes) {
    char *bytes = cop_alloc(g->store_size);
    FUZZ_CHECK(bytes);
    memcpy(bytes, g->store, g->store_size);
    while (changes.size) {
        size_t place = fuzz_byte(&changes);
        place = (place | (size_t)fuzz_byte(&changes) << 8) % g->store_size;
        const fuzz_bytes change = fuzz_piece(&changes);
        const size_t room = g->store_size - place;
        if (change.size) memcpy(bytes + place, change.at, change.size < room ? change.size : room);
    }
    remove_from(g->folder, "store.sqlite-wal");
    remove_from(g->folder, "store.sqlite-shm");
    fuzz_write(g->folder, "store.sqlite", bytes, g->store_size);
    read_store(g);
    cop_free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    good_state *g = &state_folder;
    fuzz_bytes input = {data, size};
    if (!g->store) make_state(g);
    switch (fuzz_byte(&input) % KINDS) {
    case INDEX:
        take_index(g, input);
        break;
    case MANIFEST:
        take_manifest(g, input);
        break;
    default:
        take_store(g, input);
    }
    return 0;
}
