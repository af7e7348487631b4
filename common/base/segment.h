/* Memory that processes of one host and one user share.
 *
 * A segment is an anonymous file (memfd) whose size is sealed, so no process can truncate it and
 * make an access fail. Another process opens it as /proc/PID/fd/FD. The kernel permits this only to
 * a process of the same user (or root) that sees the owner's process. So a process that knows the
 * content of a segment must share the host and the user. A segment has no name in a folder and ends
 * with the last process that maps it, even after kill -9.
 *
 * Processes in different containers do not see each other in /proc. The owner can send them the
 * file through a Unix socket in a folder that both see; it keeps its seals. */
#ifndef COP_BASE_SEGMENT_H
#define COP_BASE_SEGMENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

/* Tells another process where a segment is. It may come from an untrusted peer: cop_segment_open
 * checks it. */
typedef struct cop_segment_name {
    uint64_t id;   /* random; never 0, which stands for "no segment" */
    uint64_t size; /* bytes of data */
    uint32_t pid;  /* process id of the owner */
    uint32_t fd;   /* descriptor of the owner */
} cop_segment_name;

#define COP_SEGMENT_SECRET 16

/* A segment that this process has mapped. Any thread may hold and release references. */
typedef struct cop_segment {
    void *data; /* name.size bytes, aligned to a page; zero when the segment is new */
    cop_segment_name name;
    unsigned char secret[COP_SEGMENT_SECRET]; /* random bytes that only the segment contains */
    atomic_int references;
    int fd; /* file descriptor of the owner; -1 in other processes */
} cop_segment;

/* What other processes may do with the data of a segment. */
typedef enum cop_segment_access { COP_SEGMENT_READ, COP_SEGMENT_WRITE } cop_segment_access;

/* Creates a segment with one reference. `peers` says what other processes may do; the owner may
 * always write. UNSUPPORTED: this system has no sealed memory, or it commits memory strictly
 * (vm.overcommit_memory 2), so that an access to new memory could end the process. LIMIT: the size
 * exceeds the process's limit for files. NO_MEMORY. */
cop_err cop_segment_create(size_t size, cop_segment_access peers, cop_segment **out,
                           cop_error *error);
/* Maps the segment of another process, or of this one. *out has one reference. NOT_FOUND: the
 * process does not exist here or has no such segment, or the segment there has another id. DENIED:
 * it belongs to another user. PROTOCOL: it is not sealed, or has another size. NO_MEMORY. */
cop_err cop_segment_open(const cop_segment_name *name, cop_segment_access access, cop_segment **out,
                         cop_error *error);
/* Opens the segment's file for another process that cannot reach it as /proc/PID/fd/FD, such as one
 * in another container. The caller owns *fd. NOT_FOUND: this process has no such segment. */
cop_err cop_segment_lend(const cop_segment_name *name, int *fd, cop_error *error);
/* Answers a cop_segment_request that came over a Unix socket: sends the file, without waiting. If
 * that fails, the peer sees the end of the connection. The caller still owns both. */
void cop_segment_send(int connection, int fd);
/* Maps the segment of a process that lends it at this socket (cop_segment_request). Waits at most
 * two seconds. Errors: as cop_segment_open; NOT_FOUND also if nobody answers. */
cop_err cop_segment_fetch(const char *socket_path, const cop_segment_name *name,
                          cop_segment_access access, cop_segment **out, cop_error *error);

#define COP_SEGMENT_SOCKET_PREFIX "coppice-" /* begin of a socket's name */
#define COP_SEGMENT_SOCKET_PATH   108        /* maximum size of a socket's path, with its NUL */

/* Sets `path` to the socket in `folder` at which the owner of segment `id` lends its segments.
 * False: the path would be too long. */
bool cop_segment_socket_path(const char *folder, uint64_t id, char path[COP_SEGMENT_SOCKET_PATH]);

/* What cop_segment_fetch sends. The answer is one byte, with the file as SCM_RIGHTS. Both processes
 * run on one host, so the fields have its byte order. */
typedef struct cop_segment_request {
    uint64_t id, size;
    uint32_t pid, fd;
} cop_segment_request;

/* Adds a reference and returns `segment`. */
cop_segment *cop_segment_hold(cop_segment *segment);
/* Drops a reference. The last release unmaps the segment. NULL has no effect. */
void cop_segment_release(cop_segment *segment);

#endif
