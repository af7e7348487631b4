/* The files of the state folder: the lock, the token, the store and the data sets. Only the user of
 * the coordinator may read them. See server.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "coordinator/server/server.h"
#include "coordinator/store/datasets.h"

/* Takes the lock of the state folder, so that only one coordinator at a time uses it. IN_USE:
 * another one has the lock. */
static cop_err lock_folder(coord_server *server, cop_error *error) {
    char *path = cop_path_join(server->engine.state_folder, "lock");
    if (!path) return cop_no_memory(error);
    server->lock_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cop_err e = COP_OK;
    if (server->lock_file < 0)
        e = cop_fail_errno(error, errno, "cannot open %s", path);
    else if (flock(server->lock_file, LOCK_EX | LOCK_NB))
        e = errno == EWOULDBLOCK
                ? cop_fail(error, COP_ERR_IN_USE, "%s: another coordinator uses this state folder",
                           server->engine.state_folder)
                : cop_fail_errno(error, errno, "cannot lock %s", path);
    cop_free(path);
    return e;
}

/* If other users can read the token file, makes it private and logs a warning. */
static cop_err make_token_private(const char *path, cop_error *error) {
    struct stat status;
    size_t changed;
    if (stat(path, &status) != 0) return cop_fail_errno(error, errno, "cannot open %s", path);
    COP_TRY(cop_folder_make_private(path, &changed, error));
    if (changed)
        cop_log(COP_LOG_WARN, "coordinator",
                "%s had mode %04o: other users could read it. Its mode is now 0600; remove it to "
                "get a new token",
                path, (unsigned)status.st_mode & 07777);
    return COP_OK;
}

/* Makes all files in the state folder private, because earlier versions created them with the mode
 * that the umask gave. This fails if the folder belongs to another user, which is possible if it is
 * the root of a volume. Then it only logs a warning, because new files are private anyway. */
static void make_state_private(const coord_server *server) {
    cop_error error = {0};
    size_t changed;
    const cop_err e = cop_folder_make_private(server->engine.state_folder, &changed, &error);
    if (e) cop_log(COP_LOG_WARN, "coordinator", "%s", error.text);
    if (changed)
        cop_log(COP_LOG_WARN, "coordinator",
                "%s: other users could access %zu files or folders in it; they are now private",
                server->engine.state_folder, changed);
}

/* Reads the token that workers and clients must know. Creates the file with a random token if it
 * does not exist. CORRUPT: the file has no valid token. */
static cop_err read_token(coord_server *server, cop_error *error) {
    char *path = cop_path_join(server->engine.state_folder, "token");
    if (!path) return cop_no_memory(error);
    cop_err e = COP_OK;
    if (!cop_file_exists(path)) {
        unsigned char random[32];
        char hex[66];
        cop_random_bytes(random, sizeof random);
        cop_hex32(random, hex);
        hex[64] = '\n';
        cop_file_part part = {hex, 65};
        e = cop_file_write(path, &part, 1, 0600, error);
    }
    char *text = NULL;
    size_t size = 0;
    if (!e) e = make_token_private(path, error);
    if (!e) e = cop_file_read(path, 4096, &text, &size, error);
    if (!e) {
        size_t length = strcspn(text, " \r\n");
        if (length < 16 || length >= sizeof server->access.token)
            e = cop_fail(error, COP_ERR_CORRUPT,
                         "%s: expected 16 to 64 characters; remove the file to get a new token",
                         path);
        else
            memcpy(server->access.token, text, length);
    }
    cop_free(text);
    cop_free(path);
    return e;
}

cop_err coord_open_state(coord_server *server, cop_error *error) {
    COP_ASSERT(server->engine.state_folder && !server->engine.store);
    cop_file_make_private_only(); /* concerns all files of this process, also those that SQLite
                                     makes */
    COP_TRY(cop_folder_create(server->engine.state_folder, error));
    COP_TRY(lock_folder(server, error));
    COP_TRY(read_token(server, error));
    make_state_private(server);
    cop_folder_sweep(server->engine.state_folder);
    char *path = cop_path_join(server->engine.state_folder, "store.sqlite");
    if (!path) return cop_no_memory(error);
    cop_err e = coord_store_open(path, &server->engine.store, error);
    cop_free(path);
    COP_TRY(e);
    const coord_datasets_config datasets = {.store = server->engine.store,
                                            .state_folder = server->engine.state_folder,
                                            .data_folder = server->data_folder,
                                            .quota = server->config.quota};
    COP_TRY(coord_datasets_open(&datasets, &server->engine.datasets, error));
    return coord_api_create(&server->engine, &server->access, &server->api, error);
}
