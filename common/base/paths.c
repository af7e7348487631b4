/* Paths as texts, and the user's own folders. See file.h. */
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/str.h"

char *cop_path_join(const char *folder, const char *name) {
    COP_ASSERT(folder && name);
    if (name[0] == '/' || !*folder) return cop_strdup(name);
    size_t a = strlen(folder), b = strlen(name);
    bool slash = folder[a - 1] != '/';
    char *path = cop_alloc(a + b + 2);
    if (!path) return NULL;
    memcpy(path, folder, a);
    if (slash) path[a++] = '/';
    memcpy(path + a, name, b + 1);
    return path;
}

bool cop_path_name_ok(const char *text) {
    const size_t length = strlen(text);
    return length <= 200 && text[0] != '.' && !strchr(text, '/') && cop_name_ok(text, length);
}

/* ---- the user's folders ---- */

/* A folder in /tmp that only this user can access, or "" if it could not be created. Chosen once
 * for each process, so that the process finds again what it wrote there. */
static char tmp_home[64];

static void create_tmp_home(void) {
    struct stat status;
    snprintf(tmp_home, sizeof tmp_home, "/tmp/coppice-%lu", (unsigned long)geteuid());
    (void)!mkdir(tmp_home, 0700);
    bool ours = lstat(tmp_home, &status) == 0 && S_ISDIR(status.st_mode) &&
                status.st_uid == geteuid() && (status.st_mode & 077) == 0;
    if (!ours) {
        snprintf(tmp_home, sizeof tmp_home, "/tmp/coppice-%lu-XXXXXX", (unsigned long)geteuid());
        ours = mkdtemp(tmp_home) != NULL;
    }
    if (!ours) tmp_home[0] = '\0';
}

static char *copy_tmp_home(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, create_tmp_home);
    return *tmp_home ? cop_strdup(tmp_home) : NULL;
}

static char *home_folder(void) {
    const char *home = getenv("HOME");
    char text[4096];
    struct passwd entry, *found = NULL;
    struct stat status;
    if (home && *home) return cop_strdup(home);
    if (getpwuid_r(geteuid(), &entry, text, sizeof text, &found) == 0 && found &&
        stat(found->pw_dir, &status) == 0 && S_ISDIR(status.st_mode) &&
        status.st_uid == geteuid() && strcmp(found->pw_dir, "/") != 0)
        return cop_strdup(found->pw_dir);
    return copy_tmp_home();
}

/* Returns the path in the environment variable `override`, or "coppice" in the folder that the
 * variable `xdg` names, or the path `below_home` in the home folder. NULL: out of memory, or there
 * is no home folder. */
static char *user_folder(const char *override, const char *xdg, const char *below_home) {
    const char *path_given = getenv(override), *xdg_folder = getenv(xdg);
    if (path_given && *path_given) return cop_strdup(path_given);
    if (xdg_folder && *xdg_folder) return cop_path_join(xdg_folder, "coppice");
    char *home = home_folder(), *path = home ? cop_path_join(home, below_home) : NULL;
    cop_free(home);
    return path;
}

char *cop_path_cache(void) {
    return user_folder("COPPICE_CACHE", "XDG_CACHE_HOME", ".cache/coppice");
}

char *cop_path_state(void) {
    return user_folder("COPPICE_STATE", "XDG_STATE_HOME", ".local/state/coppice");
}
