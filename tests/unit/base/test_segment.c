/* Segments of shared memory: what another process can open, and what it cannot. LABELS: quick */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/log.h"
#include "common/base/segment.h"

#define SIZE 10000

static cop_segment *create(cop_segment_access peers) {
    cop_segment *s = NULL;
    cop_error error = {0};
    if (cop_segment_create(SIZE, peers, &s, &error)) fail_msg("%s", error.text);
    return s;
}

static void test_other_process_reads_and_writes(void **state) {
    (void)state;
    cop_segment *s = create(COP_SEGMENT_WRITE), *other;
    unsigned char *data = s->data;
    assert_int_equal((uintptr_t)data % 4096, 0);
    for (int i = 0; i < SIZE; i++) assert_int_equal(data[i], 0);
    memset(data, 7, SIZE);
    const pid_t child = fork();
    if (!child) {
        if (cop_segment_open(&s->name, COP_SEGMENT_WRITE, &other, NULL)) _exit(1);
        unsigned char *theirs = other->data;
        if (theirs == data || theirs[SIZE - 1] != 7) _exit(2);
        if (memcmp(other->secret, s->secret, sizeof s->secret) != 0) _exit(3);
        theirs[5] = 9;
        cop_segment_release(other);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(data[5], 9);
    cop_segment_release(s);
}

static void test_weights_cannot_be_written_by_others(void **state) {
    (void)state;
    cop_segment *s = create(COP_SEGMENT_READ), *other = NULL;
    char path[64];
    memset(s->data, 3, SIZE); /* the owner can write, also after the seal */
    assert_int_equal(cop_segment_open(&s->name, COP_SEGMENT_WRITE, &other, NULL),
                     COP_ERR_NO_MEMORY);
    assert_int_equal(cop_segment_open(&s->name, COP_SEGMENT_READ, &other, NULL), COP_OK);
    assert_int_equal(((char *)other->data)[SIZE - 1], 3);
    snprintf(path, sizeof path, "/proc/%u/fd/%u", s->name.pid, s->name.fd);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0); /* any process of the owner may open the file, but can neither write
                             nor map it writable */
    assert_int_equal(pwrite(fd, "x", 1, 5000), -1);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4096), MAP_FAILED);
    close(fd);
    cop_segment_release(other);
    cop_segment_release(s);
}

static void test_only_own_segments_are_lent(void **state) {
    (void)state;
    cop_segment *s = create(COP_SEGMENT_READ);
    const cop_segment_name right = s->name;
    cop_segment_name wrong[] = {right, right, right, right};
    int fd = -1;
    wrong[0].id++;
    wrong[1].pid++;
    wrong[2].fd = 1; /* not a segment */
    wrong[3].fd = UINT32_MAX;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(cop_segment_lend(&wrong[i], &fd, NULL), COP_ERR_NOT_FOUND);
    assert_int_equal(cop_segment_lend(&right, &fd, NULL), COP_OK);
    assert_int_equal(pwrite(fd, "x", 1, 5000), -1); /* sealed */
    close(fd);
    cop_segment_release(s);
    assert_int_equal(cop_segment_lend(&right, &fd, NULL), COP_ERR_NOT_FOUND);
}

static void test_nobody_can_truncate(void **state) {
    (void)state;
    cop_segment *s = create(COP_SEGMENT_WRITE);
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/fd/%u", s->name.pid, s->name.fd);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, 1 << 20), -1);
    assert_int_equal(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 4096), -1);
    close(fd);
    ((char *)s->data)[SIZE - 1] = 1; /* still there */
    cop_segment_release(s);
}

/* A peer that lies may name any segment, process or descriptor. */
static void test_wrong_names_are_refused(void **state) {
    (void)state;
    cop_segment *s = create(COP_SEGMENT_READ), *other = NULL;
    const cop_segment_name good = s->name;
    cop_segment_name wrong = good;
    wrong.id++;
    assert_int_equal(cop_segment_open(&wrong, COP_SEGMENT_READ, &other, NULL), COP_ERR_NOT_FOUND);
    wrong = good;
    wrong.id = 0;
    assert_int_equal(cop_segment_open(&wrong, COP_SEGMENT_READ, &other, NULL), COP_ERR_PROTOCOL);
    const uint64_t sizes[] = {0, SIZE - 1, SIZE + 1, SIZE + 4096, (uint64_t)1 << 40, UINT64_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        wrong = good;
        wrong.size = sizes[i];
        assert_int_equal(cop_segment_open(&wrong, COP_SEGMENT_READ, &other, NULL),
                         COP_ERR_PROTOCOL);
    }
    wrong = good;
    wrong.fd = 0; /* standard input is not a segment, and is not read */
    assert_int_equal(cop_segment_open(&wrong, COP_SEGMENT_READ, &other, NULL), COP_ERR_NOT_FOUND);
    wrong.fd = 4000000000u;
    assert_int_equal(cop_segment_open(&wrong, COP_SEGMENT_READ, &other, NULL), COP_ERR_NOT_FOUND);
    wrong = good;
    wrong.pid = 4000000000u;
    assert_int_equal(cop_segment_open(&wrong, COP_SEGMENT_READ, &other, NULL), COP_ERR_NOT_FOUND);
    assert_null(other);
    cop_segment_release(s);
    assert_int_equal(cop_segment_open(&good, COP_SEGMENT_READ, &other, NULL), COP_ERR_NOT_FOUND);
}

/* A memfd with the right name and content, but which its owner could still truncate. */
static void test_unsealed_memory_is_refused(void **state) {
    (void)state;
    cop_segment *other = NULL;
    const int fd = memfd_create("coppice", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 4096 + SIZE), 0);
    const char magic[16] = "coppice segment";
    const uint64_t id = 77;
    assert_int_equal(pwrite(fd, magic, 16, 0), 16);
    assert_int_equal(pwrite(fd, &id, 8, 16), 8);
    const cop_segment_name name = {
        .id = id, .size = SIZE, .pid = (uint32_t)getpid(), .fd = (uint32_t)fd};
    assert_int_equal(cop_segment_open(&name, COP_SEGMENT_READ, &other, NULL), COP_ERR_PROTOCOL);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    assert_int_equal(cop_segment_open(&name, COP_SEGMENT_READ, &other, NULL), COP_OK);
    cop_segment_release(other);
    close(fd);
}

static void test_another_user_cannot_open(void **state) {
    (void)state;
    if (geteuid() != 0) skip(); /* needs root to become another user */
    const pid_t owner = getpid();
    cop_segment *s = create(COP_SEGMENT_READ), *other;
    assert_int_equal(s->name.pid, owner);
    const pid_t child = fork();
    if (!child) {
        if (setgid(65534) || setuid(65534)) _exit(9);
        _exit((int)cop_segment_open(&s->name, COP_SEGMENT_READ, &other, NULL));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), COP_ERR_DENIED);
    cop_segment_release(s);
}

/* Root may open the segments of everybody, but does not use them. */
static void test_root_is_another_user(void **state) {
    (void)state;
    if (geteuid() != 0) skip();
    int ready[2], end[2];
    assert_int_equal(pipe(ready) | pipe(end), 0);
    const pid_t child = fork();
    if (!child) {
        cop_segment *s;
        char byte;
        if (setgid(65534) || setuid(65534)) _exit(9);
        if (cop_segment_create(SIZE, COP_SEGMENT_READ, &s, NULL)) _exit(8);
        if (write(ready[1], &s->name, sizeof s->name) != sizeof s->name) _exit(7);
        close(end[1]);
        _exit(read(end[0], &byte, 1) < 0); /* until the parent closes its end */
    }
    cop_segment_name name = {0};
    cop_segment *other = NULL;
    assert_int_equal(read(ready[0], &name, sizeof name), sizeof name);
    assert_int_equal(cop_segment_open(&name, COP_SEGMENT_READ, &other, NULL), COP_ERR_DENIED);
    close(end[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_pool_falls_back_to_ordinary_memory(void **state) {
    (void)state;
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){.rlim_cur = SIZE, .rlim_max = before.rlim_max};
    cop_log_configure(COP_LOG_NONE, false);
    cop_buffer_pool *pool = cop_buffer_pool_create_shared(SIZE, true);
    cop_buffer *shared = cop_buffer_pool_take(pool);
    assert_non_null(shared->segment);
    assert_ptr_equal(shared->data, shared->segment->data);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    cop_buffer *ordinary = cop_buffer_pool_take(pool);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_non_null(ordinary);
    assert_null(ordinary->segment);
    memset(ordinary->data, 1, SIZE);
    cop_buffer_release(ordinary);
    cop_buffer_pool_destroy(pool);
    memset(shared->data, 1, SIZE); /* lives on */
    cop_buffer_release(shared);
}

static void test_failed_allocations_leave_nothing_open(void **state) {
    (void)state;
    for (uint64_t k = 1; k <= 4; k++) {
        const int before = dup(0); /* the number of the next descriptor */
        cop_segment *s = NULL, *other = NULL;
        close(before);
        cop_alloc_fail_at(k);
        cop_err e = cop_segment_create(SIZE, COP_SEGMENT_READ, &s, NULL);
        if (!e) e = cop_segment_open(&s->name, COP_SEGMENT_READ, &other, NULL);
        cop_alloc_fail_at(0);
        assert_int_equal(e, k <= 2 ? COP_ERR_NO_MEMORY : COP_OK);
        cop_segment_release(other);
        cop_segment_release(s);
        const int after = dup(0);
        close(after);
        assert_int_equal(before, after);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_process_reads_and_writes),
        cmocka_unit_test(test_weights_cannot_be_written_by_others),
        cmocka_unit_test(test_only_own_segments_are_lent),
        cmocka_unit_test(test_nobody_can_truncate),
        cmocka_unit_test(test_wrong_names_are_refused),
        cmocka_unit_test(test_unsealed_memory_is_refused),
        cmocka_unit_test(test_another_user_cannot_open),
        cmocka_unit_test(test_root_is_another_user),
        cmocka_unit_test(test_pool_falls_back_to_ordinary_memory),
        cmocka_unit_test(test_failed_allocations_leave_nothing_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
