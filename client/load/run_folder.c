/* Chooses, checks and prepares the folder of a run. See run_folder.h. */
#include "client/load/run_folder.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/wire/codec.h"
#include "common/wire/document.h"

#define NUMBERS_MAX 10000         /* limit for N in runs/NAME-N */
#define ORIGIN      "data-origin" /* the file that records where the data were */
#define ORIGIN_MAX  8192

/* ---- the content of a folder ---- */

typedef enum folder_content { FOLDER_FREE, FOLDER_HAS_RUN, FOLDER_HAS_FOREIGN } folder_content;

static const char *const run_files[] = {"checkpoints",
                                        "metrics.sqlite",
                                        "metrics.sqlite-wal",
                                        "metrics.sqlite-shm",
                                        "model.safetensors",
                                        ORIGIN,
                                        "job.yaml"};
#define RUN_FILES (sizeof run_files / sizeof *run_files)

static bool has(const char *folder, const char *name) {
    char *path = cop_path_join(folder, name);
    bool exists = !path || cop_file_exists(path) ||
                  cop_folder_exists(path); /* out of memory: assume that it exists */
    cop_free(path);
    return exists;
}

/* True: this is a name that a run gives to a file or folder in its folder `checkpoints`. */
static bool is_checkpoint_entry(const char *name) {
    static const char *const others[] = {"latest", "best", "writing"};
    if (strncmp(name, "step-", 5) == 0) return !name[5 + strspn(name + 5, "0123456789")];
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const size_t length = strlen(others[i]);
        if (strncmp(name, others[i], length) != 0) continue;
        if (!name[length] || name[length] == '.') return true; /* '.': while it is being written */
    }
    return false;
}

/* *own: `checkpoints` is a folder that is empty or contains only what runs write into it. Other
 * programs also create folders with the name `checkpoints`. NO_MEMORY. */
static cop_err has_own_checkpoints(const char *folder, bool *own, cop_error *error) {
    char *path = cop_path_join(folder, "checkpoints"), **names = NULL;
    size_t count = 0;
    cop_err e = path ? cop_folder_list(path, &names, &count, error) : cop_no_memory(error);
    *own = !e;
    for (size_t i = 0; i < count && *own; i++) *own = is_checkpoint_entry(names[i]);
    cop_free(names);
    cop_free(path);
    return e == COP_ERR_NO_MEMORY ? e : COP_OK;
}

/* Finds out what a folder contains. If a run would replace an entry of the folder, *name is its
 * name, otherwise NULL. A run creates `checkpoints` before its files, so a folder with such files
 * but without `checkpoints` or metrics.sqlite does not belong to a run. NO_MEMORY. */
static cop_err classify(const char *folder, folder_content *content, const char **name,
                        cop_error *error) {
    bool own = false;
    *name = NULL;
    *content = FOLDER_FREE;
    for (size_t i = 0; i < RUN_FILES && !*name; i++)
        if (has(folder, run_files[i])) *name = run_files[i];
    if (!*name) return COP_OK;
    if (has(folder, "checkpoints"))
        COP_TRY(has_own_checkpoints(folder, &own, error));
    else
        own = has(folder, "metrics.sqlite");
    *content = own ? FOLDER_HAS_RUN : FOLDER_HAS_FOREIGN;
    return COP_OK;
}

/* True: the run folder has a checkpoint from which training can continue. */
static bool has_checkpoint(const char *folder) {
    char *path = cop_path_join(folder, "checkpoints"), **names = NULL;
    size_t count = 0;
    bool found = !path; /* out of memory: do not report that there is none */
    if (path && cop_folder_list(path, &names, &count, NULL)) count = 0;
    for (size_t i = 0; i < count && !found; i++) found = strncmp(names[i], "step-", 5) == 0;
    cop_free(names);
    cop_free(path);
    return found;
}

/* ---- choosing ---- */

/* Creates and locks the folder. EXISTS: another run has locked it. */
static cop_err create_and_lock(const char *path, cli_run_folder *out, cop_error *error) {
    *out = (cli_run_folder){.path = cop_strdup(path), .lock = -1};
    cop_err e = out->path ? cop_folder_create(path, error) : cop_no_memory(error);
    if (e == COP_ERR_EXISTS) e = error->code = COP_ERR_INPUT; /* `path` is a file */
    if (!e) e = cop_folder_lock(path, &out->lock, error);
    if (e == COP_ERR_EXISTS)
        cop_fail(error, e, "another run is writing to %s: choose another folder with --out", path);
    COP_ASSERT(e || out->lock >= 0);
    if (e) cli_run_folder_fini(out);
    return e;
}

static cop_err refuse_foreign(const char *folder, const char *name, cop_error *error) {
    return cop_fail(
        error, COP_ERR_INPUT,
        "%s contains %s, which was not written by a run: choose an empty folder with --out", folder,
        name);
}

cop_err cli_run_folder_check_free(const char *path, cop_error *error) {
    const char *name;
    folder_content content;
    COP_TRY(classify(path, &content, &name, error));
    switch (content) {
    case FOLDER_HAS_RUN:
        return cop_fail(error, COP_ERR_INPUT, "%s already contains a run: choose another folder",
                        path);
    case FOLDER_HAS_FOREIGN:
        return refuse_foreign(path, name, error);
    case FOLDER_FREE:
        break;
    }
    return COP_OK;
}

/* Creates and locks the folder that the user named, and checks that this run may use it. */
static cop_err take_named(const cli_options *options, const char *path, cli_run_folder *out,
                          cop_error *error) {
    const char *name;
    COP_TRY(create_and_lock(path, out, error));
    folder_content content;
    cop_err e = classify(path, &content, &name, error);
    if (!e && content == FOLDER_HAS_FOREIGN) e = refuse_foreign(path, name, error);
    if (!e && content == FOLDER_HAS_RUN && !options->resume && !options->overwrite)
        e = cop_fail(error, COP_ERR_INPUT,
                     "%s already contains a run; choose one: --out DIR writes to another folder, "
                     "--resume auto continues the run, --overwrite deletes it",
                     path);
    if (e) cli_run_folder_fini(out);
    return e;
}

/* Checks that runs/NAME can be a folder for this job name, after '/' in the name has become '-'.
 * INPUT: it cannot. */
static cop_err check_name(const char *job, cop_error *error) {
    char name[COP_NAME_MAX];
    snprintf(name, sizeof name, "%s", job);
    for (char *p = name; *p; p++)
        if (*p == '/') *p = '-';
    if (cop_path_name_ok(name)) return COP_OK;
    return cop_fail(
        error, COP_ERR_INPUT,
        "the job name \"%s\" cannot be a folder name in runs: choose a folder with --out DIR", job);
}

static void number_path(const char *name, int number, char out[COP_NAME_MAX + 24]) {
    COP_ASSERT(number >= 1 && number < NUMBERS_MAX);
    if (number == 1)
        snprintf(out, COP_NAME_MAX + 24, "runs/%s", name);
    else
        snprintf(out, COP_NAME_MAX + 24, "runs/%s-%d", name, number);
    for (char *p = out + 5; *p; p++)
        if (*p == '/') *p = '-';
}

/* Creates and locks the first free folder of runs/NAME, runs/NAME-2 ... */
static cop_err take_new(const cli_options *options, const char *job, cli_run_folder *out,
                        cop_error *error) {
    char path[COP_NAME_MAX + 24];
    for (int i = 1; i < NUMBERS_MAX; i++) {
        const char *name;
        folder_content content;
        number_path(job, i, path);
        if (cop_folder_exists(path)) {
            COP_TRY(classify(path, &content, &name, error));
            if (content != FOLDER_FREE) continue;
        }
        cop_err e = create_and_lock(path, out, error);
        if (e == COP_ERR_EXISTS) continue; /* another run has just taken it */
        COP_TRY(e);
        e = classify(path, &content, &name, error);
        if (e || content != FOLDER_FREE) cli_run_folder_fini(out);
        if (!e && content != FOLDER_FREE) continue;
        if (!e && i > 1 && !options->quiet)
            cli_note("runs/%s already contains a run: this one is written to %s\n", job, path);
        return e;
    }
    return cop_fail(error, COP_ERR_INPUT,
                    "runs already contains %d runs of %s: choose a folder with --out", NUMBERS_MAX,
                    job);
}

/* Returns the name of the job whose run the folder contains. The caller frees it with cop_free.
 * NULL: the folder has no readable job.yaml. */
static char *read_job_name(const char *folder) {
    char *path = cop_path_join(folder, "job.yaml"), *name = NULL;
    Coppice__Job *job = NULL;
    if (path && cop_document_read_job(path, &job, NULL) == COP_OK) name = cop_strdup(job->name);
    if (job) cop_proto_free(&job->base);
    cop_free(path);
    return name;
}

/* Returns the number of the folder runs/`entry` in the series runs/NAME (1), runs/NAME-2 (2) ... of
 * this job. 0: it is not in the series. */
static int number_in_series(const char *job, const char *entry) {
    char path[COP_NAME_MAX + 24];
    const char *dash = strrchr(entry, '-');
    uint64_t number;
    number_path(job, 1, path);
    if (strcmp(path + strlen("runs/"), entry) == 0) return 1;
    if (!dash || !cop_parse_u64(dash + 1, &number) || number < 2 || number >= NUMBERS_MAX) return 0;
    number_path(job, (int)number, path);
    return strcmp(path + strlen("runs/"), entry) == 0 ? (int)number : 0;
}

/* Finds the folder of this job's newest run in the series runs/NAME, runs/NAME-2 ... If there is no
 * run, `path` becomes runs/NAME. Numbers may be missing in the series, and runs/NAME-2 may contain
 * a run of another job whose name is NAME-2. */
static void newest_path(const char *job, char path[COP_NAME_MAX + 24]) {
    char **entries = NULL;
    size_t count = 0;
    int newest = 1;
    if (cop_folder_list("runs", &entries, &count, NULL)) count = 0;
    for (size_t i = 0; i < count; i++) {
        const int number = number_in_series(job, entries[i]);
        if (number <= newest) continue;
        number_path(job, number, path);
        char *name = read_job_name(path);
        if (name && strcmp(name, job) == 0) newest = number;
        cop_free(name);
    }
    cop_free(entries);
    number_path(job, newest, path);
}

/* Refuses a folder that contains a run of another job. runs/NAME-2 may be the second run of the job
 * NAME or the first run of a job whose name is NAME-2. */
static cop_err check_owner(const char *path, const char *job, cop_error *error) {
    char *name = read_job_name(path);
    cop_err e = COP_OK;
    if (name && strcmp(name, job) != 0)
        e = cop_fail(
            error, COP_ERR_INPUT,
            "%s contains a run of the job \"%s\", not of \"%s\": choose a folder with --out "
            "DIR",
            path, name, job);
    cop_free(name);
    return e;
}

cop_err cli_run_folder_choose(const cli_options *options, const char *name, cli_run_folder *out,
                              cop_error *error) {
    const bool named = options->resume && strcmp(options->resume, "auto") != 0;
    char path[COP_NAME_MAX + 24];
    if (options->resume && options->overwrite)
        return cop_fail(error, COP_ERR_USAGE,
                        "--resume continues a run, --overwrite deletes it: choose one");
    if (named && options->out && strcmp(options->out, options->resume) != 0)
        return cop_fail(error, COP_ERR_USAGE, "--resume %s and --out %s name different folders",
                        options->resume, options->out);
    if (named && !cop_folder_exists(options->resume))
        return cop_fail(error, COP_ERR_NOT_FOUND, "--resume: run folder %s does not exist",
                        options->resume);
    if (named) return take_named(options, options->resume, out, error);
    if (options->out) {
        cop_err e = take_named(options, options->out, out, error);
        return e ? cop_error_prefix(error, "--out") : COP_OK;
    }
    COP_TRY(check_name(name, error));
    if (!options->resume && !options->overwrite) return take_new(options, name, out, error);
    if (options->resume)
        newest_path(name, path);
    else
        number_path(name, 1, path);
    COP_TRY(check_owner(path, name, error));
    return take_named(options, path, out, error);
}

void cli_run_folder_fini(cli_run_folder *f) {
    if (f->lock >= 0) cop_folder_unlock(f->lock);
    cop_free(f->path);
    *f = (cli_run_folder){.lock = -1};
}

/* ---- preparing ---- */

static cop_err remove_old(const char *folder, cop_error *error) {
    for (size_t i = 0; i < RUN_FILES; i++) {
        char *path = cop_path_join(folder, run_files[i]);
        if (!path) return cop_no_memory(error);
        cop_err e =
            cop_folder_exists(path) ? cop_folder_remove(path, error) : cop_file_remove(path, error);
        cop_free(path);
        COP_TRY(e);
    }
    return COP_OK;
}

static cop_err write_text(const char *folder, const char *name, const cop_str *text,
                          cop_error *error) {
    char *path = text->failed ? NULL : cop_path_join(folder, name);
    cop_err e = path ? cop_file_write_text(path, cop_str_text(text), error) : cop_no_memory(error);
    cop_free(path);
    return e;
}

/* Returns the text of the file `data-origin` of a run. The file is in the run folder. `path` may be
 * this folder, or a checkpoint or model in it, so the function searches `path` and up to three
 * folders above it. The caller frees the text with cop_free. NULL: there is no such file. */
static char *find_origin(const char *path) {
    char buffer[PATH_MAX]; /* make the path absolute: the command may run inside the run folder */
    char *at = realpath(path, buffer), *text = NULL;
    for (int up = 0; at && up < 4 && !text; up++) {
        char *file = cop_path_join(at, ORIGIN);
        size_t size;
        if (file && cop_folder_exists(at) && cop_file_exists(file) &&
            cop_file_read(file, ORIGIN_MAX, &text, &size, NULL))
            text = NULL;
        cop_free(file);
        char *slash = strrchr(at, '/');
        if (!slash) break;
        *slash = '\0';
    }
    return text;
}

/* True: the job file is in a run folder, whose `data-origin` says where the data are. */
static bool is_of_run(const char *job) {
    const char *slash = strrchr(job, '/');
    char *folder = slash ? cop_strndup(job, (size_t)(slash - job) + 1) : cop_strdup(".");
    const bool of_run = folder && strcmp(job, "-") != 0 && has(folder, ORIGIN);
    cop_free(folder);
    return of_run;
}

/* Writes `data-origin`. `known` is the text of another run's `data-origin` if the job file came
 * from that run's folder; it is then copied. If `known` is NULL, the file gets the absolute path of
 * --data, or without --data that of the job file's folder. */
static cop_err write_origin(const char *folder, const cli_options *options, const char *known,
                            cop_error *error) {
    const char *job = options->positional[0], *slash = strrchr(job, '/');
    char *job_folder = slash ? cop_strndup(job, (size_t)(slash - job) + 1) : cop_strdup(".");
    char buffer[PATH_MAX], *real = NULL;
    if (job_folder) real = realpath(options->data ? options->data : job_folder, buffer);
    cop_str text = {0};
    cop_err e = COP_OK;
    cop_free(job_folder);
    if (known) {
        cop_str_append(&text, known);
        e = write_text(folder, ORIGIN, &text, error);
    } else if (real && !strchr(real, '\n')) {
        cop_str_printf(&text, "%s %s\n", options->data ? "data" : "job", real);
        e = write_text(folder, ORIGIN, &text, error);
    }
    cop_str_fini(&text);
    return e;
}

static cop_err prepare(const cli_run_folder *f, const cli_options *options, const cop_job *job,
                       const char *known, cop_error *error) {
    if (options->resume && !options->quiet && !has_checkpoint(f->path))
        cli_note("%s has no checkpoint: training starts at step 0\n", f->path);
    if (options->resume)
        COP_TRY(cop_checkpoint_check(job, f->path, error));
    else
        COP_TRY(remove_old(f->path, error));
    char *checkpoints = cop_path_join(f->path, "checkpoints");
    cop_err e = checkpoints ? cop_folder_create(checkpoints, error) : cop_no_memory(error);
    cop_free(checkpoints);
    COP_TRY(e);
    cop_str yaml = {0};
    cop_document_print_yaml(&job->message->base, &yaml);
    e = write_text(f->path, "job.yaml", &yaml, error);
    cop_str_fini(&yaml);
    return e ? e : write_origin(f->path, options, known, error);
}

cop_err cli_run_folder_prepare(const cli_run_folder *f, const cli_options *options,
                               const cop_job *job, cop_error *error) {
    COP_ASSERT(f->path && f->lock >= 0 && job);
    const char *path = options->positional[0];
    char *known = !options->data && is_of_run(path) ? find_origin(path) : NULL;
    cop_err e = prepare(f, options, job, known, error);
    cop_free(known);
    return e;
}

/* ---- opening the data ---- */

cop_err cli_run_folder_open_data(const Coppice__Job *job, const char *path,
                                 const cli_options *options, cop_data **data, cop_error *error) {
    char *origin = options->data ? NULL : find_origin(path), *folder = NULL;
    if (origin) {
        origin[strcspn(origin, "\n")] = '\0';
        char *space = strchr(origin, ' ');
        folder = space && space[1] == '/' ? space + 1 : NULL;
    }
    const bool by_option = folder && strncmp(origin, "data ", 5) == 0;
    char *job_file = folder && !by_option ? cop_path_join(folder, "job.yaml") : NULL;
    cop_err e = cop_job_open_data(job, job_file ? job_file : path,
                                  by_option ? folder : options->data, data, error);
    if (e && e != COP_ERR_NO_MEMORY && !options->data && (job->data->train || folder)) {
        const size_t length = strlen(error->text);
        snprintf(error->text + length, sizeof error->text - length,
                 "; pass the folder that contains the data with --data DIR");
    }
    cop_free(job_file);
    cop_free(origin);
    return e;
}

cop_err cli_run_folder_open_job_data(const Coppice__Job *job, const char *path,
                                     const cli_options *options, cop_data **data,
                                     cop_error *error) {
    return is_of_run(path) ? cli_run_folder_open_data(job, path, options, data, error)
                           : cop_job_open_data(job, path, options->data, data, error);
}
