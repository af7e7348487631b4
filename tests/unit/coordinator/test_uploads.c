/* LABELS: quick threads
 * Uploads of data sets: wrong lengths, quotas, damage, restarts, and a full disk.
 * WRAPS: stat */
#include <stdatomic.h>
#include <sys/stat.h>

#include "unit/coordinator/datasets.h"

static atomic_int stats;
int __real_stat(const char *path, struct stat *info);
int __wrap_stat(const char *path, struct stat *info);
int __wrap_stat(const char *path, struct stat *info) {
    atomic_fetch_add(&stats, 1);
    return __real_stat(path, info);
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
    assert_int_equal(
        coord_datasets_commit(p->sets, &(coord_commit){.digest = digest}, &set, &error), COP_OK);
    assert_string_equal(names_of(p), "x");
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
    assert_int_equal(coord_datasets_commit(p->sets, &(coord_commit){.digest = a}, &set, &error),
                     COP_ERR_INPUT);
    assert_int_equal(put(p, a, 0, bytes, PACK, &error), COP_OK);
    assert_int_equal(coord_datasets_commit(p->sets, &(coord_commit){.digest = a}, &set, &error),
                     COP_OK);
    assert_int_equal(set.train, 4);
}

/* Announces upload `number` as `owner`, who may have four at a time. */
static cop_err offer_as(place *p, const char *owner, unsigned char number) {
    const coord_offerer offerer = {owner, 4};
    char digest[65], bytes[PACK];
    bool complete;
    size_t missing;
    cop_error error = {0};
    offer o = {0};
    make_pack(number, bytes, digest);
    cop_sha256_of(bytes, PACK, o.hashes[0]);
    return make_offer_of(p, &offerer, &o, "x", digest, PACK, 1, &complete, &missing, &error);
}

static void test_no_identity_can_use_all_uploads(void **state) {
    place *p = *state;
    for (unsigned char i = 0; i < 4; i++) assert_int_equal(offer_as(p, "a", i), COP_OK);
    assert_int_equal(offer_as(p, "a", 4), COP_ERR_LIMIT);
    assert_int_equal(offer_as(p, "a", 3), COP_OK); /* continues its upload */
    assert_int_equal(offer_as(p, "b", 3), COP_OK); /* the upload still belongs to the first owner */
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
    assert_int_equal(
        coord_datasets_commit(p->sets, &(coord_commit){.digest = digest}, &set, &error), COP_OK);
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

/* Another client offers the same digest with other chunks. This does not disturb the upload. */
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
    if (coord_datasets_commit(p->sets, &(coord_commit){.digest = a}, &set, &error))
        fail_msg("%s", error.text);
    assert_true(has_pack(p, a));
    char path[256], **names;
    size_t count;
    snprintf(path, sizeof path, "%s/data/upload", p->state);
    assert_int_equal(cop_folder_list(path, &names, &count, NULL), COP_OK);
    cop_free(names);
    assert_int_equal(count, 0); /* the set is complete, so no upload is left */
}

/* The chunks have 4 MiB. Chunks that arrived before a restart are not sent again. In the end the
 * bytes are not those of the offered digest. */
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
    assert_int_equal(coord_datasets_commit(p->sets, &(coord_commit){.digest = a}, &set, &error),
                     COP_ERR_CORRUPT);
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

static size_t count_upload_folders(const place *p) {
    char path[256], **names;
    size_t count;
    snprintf(path, sizeof path, "%s/data/upload", p->state);
    assert_int_equal(cop_folder_list(path, &names, &count, NULL), COP_OK);
    cop_free(names);
    return count;
}

/* Two offers of a set have the folders DIGEST and DIGEST-1. A version that knows only the first may
 * run in between: it completes or removes the first, and leaves the second. */
static void leave_second_upload(place *p, const char *digest, const char *bytes, bool stored) {
    cop_error error = {0};
    bool complete;
    size_t missing;
    char path[256];
    offer mine = {0}, other = {0};
    cop_sha256_of(bytes, PACK, mine.hashes[0]);
    cop_sha256_of("false", 5, other.hashes[0]);
    assert_int_equal(make_offer(p, &other, "o", digest, 5, 1, &complete, &missing, &error), COP_OK);
    assert_int_equal(make_offer(p, &mine, "x", digest, PACK, 1, &complete, &missing, &error),
                     COP_OK);
    assert_int_equal(put(p, digest, 0, bytes, PACK, &error), COP_OK);
    close_place(p);
    snprintf(path, sizeof path, "%s/data/upload/%s", p->state, digest);
    assert_int_equal(cop_folder_remove(path, &error), COP_OK);
    snprintf(path, sizeof path, "%s/data/%s.pack", p->state, digest);
    const cop_file_part pack = {bytes, PACK};
    if (stored) assert_int_equal(cop_file_write(path, &pack, 1, 0600, &error), COP_OK);
    open_place(p);
}

static void test_second_upload_left_by_an_older_version_continues(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], bytes[PACK];
    bool complete;
    size_t missing;
    offer o = {0};
    make_pack(1, bytes, a);
    cop_sha256_of(bytes, PACK, o.hashes[0]);
    leave_second_upload(p, a, bytes, false);
    assert_int_equal(count_upload_folders(p), 1);
    assert_int_equal(make_offer(p, &o, "x", a, PACK, 1, &complete, &missing, &error), COP_OK);
    assert_int_equal(missing, 0);
}

static void test_upload_of_a_stored_set_is_removed_at_the_start(void **state) {
    place *p = *state;
    char a[65], bytes[PACK];
    make_pack(1, bytes, a);
    leave_second_upload(p, a, bytes, true);
    assert_int_equal(count_upload_folders(p), 0);
    assert_true(has_pack(p, a));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        SETS_TEST(test_failed_upload_on_a_full_disk_can_be_repeated),
        SETS_TEST(test_upload_announced_again_on_a_full_disk_keeps_its_chunks),
        SETS_TEST(test_chunk_must_have_the_announced_length),
        SETS_TEST(test_other_announcement_of_a_set_keeps_the_chunks_of_an_upload),
        SETS_TEST(test_damage_in_transit_costs_only_one_chunk),
        SETS_TEST(test_no_identity_can_use_all_uploads),
        SETS_TEST(test_quota_includes_running_uploads),
        SETS_TEST(test_upload_continues_after_a_restart_and_an_invalid_one_is_dropped),
        SETS_TEST(test_chunk_does_not_search_for_all_other_chunks),
        SETS_TEST(test_second_upload_left_by_an_older_version_continues),
        SETS_TEST(test_upload_of_a_stored_set_is_removed_at_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
