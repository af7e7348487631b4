/* See disk_vfs.h. */
#include "unit/coordinator/disk_vfs.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum op_kind { OP_CREATE, OP_WRITE, OP_TRUNCATE, OP_SYNC, OP_DELETE } op_kind;
enum { MAIN, LOG, JOURNAL, NAMES };
static const char *const suffixes[NAMES] = {"", "-wal", "-journal"};

typedef struct op {
    op_kind kind;
    int name; /* index in `suffixes` of the changed file's suffix; -1: not a file of the database */
    int64_t offset, size;
    char *bytes;
} op;

typedef struct shim_file {
    sqlite3_file base;
    int name;           /* index of the name, as in op */
    sqlite3_file *real; /* the system's file, which is stored after this struct */
} shim_file;

static struct {
    pthread_mutex_t mutex;
    sqlite3_vfs vfs, *real;
    op *ops;
    uint32_t count, capacity;
    uint32_t calls;     /* calls since vfs_fail */
    uint32_t fail;      /* number of the call that must fail; 0: none */
    int code;           /* the argument `code` of vfs_fail */
    const char *failed; /* name of the call that has failed; or NULL */
    bool recording;
} shim = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void require(bool condition) {
    if (!condition) abort();
}

/* ---- faults and records ---- */

/* Counts a call of the VFS. Returns 0 if it must not fail; otherwise SQLITE_FULL if vfs_fail has
 * set it, or else `code`, the error code of its kind. */
static int due(const char *name, int code) {
    pthread_mutex_lock(&shim.mutex);
    const bool now = ++shim.calls == shim.fail;
    if (now) shim.failed = name;
    const int result = !now ? SQLITE_OK : shim.code == SQLITE_FULL ? SQLITE_FULL : code;
    pthread_mutex_unlock(&shim.mutex);
    return result;
}

static void record(op o, const void *bytes) {
    pthread_mutex_lock(&shim.mutex);
    if (shim.recording && o.name >= 0) {
        if (shim.count == shim.capacity) {
            shim.capacity = shim.capacity ? 2 * shim.capacity : 256;
            shim.ops = realloc(shim.ops, shim.capacity * sizeof *shim.ops);
            require(shim.ops != NULL);
        }
        if (bytes) {
            o.bytes = malloc((size_t)o.size + 1);
            require(o.bytes != NULL);
            memcpy(o.bytes, bytes, (size_t)o.size);
        }
        shim.ops[shim.count++] = o;
    }
    pthread_mutex_unlock(&shim.mutex);
}

static int name_of(const char *path) {
    const size_t length = strlen(path);
    for (int i = JOURNAL; i > MAIN; i--) {
        const size_t s = strlen(suffixes[i]);
        if (length > s && strcmp(path + length - s, suffixes[i]) == 0) return i;
    }
    return MAIN;
}

/* ---- files ---- */

static sqlite3_file *real_of(sqlite3_file *file) {
    return ((shim_file *)file)->real;
}

static int shim_close(sqlite3_file *file) {
    return real_of(file)->pMethods->xClose(real_of(file));
}

static int shim_read(sqlite3_file *file, void *to, int size, sqlite3_int64 offset) {
    const int code = due("read", SQLITE_IOERR_READ);
    return code && code != SQLITE_FULL
               ? code
               : real_of(file)->pMethods->xRead(real_of(file), to, size, offset);
}

static int shim_write(sqlite3_file *file, const void *from, int size, sqlite3_int64 offset) {
    const int code = due("write", SQLITE_IOERR_WRITE);
    if (code == SQLITE_FULL) size /= 2;
    if (code && code != SQLITE_FULL) return code;
    const int state = real_of(file)->pMethods->xWrite(real_of(file), from, size, offset);
    record((op){OP_WRITE, ((shim_file *)file)->name, offset, size, NULL}, from);
    return code ? code : state;
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size) {
    const int code = due("truncate", SQLITE_IOERR_TRUNCATE);
    if (code && code != SQLITE_FULL) return code;
    record((op){OP_TRUNCATE, ((shim_file *)file)->name, size, 0, NULL}, NULL);
    return real_of(file)->pMethods->xTruncate(real_of(file), size);
}

/* Records the sync, but does not sync the real file: vfs_crash decides what survives. */
static int shim_sync(sqlite3_file *file, int flags) {
    const int code = due("sync", SQLITE_IOERR_FSYNC);
    (void)flags;
    if (code) return code == SQLITE_FULL ? SQLITE_IOERR_FSYNC : code;
    record((op){OP_SYNC, ((shim_file *)file)->name, 0, 0, NULL}, NULL);
    return SQLITE_OK;
}

#define FORWARD(name, member, parameters, arguments)                                               \
    static int shim_##name parameters {                                                            \
        return real_of(f)->pMethods->member arguments;                                             \
    }
FORWARD(size, xFileSize, (sqlite3_file * f, sqlite3_int64 *size), (real_of(f), size))
FORWARD(lock, xLock, (sqlite3_file * f, int how), (real_of(f), how))
FORWARD(unlock, xUnlock, (sqlite3_file * f, int how), (real_of(f), how))
FORWARD(check, xCheckReservedLock, (sqlite3_file * f, int *out), (real_of(f), out))
FORWARD(control, xFileControl, (sqlite3_file * f, int what, void *value), (real_of(f), what, value))
FORWARD(sector, xSectorSize, (sqlite3_file * f), (real_of(f)))
FORWARD(traits, xDeviceCharacteristics, (sqlite3_file * f), (real_of(f)))
FORWARD(map, xShmMap, (sqlite3_file * f, int page, int size, int extend, void volatile **out),
        (real_of(f), page, size, extend, out))
FORWARD(share, xShmLock, (sqlite3_file * f, int at, int n, int flags), (real_of(f), at, n, flags))
FORWARD(unmap, xShmUnmap, (sqlite3_file * f, int remove), (real_of(f), remove))

static void shim_barrier(sqlite3_file *f) {
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static const sqlite3_io_methods methods = {.iVersion = 2,
                                           .xClose = shim_close,
                                           .xRead = shim_read,
                                           .xWrite = shim_write,
                                           .xTruncate = shim_truncate,
                                           .xSync = shim_sync,
                                           .xFileSize = shim_size,
                                           .xLock = shim_lock,
                                           .xUnlock = shim_unlock,
                                           .xCheckReservedLock = shim_check,
                                           .xFileControl = shim_control,
                                           .xSectorSize = shim_sector,
                                           .xDeviceCharacteristics = shim_traits,
                                           .xShmMap = shim_map,
                                           .xShmLock = shim_share,
                                           .xShmBarrier = shim_barrier,
                                           .xShmUnmap = shim_unmap};

/* ---- names ---- */

static int shim_open(sqlite3_vfs *vfs, sqlite3_filename path, sqlite3_file *file, int flags,
                     int *out) {
    shim_file *f = (shim_file *)file;
    int there = 0, code = due("open", SQLITE_CANTOPEN);
    (void)vfs;
    f->base.pMethods = NULL;
    f->real = (sqlite3_file *)(void *)(f + 1);
    f->name = path ? name_of(path) : -1;
    if (code) return SQLITE_CANTOPEN;
    if (path) shim.real->xAccess(shim.real, path, SQLITE_ACCESS_EXISTS, &there);
    code = shim.real->xOpen(shim.real, path, f->real, flags, out);
    if (f->real->pMethods) f->base.pMethods = &methods;
    if (!code && path && !there && flags & SQLITE_OPEN_CREATE)
        record((op){OP_CREATE, f->name, 0, 0, NULL}, NULL);
    return code;
}

static int shim_delete(sqlite3_vfs *vfs, const char *path, int sync) {
    const int code = due("delete", SQLITE_IOERR_DELETE);
    (void)vfs;
    if (code && code != SQLITE_FULL) return code;
    record((op){OP_DELETE, name_of(path), sync, 0, NULL}, NULL);
    return shim.real->xDelete(shim.real, path, 0);
}

void vfs_install(void) {
    shim.real = sqlite3_vfs_find(NULL);
    shim.vfs = *shim.real;
    shim.vfs.zName = "a disk that fails";
    shim.vfs.szOsFile = (int)sizeof(shim_file) + shim.real->szOsFile;
    shim.vfs.xOpen = shim_open;
    shim.vfs.xDelete = shim_delete;
    require(sqlite3_vfs_register(&shim.vfs, 1) == SQLITE_OK);
}

void vfs_record(void) {
    for (uint32_t i = 0; i < shim.count; i++) free(shim.ops[i].bytes);
    free(shim.ops);
    shim.ops = NULL;
    shim.count = shim.capacity = 0;
    shim.recording = true;
}

void vfs_stop(void) {
    shim.recording = false;
}

uint32_t vfs_changes(void) {
    pthread_mutex_lock(&shim.mutex);
    const uint32_t count = shim.count;
    pthread_mutex_unlock(&shim.mutex);
    return count;
}

void vfs_fail(uint32_t n, int code) {
    pthread_mutex_lock(&shim.mutex);
    shim.calls = 0;
    shim.fail = n;
    shim.code = code;
    if (n) shim.failed = NULL;
    pthread_mutex_unlock(&shim.mutex);
}

const char *vfs_failed(void) {
    pthread_mutex_lock(&shim.mutex);
    const char *name = shim.failed;
    pthread_mutex_unlock(&shim.mutex);
    return name;
}

/* ---- files after a crash ---- */

typedef struct content {
    char *bytes;
    int64_t size;
} content;

/* A file: its content now, its content at its last sync, and the numbers of the changes since. */
typedef struct inode {
    content now, synced;
    uint32_t pending[4096], pending_count;
    bool folder_due; /* the file was not synced yet; its first sync also syncs the folder */
} inode;

typedef struct disk {
    inode *inodes;
    int count;
    int now[NAMES];  /* the inode that each name has now; -1: none */
    int safe[NAMES]; /* the inode of each name at the folder's last sync; -1: none */
} disk;

static void apply(content *c, const op *o, int64_t size) {
    const int64_t end = o->kind == OP_TRUNCATE ? o->offset : o->offset + size;
    if (o->kind == OP_WRITE && !size) return;
    if (o->kind == OP_TRUNCATE || end > c->size) {
        c->bytes = realloc(c->bytes, (size_t)end + 1);
        require(c->bytes != NULL);
        if (end > c->size) memset(c->bytes + c->size, 0, (size_t)(end - c->size));
        c->size = end;
    }
    if (o->kind == OP_WRITE) memcpy(c->bytes + o->offset, o->bytes, (size_t)size);
}

static void copy(content *to, const content *from) {
    to->bytes = realloc(to->bytes, (size_t)from->size + 1);
    require(to->bytes != NULL);
    if (from->size) memcpy(to->bytes, from->bytes, (size_t)from->size);
    to->size = from->size;
}

static void change(disk *d, uint32_t number) {
    const op *o = &shim.ops[number];
    if (o->kind == OP_CREATE) {
        d->inodes = realloc(d->inodes, (size_t)(d->count + 1) * sizeof *d->inodes);
        require(d->inodes != NULL);
        d->inodes[d->count] = (inode){.folder_due = o->name != MAIN};
        d->now[o->name] = d->count++;
        return;
    }
    require(d->now[o->name] >= 0);
    inode *i = &d->inodes[d->now[o->name]];
    bool folder = o->kind == OP_DELETE && o->offset;
    if (o->kind == OP_DELETE) {
        d->now[o->name] = -1;
    } else if (o->kind == OP_SYNC) {
        copy(&i->synced, &i->now);
        i->pending_count = 0;
        folder = i->folder_due;
        i->folder_due = false;
    } else {
        require(i->pending_count < sizeof i->pending / sizeof *i->pending);
        i->pending[i->pending_count++] = number;
        apply(&i->now, o, o->size);
    }
    if (folder) memcpy(d->safe, d->now, sizeof d->safe);
}

static uint64_t roll(uint64_t *dice) {
    *dice ^= *dice << 13, *dice ^= *dice >> 7, *dice ^= *dice << 17;
    return *dice >> 16;
}

/* Makes the content of a file after a loss of power. Each change since the last sync is there
 * completely, in part (in sectors of 512 bytes), or not at all. */
static void tear(inode *i, uint64_t *dice) {
    require(i != NULL);
    for (uint32_t p = 0; p < i->pending_count; p++) {
        const op *o = &shim.ops[i->pending[p]];
        const uint64_t luck = roll(dice) % 3;
        const int64_t part = (int64_t)(roll(dice) % (uint64_t)(o->size / 512 + 1)) * 512;
        if (luck == 0) continue;
        if (luck == 1 || o->kind == OP_TRUNCATE)
            apply(&i->synced, o, o->size);
        else
            apply(&i->synced, o, part);
    }
}

static void put(const char *path, int name, const content *c) {
    char full[300];
    snprintf(full, sizeof full, "%s%s", path, suffixes[name]);
    FILE *f = fopen(full, "wb");
    require(c && f && (!c->size || fwrite(c->bytes, 1, (size_t)c->size, f) == (size_t)c->size));
    fclose(f);
}

void vfs_crash(const char *path, uint32_t changes, vfs_loss loss, uint64_t dice) {
    disk d = {.now = {-1, -1, -1}, .safe = {-1, -1, -1}};
    dice = (dice + 1) * 0x9e3779b97f4a7c15u;
    for (uint32_t n = 0; n < changes; n++) change(&d, n);
    for (int name = 0; name < NAMES; name++) {
        int which = d.now[name];
        if (loss == VFS_DROPPED || (loss == VFS_TORN && roll(&dice) % 2)) which = d.safe[name];
        if (which < 0) continue;
        if (loss == VFS_TORN) tear(&d.inodes[which], &dice);
        put(path, name, loss == VFS_KILLED ? &d.inodes[which].now : &d.inodes[which].synced);
    }
    for (int i = 0; i < d.count; i++) {
        free(d.inodes[i].now.bytes);
        free(d.inodes[i].synced.bytes);
    }
    free(d.inodes);
}
