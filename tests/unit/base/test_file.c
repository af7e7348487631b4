/* Files, folders, names and paths. A written file is complete or absent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/file.h"

static char folder[64];

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/coppice-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return cop_folder_remove(folder, NULL) || cop_folder_exists(folder);
}

static void test_written_files_are_complete_or_absent(void **state) {
    (void)state;
    char *path = cop_path_join(folder, "file"), *text;
    size_t size;
    cop_file_part parts[2] = {{"hello ", 6}, {"world", 5}};
    assert_int_equal(cop_file_write(path, parts, 2, 0600, NULL), COP_OK);
    assert_int_equal(cop_file_read(path, 100, &text, &size, NULL), COP_OK);
    assert_string_equal(text, "hello world");
    assert_int_equal(size, 11);
    cop_free(text);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    cop_error e;
    assert_int_equal(cop_file_read(path, 10, &text, &size, &e), COP_ERR_LIMIT);
    assert_int_equal(cop_file_read("/nowhere/x", 10, &text, &size, &e), COP_ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "/nowhere/x"));
    assert_int_equal(cop_file_write("/nowhere/x", parts, 2, 0600, &e), COP_ERR_NOT_FOUND);
    char **names;
    size_t count;
    assert_int_equal(cop_folder_list(folder, &names, &count, NULL), COP_OK);
    assert_int_equal(count, 1); /* no temporary file is left */
    cop_free(names);
    cop_free(path);
}

/* Writes `size` bytes to a pipe. */
static cop_err read_pipe(size_t size, size_t limit, char **out, size_t *got, cop_error *error) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[0]);
        for (size_t i = 0; i < size; i++) {
            const char byte = (char)('a' + i % 23);
            if (write(ends[1], &byte, 1) != 1) break;
        }
        _exit(0);
    }
    close(ends[1]);
    const cop_err e = cop_file_read_stream(ends[0], "a pipe", limit, out, got, error);
    close(ends[0]);
    waitpid(child, NULL, 0);
    return e;
}

static void test_streams_are_read_to_the_end_or_the_limit(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 65535, 65536, 200001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *text = NULL;
        size_t size = 7;
        cop_error e = {0};
        assert_int_equal(read_pipe(sizes[i], sizes[i], &text, &size, &e), COP_OK);
        assert_int_equal(size, sizes[i]);
        for (size_t k = 0; k < size; k++) assert_int_equal(text[k], 'a' + k % 23);
        assert_int_equal(text[size], 0);
        cop_free(text);
        if (!sizes[i]) continue;
        text = NULL;
        assert_int_equal(read_pipe(sizes[i], sizes[i] - 1, &text, &size, &e), COP_ERR_LIMIT);
        assert_non_null(strstr(e.text, "a pipe is too large: the limit is "));
        assert_null(text);
    }
    char *text;
    size_t size;
    cop_error e = {0};
    assert_int_not_equal(cop_file_read_stream(-1, "nothing", 1, &text, &size, &e), COP_OK);
    assert_non_null(strstr(e.text, "cannot read nothing: "));
}

static void test_output_places_are_checked_in_advance(void **state) {
    (void)state;
    char *file = cop_path_join(folder, "a-file"), *below = cop_path_join(folder, "a-file/x"),
         *nowhere = cop_path_join(folder, "nowhere/x"), *fresh = cop_path_join(folder, "fresh");
    cop_error e = {0};
    assert_int_equal(cop_file_write_text(file, "x", NULL), COP_OK);
    assert_int_equal(cop_file_check_place(file, &e), COP_OK);
    assert_int_equal(cop_file_check_place(fresh, &e), COP_OK);
    assert_false(cop_file_exists(fresh));
    assert_int_equal(cop_file_check_place(below, &e), COP_ERR_INPUT);
    assert_non_null(strstr(e.text, "a-file"));
    assert_int_equal(cop_file_check_place(nowhere, &e), COP_ERR_INPUT);
    assert_non_null(strstr(e.text, "nowhere: No such file or directory"));
    assert_int_equal(cop_file_check_place(folder, &e), COP_ERR_INPUT);
    assert_non_null(strstr(e.text, "it is a folder"));
    assert_int_equal(cop_file_remove(file, NULL), COP_OK);
    cop_free(file), cop_free(below), cop_free(nowhere), cop_free(fresh);
}

static void test_folders_are_created_and_removed(void **state) {
    (void)state;
    char *deep = cop_path_join(folder, "a/b/c"), *file = cop_path_join(folder, "a/b/c/f"),
         *top = cop_path_join(folder, "a");
    assert_int_equal(cop_folder_create(deep, NULL), COP_OK);
    assert_int_equal(cop_folder_create(deep, NULL), COP_OK);
    assert_int_equal(cop_file_write_text(file, "x", NULL), COP_OK);
    cop_error e;
    assert_int_equal(cop_folder_create(file, &e), COP_ERR_EXISTS);
    assert_int_equal(cop_folder_remove(top, NULL), COP_OK);
    assert_false(cop_folder_exists(top));
    assert_int_equal(cop_folder_remove(top, NULL), COP_OK);
    cop_free(deep);
    cop_free(file);
    cop_free(top);
}

static char *inside(const char *name) {
    char *path = cop_path_join(folder, name);
    assert_non_null(path);
    return path;
}

static void assert_contents(const char *path, const char *expected) {
    char *text;
    size_t size;
    assert_int_equal(cop_file_read(path, 1 << 20, &text, &size, NULL), COP_OK);
    assert_int_equal(size, strlen(expected));
    assert_string_equal(text, expected);
    cop_free(text);
}

static void test_writing_replaces_a_file(void **state) {
    (void)state;
    char *path = inside("f");
    assert_int_equal(cop_file_write_text(path, "old and long", NULL), COP_OK);
    assert_int_equal(cop_file_write_text(path, "new", NULL), COP_OK);
    assert_contents(path, "new");
    assert_int_equal(cop_file_write(path, NULL, 0, 0644, NULL), COP_OK);
    assert_contents(path, "");
    cop_free(path);
}

static void test_large_files_are_read_back_unchanged(void **state) {
    (void)state;
    const size_t size = 5 * 1000 * 1000 + 3;
    unsigned char *bytes = cop_alloc_raw(size);
    for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)(i * 2654435761u >> 13);
    char *path = inside("large"), *back;
    size_t back_size;
    cop_file_part parts[3] = {{bytes, 1000}, {bytes, 0}, {bytes + 1000, size - 1000}};
    assert_int_equal(cop_file_write(path, parts, 3, 0644, NULL), COP_OK);
    assert_int_equal(cop_file_read(path, size, &back, &back_size, NULL), COP_OK);
    assert_int_equal(back_size, size);
    assert_int_equal(memcmp(back, bytes, size), 0);
    assert_int_equal(back[size], 0);
    cop_free(back);
    cop_free(bytes);
    cop_free(path);
}

static void test_non_files_are_refused_without_waiting(void **state) {
    (void)state;
    char *fifo = inside("fifo"), *text;
    size_t size;
    cop_error e;
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(cop_file_read(fifo, 100, &text, &size, &e), COP_ERR_INPUT); /* does not wait */
    assert_non_null(strstr(e.text, "is not a file"));
    assert_int_equal(cop_file_read(folder, 100, &text, &size, &e), COP_ERR_INPUT);
    assert_false(cop_file_exists(fifo) || cop_file_exists(folder));
    cop_free(fifo);
}

static void test_a_failed_write_leaves_no_temporary(void **state) {
    (void)state;
    char *path = inside("target"), *child = inside("target/child");
    assert_int_equal(cop_folder_create(child, NULL), COP_OK);
    assert_int_equal(cop_file_write_text(path, "x", NULL), COP_ERR_INPUT); /* `path` is a folder */
    assert_int_equal(cop_file_write_text("/dev/null", "x", NULL), COP_ERR_INPUT);
    char **names;
    size_t count;
    assert_int_equal(cop_folder_list(folder, &names, &count, NULL), COP_OK);
    assert_int_equal(count, 1);
    assert_string_equal(names[0], "target");
    cop_free(names);
    cop_free(path);
    cop_free(child);
}

static void test_lists_are_in_byte_order(void **state) {
    (void)state;
    static const char *const made[] = {"b", "a10", "B", "a2", ".hidden", "\xc3\xa9"},
                             *const expected[] = {".hidden", "B", "a10", "a2", "b", "\xc3\xa9"};
    for (size_t i = 0; i < 6; i++) {
        char *path = inside(made[i]);
        assert_int_equal(cop_file_write_text(path, "", NULL), COP_OK);
        cop_free(path);
    }
    char **names;
    size_t count;
    assert_int_equal(cop_folder_list(folder, &names, &count, NULL), COP_OK);
    assert_int_equal(count, 6);
    for (size_t i = 0; i < 6; i++) assert_string_equal(names[i], expected[i]);
    cop_free(names);
}

static void test_listing_a_missing_or_empty_folder(void **state) {
    (void)state;
    char **names, *absent = inside("absent"), *file = inside("file");
    size_t count;
    assert_int_equal(cop_folder_list(folder, &names, &count, NULL), COP_OK);
    assert_int_equal(count, 0);
    cop_free(names);
    assert_int_equal(cop_folder_list(absent, &names, &count, NULL), COP_ERR_NOT_FOUND);
    assert_int_equal(cop_file_write_text(file, "", NULL), COP_OK);
    assert_int_equal(cop_folder_list(file, &names, &count, NULL), COP_ERR_NOT_FOUND);
    cop_free(absent);
    cop_free(file);
}

static void test_removing_a_file_as_a_folder_is_an_error(void **state) {
    (void)state;
    char *file = inside("a file"), *sub = inside("a folder");
    cop_error e;
    assert_int_equal(cop_file_write_text(file, "kept", NULL), COP_OK);
    assert_int_equal(cop_folder_create(sub, NULL), COP_OK);
    assert_int_equal(cop_folder_remove(file, &e), COP_ERR_INPUT);
    assert_non_null(strstr(e.text, "not a folder"));
    assert_contents(file, "kept");
    assert_int_equal(cop_file_remove(sub, &e), COP_ERR_EXISTS);
    assert_true(cop_folder_exists(sub));
    cop_free(file);
    cop_free(sub);
}

/* A writer locks its temporary file. When the writer dies, the lock is released. */
static void test_sweep_removes_only_temporary_files_of_dead_processes(void **state) {
    (void)state;
    char *top = inside("swept"), *alive = inside("swept/x.17-1.tmp"),
         *dead = inside("swept/below/x.17-2.tmp"), *below = inside("swept/below"),
         *other = inside("swept/x-2.tmp"), *another = inside("swept/.17-2.tmp");
    assert_int_equal(cop_folder_create(below, NULL), COP_OK);
    const int fd = open(alive, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
    assert_int_equal(cop_file_write_text(dead, "x", NULL), COP_OK);
    assert_int_equal(cop_file_write_text(other, "x", NULL), COP_OK);
    assert_int_equal(cop_file_write_text(another, "x", NULL), COP_OK);
    assert_int_equal(cop_folder_sweep(top), 1);
    assert_false(cop_file_exists(dead));
    assert_true(cop_file_exists(alive) && cop_file_exists(other) && cop_file_exists(another));
    close(fd);
    assert_int_equal(cop_folder_sweep(top), 1);
    assert_false(cop_file_exists(alive));
    char *paths[] = {top, alive, dead, below, other, another};
    for (size_t i = 0; i < 6; i++) cop_free(paths[i]);
}

/* The sweep finds nothing while another thread writes. */
static void *write_files(void *path) {
    for (int i = 0; i < 200; i++)
        if (cop_file_write_text(path, "x", NULL)) return path;
    return NULL;
}

static void test_sweep_does_not_disturb_a_writer(void **state) {
    (void)state;
    char *top = inside("busy"), *file = inside("busy/x");
    pthread_t writer;
    void *failed = NULL;
    assert_int_equal(cop_folder_create(top, NULL), COP_OK);
    assert_int_equal(pthread_create(&writer, NULL, write_files, file), 0);
    for (int i = 0; i < 2000; i++) cop_folder_sweep(top);
    pthread_join(writer, &failed);
    assert_null(failed);
    assert_contents(file, "x");
    cop_free(top);
    cop_free(file);
}

static void test_stamp_changes_with_content_names_and_subfolders(void **state) {
    (void)state;
    char *top = inside("stamped"), *file = inside("stamped/x"), *below = inside("stamped/below"),
         *deep = inside("stamped/below/y");
    assert_int_equal(cop_folder_create(below, NULL), COP_OK);
    assert_int_equal(cop_file_write_text(file, "one", NULL), COP_OK);
    const uint64_t first = cop_file_stamp(top, true);
    assert_true(first == cop_file_stamp(top, true));
    assert_int_equal(cop_file_write_text(file, "two", NULL), COP_OK);
    const uint64_t second = cop_file_stamp(top, true);
    assert_int_equal(cop_file_write_text(deep, "y", NULL), COP_OK);
    const uint64_t third = cop_file_stamp(top, true);
    const uint64_t shallow = cop_file_stamp(file, false);
    assert_int_equal(cop_file_write_text(deep, "yy", NULL), COP_OK);
    assert_true(first != second && second != third && third != cop_file_stamp(top, true));
    assert_true(shallow == cop_file_stamp(file, false));
    char *paths[] = {top, file, below, deep};
    for (size_t i = 0; i < 4; i++) cop_free(paths[i]);
}

static void test_folder_and_its_contents_are_made_private(void **state) {
    (void)state;
    struct stat info;
    size_t changed;
    char *top = inside("open"), *below = inside("open/below"), *file = inside("open/below/x");
    assert_int_equal(cop_folder_create(below, NULL), COP_OK);
    assert_int_equal(cop_file_write_text(file, "x", NULL), COP_OK);
    char *script = inside("open/script");
    assert_int_equal(cop_file_write_text(script, "#!/bin/sh", NULL), COP_OK);
    assert_int_equal(chmod(top, 0777) || chmod(below, 0750) || chmod(file, 0604), 0);
    assert_int_equal(chmod(script, 0755), 0);
    assert_int_equal(cop_folder_make_private(top, &changed, NULL), COP_OK);
    assert_int_equal(changed, 4);
    assert_true(stat(script, &info) == 0 && (info.st_mode & 07777) == 0700);
    assert_true(stat(below, &info) == 0 && (info.st_mode & 07777) == 0700);
    assert_true(stat(file, &info) == 0 && (info.st_mode & 07777) == 0600);
    assert_int_equal(cop_folder_make_private(top, &changed, NULL), COP_OK);
    assert_int_equal(changed, 0);
    char *paths[] = {top, below, file, script};
    for (size_t i = 0; i < 4; i++) cop_free(paths[i]);
}

static void test_removal_does_not_follow_links(void **state) {
    (void)state;
    char *kept = inside("kept"), *file = inside("kept/file"), *tree = inside("tree"),
         *link_in_tree = inside("tree/link"), *link_alone = inside("link");
    assert_int_equal(cop_folder_create(kept, NULL), COP_OK);
    assert_int_equal(cop_folder_create(tree, NULL), COP_OK);
    assert_int_equal(cop_file_write_text(file, "precious", NULL), COP_OK);
    assert_int_equal(symlink(kept, link_in_tree), 0);
    assert_int_equal(symlink(kept, link_alone), 0);
    assert_int_equal(cop_folder_remove(tree, NULL), COP_OK);
    assert_int_equal(cop_folder_remove(link_alone, NULL), COP_OK);
    assert_false(cop_folder_exists(tree) || cop_folder_exists(link_alone));
    assert_contents(file, "precious");
    char *paths[] = {kept, file, tree, link_in_tree, link_alone};
    for (size_t i = 0; i < 5; i++) cop_free(paths[i]);
}

static void test_files_are_renamed_and_removed(void **state) {
    (void)state;
    char *a = inside("a"), *b = inside("b");
    assert_int_equal(cop_file_write_text(a, "1", NULL), COP_OK);
    assert_int_equal(cop_file_rename(a, b, NULL), COP_OK);
    assert_false(cop_file_exists(a));
    assert_contents(b, "1");
    assert_int_equal(cop_file_rename(a, b, NULL), COP_ERR_NOT_FOUND);
    assert_int_equal(cop_file_remove(b, NULL), COP_OK);
    assert_int_equal(cop_file_remove(b, NULL), COP_OK);
    assert_false(cop_file_exists(b));
    cop_free(a);
    cop_free(b);
}

static void test_paths_join(void **state) {
    (void)state;
    static const char *const rows[][3] = {{"a/b", "c", "a/b/c"},
                                          {"a/b/", "c", "a/b/c"},
                                          {"a", "/etc", "/etc"},
                                          {"", "c", "c"},
                                          {"/", "c", "/c"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *path = cop_path_join(rows[i][0], rows[i][1]);
        assert_string_equal(path, rows[i][2]);
        cop_free(path);
    }
}

static void assert_cache(const char *expected) {
    char *path = cop_path_cache();
    assert_string_equal(path, expected);
    cop_free(path);
}

static void test_cache_folder_follows_the_environment(void **state) {
    (void)state;
    setenv("HOME", "/home/x", 1);
    setenv("XDG_CACHE_HOME", "/xdg", 1);
    setenv("COPPICE_CACHE", "/own", 1);
    assert_cache("/own");
    unsetenv("COPPICE_CACHE");
    assert_cache("/xdg/coppice");
    setenv("XDG_CACHE_HOME", "", 1);
    assert_cache("/home/x/.cache/coppice");
}

static void test_free_space_is_known_on_a_file_system(void **state) {
    (void)state;
    assert_true(cop_file_space(folder) < UINT64_MAX);
    assert_true(cop_file_space("/nowhere/at/all") == UINT64_MAX);
}

static cop_err use_folder_list(void) {
    char **names;
    size_t count;
    cop_err e = cop_folder_list(folder, &names, &count, NULL);
    if (!e) cop_free(names);
    return e;
}

static void test_out_of_memory_is_an_error_at_every_allocation(void **state) {
    (void)state;
    char *path = inside("some file"), *text;
    size_t size;
    assert_int_equal(cop_file_write_text(path, "x", NULL), COP_OK);
    for (uint64_t k = 1; k <= 2; k++) {
        cop_alloc_fail_at(k);
        assert_int_equal(use_folder_list(), COP_ERR_NO_MEMORY);
    }
    cop_alloc_fail_at(1);
    assert_int_equal(cop_file_read(path, 9, &text, &size, NULL), COP_ERR_NO_MEMORY);
    cop_alloc_fail_at(1);
    assert_null(cop_path_join("a", "b"));
    for (uint64_t k = 1; k <= 3; k++) {
        cop_alloc_fail_at(k);
        assert_int_equal(cop_folder_remove(folder, NULL), COP_ERR_NO_MEMORY);
    }
    cop_alloc_fail_at(0);
    assert_contents(path, "x");
    cop_free(path);
}

/* A program with this process number was killed while it wrote. */
static void test_temporary_file_of_a_dead_process_does_not_block_writing(void **state) {
    (void)state;
    char *path = inside("f"), left[200];
    for (int i = 0; i < 64; i++) {
        snprintf(left, sizeof left, "%s.%ld-%d.tmp", path, (long)getpid(), i);
        FILE *f = fopen(left, "w");
        assert_true(f && fclose(f) == 0);
    }
    for (int i = 0; i < 3; i++) assert_int_equal(cop_file_write_text(path, "x", NULL), COP_OK);
    assert_contents(path, "x");
    cop_free(path);
}

/* A name from a user or a peer may become part of a path only if it names one file or folder. */
static void test_names_from_input_must_name_one_entry(void **state) {
    (void)state;
    const char *const good[] = {"mnist", "a b", "caf\xc3\xa9", "x.y", "-", "job-1"};
    const char *const bad[] = {"",     ".",       "..",      "../x", "a/b",     "/etc",
                               "a\nb", "\x1b[1m", ".hidden", "\xff", "\xc0\xaf"};
    char lengthy[256] = {0};
    memset(lengthy, 'x', 201);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(cop_path_name_ok(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(cop_path_name_ok(bad[i]));
    assert_false(cop_path_name_ok(lengthy));
}

/* Without HOME, the folders still belong to the user alone. */
static void test_user_without_home_has_private_folders(void **state) {
    (void)state;
    const char *const names[] = {"HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "COPPICE_CACHE",
                                 "COPPICE_STATE"};
    char *before[5];
    for (int i = 0; i < 5; i++) {
        before[i] = getenv(names[i]) ? cop_strdup(getenv(names[i])) : NULL;
        unsetenv(names[i]);
    }
    char *cache = cop_path_cache(), *found = cop_path_state();
    assert_non_null(cache);
    assert_non_null(found);
    assert_null(strstr(cache, "/tmp/.cache"));
    setenv("XDG_STATE_HOME", "/x", 1);
    char *moved = cop_path_state();
    assert_string_equal(moved, "/x/coppice");
    setenv("COPPICE_STATE", "/y", 1);
    char *own = cop_path_state();
    assert_string_equal(own, "/y");
    char *all[] = {cache, found, moved, own};
    for (int i = 0; i < 4; i++) cop_free(all[i]);
    for (int i = 0; i < 5; i++) {
        unsetenv(names[i]);
        if (before[i]) setenv(names[i], before[i], 1);
        cop_free(before[i]);
    }
}

/* Runs in a child process, as a user without an entry in /etc/passwd. Returns 0 if two calls give
 * the same cache folder, and it belongs to this user. */
static int ask_twice_for_the_cache(unsigned user) {
    struct stat info;
    for (int i = 0; i < 3; i++)
        unsetenv((const char *const[]){"HOME", "XDG_CACHE_HOME", "COPPICE_CACHE"}[i]);
    if (seteuid(user)) return 1;
    char *first = cop_path_cache(), *second = cop_path_cache();
    if (!first || !second) return 2;
    char *tail = strstr(first, "/.cache/coppice");
    const bool same = strcmp(first, second) == 0;
    if (!tail) return 3;
    *tail = '\0';
    const bool own = stat(first, &info) == 0 && info.st_uid == user;
    if (strncmp(first, "/tmp/coppice-", 13) == 0) rmdir(first);
    cop_free(first);
    cop_free(second);
    if (!own) return 4;
    return same ? 0 : 5;
}

/* Another user has already created the default folder. Only root can become such a user; without
 * root, the test uses the folder of the user who runs it. */
static void test_folder_of_an_unlisted_user_stays_the_same(void **state) {
    (void)state;
    const bool root = geteuid() == 0;
    char taken[64];
    int status;
    unsigned user = root ? 3900000000u + (unsigned)getpid() : geteuid();
    snprintf(taken, sizeof taken, "/tmp/coppice-%u", user);
    if (root) assert_int_equal(mkdir(taken, 0755), 0);
    const pid_t child = fork();
    if (child == 0) _exit(ask_twice_for_the_cache(user));
    assert_int_equal(waitpid(child, &status, 0), child);
    if (root) rmdir(taken);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_written_files_are_complete_or_absent, make_folder,
                                        remove_folder),
        cmocka_unit_test(test_streams_are_read_to_the_end_or_the_limit),
        cmocka_unit_test_setup_teardown(test_output_places_are_checked_in_advance, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_folders_are_created_and_removed, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(
            test_temporary_file_of_a_dead_process_does_not_block_writing, make_folder,
            remove_folder),
        cmocka_unit_test_setup_teardown(test_writing_replaces_a_file, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_large_files_are_read_back_unchanged, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_non_files_are_refused_without_waiting, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_a_failed_write_leaves_no_temporary, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_lists_are_in_byte_order, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_listing_a_missing_or_empty_folder, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_removing_a_file_as_a_folder_is_an_error, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_sweep_removes_only_temporary_files_of_dead_processes,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_sweep_does_not_disturb_a_writer, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_stamp_changes_with_content_names_and_subfolders,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_folder_and_its_contents_are_made_private, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_removal_does_not_follow_links, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_files_are_renamed_and_removed, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_paths_join, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_cache_folder_follows_the_environment, make_folder,
                                        remove_folder),
        cmocka_unit_test(test_names_from_input_must_name_one_entry),
        cmocka_unit_test(test_user_without_home_has_private_folders),
        cmocka_unit_test(test_folder_of_an_unlisted_user_stays_the_same),
        cmocka_unit_test_setup_teardown(test_free_space_is_known_on_a_file_system, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_out_of_memory_is_an_error_at_every_allocation,
                                        make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
