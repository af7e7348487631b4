/* Every system call of the code that saves and reads files fails once, in each of these ways: EIO,
 * ENOSPC, EINTR, and a read or write of only half the bytes. A save leaves the old or the new file
 * complete, and the next save works. A reader reports the error or succeeds. No descriptor stays
 * open.
 *
 * WRAPS: open close read write fsync fstat stat lstat rename renameat2 unlink mkdir
 * WRAPS: rmdir opendir readdir closedir */
#include "unit/job/fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <sys/stat.h>

#include "common/data/samples.h"
#include "common/interchange/safetensors.h"
#include "tools/wrapped_calls.h"

/* ---- the calls ---- */

typedef enum fault { FAULT_EIO, FAULT_ENOSPC, FAULT_EINTR, FAULT_HALF, FAULTS } fault;
static const int numbers[FAULTS] = {EIO, ENOSPC, EINTR, 0};
static const char *const fault_names[FAULTS] = {"EIO", "ENOSPC", "EINTR", "half"};

static struct {
    bool armed, was_half;
    fault fault;
    uint64_t count, fail; /* calls so far; number of the call that must fail, from 1 */
    const char *name;     /* name of the call that failed; NULL: none has failed */
    int open;             /* number of open descriptors and folders */
} calls;

static bool may_find_no_space(const char *name) {
    static const char *const growing[] = {"open",  "write",  "fsync",     "close",
                                          "mkdir", "rename", "renameat2", NULL};
    int i = 0;
    while (growing[i] && strcmp(growing[i], name) != 0) i++;
    return growing[i] != NULL;
}

/* Counts a call; returns true if it must fail, with errno set. */
static bool due(const char *name) {
    if (!calls.armed || ++calls.count != calls.fail || calls.fault == FAULT_HALF) return false;
    if (calls.fault == FAULT_ENOSPC && !may_find_no_space(name)) return false;
    calls.name = name;
    errno = numbers[calls.fault];
    return true;
}

static size_t part_of(const char *name, size_t size) {
    if (!calls.armed || calls.count != calls.fail || calls.fault != FAULT_HALF || size < 2)
        return size;
    calls.name = name;
    return size / 2;
}

#define REAL(type, name, parameters, arguments)                                                    \
    type __wrap_##name parameters {                                                                \
        return due(#name) ? -1 : __real_##name arguments;                                          \
    }
REAL(int, fsync, (int fd), (fd))
REAL(int, fstat, (int fd, struct stat *out), (fd, out))
REAL(int, stat, (const char *path, struct stat *out), (path, out))
REAL(int, lstat, (const char *path, struct stat *out), (path, out))
REAL(int, rename, (const char *from, const char *to), (from, to))
REAL(int, renameat2, (int a, const char *from, int b, const char *to, unsigned flags),
     (a, from, b, to, flags))
REAL(int, unlink, (const char *path), (path))
REAL(int, mkdir, (const char *path, mode_t mode), (path, mode))
REAL(int, rmdir, (const char *path), (path))

int __wrap_open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    const int fd = due("open") ? -1 : __real_open(path, flags, mode);
    calls.open += fd >= 0;
    return fd;
}

/* As in Linux, the descriptor is closed in any case. */
int __wrap_close(int fd) {
    const bool fails = due("close");
    const int number = errno, result = __real_close(fd);
    calls.open--;
    if (fails) errno = number;
    return fails ? -1 : result;
}

ssize_t __wrap_read(int fd, void *to, size_t size) {
    return due("read") ? -1 : __real_read(fd, to, part_of("read", size));
}

ssize_t __wrap_write(int fd, const void *from, size_t size) {
    return due("write") ? -1 : __real_write(fd, from, part_of("write", size));
}

DIR *__wrap_opendir(const char *path) {
    DIR *folder = due("opendir") ? NULL : __real_opendir(path);
    calls.open += folder != NULL;
    return folder;
}

struct dirent *__wrap_readdir(DIR *folder) {
    return due("readdir") ? NULL : __real_readdir(folder);
}

int __wrap_closedir(DIR *folder) {
    const bool fails = due("closedir");
    calls.open--;
    return __real_closedir(folder) || fails ? -1 : 0;
}

/* ---- each in turn ---- */

typedef struct subject {
    const char *name;
    void (*prepare)(void); /* called before each run; or NULL */
    cop_err (*run)(cop_error *error);
    void (*check)(cop_err result); /* after each */
    bool reads;                    /* ENOSPC cannot happen */
} subject;

static uint64_t tried;

/* Makes one run in which call n fails. Returns false if there are fewer calls. A call that cannot
 * be done by half succeeds. */
static bool try_one(const subject *s, fault f, uint64_t n) {
    cop_error error = {0};
    if (s->prepare) s->prepare();
    memset(&calls, 0, sizeof calls);
    calls.fault = f;
    calls.fail = n;
    calls.armed = true;
    const cop_err e = s->run(&error);
    calls.armed = false;
    const bool there = calls.count >= n;
    if (e && (error.code != e || !error.text[0]))
        fail_msg("%s, %s of call %d: no sentence", s->name, fault_names[f], (int)n);
    if (e && (!calls.name || f == FAULT_HALF))
        fail_msg("%s, %s of call %d (%s): %s", s->name, fault_names[f], (int)n,
                 calls.name ? calls.name : "none", error.text);
    if (e && f == FAULT_EINTR &&
        (strcmp(calls.name, "read") == 0 || strcmp(calls.name, "write") == 0))
        fail_msg("%s: an interrupted %s is not tried again", s->name, calls.name);
    if (e && f == FAULT_ENOSPC && e != COP_ERR_NO_SPACE)
        fail_msg("%s, ENOSPC of call %d (%s): %s", s->name, (int)n, calls.name, error.text);
    if (calls.open) fail_msg("%s, call %d: %d descriptors stay open", s->name, (int)n, calls.open);
    tried += calls.name != NULL;
    s->check(e);
    return there;
}

static void try_all(const subject *s) {
    for (int f = 0; f < FAULTS; f++) {
        uint64_t n = 1;
        if (s->reads && f == FAULT_ENOSPC) continue;
        while (try_one(s, (fault)f, n)) n++;
        if (f == 0) print_message("%s: %d calls\n", s->name, (int)n - 1);
        assert_true(n > 2);
    }
}

/* ---- checkpoints ---- */

static cop_data *data;
static cop_job *job;
static float *weights, *momentum;
static char *folder;
static uint64_t saving;

static cop_err save_step(uint64_t step, cop_error *error) {
    weights[0] = (float)step;
    momentum[0] = -(float)step;
    const cop_checkpoint c = {.step = step,
                              .weights = weights,
                              .states = {momentum},
                              .best_error = 0.5,
                              .has_best = true,
                              .is_best = true};
    return cop_checkpoint_save(job, folder, &c, error);
}

static uint64_t resume(cop_error *error) {
    float *w = new_floats(job), *states[2] = {new_floats(job), NULL};
    cop_checkpoint c = {0};
    const cop_err e =
        cop_checkpoint_load(job, &(cop_checkpoint_source){folder, COP_CHECKPOINT_ANY_STEP, NULL},
                            &(cop_checkpoint_buffers){w, {states[0], states[1]}}, &c, error);
    if (!e) {
        assert_true(w[0] == (float)c.step && states[0][0] == -(float)c.step);
        const size_t rest = ((size_t)cop_model_floats(job->model) - 1) * sizeof(float);
        assert_memory_equal(w + 1, weights + 1, rest);
        assert_memory_equal(states[0] + 1, momentum + 1, rest);
    }
    cop_free(w), cop_free(states[0]);
    return e ? 0 : c.step;
}

static void old_one(void) {
    assert_int_equal(cop_folder_remove(folder, NULL), COP_OK);
    assert_int_equal(save_step(100, NULL), COP_OK);
}

static cop_err save_new(cop_error *error) {
    return save_step(saving, error);
}

static void check_saved(cop_err result) {
    const uint64_t step = resume(NULL);
    if (!result) assert_true(step == saving);
    if (result) assert_true(step == saving || step == 100);
    assert_int_equal(save_step(300, NULL), COP_OK);
    assert_int_equal(resume(NULL), 300);
}

static cop_err load_it(cop_error *error) {
    cop_error why = {0};
    const uint64_t step = resume(&why);
    assert_true(step == 0 || step == 100);
    if (!step && error) *error = why;
    return why.code;
}

static void check_nothing(cop_err result) {
    (void)result;
}

static void test_checkpoints_survive_failing_system_calls(void **state) {
    (void)state;
    saving = 200;
    try_all(&(subject){"a checkpoint", old_one, save_new, check_saved, false});
    saving = 100;
    try_all(&(subject){"a checkpoint in the place of one", old_one, save_new, check_saved, false});
    old_one();
    try_all(&(subject){"resuming", NULL, load_it, check_nothing, true});
}

/* ---- other files ---- */

static const char *in_folder(const char *name) {
    static char paths[16][200];
    static int turn;
    char *path = paths[turn++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const void *bytes, size_t size) {
    const cop_file_part part = {bytes, size};
    assert_int_equal(cop_file_write(in_folder(name), &part, 1, 0644, NULL), COP_OK);
}

static void old_text(void) {
    assert_int_equal(cop_file_write_text(in_folder("state"), "old", NULL), COP_OK);
}

static cop_err write_text(cop_error *error) {
    return cop_file_write_text(in_folder("state"), "the new", error);
}

static void check_text(cop_err result) {
    char *text, **names;
    size_t size, count;
    assert_int_equal(cop_file_read(in_folder("state"), 100, &text, &size, NULL), COP_OK);
    if (!result) assert_string_equal(text, "the new");
    if (result) assert_true(strcmp(text, "old") == 0 || strcmp(text, "the new") == 0);
    cop_free(text);
    assert_int_equal(cop_folder_list(folder, &names, &count, NULL), COP_OK);
    for (size_t i = 0; i < count; i++) assert_null(strstr(names[i], ".tmp"));
    cop_free(names);
}

static void no_folders(void) {
    assert_int_equal(cop_folder_remove(in_folder("a"), NULL), COP_OK);
}

static cop_err make_folders(cop_error *error) {
    return cop_folder_create(in_folder("a/b/c"), error);
}

static void check_folders(cop_err result) {
    if (!result) assert_true(cop_folder_exists(in_folder("a/b/c")));
    assert_int_equal(make_folders(NULL), COP_OK);
}

static void some_folders(void) {
    assert_int_equal(make_folders(NULL), COP_OK);
    put("a/b/file", "x", 1);
}

static cop_err remove_folders(cop_error *error) {
    return cop_folder_remove(in_folder("a"), error);
}

static void check_removed(cop_err result) {
    if (!result) assert_false(cop_folder_exists(in_folder("a")));
    assert_int_equal(remove_folders(NULL), COP_OK);
}

static cop_err save_model(cop_error *error) {
    return cop_job_save_model(job, weights, 7, in_folder("model.safetensors"), error);
}

static void check_model(cop_err result) {
    float *w = new_floats(job);
    uint64_t step = 0;
    if (!result || cop_file_exists(in_folder("model.safetensors")))
        assert_int_equal(cop_job_load_model(job, in_folder("model.safetensors"), w, &step, NULL),
                         COP_OK);
    cop_free(w);
}

static cop_err save_pack(cop_error *error) {
    return cop_data_save_pack(data, in_folder("set.pack"), error);
}

static void check_pack(cop_err result) {
    cop_data *back = NULL;
    if (result && !cop_file_exists(in_folder("set.pack"))) return;
    assert_int_equal(cop_data_load_pack(in_folder("set.pack"), &back, NULL), COP_OK);
    assert_memory_equal(back->digest, data->digest, sizeof data->digest);
    cop_data_destroy(back);
}

static void test_files_and_folders_survive_failing_system_calls(void **state) {
    (void)state;
    try_all(&(subject){"a state file", old_text, write_text, check_text, false});
    try_all(&(subject){"new folders", no_folders, make_folders, check_folders, false});
    try_all(&(subject){"removing folders", some_folders, remove_folders, check_removed, false});
    try_all(&(subject){"a model file", NULL, save_model, check_model, false});
    try_all(&(subject){"a pack", NULL, save_pack, check_pack, false});
}

/* ---- readers ---- */

static cop_err read_job_file(cop_error *error) {
    Coppice__Job *message = NULL;
    const cop_err e = cop_document_read_job(in_folder("job.yaml"), &message, error);
    if (!e) cop_proto_free(&message->base);
    return e;
}

static cop_err open_model(cop_error *error) {
    cop_saved_model m;
    const cop_err e = cop_job_open_model(folder, &m, error);
    if (e) return e;
    assert_memory_equal(m.flat, weights, (size_t)cop_model_floats(job->model) * sizeof(float));
    cop_free(m.flat);
    cop_job_release(m.job);
    return e;
}

static cop_err load_format(const char *format, const cop_data_input *input, cop_error *error) {
    cop_data *set = NULL;
    const cop_err e = cop_data_format_find(format)->load(input, &set, error);
    if (!e) {
        assert_int_equal(set->train.count, 2);
        assert_int_equal(set->classes, 2);
    }
    cop_data_destroy(set);
    return e;
}

static cop_err read_idx(cop_error *error) {
    const cop_data_files files = {.images = in_folder("images"), .labels = in_folder("labels")};
    return load_format("idx", &(cop_data_input){.name = "i", .train = files, .test = files}, error);
}

static cop_err read_npy(cop_error *error) {
    const cop_data_files files = {.images = in_folder("x.npy"), .labels = in_folder("y.npy")};
    return load_format("npy", &(cop_data_input){.name = "n", .train = files, .test = files}, error);
}

static cop_err read_csv(cop_error *error) {
    const cop_data_files files = {.path = in_folder("set.csv")};
    return load_format("csv", &(cop_data_input){.name = "c", .train = files, .test = files}, error);
}

static cop_err read_images(cop_error *error) {
    const cop_data_files files = {.path = in_folder("pictures")};
    return load_format("image-folder",
                       &(cop_data_input){.name = "p", .train = files, .test = files}, error);
}

static cop_err read_pack(cop_error *error) {
    cop_data *set = NULL;
    const cop_err e = cop_data_load_pack(in_folder("set.pack"), &set, error);
    cop_data_destroy(set);
    return e;
}

static cop_err read_samples(cop_error *error) {
    static const cop_data_form form = {
        .type = COP_DATA_U8, .rank = 1, .dims = {3}, .classes = 2, .label = NULL};
    cop_data_samples s;
    const cop_err e = cop_data_samples_read(in_folder("images"), &form, NULL, &s, error);
    cop_data_samples_fini(&s);
    return e;
}

static cop_err read_any(cop_error *error) {
    cop_data *set = NULL;
    const cop_err e = cop_data_open_path(in_folder("set.csv"), NULL, &set, error);
    cop_data_destroy(set);
    return e;
}

/* A NumPy file of version 1.0. */
static void put_npy(const char *name, const char *head, const void *values, size_t size) {
    char bytes[256] = "\x93NUMPY\x01\x00\x76\x00";
    memset(bytes + 10, ' ', 118);
    memcpy(bytes + 10, head, strlen(head));
    bytes[127] = '\n';
    memcpy(bytes + 128, values, size);
    put(name, bytes, 128 + size);
}

/* A PNG of 2 x 2 grey pixels. */
static void put_picture(const char *name) {
    static const uint8_t grey[4] = {0, 80, 160, 255};
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = 2, .height = 2, .format = PNG_FORMAT_GRAY};
    char bytes[1024];
    png_alloc_size_t size = sizeof bytes;
    if (!png_image_write_to_memory(&image, bytes, &size, 0, grey, 0, NULL))
        fail_msg("%s", image.message);
    put(name, bytes, size);
}

static void put_readers_files(void) {
    static const uint8_t images[] = {0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6};
    static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 0, 1};
    static const char csv[] = "a,b,label\n0.5,1,0\n2,3,1\n";
    const cop_err folders = cop_folder_create(in_folder("pictures/one"), NULL);
    assert_int_equal(folders || cop_folder_create(in_folder("pictures/two"), NULL), 0);
    put("job.yaml", SMALL_JOB, strlen(SMALL_JOB));
    put("images", images, sizeof images);
    put("labels", labels, sizeof labels);
    put("set.csv", csv, sizeof csv - 1);
    put_npy("x.npy", "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }", images + 12, 6);
    put_npy("y.npy", "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }", labels + 8, 2);
    put_picture("pictures/one/x");
    put_picture("pictures/two/x");
}

static void test_readers_survive_failing_system_calls(void **state) {
    (void)state;
    static const subject subjects[] = {
        {"a job file", NULL, read_job_file, check_nothing, true},
        {"a model", NULL, open_model, check_nothing, true},
        {"IDX", NULL, read_idx, check_nothing, true},
        {"NPY", NULL, read_npy, check_nothing, true},
        {"CSV", NULL, read_csv, check_nothing, true},
        {"a folder of pictures", NULL, read_images, check_nothing, true},
        {"a pack to read", NULL, read_pack, check_nothing, true},
        {"samples", NULL, read_samples, check_nothing, true},
        {"a path", NULL, read_any, check_nothing, true},
    };
    put_readers_files();
    assert_int_equal(save_model(NULL), COP_OK);
    assert_int_equal(save_pack(NULL), COP_OK);
    for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++) try_all(&subjects[i]);
}

static int begin(void **state) {
    (void)state;
    data = small_data();
    job = make_job("train.steps=1000", data);
    weights = first_weights(job);
    momentum = first_weights(job);
    folder = new_folder();
    return 0;
}

static int end(void **state) {
    (void)state;
    print_message("%d faults\n", (int)tried);
    cop_free(weights), cop_free(momentum);
    cop_job_release(job);
    cop_data_destroy(data);
    drop_folder(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoints_survive_failing_system_calls),
        cmocka_unit_test(test_files_and_folders_survive_failing_system_calls),
        cmocka_unit_test(test_readers_survive_failing_system_calls),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
