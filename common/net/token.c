/* Finds the token that clients and workers send over tcp:// and ipc://. See net.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/net/net.h"

static cop_err copy_token(const char *text, const char *what, char out[COP_TOKEN_MAX],
                          cop_error *error) {
    const size_t length = strcspn(text, "\r\n");
    if (length >= COP_TOKEN_MAX)
        return cop_fail(error, COP_ERR_USAGE, "%s: the token is longer than %d characters", what,
                        COP_TOKEN_MAX - 1);
    snprintf(out, COP_TOKEN_MAX, "%.*s", (int)length, text);
    return COP_OK;
}

static cop_err read_file(const char *path, char out[COP_TOKEN_MAX], cop_error *error) {
    char *text = NULL;
    size_t size = 0;
    struct stat status;
    COP_TRY(cop_file_read(path, 4096, &text, &size, error));
    if (stat(path, &status) == 0 && (status.st_mode & 07))
        cop_log(COP_LOG_WARN, "token", "%s has mode %04o: other users can read the token", path,
                (unsigned)status.st_mode & 07777);
    cop_err e = copy_token(text, path, out, error);
    cop_free(text);
    return e;
}

cop_err cop_token_find(const char *token, const char *file, const char *url,
                       char out[COP_TOKEN_MAX], cop_error *error) {
    const char *environment = getenv("COPPICE_TOKEN");
    bool loopback;
    out[0] = '\0';
    if (token) return copy_token(token, "--token", out, error);
    if (file) return read_file(file, out, error);
    if (environment && *environment) return copy_token(environment, "COPPICE_TOKEN", out, error);
    /* The file has the token of a coordinator on this machine. Other machines must not learn it. */
    if (cop_url_check(url, &loopback, NULL) || !loopback || cop_url_is_tls(url)) return COP_OK;
    char *state = cop_path_state(), *path = state ? cop_path_join(state, "token") : NULL;
    if (path) read_file(path, out, NULL); /* the file may be absent */
    cop_free(path);
    cop_free(state);
    return COP_OK;
}
