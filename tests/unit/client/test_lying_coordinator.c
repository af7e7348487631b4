/* A client of a malicious coordinator, whose answers are too long or inconsistent. The client
 * prints a message for each of them, and never writes out of bounds. LABELS: quick */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "client/cli.h"
#include "client/load/history.h"
#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/wire/codec.h"

/* If a pipe is closed while it connects, nng frees it on another thread, sometimes only after the
 * program ends. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libnng.so";
}

typedef struct liar {
    char url[64];
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t stop;
    uv_sem_t ready;
    cop_server *server;
    /* the answers that it gives, in order; it repeats the last one */
    ProtobufCMessage *answers[4];
    cop_buffer *bulk;
    int count, asked;
} liar;

static void on_request(void *context, cop_request *request) {
    liar *l = context;
    cop_message reply = {.type = COP_MESSAGE_ANSWER};
    const int turn = l->asked < l->count ? l->asked++ : l->count - 1;
    reply.answer.method = cop_request_message(request)->call.method;
    reply.part[COP_PART_BODY] = cop_proto_pack(l->answers[turn]);
    reply.part[COP_PART_BULK] = l->bulk ? cop_buffer_hold(l->bulk) : NULL;
    cop_server_reply(request, &reply);
}

static void on_gone(void *context, uint64_t connection) {
    (void)context;
    (void)connection;
}

static void on_stop(uv_async_t *async) {
    uv_stop(async->loop);
}

static void run(void *argument) {
    static const cop_server_handler handler = {on_request, on_gone};
    liar *l = argument;
    cop_error error = {0};
    COP_ASSERT(uv_loop_init(&l->loop) == 0 && uv_async_init(&l->loop, &l->stop, on_stop) == 0);
    COP_ASSERT(cop_server_create(&l->loop, &handler, l, &l->server, &error) == COP_OK);
    COP_ASSERT(cop_server_listen(l->server, l->url, &error) == COP_OK);
    uv_sem_post(&l->ready);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    cop_server_destroy(l->server);
    uv_close((uv_handle_t *)&l->stop, NULL);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    uv_loop_close(&l->loop);
}

static void start(liar *l) {
    static int number;
    snprintf(l->url, sizeof l->url, "ipc:///tmp/cop-liar-%d-%d", getpid(), number++);
    uv_sem_init(&l->ready, 0);
    assert_int_equal(uv_thread_create(&l->thread, run, l), 0);
    uv_sem_wait(&l->ready);
}

static void stop(liar *l) {
    uv_async_send(&l->stop);
    uv_thread_join(&l->thread);
    uv_sem_destroy(&l->ready);
}

static cli_options options_for(const liar *l) {
    return (cli_options){.coordinator = l->url,
                         .token = "t",
                         .timeout = 10,
                         .positional = {"1"},
                         .positional_count = 1};
}

static void test_status_with_long_words_stays_in_its_line(void **state) {
    (void)state;
    static char word[6000];
    memset(word, 'x', sizeof word - 1);
    Coppice__Api__JobStatus running = COPPICE__API__JOB_STATUS__INIT, done;
    running.has_job = running.has_state = running.has_train_loss = running.has_test_error = 1;
    running.has_test_loss = running.has_workers = running.has_samples_per_s = 1;
    running.job = 1;
    running.state = COPPICE__API__STATE__RUNNING;
    running.train_loss = running.test_error = running.samples_per_s = 1e300;
    running.evaluated_on = running.waiting_for = word;
    done = running;
    done.state = COPPICE__API__STATE__COMPLETED;
    Coppice__Api__WatchJobAnswer answers[2] = {COPPICE__API__WATCH_JOB_ANSWER__INIT,
                                               COPPICE__API__WATCH_JOB_ANSWER__INIT};
    answers[0].status = &running;
    answers[1].status = &done;
    liar l = {.answers = {&answers[0].base, &answers[1].base}, .count = 2};
    Coppice__Api__JobStatus *final = NULL;
    cop_error error = {0};
    start(&l);
    const cli_options options = options_for(&l);
    assert_int_equal(cli_follow(&options, 1, &final, &error), COP_OK);
    assert_int_equal(final->state, COPPICE__API__STATE__COMPLETED);
    cop_proto_free(&final->base);
    stop(&l);
}

/* The bytes of a model at step 3, and its digest. */
static cop_buffer *make_model(char digest[65]) {
    static const char text[] = "name: m\ndata: {source: synthetic-digits}\n"
                               "model: [linear: {units: 10}]\ntrain: {steps: 5}\n"
                               "optimizer: {sgd: {rate: 0.1}}\n";
    cop_data *data = NULL;
    cop_job *job = NULL;
    Coppice__Job *message = NULL;
    unsigned char hash[32];
    cop_buffer *model;
    assert_int_equal(cop_data_make_synthetic(1, 300, 50, &data, NULL), COP_OK);
    assert_int_equal(cop_document_parse_job(text, strlen(text), "m", &message, NULL), COP_OK);
    assert_int_equal(cop_job_create(message, data, &job, NULL), COP_OK);
    float *flat = cop_alloc_array((size_t)cop_model_floats(job->model), sizeof *flat);
    cop_model_init(job->model, 1, flat);
    assert_int_equal(cop_job_encode_model(job, flat, 3, &model, NULL), COP_OK);
    assert_int_equal(cop_model_digest(job->model, flat, hash, NULL), COP_OK);
    cop_hex32(hash, digest);
    cop_free(flat);
    cop_job_release(job);
    cop_data_destroy(data);
    return model;
}

static cop_err fetch(cop_buffer *model, const char *digest, uint64_t step, cop_error *error) {
    Coppice__Api__ExportModelAnswer answer = COPPICE__API__EXPORT_MODEL_ANSWER__INIT;
    answer.digest = (char *)(uintptr_t)digest;
    answer.has_step = 1;
    answer.step = step;
    liar l = {.answers = {&answer.base}, .count = 1, .bulk = model};
    cli_model m;
    start(&l);
    const cli_options options = options_for(&l);
    const cop_err e = cli_model_fetch(&options, &m, error);
    if (!e) cli_model_close(&m);
    stop(&l);
    return e;
}

static void test_client_checks_the_claimed_digest_and_step_of_a_model(void **state) {
    (void)state;
    char digest[65], other[65];
    cop_error error = {0};
    cop_buffer *model = make_model(digest);
    memcpy(other, digest, sizeof other);
    other[7] = other[7] == '0' ? '1' : '0';
    assert_int_equal(fetch(model, digest, 3, &error), COP_OK);
    assert_int_equal(fetch(model, other, 3, &error), COP_ERR_PROTOCOL);
    assert_non_null(strstr(error.text, "but the coordinator reports"));
    assert_int_equal(fetch(model, digest, 4, &error), COP_ERR_PROTOCOL);
    cop_buffer_release(model);
}

/* The answer to a request for single steps after step 2. */
static cop_err ask_steps(const uint64_t *steps, size_t count, cop_error *error) {
    Coppice__Api__HistoryAnswer answer = COPPICE__API__HISTORY_ANSWER__INIT;
    Coppice__Api__HistoryPoint points[4], *table[4];
    for (size_t i = 0; i < count; i++) {
        coppice__api__history_point__init(&points[i]);
        points[i].has_step = 1;
        points[i].step = steps[i];
        table[i] = &points[i];
    }
    answer.steps = table;
    answer.n_steps = count;
    liar l = {.answers = {&answer.base}, .count = 1};
    coord_history page;
    start(&l);
    const cli_options options = options_for(&l);
    const cop_err e = cli_history_steps(&options, "1", 2, &page, error);
    if (!e) coord_history_fini(&page);
    stop(&l);
    return e;
}

/* Each page decides what the client asks for next. So if a page is repeated, a client that does not
 * check this would ask for ever. */
static void test_client_stops_at_a_repeated_page(void **state) {
    (void)state;
    cop_error error = {0};
    assert_int_equal(ask_steps((uint64_t[]){3, 4, 9}, 3, &error), COP_OK);
    assert_int_equal(ask_steps((uint64_t[]){1, 2, 3}, 3, &error), COP_ERR_PROTOCOL);
    assert_non_null(strstr(error.text, "step 1 of the history after step 2"));
    assert_int_equal(ask_steps((uint64_t[]){3, 3}, 2, &error), COP_ERR_PROTOCOL);
    Coppice__Api__Event event = COPPICE__API__EVENT__INIT, *events[] = {&event};
    Coppice__Api__LogsAnswer answer = COPPICE__API__LOGS_ANSWER__INIT;
    event.has_id = answer.has_last = 1;
    event.id = answer.last = 5;
    answer.events = events;
    answer.n_events = 1;
    liar l = {.answers = {&answer.base}, .count = 1};
    start(&l);
    cli_options options = options_for(&l);
    options.follow = true;
    assert_int_equal(cli_logs(&options, &error), COP_ERR_PROTOCOL);
    assert_non_null(strstr(error.text, "sent lines of the log again"));
    stop(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_with_long_words_stays_in_its_line),
        cmocka_unit_test(test_client_checks_the_claimed_digest_and_step_of_a_model),
        cmocka_unit_test(test_client_stops_at_a_repeated_page),
    };
    cop_log_configure(COP_LOG_NONE, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
