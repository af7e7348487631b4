/* The lending socket: a Unix socket in the folder of --shm, for workers in other containers of this
 * host. They cannot open the coordinator's segments in /proc, so the socket sends them the files
 * (common/base/segment.h). A worker names a segment, and only the coordinator and the worker that
 * was given the segment know its random id. Processes of other users get nothing. */
#include "coordinator/server/server.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define REQUEST_MS 2000 /* a connection whose request takes longer is closed */

static coord_lending_socket *socket_of(const lending_connection *c) {
    return c->pipe.data;
}

static void accept_waiting(coord_lending_socket *lending);

static void on_closed(uv_handle_t *handle) {
    lending_connection *c = (lending_connection *)handle; /* `pipe` is the first field */
    c->since_ns = 0;
    if (!uv_is_closing((uv_handle_t *)&socket_of(c)->pipe)) accept_waiting(socket_of(c));
}

static void end_connection(lending_connection *c) {
    if (!uv_is_closing((uv_handle_t *)&c->pipe)) uv_close((uv_handle_t *)&c->pipe, on_closed);
}

/* ---- one connection ---- */

static bool is_same_user(int connection) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           peer.uid == geteuid();
}

static void answer(const lending_connection *c) {
    const cop_segment_name name = {
        .id = c->request.id, .size = c->request.size, .pid = c->request.pid, .fd = c->request.fd};
    int connection, file;
    if (uv_fileno((const uv_handle_t *)&c->pipe, &connection) || !is_same_user(connection)) return;
    if (cop_segment_lend(&name, &file, NULL)) return;
    cop_segment_send(connection, file); /* if it fails, weights go over the worker's connection */
    close(file);
}

static void on_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    lending_connection *c = (lending_connection *)handle;
    (void)suggested;
    COP_ASSERT(c->received < sizeof c->request);
    *out =
        uv_buf_init((char *)&c->request + c->received, (unsigned)(sizeof c->request - c->received));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *unused) {
    lending_connection *c = (lending_connection *)stream;
    (void)unused;
    if (count > 0) c->received += (size_t)count;
    if (c->received == sizeof c->request) answer(c);
    if (count < 0 || c->received == sizeof c->request) end_connection(c);
}

/* ---- all connections ---- */

/* Accepts the next connection, if one waits and there is a free place. */
static void accept_waiting(coord_lending_socket *lending) {
    for (int i = 0; i < COORD_LENDING_CONNECTIONS_MAX && lending->waiting; i++) {
        lending_connection *c = &lending->connections[i];
        if (c->since_ns || uv_pipe_init(lending->pipe.loop, &c->pipe, 0)) continue;
        lending->waiting = false;
        c->pipe.data = lending;
        c->since_ns = cop_clock_ns();
        c->received = 0;
        if (uv_accept((uv_stream_t *)&lending->pipe, (uv_stream_t *)&c->pipe) ||
            uv_read_start((uv_stream_t *)&c->pipe, on_buffer, on_read))
            end_connection(c);
    }
}

static void on_connection(uv_stream_t *stream, int status) {
    coord_lending_socket *lending = stream->data;
    if (status) return;
    lending->waiting = true;
    accept_waiting(lending);
}

void coord_lending_socket_tick(coord_lending_socket *lending, uint64_t now) {
    for (int i = 0; i < COORD_LENDING_CONNECTIONS_MAX; i++)
        if (lending->connections[i].since_ns &&
            now - lending->connections[i].since_ns > REQUEST_MS * 1000000ull)
            end_connection(&lending->connections[i]);
}

/* ---- opening ---- */

/* True: the path is a socket on which no process listens. */
static bool is_left_over(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    if (lstat(path, &status) || !S_ISSOCK(status.st_mode) ||
        strlen(path) >= sizeof address.sun_path)
        return false;
    memcpy(address.sun_path, path, strlen(path));
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    const bool refused = connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 &&
                         errno == ECONNREFUSED;
    close(fd);
    return refused;
}

/* Removes the sockets of coordinators that were killed. */
static void sweep(const char *folder) {
    DIR *all = opendir(folder);
    if (!all) return;
    for (const struct dirent *entry; (entry = readdir(all));) {
        char path[COP_SEGMENT_SOCKET_PATH];
        if (strncmp(entry->d_name, COP_SEGMENT_SOCKET_PREFIX, strlen(COP_SEGMENT_SOCKET_PREFIX)) !=
            0)
            continue;
        const int length = snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (length < (int)sizeof path && is_left_over(path)) unlink(path);
    }
    closedir(all);
}

cop_err coord_lending_socket_open(coord_server *server, cop_error *error) {
    const char *folder = server->config.share_folder;
    coord_lending_socket *lending = &server->lending;
    char path[COP_SEGMENT_SOCKET_PATH];
    if (!folder || !server->proof) return COP_OK;
    if (!cop_segment_socket_path(folder, server->proof->name.id, path))
        return cop_fail(error, COP_ERR_USAGE, "--shm %s: the path is too long for a socket",
                        folder);
    sweep(folder);
    if (uv_pipe_init(&server->engine.loop, &lending->pipe, 0))
        return cop_fail(error, COP_ERR_INTERNAL, "cannot create a socket");
    lending->pipe.data = lending;
    int number = uv_pipe_bind(&lending->pipe, path);
    if (!number && chmod(path, 0600)) number = -errno;
    if (!number) number = uv_listen((uv_stream_t *)&lending->pipe, 64, on_connection);
    if (number)
        return cop_fail(error, COP_ERR_USAGE, "--shm %s: cannot create a socket there: %s", folder,
                        uv_strerror(number));
    cop_log(COP_LOG_INFO, "coordinator", "workers in other containers share memory through %s",
            folder);
    return COP_OK;
}
