/* Segments of shared memory. See segment.h. The file of a segment begins with a page that has its
 * id and its secret; the data follow. */
#include "common/base/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/base/limits.h"

#ifndef F_SEAL_FUTURE_WRITE /* Linux 5.1 */
#    define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define FILE_NAME "coppice"
#define LINK_NAME "/memfd:" FILE_NAME " (deleted)" /* what /proc/PID/fd/FD points to */
#define HEAD      4096                             /* bytes before the data: one page */
#define SEALS     (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* The beginning of the first page. */
typedef struct segment_head {
    char magic[16];
    uint64_t id;
    unsigned char secret[COP_SEGMENT_SECRET];
} segment_head;

static const char MAGIC[16] = "coppice segment";

static void unmap(cop_segment *s) {
    munmap((char *)s->data - HEAD, HEAD + s->name.size);
    if (s->fd >= 0) close(s->fd);
    cop_free(s);
}

cop_segment *cop_segment_hold(cop_segment *segment) {
    const int before = atomic_fetch_add_explicit(&segment->references, 1, memory_order_relaxed);
    COP_ASSERT(before >= 1);
    return segment;
}

void cop_segment_release(cop_segment *segment) {
    if (!segment) return;
    const int before = atomic_fetch_sub_explicit(&segment->references, 1, memory_order_acq_rel);
    COP_ASSERT(before >= 1);
    if (before == 1) unmap(segment);
}

/* Maps the file `fd` as segment `name`. After an error, the caller still owns `fd`. */
static cop_err map(int fd, const cop_segment_name *name, bool write, cop_segment **out,
                   cop_error *error) {
    cop_segment *s = cop_alloc(sizeof *s);
    if (!s) return cop_no_memory(error);
    void *base = mmap(NULL, HEAD + name->size, write ? PROT_READ | PROT_WRITE : PROT_READ,
                      MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        cop_free(s);
        return cop_fail(error, COP_ERR_NO_MEMORY, "cannot map shared memory: %s", strerror(errno));
    }
    madvise(base, HEAD + name->size, MADV_HUGEPAGE); /* only a hint: a failure does no harm */
    s->data = (char *)base + HEAD;
    s->name = *name;
    s->fd = fd;
    atomic_init(&s->references, 1);
    *out = s;
    return COP_OK;
}

/* ---- creating ---- */

/* True: the system may refuse memory at the first access to it (vm.overcommit_memory 2). */
static bool is_commit_strict(void) {
    char mode = 0;
    const int fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const bool strict = read(fd, &mode, 1) == 1 && mode == '2';
    close(fd);
    return strict;
}

static cop_err check_size(size_t size, cop_error *error) {
    struct rlimit limit;
    if (is_commit_strict())
        return cop_fail(error, COP_ERR_UNSUPPORTED, "this system commits memory strictly");
    /* Beyond this limit, ftruncate would send SIGXFSZ. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < HEAD + size)
        return cop_fail(error, COP_ERR_LIMIT, "files may have at most %llu bytes (ulimit -f)",
                        (unsigned long long)limit.rlim_cur);
    return COP_OK;
}

static cop_err fill(int fd, const cop_segment_name *name, cop_segment_access peers,
                    cop_segment **out, cop_error *error) {
    if (fchmod(fd, 0600) || ftruncate(fd, (off_t)(HEAD + name->size)))
        return cop_fail(error, COP_ERR_NO_MEMORY, "no shared memory of %llu bytes: %s",
                        (unsigned long long)name->size, strerror(errno));
    COP_TRY(map(fd, name, true, out, error));
    cop_segment *s = *out;
    segment_head head = {.id = name->id};
    memcpy(head.magic, MAGIC, sizeof head.magic);
    cop_random_bytes(head.secret, sizeof head.secret);
    memcpy(s->secret, head.secret, sizeof s->secret);
    memcpy((char *)s->data - HEAD, &head, sizeof head);
    /* Our own mapping stays writable: F_SEAL_FUTURE_WRITE only affects later ones. */
    if (!fcntl(fd, F_ADD_SEALS, SEALS | (peers == COP_SEGMENT_READ ? F_SEAL_FUTURE_WRITE : 0)))
        return COP_OK;
    const int number = errno;
    s->fd = -1; /* the caller closes it */
    cop_segment_release(s);
    return cop_fail(error, COP_ERR_UNSUPPORTED, "cannot seal shared memory: %s", strerror(number));
}

cop_err cop_segment_create(size_t size, cop_segment_access peers, cop_segment **out,
                           cop_error *error) {
    COP_ASSERT(size >= 1 && size <= COP_SEGMENT_SIZE_MAX);
    COP_TRY(check_size(size, error));
    const int fd = memfd_create(FILE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return cop_fail(error, errno == ENOSYS ? COP_ERR_UNSUPPORTED : COP_ERR_NO_MEMORY,
                        "cannot create shared memory: %s", strerror(errno));
    cop_segment_name name = {.size = size, .pid = (uint32_t)getpid(), .fd = (uint32_t)fd};
    while (!name.id) cop_random_bytes(&name.id, sizeof name.id);
    const cop_err e = fill(fd, &name, peers, out, error);
    if (e) close(fd);
    return e;
}

/* ---- opening ---- */

/* Opens the file. A peer chose the numbers, which could name any file of this user. So this
 * function first checks that the file is a segment, and reads nothing from any other file. */
static cop_err open_file(const cop_segment_name *name, cop_segment_access access, int *fd,
                         cop_error *error) {
    char path[64], target[sizeof LINK_NAME + 1];
    snprintf(path, sizeof path, "/proc/%u/fd/%u", name->pid, name->fd);
    const ssize_t length = readlink(path, target, sizeof target);
    if (length < 0)
        return cop_fail(error, errno == EACCES ? COP_ERR_DENIED : COP_ERR_NOT_FOUND, "%s: %s", path,
                        strerror(errno));
    if (length != sizeof LINK_NAME - 1 || memcmp(target, LINK_NAME, sizeof LINK_NAME - 1) != 0)
        return cop_fail(error, COP_ERR_NOT_FOUND, "%s is not shared memory of a coordinator", path);
    *fd = open(path, (access == COP_SEGMENT_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
    if (*fd >= 0) return COP_OK;
    return cop_fail(error, errno == EACCES ? COP_ERR_DENIED : COP_ERR_NOT_FOUND, "%s: %s", path,
                    strerror(errno));
}

static cop_err check_file(int fd, const cop_segment_name *name, cop_error *error) {
    struct stat status;
    const int wanted = F_SEAL_SHRINK | F_SEAL_GROW, seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &status) || !S_ISREG(status.st_mode) || seals < 0 || (seals & wanted) != wanted)
        return cop_fail(error, COP_ERR_PROTOCOL, "the shared memory is not sealed");
    if (status.st_uid != geteuid())
        return cop_fail(error, COP_ERR_DENIED, "the shared memory belongs to another user");
    if ((uint64_t)status.st_size != HEAD + name->size)
        return cop_fail(error, COP_ERR_PROTOCOL,
                        "the shared memory has %lld bytes: expected %llu + %d",
                        (long long)status.st_size, (unsigned long long)name->size, HEAD);
    return COP_OK;
}

static cop_err check_head(cop_segment *s, cop_error *error) {
    segment_head head;
    memcpy(&head, (const char *)s->data - HEAD, sizeof head);
    if (memcmp(head.magic, MAGIC, sizeof head.magic) != 0 || head.id != s->name.id)
        return cop_fail(error, COP_ERR_NOT_FOUND, "the shared memory is of another coordinator");
    memcpy(s->secret, head.secret, sizeof s->secret);
    return COP_OK;
}

static cop_err check_name(const cop_segment_name *name, cop_error *error) {
    if (name->id && name->size && name->size <= COP_SEGMENT_SIZE_MAX) return COP_OK;
    return cop_fail(error, COP_ERR_PROTOCOL, "expected shared memory of 1 to %llu bytes",
                    (unsigned long long)COP_SEGMENT_SIZE_MAX);
}

/* Checks and maps the file, and closes it: the mapping does not need it. */
static cop_err adopt(int fd, const cop_segment_name *name, cop_segment_access access,
                     cop_segment **out, cop_error *error) {
    cop_segment *s = NULL;
    cop_err e = check_file(fd, name, error);
    if (!e) e = map(fd, name, access == COP_SEGMENT_WRITE, &s, error);
    close(fd);
    if (e) return e;
    s->fd = -1;
    e = check_head(s, error);
    if (e)
        cop_segment_release(s);
    else
        *out = s;
    return e;
}

cop_err cop_segment_open(const cop_segment_name *name, cop_segment_access access, cop_segment **out,
                         cop_error *error) {
    int fd = -1;
    COP_TRY(check_name(name, error));
    COP_TRY(open_file(name, access, &fd, error));
    return adopt(fd, name, access, out, error);
}

/* ---- through a socket ---- */

bool cop_segment_socket_path(const char *folder, uint64_t id, char path[COP_SEGMENT_SOCKET_PATH]) {
    return snprintf(path, COP_SEGMENT_SOCKET_PATH, "%s/" COP_SEGMENT_SOCKET_PREFIX "%016llx",
                    folder, (unsigned long long)id) < COP_SEGMENT_SOCKET_PATH;
}

cop_err cop_segment_lend(const cop_segment_name *name, int *fd, cop_error *error) {
    segment_head head = {0};
    /* A duplicate is checked, because another thread may release the segment meanwhile. */
    const int file = name->pid == (uint32_t)getpid() && name->fd <= INT_MAX
                         ? fcntl((int)name->fd, F_DUPFD_CLOEXEC, 0)
                         : -1;
    if (file >= 0 && fcntl(file, F_GET_SEALS) >= 0 &&
        pread(file, &head, sizeof head, 0) == (ssize_t)sizeof head && head.id == name->id &&
        memcmp(head.magic, MAGIC, sizeof head.magic) == 0) {
        *fd = file;
        return COP_OK;
    }
    if (file >= 0) close(file);
    return cop_fail(error, COP_ERR_NOT_FOUND, "no such shared memory");
}

void cop_segment_send(int connection, int fd) {
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
    struct cmsghdr *head = CMSG_FIRSTHDR(&m);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    (void)!sendmsg(connection, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Receives the answer's byte, and the file. Returns the file; -1: there is none. */
static int receive_file(int connection) {
    char byte;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    int fd = -1;
    if (recvmsg(connection, &m, MSG_CMSG_CLOEXEC) != 1) return -1;
    const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof fd))
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

cop_err cop_segment_fetch(const char *socket_path, const cop_segment_name *name,
                          cop_segment_access access, cop_segment **out, cop_error *error) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct timeval patience = {.tv_sec = 2};
    const cop_segment_request request = {
        .id = name->id, .size = name->size, .pid = name->pid, .fd = name->fd};
    COP_TRY(check_name(name, error));
    if (strlen(socket_path) >= sizeof address.sun_path)
        return cop_fail(error, COP_ERR_NOT_FOUND, "%s: the path is too long", socket_path);
    memcpy(address.sun_path, socket_path, strlen(socket_path));
    const int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection < 0)
        return cop_fail(error, COP_ERR_NO_MEMORY, "cannot create a socket: %s", strerror(errno));
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    cop_err e = COP_OK;
    int fd = -1;
    if (connect(connection, (const struct sockaddr *)&address, sizeof address))
        e = cop_fail(error, errno == EACCES ? COP_ERR_DENIED : COP_ERR_NOT_FOUND, "%s: %s",
                     socket_path, strerror(errno));
    else if (send(connection, &request, sizeof request, MSG_NOSIGNAL) == (ssize_t)sizeof request)
        fd = receive_file(connection);
    close(connection);
    if (e) return e;
    if (fd < 0)
        return cop_fail(error, COP_ERR_NOT_FOUND, "%s: no shared memory was received", socket_path);
    return adopt(fd, name, access, out, error);
}
