/* URLs, addresses to listen on, and sockets. See net.h and tls_internal.h. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/str.h"
#include "common/net/net.h"
#include "common/net/tls_internal.h"

#define KEEPALIVE_S 15    /* a silent connection is probed every 15 seconds */
#define UNACKED_MS  30000 /* if bytes stay unacknowledged for longer, the connection is lost */

/* ---- URLs ---- */

static bool is_loopback(const char *host, size_t length) {
    return (length == 9 && strncmp(host, "localhost", 9) == 0) ||
           (length >= 4 && strncmp(host, "127.", 4) == 0) ||
           (length == 5 && strncmp(host, "[::1]", 5) == 0);
}

bool cop_url_is_tls(const char *url) {
    return strncmp(url, "tls+tcp://", 10) == 0;
}

cop_err cop_url_check(const char *url, bool *loopback, cop_error *error) {
    *loopback = true;
    if (strncmp(url, "ipc://", 6) == 0) {
        size_t length = strlen(url + 6);
        if (length < 1 || length > 100)
            return cop_fail(error, COP_ERR_INPUT,
                            "%s: expected ipc:///PATH with at most 100 characters", url);
        return COP_OK;
    }
    if (strncmp(url, "tcp://", 6) == 0 || cop_url_is_tls(url)) {
        const char *host = strstr(url, "://") + 3, *colon = strrchr(host, ':');
        uint64_t port = 0;
        bool good = colon && colon > host && colon - host < 256 && strchr(host, '/') == NULL &&
                    cop_parse_u64(colon + 1, &port) && port <= 65535 && strlen(colon) <= 6;
        if (!good)
            return cop_fail(error, COP_ERR_INPUT,
                            "%s: expected tcp://HOST:PORT, such as tcp://127.0.0.1:29700", url);
        *loopback = is_loopback(host, (size_t)(colon - host));
        return COP_OK;
    }
    return cop_fail(error, COP_ERR_INPUT,
                    "\"%s\" is not an address: expected tcp://HOST:PORT, tls+tcp://HOST:PORT or "
                    "ipc:///PATH",
                    url);
}

void net_split_url(const char *url, char host[256], char port[8]) {
    const char *scheme_end = strstr(url, "://");
    COP_ASSERT(scheme_end);
    const char *begin = scheme_end + 3, *colon = strrchr(begin, ':');
    COP_ASSERT(colon && colon - begin < 256);
    size_t length = (size_t)(colon - begin);
    if (*begin == '[' && length > 1 && begin[length - 1] == ']') begin++, length -= 2;
    snprintf(host, 256, "%.*s", (int)length, begin);
    snprintf(port, 8, "%.7s", colon + 1);
}

/* ---- addresses to listen on ---- */

/* True: *a already has the address. This happens because /etc/hosts may list an address twice. */
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

/* ---- sockets ---- */

void net_set_tcp_options(int fd) {
    const int on = 1, seconds = KEEPALIVE_S, unacked = UNACKED_MS;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked, sizeof unacked);
}

void net_describe_socket(int fd, char out[64]) {
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    char ip[INET6_ADDRSTRLEN] = "";
    snprintf(out, 64, "unknown address");
    if (getpeername(fd, (struct sockaddr *)&address, &size) != 0) return;
    if (address.ss_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, &address, sizeof v4);
        inet_ntop(AF_INET, &v4.sin_addr, ip, sizeof ip);
        snprintf(out, 64, "%s:%u", ip, ntohs(v4.sin_port));
    } else if (address.ss_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, &address, sizeof v6);
        inet_ntop(AF_INET6, &v6.sin6_addr, ip, sizeof ip);
        snprintf(out, 64, "[%s]:%u", ip, ntohs(v6.sin6_port));
    }
}
