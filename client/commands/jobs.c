/* coppice jobs, status, watch, cancel, pause, resume, rm, logs, workers and drain: the commands
 * about a coordinator's jobs and workers. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "client/cli.h"
#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/wire/codec.h"

/* ---- tables ---- */

#define JOB_COLUMNS 8

typedef struct job_row {
    char number[32], steps[48], loss[32], error[48], created[16];
} job_row;

/* Writes "2026-11-30T13:24:11Z" as "11-30 13:24". */
static void format_created(const char *time, char out[16]) {
    int month, day, hour, minute;
    snprintf(out, 16, "-");
    if (time && sscanf(time, "%*d-%2d-%2d%*1[T ]%2d:%2d", &month, &day, &hour, &minute) == 4)
        snprintf(out, 16, "%02d-%02d %02d:%02d", month % 100, day % 100, hour % 100, minute % 100);
}

static void format_job(const Coppice__Api__JobStatus *s, job_row *r) {
    const char *on = s->evaluated_on && strcmp(s->evaluated_on, "test") == 0 ? "test" : "val";
    cop_format_job(s->job, r->number);
    snprintf(r->steps, sizeof r->steps, "%llu/%llu", (unsigned long long)s->step,
             (unsigned long long)s->steps);
    snprintf(r->loss, sizeof r->loss, s->has_train_loss ? "%.4f" : "-", s->train_loss);
    snprintf(r->error, sizeof r->error, "-");
    if (s->has_test_error)
        snprintf(r->error, sizeof r->error, "%.2f %% %s", 100 * s->test_error, on);
    format_created(s->created, r->created);
}

static bool is_waiting(const Coppice__Api__JobStatus *s) {
    return s->waiting_for && *s->waiting_for;
}

/* Prints the table of jobs. It has the column WAITS FOR only if at least one job waits. */
static cop_err print_jobs(const Coppice__Api__ListJobsAnswer *answer, cop_error *error) {
    bool waiting = false;
    for (size_t i = 0; i < answer->n_jobs; i++) waiting = waiting || is_waiting(answer->jobs[i]);
    const int rows = (int)answer->n_jobs + 1, columns = waiting ? JOB_COLUMNS : JOB_COLUMNS - 1;
    const char **cells = cop_alloc_array((size_t)rows * JOB_COLUMNS, sizeof *cells);
    job_row *text = cop_alloc_array((size_t)rows, sizeof *text);
    static const char *const head[JOB_COLUMNS] = {"JOB",  "NAME",  "STATE",   "STEP",
                                                  "LOSS", "ERROR", "CREATED", "WAITS FOR"};
    if (!cells || !text) {
        cop_free(cells);
        cop_free(text);
        return cop_no_memory(error);
    }
    memcpy(cells, head, (size_t)columns * sizeof *cells);
    for (int r = 1; r < rows; r++) {
        const Coppice__Api__JobStatus *s = answer->jobs[r - 1];
        job_row *t = &text[r];
        format_job(s, t);
        const char *values[JOB_COLUMNS] = {t->number,
                                           s->name ? s->name : "",
                                           cli_state_name(s->state),
                                           t->steps,
                                           t->loss,
                                           t->error,
                                           t->created,
                                           is_waiting(s) ? s->waiting_for : ""};
        memcpy(cells + r * columns, values, (size_t)columns * sizeof *cells);
    }
    cli_print_table(cells, rows, columns, "rflrrrlf");
    cop_free(cells);
    cop_free(text);
    return COP_OK;
}

#define WORKER_COLUMNS 9
#define PAGES_MAX      64 /* maximum pages that a list of jobs consists of */

static cop_err print_workers(const Coppice__Api__ListWorkersAnswer *answer, cop_error *error) {
    int rows = (int)answer->n_workers + 1;
    const char **cells = cop_alloc_array((size_t)rows * WORKER_COLUMNS, sizeof *cells);
    char(*text)[5][40] = cop_alloc_array((size_t)rows, sizeof *text);
    static const char *const head[WORKER_COLUMNS] = {"WORKER", "STATE", "JOB",  "THREADS", "ISA",
                                                     "SHARDS", "SINCE", "PATH", "ADDRESS"};
    for (int c = 0; cells && c < WORKER_COLUMNS; c++) cells[c] = head[c];
    for (int r = 1; cells && text && r < rows; r++) {
        const Coppice__Api__WorkerStatus *w = answer->workers[r - 1];
        const char **row = cells + r * WORKER_COLUMNS;
        char(*t)[40] = text[r];
        snprintf(t[0], sizeof t[0], "-");
        if (w->job) cop_format_job(w->job, t[0]);
        snprintf(t[1], sizeof t[1], "%u", w->threads);
        snprintf(t[2], sizeof t[2], "%llu", (unsigned long long)w->shards);
        const char *values[WORKER_COLUMNS] = {w->name ? w->name : "",
                                              w->state ? w->state : "",
                                              t[0],
                                              t[1],
                                              w->isa ? w->isa : "",
                                              t[2],
                                              cop_format_seconds(w->seconds, t[3]),
                                              w->path ? w->path : "",
                                              w->address ? w->address : ""};
        memcpy(row, values, sizeof values);
    }
    if (cells && text) cli_print_table(cells, rows, WORKER_COLUMNS, "flrrlrrlf");
    for (size_t i = 0; i < answer->n_workers; i++) {
        const Coppice__Api__WorkerStatus *w = answer->workers[i];
        const char *name = w->name ? w->name : "";
        if (w->evidence) cli_print("%s is in quarantine: %s\n", name, w->evidence);
        if (w->unable)
            cli_print("%s cannot compute job %llu and gets none of its leases until it joins again "
                      "(coppice logs %llu shows the reason)\n",
                      name, (unsigned long long)w->unable, (unsigned long long)w->unable);
    }
    const bool complete = cells && text;
    cop_free(cells);
    cop_free(text);
    return complete ? COP_OK : cop_no_memory(error);
}

/* The list of all jobs. The coordinator sends it in pages. */
typedef struct job_list {
    ProtobufCMessage *pages[PAGES_MAX]; /* own the status of each job */
    size_t page_count;
    Coppice__Api__ListJobsAnswer all; /* owns its array of pointers, but not the jobs */
} job_list;

/* True: the job passes the filters --name and --state. The coordinator applies these too, but an
 * older one ignores them. */
static bool matches_filters(const cli_options *options, const Coppice__Api__JobStatus *s) {
    return (!options->name || (s->name && strcmp(s->name, options->name) == 0)) &&
           (!options->state || strcasecmp(cli_state_name(s->state), options->state) == 0);
}

/* Appends a page, which the list then owns. *more becomes true if there may be another page. An
 * older coordinator knows no pages and sends the same jobs again. Then no jobs are added, and *more
 * becomes false. */
static cop_err add_page(job_list *list, ProtobufCMessage *message, bool *more, cop_error *error) {
    const Coppice__Api__ListJobsAnswer *page = (const Coppice__Api__ListJobsAnswer *)message;
    Coppice__Api__ListJobsAnswer *all = &list->all;
    COP_ASSERT(list->page_count < PAGES_MAX);
    list->pages[list->page_count++] = message;
    *more = page->n_jobs && (!all->n_jobs || page->jobs[0]->job < all->jobs[all->n_jobs - 1]->job);
    if (!*more) return COP_OK;
    size_t count = all->n_jobs + page->n_jobs;
    Coppice__Api__JobStatus **jobs = cop_realloc(all->jobs, count * sizeof(*jobs));
    if (!jobs) return cop_no_memory(error);
    memcpy(jobs + all->n_jobs, page->jobs, page->n_jobs * sizeof(*jobs));
    all->jobs = jobs;
    all->n_jobs = count;
    *more = list->page_count < PAGES_MAX;
    return COP_OK;
}

/* Parses the name of a state, in upper or lower case. */
static cop_err parse_state(const char *text, Coppice__Api__ListJobsRequest *request,
                           cop_error *error) {
    const ProtobufCEnumDescriptor *states = &coppice__api__state__descriptor;
    const char *names[16];
    size_t count = 0;
    for (unsigned i = 0; i < states->n_values && count < 16; i++) {
        names[count++] = states->values[i].name;
        if (strcasecmp(states->values[i].name, text) != 0) continue;
        request->has_state = 1;
        request->state = (Coppice__Api__State)states->values[i].value;
        return COP_OK;
    }
    const char *nearest = cop_nearest_name(text, names, count);
    return cop_fail(error, COP_ERR_USAGE,
                    "--state is \"%s\": expected queued, running, paused, completed, failed or "
                    "canceled%s%s%s",
                    text, nearest ? " (did you mean " : "", nearest ? nearest : "",
                    nearest ? "?)" : "");
}

static cop_err list_jobs(const cli_options *options, job_list *list, cop_error *error) {
    cli_remote remote = {0};
    bool more = true;
    Coppice__Api__ListJobsRequest request = COPPICE__API__LIST_JOBS_REQUEST__INIT;
    const uint64_t limit = options->has_limit && options->limit ? (uint64_t)options->limit : 0;
    request.name = (char *)(uintptr_t)options->name;
    if (options->state) COP_TRY(parse_state(options->state, &request, error));
    cop_err e = cli_remote_open(options, &remote, error);
    while (!e && more && (!limit || list->all.n_jobs < limit)) {
        ProtobufCMessage *page = NULL;
        request.has_before = list->all.n_jobs > 0;
        if (request.has_before) request.before = list->all.jobs[list->all.n_jobs - 1]->job;
        e = cli_remote_call(&remote, &CLI_CALL(LIST_JOBS, list_jobs, request), &page, NULL, error);
        if (!e) e = add_page(list, page, &more, error);
    }
    cli_remote_close(&remote);
    size_t kept = 0;
    for (size_t i = 0; i < list->all.n_jobs && (!limit || kept < limit); i++)
        if (matches_filters(options, list->all.jobs[i])) list->all.jobs[kept++] = list->all.jobs[i];
    list->all.n_jobs = kept;
    return e;
}

cop_err cli_jobs(const cli_options *options, cop_error *error) {
    job_list list = {.all = COPPICE__API__LIST_JOBS_ANSWER__INIT};
    cop_err e = list_jobs(options, &list, error);
    if (!e && options->json) cli_print_json(&list.all.base);
    if (!e && !options->json) e = print_jobs(&list.all, error);
    for (size_t i = 0; i < list.page_count; i++) cop_proto_free(list.pages[i]);
    cop_free(list.all.jobs);
    return e;
}

cop_err cli_workers(const cli_options *options, cop_error *error) {
    Coppice__Api__ListWorkersRequest request = COPPICE__API__LIST_WORKERS_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    COP_TRY(cli_ask(options, &CLI_CALL(LIST_WORKERS, list_workers, request), &answer, error));
    cop_err e = COP_OK;
    if (options->json)
        cli_print_json(answer);
    else
        e = print_workers((const Coppice__Api__ListWorkersAnswer *)answer, error);
    cop_proto_free(answer);
    return e;
}

/* ---- one job ---- */

cop_err cli_status(const cli_options *options, cop_error *error) {
    Coppice__Api__GetJobRequest request = COPPICE__API__GET_JOB_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    request.has_job = 1;
    COP_TRY(cli_job_number(options, options->positional[0], &request.job, error));
    COP_TRY(cli_ask(options, &CLI_CALL(GET_JOB, get_job, request), &answer, error));
    const Coppice__Api__JobStatus *status = ((const Coppice__Api__GetJobAnswer *)answer)->status;
    cop_err e = status
                    ? cli_print_status(options, status)
                    : cop_fail(error, COP_ERR_PROTOCOL, "the coordinator's answer has no status");
    cop_proto_free(answer);
    return e;
}

cop_err cli_watch(const cli_options *options, cop_error *error) {
    uint64_t job;
    Coppice__Api__JobStatus *status = NULL;
    COP_TRY(cli_job_number(options, options->positional[0], &job, error));
    cli_interrupt_arm_job(options, "watch", job);
    COP_TRY(cli_follow(options, job, &status, error));
    cli_interrupt_disarm();
    cop_err e = cli_print_status(options, status);
    if (!e) e = cli_status_error(status, error);
    cop_proto_free(&status->base);
    return e;
}

static cop_err control(const cli_options *options, Coppice__Api__ControlJobRequest__Action action,
                       cop_error *error) {
    Coppice__Api__ControlJobRequest request = COPPICE__API__CONTROL_JOB_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    request.has_job = request.has_action = 1;
    request.action = action;
    COP_TRY(cli_job_number(options, options->positional[0], &request.job, error));
    COP_TRY(cli_ask(options, &CLI_CALL(CONTROL_JOB, control_job, request), &answer, error));
    const Coppice__Api__JobStatus *status =
        ((const Coppice__Api__ControlJobAnswer *)answer)->status;
    if (options->json && status)
        cli_print_json(&status->base);
    else if (action == COPPICE__API__CONTROL_JOB_REQUEST__ACTION__REMOVE)
        cli_print("job %llu removed\n", (unsigned long long)request.job);
    else if (status)
        cli_print("job %llu %s%s\n", (unsigned long long)status->job, cli_state_name(status->state),
                  action == COPPICE__API__CONTROL_JOB_REQUEST__ACTION__PAUSE &&
                          status->state == COPPICE__API__STATE__RUNNING
                      ? ", pauses after the current step"
                      : "");
    cop_proto_free(answer);
    return COP_OK;
}

cop_err cli_cancel(const cli_options *options, cop_error *error) {
    return control(options, COPPICE__API__CONTROL_JOB_REQUEST__ACTION__CANCEL, error);
}

cop_err cli_pause(const cli_options *options, cop_error *error) {
    return control(options, COPPICE__API__CONTROL_JOB_REQUEST__ACTION__PAUSE, error);
}

cop_err cli_resume(const cli_options *options, cop_error *error) {
    return control(options, COPPICE__API__CONTROL_JOB_REQUEST__ACTION__RESUME, error);
}

cop_err cli_rm(const cli_options *options, cop_error *error) {
    return control(options, COPPICE__API__CONTROL_JOB_REQUEST__ACTION__REMOVE, error);
}

/* ---- logs ---- */

#define LOGS_HOLD_MS 2000

static void print_events(const cli_options *options, const Coppice__Api__LogsAnswer *answer) {
    for (size_t i = 0; i < answer->n_events; i++) {
        const Coppice__Api__Event *e = answer->events[i];
        if (options->json) {
            cli_print_json(&e->base);
            continue;
        }
        cli_print("%s %-5s %s\n", e->time ? e->time : "", e->level ? e->level : "",
                  e->text ? e->text : "");
    }
    fflush(stdout);
}

cop_err cli_logs(const cli_options *options, cop_error *error) {
    Coppice__Api__LogsRequest request = COPPICE__API__LOGS_REQUEST__INIT;
    cli_remote remote = {0};
    bool finished = false;
    request.has_job = request.has_after = request.has_hold_ms = 1;
    COP_TRY(cli_job_number(options, options->positional[0], &request.job, error));
    COP_ASSERT(request.job != 0);
    cop_err e = cli_remote_open(options, &remote, error);
    request.hold_ms = options->follow ? cli_remote_hold(&remote, LOGS_HOLD_MS) : 0;
    cli_patience patience = cli_patience_begin(options);
    while (!e && !finished) {
        ProtobufCMessage *answer = NULL;
        e = cli_remote_call(&remote, &CLI_CALL(LOGS, logs, request), &answer, NULL, error);
        if (e && options->follow && cli_patience_lasts(&patience, remote.url, &e, error)) {
            e = COP_OK;
            continue;
        }
        if (e) break;
        cli_patience_renew(&patience);
        const Coppice__Api__LogsAnswer *logs = (const Coppice__Api__LogsAnswer *)answer;
        /* Without this check, the client would ask for ever if the same lines came again and
         * again. */
        if (logs->n_events && logs->last <= request.after) {
            e = cop_fail(error, COP_ERR_PROTOCOL, "the coordinator sent lines of the log again");
            cop_proto_free(answer);
            break;
        }
        print_events(options, logs);
        finished = logs->n_events == 0 && (!options->follow || logs->finished);
        if (logs->n_events) request.after = logs->last;
        if (!finished && logs->has_retry_ms) cli_wait_to_ask(logs->retry_ms);
        cop_proto_free(answer);
    }
    cli_remote_close(&remote);
    return e;
}

cop_err cli_drain(const cli_options *options, cop_error *error) {
    Coppice__Api__DrainWorkerRequest request = COPPICE__API__DRAIN_WORKER_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    request.name = (char *)(uintptr_t)options->positional[0];
    COP_TRY(cli_ask(options, &CLI_CALL(DRAIN_WORKER, drain_worker, request), &answer, error));
    if (options->json)
        cli_print_json(answer);
    else
        cli_print("worker %s finishes its shard and leaves\n", options->positional[0]);
    cop_proto_free(answer);
    return COP_OK;
}
