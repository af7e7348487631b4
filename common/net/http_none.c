/* The functions of http.h in a build without libmicrohttpd: no server can be started. */
#include "common/net/http.h"

#ifndef COP_HAVE_HTTP
cop_err cop_http_check(const char *address, bool *loopback, cop_error *error) {
    *loopback = true;
    return cop_fail(error, COP_ERR_UNSUPPORTED,
                    "--http %.200s: this build has no HTTP server (no libmicrohttpd)", address);
}

cop_err cop_http_start(const char *address, const cop_http_handler *handler, void *context,
                       cop_http **out, cop_error *error) {
    bool loopback;
    (void)handler;
    (void)context;
    (void)out;
    return cop_http_check(address, &loopback, error);
}

const char *cop_http_address(const cop_http *http) {
    (void)http;
    return "";
}

void cop_http_tick(cop_http *http) {
    (void)http;
}

void cop_http_stop(cop_http *http) {
    (void)http;
}

const char *cop_http_verb(const cop_http_request *request) {
    (void)request;
    return "";
}

const char *cop_http_path(const cop_http_request *request) {
    (void)request;
    return "";
}

const char *cop_http_token(const cop_http_request *request) {
    (void)request;
    return "";
}

const cop_http_argument *cop_http_arguments(const cop_http_request *request, size_t *count) {
    (void)request;
    *count = 0;
    return NULL;
}

void **cop_http_attached(cop_http_request *request) {
    (void)request;
    return NULL;
}

void cop_http_answer(cop_http_request *request, unsigned status, const char *type,
                     const char *text) {
    (void)request;
    (void)status;
    (void)type;
    (void)text;
}

void cop_http_fail(cop_http_request *request, const cop_error *error, const char *field) {
    (void)request;
    (void)error;
    (void)field;
}

void cop_http_refuse_verb(cop_http_request *request, const char *allowed) {
    (void)request;
    (void)allowed;
}

void cop_http_resume(cop_http_request *request) {
    (void)request;
}
#endif
