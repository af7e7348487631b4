/* The table of nng's listeners in a server. Each TLS connection has its own listener, whose row has
 * the identity of the peer from its certificate. The listener of a tcp:// or ipc:// address serves
 * many peers, and its row has no identity. The server ignores messages from a listener without a
 * row. Rows are sorted by the listener's number. */
#include "common/net/internal.h"

#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"

void net_peers_init(net_peers *peers) {
    *peers = (net_peers){0};
    uv_mutex_init(&peers->mutex);
}

void net_peers_fini(net_peers *peers) {
    uv_mutex_destroy(&peers->mutex);
    cop_free(peers->rows);
}

/* Returns the index of the listener's row or, if it has none, the index where its row belongs. */
static size_t find_position(const net_peers *peers, uint32_t listener) {
    size_t low = 0, high = peers->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (peers->rows[middle].listener < listener)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool grow(net_peers *peers) {
    size_t capacity = peers->capacity ? 2 * peers->capacity : 16;
    net_peer_row *rows = cop_realloc(peers->rows, capacity * sizeof *rows);
    if (!rows) return false;
    peers->rows = rows;
    peers->capacity = capacity;
    return true;
}

bool net_peers_add(net_peers *peers, uint32_t listener, const cop_peer *peer, const char *address) {
    COP_ASSERT(listener); /* nng numbers its listeners from 1; 0 means no listener */
    uv_mutex_lock(&peers->mutex);
    bool room = peers->count < peers->capacity || grow(peers);
    if (room) {
        size_t at = find_position(peers, listener);
        COP_ASSERT(at == peers->count || peers->rows[at].listener != listener);
        memmove(&peers->rows[at + 1], &peers->rows[at], (peers->count - at) * sizeof *peers->rows);
        peers->rows[at] = (net_peer_row){.listener = listener, .peer = *peer};
        snprintf(peers->rows[at].address, sizeof peers->rows[at].address, "%s", address);
        peers->count++;
    }
    uv_mutex_unlock(&peers->mutex);
    return room;
}

void net_peers_remove(net_peers *peers, uint32_t listener) {
    uv_mutex_lock(&peers->mutex);
    size_t at = find_position(peers, listener);
    if (at < peers->count && peers->rows[at].listener == listener) {
        peers->count--;
        memmove(&peers->rows[at], &peers->rows[at + 1], (peers->count - at) * sizeof *peers->rows);
    }
    uv_mutex_unlock(&peers->mutex);
}

bool net_peers_find(net_peers *peers, uint32_t listener, cop_peer *peer, char address[64]) {
    uv_mutex_lock(&peers->mutex);
    size_t at = find_position(peers, listener);
    bool found = at < peers->count && peers->rows[at].listener == listener;
    if (found) {
        *peer = peers->rows[at].peer;
        snprintf(address, 64, "%s", peers->rows[at].address);
    }
    uv_mutex_unlock(&peers->mutex);
    return found;
}
