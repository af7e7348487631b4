/* The door: a Unix socket in the folder of --shm, for workers in other containers of this host.
 * They cannot open the coordinator's segments in /proc, so the door sends them the files
 * (common/base/segment.h). A worker names the segment, and only the coordinator and the worker that
 * was given the segment know its random id. Visitors of other users get nothing. */
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

#define VISIT_MS 2000 /* a visitor that is slower is sent away */

static coord_door *door_of(const door_visit *v) {
    return v->pipe.data;
}

static void let_in(coord_door *door);

static void on_closed(uv_handle_t *handle) {
    door_visit *v = (door_visit *)handle; /* `pipe` is the first field */
    v->since_ns = 0;
    if (!uv_is_closing((uv_handle_t *)&door_of(v)->pipe)) let_in(door_of(v));
}

static void end_visit(door_visit *v) {
    if (!uv_is_closing((uv_handle_t *)&v->pipe)) uv_close((uv_handle_t *)&v->pipe, on_closed);
}

/* ---- one visit ---- */

static bool is_same_user(int connection) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           peer.uid == geteuid();
}

static void send_file(int connection, int file) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char byte = 0;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof file);
    memcpy(CMSG_DATA(c), &file, sizeof file);
    /* If it fails, the worker sees the end of the connection and uses its other connection. */
    (void)!sendmsg(connection, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void answer(const door_visit *v) {
    const cop_segment_name name = {
        .id = v->request.id, .size = v->request.size, .pid = v->request.pid, .fd = v->request.fd};
    int connection, file;
    if (uv_fileno((const uv_handle_t *)&v->pipe, &connection) || !is_same_user(connection)) return;
    if (cop_segment_lend(&name, &file, NULL)) return;
    send_file(connection, file);
    close(file);
}

static void on_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    door_visit *v = (door_visit *)handle;
    (void)suggested;
    COP_ASSERT(v->received < sizeof v->request);
    *out =
        uv_buf_init((char *)&v->request + v->received, (unsigned)(sizeof v->request - v->received));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *unused) {
    door_visit *v = (door_visit *)stream;
    (void)unused;
    if (count > 0) v->received += (size_t)count;
    if (v->received == sizeof v->request) answer(v);
    if (count < 0 || v->received == sizeof v->request) end_visit(v);
}

/* ---- all visits ---- */

/* Accepts the next visitor, if one waits and there is a free place. */
static void let_in(coord_door *door) {
    for (int i = 0; i < COORD_DOOR_VISITS_MAX && door->waiting; i++) {
        door_visit *v = &door->visits[i];
        if (v->since_ns || uv_pipe_init(door->pipe.loop, &v->pipe, 0)) continue;
        door->waiting = false;
        v->pipe.data = door;
        v->since_ns = cop_clock_ns();
        v->received = 0;
        if (uv_accept((uv_stream_t *)&door->pipe, (uv_stream_t *)&v->pipe) ||
            uv_read_start((uv_stream_t *)&v->pipe, on_buffer, on_read))
            end_visit(v);
    }
}

static void on_connection(uv_stream_t *stream, int status) {
    coord_door *door = stream->data;
    if (status) return;
    door->waiting = true;
    let_in(door);
}

void coord_door_tick(coord_door *door, uint64_t now) {
    for (int i = 0; i < COORD_DOOR_VISITS_MAX; i++)
        if (door->visits[i].since_ns && now - door->visits[i].since_ns > VISIT_MS * 1000000ull)
            end_visit(&door->visits[i]);
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
        char path[COP_SEGMENT_DOOR_PATH];
        if (strncmp(entry->d_name, COP_SEGMENT_DOOR, strlen(COP_SEGMENT_DOOR)) != 0) continue;
        const int length = snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (length < (int)sizeof path && is_left_over(path)) unlink(path);
    }
    closedir(all);
}

cop_err coord_door_open(coord_server *server, cop_error *error) {
    const char *folder = server->config.share_folder;
    coord_door *door = &server->door;
    char path[COP_SEGMENT_DOOR_PATH];
    if (!folder || !server->proof) return COP_OK;
    if (!cop_segment_door(folder, server->proof->name.id, path))
        return cop_fail(error, COP_ERR_USAGE, "--shm %s: the path is too long for a socket",
                        folder);
    sweep(folder);
    if (uv_pipe_init(&server->engine.loop, &door->pipe, 0))
        return cop_fail(error, COP_ERR_INTERNAL, "cannot create a socket");
    door->pipe.data = door;
    int number = uv_pipe_bind(&door->pipe, path);
    if (!number && chmod(path, 0600)) number = -errno;
    if (!number) number = uv_listen((uv_stream_t *)&door->pipe, 64, on_connection);
    if (number)
        return cop_fail(error, COP_ERR_USAGE, "--shm %s: cannot create a socket there: %s", folder,
                        uv_strerror(number));
    cop_log(COP_LOG_INFO, "coordinator", "workers in other containers share memory through %s",
            folder);
    return COP_OK;
}
