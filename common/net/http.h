/* An HTTP/1.1 server, by libmicrohttpd. It has its own thread, so parsing, slow clients and the
 * sending of long answers never delay the program's loop.
 *
 * A connection carries one request, which must arrive within HTTP_READ_S seconds; its answer must
 * leave within HTTP_SEND_S seconds. The server refuses a request whose Host names another host
 * (DNS rebinding) if it listens on loopback, and a body that is too long. Errors are JSON:
 * {"error": {"code": "INPUT", "message": "...", "field": null}}. */
#ifndef COP_NET_HTTP_H
#define COP_NET_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"

#define COP_HTTP_ARGUMENTS 8 /* maximum arguments after the ? of a request */

typedef struct cop_http cop_http;
typedef struct cop_http_request cop_http_request;

/* An argument after the ? of a request, decoded. */
typedef struct cop_http_argument {
    const char *name, *value;
} cop_http_argument;

/* What a program does with requests. Both functions run on the server's thread. */
typedef struct cop_http_handler {
    /* A request has arrived, or cop_http_resume was called for it. False: the function has answered
     * it, or memory has run out. True: cop_http_resume will be called for it, once; the function
     * may do this only for a request that has just arrived. */
    bool (*on_request)(void *context, cop_http_request *request);
    /* The request has ended. Frees what `attached` points to, which is not NULL. */
    void (*on_end)(void *attached);
} cop_http_handler;

/* Checks an address: an IPv4 address, [IPv6] or localhost, a colon, and a port (0: any free one).
 * *loopback becomes true if only this machine can reach it. INPUT. */
cop_err cop_http_check(const char *address, bool *loopback, cop_error *error);
/* Listens on an address and starts the thread. *handler is copied. The caller owns *out and frees
 * it with cop_http_stop. INPUT: bad address. IN_USE: another program uses it. UNSUPPORTED: this
 * program was built without libmicrohttpd. */
cop_err cop_http_start(const char *address, const cop_http_handler *handler, void *context,
                       cop_http **out, cop_error *error);
/* Returns the address with the port in use, such as "127.0.0.1:8790". Owned by the server. */
const char *cop_http_address(const cop_http *http);
/* To be called regularly, from any one thread: closes connections whose time is over. */
void cop_http_tick(cop_http *http);
/* Closes all connections and frees the server. Every request must have been answered or resumed.
 * NULL has no effect. */
void cop_http_stop(cop_http *http);

/* The parts of a request, which owns them: "GET" (also for HEAD) or another verb; the path,
 * decoded, such as "/livez"; the token of "Authorization: Bearer", or ""; the arguments and their
 * number. */
const char *cop_http_verb(const cop_http_request *request);
const char *cop_http_path(const cop_http_request *request);
const char *cop_http_token(const cop_http_request *request);
const cop_http_argument *cop_http_arguments(const cop_http_request *request, size_t *count);
/* What the program attached to the request; NULL at first. */
void **cop_http_attached(cop_http_request *request);

/* Answers a request, from on_request. `type` is a content type; `text` is copied. */
void cop_http_answer(cop_http_request *request, unsigned status, const char *type,
                     const char *text);
/* Answers with a JSON error and the status that belongs to its code. `field` is the argument that
 * is wrong; NULL: none is. */
void cop_http_fail(cop_http_request *request, const cop_error *error, const char *field);
/* Answers with 405: the path is for another verb, `allowed`. */
void cop_http_refuse_verb(cop_http_request *request, const char *allowed);
/* Makes the server call on_request for this request again. Any thread. */
void cop_http_resume(cop_http_request *request);

#endif
