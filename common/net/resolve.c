/* Resolves host names in the background: getaddrinfo blocks for as long as the resolver's own
 * timeouts, so it runs on a thread that the owner may abandon. The thread or the owner, whichever
 * finishes last, frees the resolution. */
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/alloc.h"
#include "common/net/internal.h"
#include "common/net/tls_internal.h"

struct net_resolution {
    uv_mutex_t mutex; /* guards the rest */
    tls_loop *loop;   /* woken at the end; NULL: abandoned */
    bool done;
    int status; /* of getaddrinfo */
    struct addrinfo *found;
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
    COP_ASSERT(r->loop); /* not abandoned */
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

/* ---- addresses to listen on ---- */

/* /etc/hosts may list an address more than once. */
static bool is_known(const net_addresses *a, const struct addrinfo *found) {
    for (int i = 0; i < a->count; i++)
        if (a->size[i] == found->ai_addrlen &&
            memcmp(&a->at[i], found->ai_addr, found->ai_addrlen) == 0)
            return true;
    return false;
}

cop_err net_listen_addresses(const char *url, net_addresses *out, cop_error *error) {
    char host[256], port[8];
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    net_split_url(url, host, port);
    const int failed = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &found);
    if (failed)
        return cop_fail(error, COP_ERR_INPUT, "cannot listen on %s: %s", url, gai_strerror(failed));
    out->count = 0;
    for (const struct addrinfo *a = found; a && out->count < NET_ADDRESSES_MAX; a = a->ai_next) {
        if (a->ai_addrlen > sizeof out->at[0] || is_known(out, a)) continue;
        memcpy(&out->at[out->count], a->ai_addr, a->ai_addrlen);
        out->size[out->count++] = a->ai_addrlen;
    }
    freeaddrinfo(found);
    return COP_OK;
}
