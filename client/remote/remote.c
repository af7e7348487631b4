/* Calls to a coordinator, and following one of its jobs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli.h"
#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/wire/codec.h"

#define ANSWER_BUDGET (64u << 20)
#define WATCH_HOLD_MS 2000

cop_err cli_remote_open(const cli_options *options, cli_remote *out, cop_error *error) {
    const char *environment = getenv("COPPICE_COORDINATOR");
    bool loopback;
    *out = (cli_remote){.options = options,
                        .url = options->coordinator          ? options->coordinator
                               : environment && *environment ? environment
                                                             : COP_DEFAULT_URL};
    out->timeout_ms = cop_seconds_to_ms(options->timeout);
    COP_TRY(cop_url_check(out->url, &loopback, error));
    COP_TRY(cop_token_find(options->token, options->token_file, out->url, out->token, error));
    COP_TRY(cop_tls_for_url(out->url, &options->tls, "client", COP_ROLE_CLIENT, &out->tls, error));
    cop_err e = cop_link_open(out->url, out->tls, &out->link, error);
    if (e)
        cli_remote_close(out);
    else if (!options->has_timeout) /* with --timeout, the link may keep trying to connect */
        cop_link_set_impatient(out->link);
    return e;
}

uint32_t cli_remote_hold(const cli_remote *remote, uint32_t max_ms) {
    return remote->timeout_ms / 2 < max_ms ? remote->timeout_ms / 2 : max_ms;
}

void cli_remote_close(cli_remote *remote) {
    if (remote->link) cop_link_close(remote->link);
    cop_tls_destroy(remote->tls);
    remote->link = NULL;
    remote->tls = NULL;
}

static cop_err read_answer(const cop_message *reply, const cli_call *call,
                           ProtobufCMessage **answer, cop_buffer **bulk, cop_error *error) {
    const cop_buffer *body = reply->part[COP_PART_BODY];
    cop_buffer *bytes = reply->part[COP_PART_BULK];
    if (reply->type != COP_MESSAGE_ANSWER || reply->answer.method != (uint32_t)call->method ||
        !body)
        return cop_fail(error, COP_ERR_PROTOCOL,
                        "the coordinator's answer does not match the call");
    COP_TRY(
        cop_proto_unpack(call->answer_type, body->data, body->size, ANSWER_BUDGET, answer, error));
    if (bulk) *bulk = bytes ? cop_buffer_hold(bytes) : NULL;
    return COP_OK;
}

static cop_err call_once(cli_remote *remote, const cli_call *call, ProtobufCMessage **answer,
                         cop_buffer **bulk, cop_error *error) {
    cop_message message = {.type = COP_MESSAGE_CALL}, reply = {0};
    COP_ASSERT(remote->link && call->request && call->answer_type);
    message.call.method = (uint32_t)call->method;
    message.call.major = COP_PROTOCOL_MAJOR;
    message.call.minor = COP_PROTOCOL_MINOR;
    snprintf(message.call.token, sizeof message.call.token, "%s", remote->token);
    message.part[COP_PART_BODY] = cop_proto_pack(call->request);
    message.part[COP_PART_BULK] = call->bulk;
    if (!message.part[COP_PART_BODY]) {
        cop_message_fini(&message);
        return cop_no_memory(error);
    }
    cop_err e = cop_link_call(remote->link, &message, &reply, remote->timeout_ms, error);
    if (!e) e = read_answer(&reply, call, answer, bulk, error);
    cop_message_fini(&reply);
    return e;
}

/* Looks for the token again, because a coordinator that has just started may have written its token
 * file only now. Returns true if it found another token than remote->token, and stores it there. */
static bool has_newer_token(cli_remote *remote) {
    char token[COP_TOKEN_MAX];
    const cli_options *o = remote->options;
    if (cop_token_find(o->token, o->token_file, remote->url, token, NULL) ||
        strcmp(token, remote->token) == 0)
        return false;
    snprintf(remote->token, sizeof remote->token, "%s", token);
    return true;
}

cop_err cli_remote_call(cli_remote *remote, const cli_call *call, ProtobufCMessage **answer,
                        cop_buffer **bulk, cop_error *error) {
    cop_buffer *again = call->bulk ? cop_buffer_hold(call->bulk) : NULL;
    COP_ASSERT(answer && !*answer);
    cop_err e = call_once(remote, call, answer, bulk, error);
    if (e == COP_ERR_DENIED && has_newer_token(remote)) {
        e = call_once(remote, call, answer, bulk, error);
        again = NULL; /* the second call has taken over this reference */
    }
    if (again) cop_buffer_release(again);
    return e;
}

cop_err cli_ask(const cli_options *options, const cli_call *call, ProtobufCMessage **answer,
                cop_error *error) {
    cli_remote remote = {0};
    COP_ASSERT(!call->bulk);
    cop_err e = cli_remote_open(options, &remote, error);
    if (!e) e = cli_remote_call(&remote, call, answer, NULL, error);
    cli_remote_close(&remote);
    return e;
}

/* Parses the number of a job, "12" or "job-12", or of an evaluation, "eval-3". */
static bool is_number(const char *text, uint64_t *out) {
    if (strncmp(text, "eval-", 5) == 0 && cop_parse_u64(text + 5, out) && *out) {
        *out += COP_EVALUATION_NUMBERS;
        return true;
    }
    return cop_parse_u64(strncmp(text, "job-", 4) == 0 ? text + 4 : text, out);
}

bool cli_is_job(const char *text) {
    uint64_t number;
    return is_number(text, &number) || (cop_name_ok(text, strlen(text)) && !strpbrk(text, "./") &&
                                        !cop_file_exists(text) && !cop_folder_exists(text));
}

/* Finds the newest job with this name. *out becomes 0 if there is none. An older coordinator
 * ignores the name in the request and sends the newest jobs of all names, so the name is checked
 * here. */
static cop_err find_by_name(cli_remote *remote, const char *name, uint64_t *out, cop_error *error) {
    Coppice__Api__ListJobsRequest request = COPPICE__API__LIST_JOBS_REQUEST__INIT;
    ProtobufCMessage *message = NULL;
    request.name = (char *)(uintptr_t)name;
    COP_TRY(
        cli_remote_call(remote, &CLI_CALL(LIST_JOBS, list_jobs, request), &message, NULL, error));
    const Coppice__Api__ListJobsAnswer *answer = (const Coppice__Api__ListJobsAnswer *)message;
    *out = 0;
    for (size_t i = 0; i < answer->n_jobs && !*out; i++)
        if (answer->jobs[i]->name && strcmp(answer->jobs[i]->name, name) == 0)
            *out = answer->jobs[i]->job;
    cop_proto_free(message);
    return COP_OK;
}

cop_err cli_job_number(const cli_options *options, const char *text, uint64_t *out,
                       cop_error *error) {
    cli_remote remote = {0};
    if (is_number(text, out) && *out) return COP_OK;
    if (is_number(text, out) || !cop_name_ok(text, strlen(text)))
        return cop_fail(error, COP_ERR_USAGE,
                        "\"%s\" is not a job: expected its number or its name, as `coppice jobs` "
                        "shows them",
                        text);
    cop_err e = cli_remote_open(options, &remote, error);
    if (!e) e = find_by_name(&remote, text, out, error);
    cli_remote_close(&remote);
    if (e)
        return cop_error_prefix(
            error, "\"%s\" is neither a file nor a folder, and cannot be looked up as a job name",
            text);
    if (!*out)
        return cop_fail(error, COP_ERR_NOT_FOUND,
                        "there is no job named \"%s\" (coppice jobs lists them)", text);
    return COP_OK;
}

const char *cli_state_name(Coppice__Api__State state) {
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&coppice__api__state__descriptor, (int)state);
    return value ? value->name : "?";
}

/* ---- following ---- */

void cli_wait_to_ask(uint32_t ms) {
    cop_clock_sleep_ms(ms < COP_HOLD_MAX_MS ? ms : COP_HOLD_MAX_MS);
}

static bool is_ended(Coppice__Api__State state) {
    return state != COPPICE__API__STATE__QUEUED && state != COPPICE__API__STATE__RUNNING;
}

cop_err cli_job_has_ended(const cli_options *options, const char *job, bool *ended,
                          cop_error *error) {
    Coppice__Api__GetJobRequest request = COPPICE__API__GET_JOB_REQUEST__INIT;
    ProtobufCMessage *message = NULL;
    request.has_job = 1;
    COP_TRY(cli_job_number(options, job, &request.job, error));
    COP_TRY(cli_ask(options, &CLI_CALL(GET_JOB, get_job, request), &message, error));
    const Coppice__Api__JobStatus *s = ((const Coppice__Api__GetJobAnswer *)message)->status;
    *ended = !s || is_ended(s->state);
    cop_proto_free(message);
    return COP_OK;
}

static void show_status(cli_progress *bar, const Coppice__Api__JobStatus *s) {
    char text[256], eta[32];
    snprintf(text, sizeof text, "job %llu %s  step %llu/%llu", (unsigned long long)s->job,
             cli_state_name(s->state), (unsigned long long)s->step, (unsigned long long)s->steps);
    if (s->has_train_loss) cop_text_append(text, sizeof text, "  loss %.4f", s->train_loss);
    const char *part = s->evaluated_on ? s->evaluated_on : "test";
    if (s->has_test_error)
        cop_text_append(text, sizeof text, "  %s error %.2f %%", part, 100 * s->test_error);
    else if (s->has_test_loss)
        cop_text_append(text, sizeof text, "  %s loss %.4f", part, s->test_loss);
    if (s->waiting_for && *s->waiting_for)
        cop_text_append(text, sizeof text, "  waiting for %s", s->waiting_for);
    else if (s->has_samples_per_s && s->samples_per_s > 0)
        cop_text_append(text, sizeof text, "  %.0f samples/s  %s left", s->samples_per_s,
                        cop_format_seconds(s->eta_seconds, eta));
    if (s->has_workers) cop_text_append(text, sizeof text, "  %u workers", s->workers);
    cli_progress_show(bar, s->steps ? (double)s->step / (double)s->steps : 0, text);
}

/* Asks once for the status of a job, if it has changed since *version. The coordinator may hold the
 * call until the status changes. Sets *version. The caller owns *status. */
static cop_err watch_once(cli_remote *remote, uint64_t job, uint64_t *version,
                          Coppice__Api__JobStatus **status, cop_error *error) {
    Coppice__Api__WatchJobRequest request = COPPICE__API__WATCH_JOB_REQUEST__INIT;
    request.has_job = request.has_version = request.has_hold_ms = 1;
    request.job = job;
    request.version = *version;
    request.hold_ms = cli_remote_hold(remote, WATCH_HOLD_MS);
    ProtobufCMessage *answer = NULL;
    COP_TRY(
        cli_remote_call(remote, &CLI_CALL(WATCH_JOB, watch_job, request), &answer, NULL, error));
    const Coppice__Api__WatchJobAnswer *watched = (const Coppice__Api__WatchJobAnswer *)answer;
    COP_ASSERT(watched != NULL);
    if (!watched->status) {
        cop_proto_free(answer);
        return cop_fail(error, COP_ERR_PROTOCOL, "the coordinator's answer has no status");
    }
    *version = watched->version;
    if (watched->has_retry_ms) cli_wait_to_ask(watched->retry_ms);
    cop_buffer *packed = cop_proto_pack(&watched->status->base);
    cop_proto_free(answer);
    if (!packed) return cop_no_memory(error);
    cop_err e = cop_proto_unpack(&coppice__api__job_status__descriptor, packed->data, packed->size,
                                 ANSWER_BUDGET, &answer, error);
    cop_buffer_release(packed);
    if (!e) *status = (Coppice__Api__JobStatus *)answer;
    return e;
}

/* The minimum wait for a coordinator that has answered before, because it may be restarting. */
#define RESTART_WAIT_NS 60000000000u

cli_patience cli_patience_begin(const cli_options *options) {
    return (cli_patience){.last_answer_ns = cop_clock_ns(),
                          .timeout_ns = cop_seconds_to_ns(options->timeout),
                          .has_timeout = options->has_timeout};
}

void cli_patience_renew(cli_patience *p) {
    p->last_answer_ns = cop_clock_ns();
    p->answered = true;
}

bool cli_patience_lasts(const cli_patience *p, const char *url, cop_err *e, cop_error *error) {
    const uint64_t now = cop_clock_ns(), silent = now - p->last_answer_ns;
    const uint64_t limit =
        p->answered && p->timeout_ns < RESTART_WAIT_NS ? RESTART_WAIT_NS : p->timeout_ns;
    COP_ASSERT(*e != COP_OK && now >= p->last_answer_ns);
    if (*e != COP_ERR_UNREACHABLE && *e != COP_ERR_CLOSED && *e != COP_ERR_TIMEOUT) return false;
    if (!p->answered && !p->has_timeout && *e == COP_ERR_UNREACHABLE) return false;
    if (silent <= limit) {
        cop_clock_sleep_ms(200);
        return true;
    }
    if (p->answered)
        *e = cop_fail(
            error, COP_ERR_TIMEOUT,
            "the coordinator at %s has not answered for %.0f s; the job may still be running", url,
            (double)silent / 1e9);
    return false;
}

cop_err cli_follow(const cli_options *options, uint64_t job, Coppice__Api__JobStatus **final,
                   cop_error *error) {
    cli_remote remote;
    COP_ASSERT(job != 0 && !*final);
    COP_TRY(cli_remote_open(options, &remote, error));
    cli_progress bar;
    cli_patience patience = cli_patience_begin(options);
    uint64_t version = 0;
    cop_err e;
    cli_progress_start(&bar, options->quiet);
    /* Each call has a short timeout, so that the progress line soon shows that the command waits
     * for a coordinator that restarts. */
    if (remote.timeout_ms > WATCH_HOLD_MS + 3000) remote.timeout_ms = WATCH_HOLD_MS + 3000;
    for (;;) {
        Coppice__Api__JobStatus *status = NULL;
        e = watch_once(&remote, job, &version, &status, error);
        if (!e) {
            cli_patience_renew(&patience);
            show_status(&bar, status);
            if (is_ended(status->state)) {
                *final = status;
                break;
            }
            cop_proto_free(&status->base);
            continue;
        }
        version = 0; /* a restarted coordinator counts versions from 0 */
        cli_progress_show(&bar, bar.last_fraction,
                          "the coordinator does not answer; waiting for it");
        if (!cli_patience_lasts(&patience, remote.url, &e, error)) break;
    }
    cli_progress_end(&bar);
    cli_remote_close(&remote);
    return e;
}

cop_err cli_status_error(const Coppice__Api__JobStatus *s, cop_error *error) {
    if (s->state == COPPICE__API__STATE__FAILED)
        return cop_fail(error, COP_ERR_INTERNAL, "job %llu failed: %s", (unsigned long long)s->job,
                        s->error ? s->error : "no reason was given");
    if (s->state == COPPICE__API__STATE__CANCELED)
        return cop_fail(error, COP_ERR_CANCELED, "job %llu was canceled",
                        (unsigned long long)s->job);
    return COP_OK;
}

cop_err cli_print_status(const cli_options *options, const Coppice__Api__JobStatus *s) {
    if (options->json) {
        cli_print_json(&s->base);
        return COP_OK;
    }
    char number[32], steps[64], loss[32] = "-", test_error[48] = "-", seconds[32], speed[48],
                                leases[160], audits[160];
    const char *empty = "-";
    cop_format_job(s->job, number);
    int at = snprintf(steps, sizeof steps, "%llu of %llu", (unsigned long long)s->step,
                      (unsigned long long)s->steps);
    if (s->has_epoch) snprintf(steps + at, sizeof steps - (size_t)at, " (%.2f epochs)", s->epoch);
    if (s->has_train_loss) snprintf(loss, sizeof loss, "%.4f", s->train_loss);
    const char *part = s->evaluated_on ? s->evaluated_on : "test";
    if (s->has_test_error)
        snprintf(test_error, sizeof test_error, "%.2f %% (%s)", 100 * s->test_error, part);
    else if (s->has_test_loss)
        snprintf(test_error, sizeof test_error, "- (%s loss %.4f)", part, s->test_loss);
    snprintf(speed, sizeof speed, "%.0f samples/s", s->samples_per_s);
    snprintf(leases, sizeof leases,
             "%llu granted, %llu repeated (%llu as copies); results: %llu late, %llu duplicate, "
             "%llu stale",
             (unsigned long long)s->leases_given, (unsigned long long)s->leases_repeated,
             (unsigned long long)s->leases_doubled, (unsigned long long)s->results_late,
             (unsigned long long)s->results_twice, (unsigned long long)s->results_stale);
    snprintf(audits, sizeof audits, "%llu blocks confirmed, %llu results disputed, %llu rollbacks",
             (unsigned long long)s->blocks_audited, (unsigned long long)s->results_disputed,
             (unsigned long long)s->rollbacks);
    const char *rows[][2] = {
        {"job", number},
        {"name", s->name ? s->name : empty},
        {"state", cli_state_name(s->state)},
        {"reason", s->error},
        {"warning", s->warning},
        {"waiting for", s->waiting_for},
        {"steps", steps},
        {"train loss", loss},
        {"error", test_error},
        {"time", cop_format_seconds(s->seconds, seconds)},
        {"speed", speed},
        {"leases", options->verbose ? leases : NULL},
        {"audits", options->verbose || s->results_disputed ? audits : NULL},
        /* Before the end, the digest would be that of the last checkpoint. */
        {"digest", is_ended(s->state) ? s->digest : NULL},
        {"created", s->created},
        {"by", s->owner},
        {"finished", s->finished},
    };
    const char *cells[2 * sizeof rows / sizeof *rows];
    int count = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!rows[i][1] || !*rows[i][1]) continue;
        cells[2 * count] = rows[i][0];
        cells[2 * count++ + 1] = rows[i][1];
    }
    COP_ASSERT(2 * (size_t)count <= sizeof cells / sizeof *cells);
    cli_print_table(cells, count, 2, "ll");
    return COP_OK;
}
