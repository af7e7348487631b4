/* Resolves host names in the background. getaddrinfo may block until the timeouts of the system's
 * resolver have passed, so it runs on its own thread, which the owner may abandon. If the owner
 * abandons a running resolution, the thread frees it; otherwise the owner does. */
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/alloc.h"
#include "common/net/internal.h"
#include "common/net/tls_internal.h"

struct net_resolution {
    uv_mutex_t mutex;       /* guards the rest, except host and port */
    tls_loop *loop;         /* the loop to wake at the end; NULL: the owner has abandoned it */
    bool done;              /* getaddrinfo has returned */
    int status;             /* result of getaddrinfo */
    struct addrinfo *found; /* the addresses; NULL if `status` is not 0 */
    char host[256], port[8];
};

static void destroy(net_resolution *r) {
    if (r->found) freeaddrinfo(r->found);
    uv_mutex_destroy(&r->mutex);
    cop_free(r);
}

static void *run_resolution(void *argument) {
    net_resolution *r = argument;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    const int status = getaddrinfo(r->host, r->port, &hints, &found);
    uv_mutex_lock(&r->mutex);
    r->done = true;
    r->status = status;
    r->found = status ? NULL : found;
    const bool abandoned = !r->loop;
    if (!abandoned) net_tls_loop_wake(r->loop);
    uv_mutex_unlock(&r->mutex);
    if (abandoned) destroy(r);
    return NULL;
}

/* True: the host is a numeric address, and the result is ready. */
static bool resolve_number(net_resolution *r) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    r->done = getaddrinfo(r->host, r->port, &hints, &r->found) == 0;
    if (!r->done) r->found = NULL;
    return r->done;
}

net_resolution *net_resolve_begin(tls_loop *loop, const char *host, const char *port) {
    pthread_attr_t detached;
    pthread_t thread;
    net_resolution *r = cop_alloc(sizeof *r);
    if (!r) return NULL;
    uv_mutex_init(&r->mutex);
    r->loop = loop;
    snprintf(r->host, sizeof r->host, "%s", host);
    snprintf(r->port, sizeof r->port, "%s", port);
    if (resolve_number(r)) return r;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    const int failed = pthread_create(&thread, &detached, run_resolution, r);
    pthread_attr_destroy(&detached);
    if (!failed) return r;
    destroy(r);
    return NULL;
}

bool net_resolve_take(net_resolution *r, int *status, struct addrinfo **found) {
    uv_mutex_lock(&r->mutex);
    COP_ASSERT(r->loop); /* the resolution was not abandoned */
    const bool done = r->done;
    uv_mutex_unlock(&r->mutex);
    if (!done) return false;
    *status = r->status;
    *found = r->found;
    r->found = NULL;
    destroy(r);
    return true;
}

void net_resolve_abandon(net_resolution *r) {
    if (!r) return;
    uv_mutex_lock(&r->mutex);
    const bool done = r->done;
    r->loop = NULL;
    uv_mutex_unlock(&r->mutex);
    if (done) destroy(r);
}
