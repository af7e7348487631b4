/* A disk with a cache that can lose power. The real code of common/base/file.c runs on it: its
 * system calls on paths below /sim are redirected here by the linker, and take virtual time.
 *
 * The rules are those of POSIX, taken strictly. A file's content is safe after fsync of the file; a
 * name is safe after fsync of its folder. After a loss of power, each folder has either the names
 * of its last fsync or the current ones. Content that was not synced is there in part, as zeros, or
 * not at all. kill -9 loses only the calls that had not ended.
 *
 * A writer's calls are carried out at once, although each ends at a later moment of virtual time:
 * they change the tree `live` and are journaled. At a crash, the calls in the journal that had
 * ended by then are applied to the tree `past`, which then replaces `live`. */
#include "sim/sim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/base/alloc.h"
#include "sim/disk.h"

/* ---- trees ---- */

static void grow(void **array, uint32_t *capacity, uint32_t count, size_t size) {
    if (count < *capacity) return;
    *capacity = *capacity ? *capacity * 2 : 64;
    *array = cop_realloc(*array, *capacity * size);
    COP_ASSERT(*array != NULL);
}

static uint32_t add_inode(disk_tree *t, bool folder) {
    grow((void **)&t->inodes, &t->inode_capacity, t->inode_count, sizeof *t->inodes);
    t->inodes[t->inode_count] = (disk_inode){.folder = folder};
    return t->inode_count++;
}

static disk_name *find_in(const disk_names *names, uint32_t folder, const char *name) {
    for (uint32_t i = 0; i < names->count; i++)
        if (names->items[i].folder == folder && strcmp(names->items[i].name, name) == 0)
            return &names->items[i];
    return NULL;
}

static void put_name(disk_names *names, uint32_t folder, const char *name, uint32_t inode) {
    disk_name *there = find_in(names, folder, name);
    if (!there) {
        grow((void **)&names->items, &names->capacity, names->count, sizeof *names->items);
        there = &names->items[names->count++];
        there->folder = folder;
        snprintf(there->name, sizeof there->name, "%s", name);
    }
    there->inode = inode;
}

static void drop_name(disk_names *names, disk_name *name) {
    if (name) *name = names->items[--names->count];
}

static void drop_folder(disk_names *names, uint32_t folder) {
    for (uint32_t i = names->count; i-- > 0;)
        if (names->items[i].folder == folder) drop_name(names, &names->items[i]);
}

/* Replaces the names of one folder in `to` by those in `from`. */
static void copy_folder(disk_names *to, const disk_names *from, uint32_t folder) {
    drop_folder(to, folder);
    for (uint32_t i = 0; i < from->count; i++)
        if (from->items[i].folder == folder)
            put_name(to, folder, from->items[i].name, from->items[i].inode);
}

static void append(disk_inode *inode, const char *bytes, uint32_t size) {
    /* The bytes are copied, never extended in place, because `live` and `past` share them. */
    char *data = cop_alloc(inode->size + size + 1);
    COP_ASSERT(data != NULL);
    if (inode->size) memcpy(data, inode->data, inode->size);
    memcpy(data + inode->size, bytes, size);
    inode->data = data;
    inode->size += size;
}

static void apply(disk_tree *t, const disk_op *op) {
    switch (op->kind) {
    case DISK_CREATE:
        put_name(&t->names, op->folder, op->name, add_inode(t, false));
        break;
    case DISK_MKDIR:
        put_name(&t->names, op->folder, op->name, add_inode(t, true));
        break;
    case DISK_WRITE:
        append(&t->inodes[op->inode], op->bytes, op->size);
        break;
    case DISK_SYNC:
        if (t->inodes[op->inode].folder)
            copy_folder(&t->synced, &t->names, op->inode);
        else
            t->inodes[op->inode].synced = t->inodes[op->inode].size;
        break;
    case DISK_RENAME:
        drop_name(&t->names, find_in(&t->names, op->folder, op->name));
        put_name(&t->names, op->to_folder, op->to_name, op->inode);
        break;
    case DISK_EXCHANGE: {
        disk_name *a = find_in(&t->names, op->folder, op->name),
                  *b = find_in(&t->names, op->to_folder, op->to_name);
        uint32_t inode = a->inode;
        a->inode = b->inode;
        b->inode = inode;
        break;
    }
    case DISK_REMOVE:
        drop_name(&t->names, find_in(&t->names, op->folder, op->name));
        break;
    }
}

static void copy_names(disk_names *to, const disk_names *from) {
    to->count = 0;
    for (uint32_t i = 0; i < from->count; i++)
        put_name(to, from->items[i].folder, from->items[i].name, from->items[i].inode);
}

static void copy_tree(disk_tree *to, const disk_tree *from) {
    to->inode_count = 0;
    for (uint32_t i = 0; i < from->inode_count; i++) {
        add_inode(to, from->inodes[i].folder);
        to->inodes[i] = from->inodes[i];
    }
    copy_names(&to->names, &from->names);
    copy_names(&to->synced, &from->synced);
}

/* ---- time ---- */

/* The wrapped system calls find their disk here. */
static sim_disk *current;

sim_disk *sim_disk_create(sim *s) {
    sim_disk *d = cop_alloc(sizeof *d);
    COP_ASSERT(d != NULL);
    d->s = s;
    d->dice = (sim_stream){.key = sim_mix(s->options.seed, 0xd15c)};
    add_inode(&d->live, true); /* /sim itself */
    add_inode(&d->past, true);
    return d;
}

void sim_disk_begin(sim_disk *d, uint64_t begin) {
    current = d;
    d->clock = begin;
}

uint64_t sim_disk_end(sim_disk *d) {
    current = NULL;
    return d->clock;
}

/* Applies the calls that ended by `now` to `past`, so that no crash undoes them. */
static void settle(sim_disk *d, uint64_t now) {
    uint32_t done = 0;
    while (done < d->op_count && d->ops[done].time <= now) apply(&d->past, &d->ops[done++]);
    d->op_count -= done;
    if (d->op_count) memmove(d->ops, d->ops + done, d->op_count * sizeof *d->ops);
}

/* Has the folder other names now than at its last fsync? */
static bool differs(const disk_tree *t, uint32_t folder) {
    uint32_t names = 0, synced = 0;
    for (uint32_t i = 0; i < t->synced.count; i++) synced += t->synced.items[i].folder == folder;
    for (uint32_t i = 0; i < t->names.count; i++) {
        const disk_name *name = &t->names.items[i];
        if (name->folder != folder) continue;
        const disk_name *old = find_in(&t->synced, folder, name->name);
        if (!old || old->inode != name->inode) return true;
        names++;
    }
    return names != synced;
}

/* Damages the content that was not synced: a part of it remains, or a part followed by zeros, or
 * nothing. */
static void tear(sim_disk *d, disk_inode *inode) {
    uint32_t lost = inode->size - inode->synced, kept = (uint32_t)sim_below(&d->dice, lost + 1);
    if (sim_chance(&d->dice, 300)) kept = 0;
    char *data = cop_alloc(inode->size + 1);
    COP_ASSERT(data != NULL);
    memcpy(data, inode->data, inode->synced + kept);
    inode->data = data;
    if (!sim_chance(&d->dice, 300)) inode->size = inode->synced + kept;
}

static void lose_power(sim_disk *d, disk_tree *t) {
    for (uint32_t i = 0; i < t->inode_count; i++) {
        if (t->inodes[i].folder && differs(t, i) && sim_chance(&d->dice, 500))
            copy_folder(&t->names, &t->synced, i);
        if (!t->inodes[i].folder && t->inodes[i].size > t->inodes[i].synced) tear(d, &t->inodes[i]);
        t->inodes[i].synced = t->inodes[i].size;
    }
    copy_names(&t->synced, &t->names);
}

void sim_disk_crash(sim_disk *d, uint64_t now, bool power) {
    settle(d, now);
    d->op_count = 0;
    if (power) lose_power(d, &d->past);
    copy_tree(&d->live, &d->past);
    memset(d->files, 0, sizeof d->files);
}

static uint64_t sync_time(sim_disk *d) {
    uint32_t slow_ms = sim_fault_on(d->s, SIM_DISK_SLOW, SIM_NOBODY, d->clock);
    uint64_t usual = sim_heavy(&d->dice, 200000, 30 * SIM_MS);
    return slow_ms ? usual + sim_below(&d->dice, slow_ms * SIM_MS) : usual;
}

bool sim_disk_commit(sim_disk *d, bool sync, uint64_t *takes) {
    d->clock = d->s->now;
    *takes = sync ? sync_time(d) : 100000 + sim_below(&d->dice, SIM_MS);
    if (sim_fault_on(d->s, SIM_DISK_FULL, SIM_NOBODY, d->s->now + *takes)) return false;
    uint32_t errors = sim_fault_on(d->s, SIM_DISK_ERRORS, SIM_NOBODY, d->s->now);
    return !sim_chance(&d->dice, errors);
}

/* ---- what system calls do ---- */

static bool fails(int number) {
    errno = number;
    return true;
}

/* Advances the clock by the time of a call of this kind. Returns true if the call fails; errno says
 * why. */
static bool passes_time(sim_disk *d, disk_op_kind kind) {
    bool grows = kind == DISK_CREATE || kind == DISK_MKDIR || kind == DISK_WRITE;
    d->clock += kind == DISK_SYNC ? sync_time(d) : 5000 + sim_below(&d->dice, 60000);
    if (grows && sim_fault_on(d->s, SIM_DISK_FULL, SIM_NOBODY, d->clock)) return fails(ENOSPC);
    uint32_t errors = sim_fault_on(d->s, SIM_DISK_ERRORS, SIM_NOBODY, d->clock);
    if (!sim_chance(&d->dice, errors)) return false;
    if (kind == DISK_WRITE && sim_chance(&d->dice, 500)) return fails(EINTR);
    return fails(EIO);
}

static void record(sim_disk *d, disk_op op) {
    op.time = d->clock;
    grow((void **)&d->ops, &d->op_capacity, d->op_count, sizeof *d->ops);
    d->ops[d->op_count++] = op;
    apply(&d->live, &op);
    if (d->op_count > 512) settle(d, d->s->now);
}

/* Returns the folder that contains the last name of a path, and in `name` this name, which is empty
 * for /sim itself. Returns -1 if a folder of the path does not exist. */
static int walk(sim_disk *d, const char *path, char name[DISK_NAME]) {
    uint32_t folder = 0;
    const char *at = path + strlen("/sim");
    name[0] = '\0';
    while (*at == '/') {
        size_t length = strcspn(++at, "/");
        if (name[0]) {
            const disk_name *found = find_in(&d->live.names, folder, name);
            if (!found || !d->live.inodes[found->inode].folder) return -1;
            folder = found->inode;
        }
        snprintf(name, DISK_NAME, "%.*s", (int)length, at);
        at += length;
    }
    return (int)folder;
}

/* Returns the inode of a path; -1 and ENOENT if there is none. */
static int look_up(sim_disk *d, const char *path) {
    char name[DISK_NAME];
    int folder = walk(d, path, name);
    const disk_name *found =
        folder >= 0 && name[0] ? find_in(&d->live.names, (uint32_t)folder, name) : NULL;
    if (folder >= 0 && !name[0]) return folder;
    if (!found) errno = ENOENT;
    return found ? (int)found->inode : -1;
}

static disk_file *file_of(sim_disk *d, int fd) {
    COP_ASSERT(fd >= DISK_FD && fd < DISK_FD + DISK_FILES && d->files[fd - DISK_FD].open);
    return &d->files[fd - DISK_FD];
}

static int open_inode(sim_disk *d, uint32_t inode) {
    for (int i = 0; i < DISK_FILES; i++) {
        if (d->files[i].open) continue;
        d->files[i] = (disk_file){.open = true, .inode = inode};
        return DISK_FD + i;
    }
    errno = EMFILE;
    return -1;
}

static int make(sim_disk *d, const char *path, disk_op_kind kind) {
    disk_op op = {.kind = kind};
    int folder = walk(d, path, op.name);
    if (folder < 0) {
        errno = ENOENT;
        return -1;
    }
    if (!op.name[0] || find_in(&d->live.names, (uint32_t)folder, op.name)) {
        errno = EEXIST;
        return -1;
    }
    if (passes_time(d, kind)) return -1;
    op.folder = (uint32_t)folder;
    record(d, op);
    return (int)d->live.inode_count - 1;
}

int disk_open(const char *path, int flags) {
    sim_disk *d = current;
    int inode = flags & O_CREAT ? make(d, path, DISK_CREATE) : look_up(d, path);
    return inode < 0 ? -1 : open_inode(d, (uint32_t)inode);
}

void disk_close(int fd) {
    file_of(current, fd)->open = false;
}

long disk_read(int fd, void *to, size_t size) {
    disk_file *f = file_of(current, fd);
    const disk_inode *inode = &current->live.inodes[f->inode];
    size_t left = inode->size - f->at;
    if (size > left) size = left;
    if (size) memcpy(to, inode->data + f->at, size);
    f->at += (uint32_t)size;
    return (long)size;
}

long disk_write(int fd, const void *from, size_t size) {
    sim_disk *d = current;
    const disk_file *f = file_of(d, fd);
    if (passes_time(d, DISK_WRITE)) return -1;
    bool half = sim_chance(&d->dice, sim_fault_on(d->s, SIM_DISK_ERRORS, SIM_NOBODY, d->clock));
    if (half && size > 1) size = 1 + sim_below(&d->dice, size - 1);
    char *bytes = cop_alloc(size + 1);
    COP_ASSERT(bytes != NULL);
    memcpy(bytes, from, size);
    record(d, (disk_op){
                  .kind = DISK_WRITE, .inode = f->inode, .bytes = bytes, .size = (uint32_t)size});
    return (long)size;
}

int disk_sync(int fd) {
    sim_disk *d = current;
    const disk_file *f = file_of(d, fd);
    if (passes_time(d, DISK_SYNC)) return -1;
    record(d, (disk_op){.kind = DISK_SYNC, .inode = f->inode});
    return 0;
}

static bool is_empty(const sim_disk *d, uint32_t folder) {
    for (uint32_t i = 0; i < d->live.names.count; i++)
        if (d->live.names.items[i].folder == folder) return false;
    return true;
}

int disk_rename(const char *from, const char *to, bool exchange) {
    sim_disk *d = current;
    disk_op op = {.kind = exchange ? DISK_EXCHANGE : DISK_RENAME};
    int folder = walk(d, from, op.name), to_folder = walk(d, to, op.to_name);
    int inode = look_up(d, from), there = look_up(d, to);
    if (inode < 0 || to_folder < 0 || (exchange && there < 0)) {
        errno = ENOENT;
        return -1;
    }
    if (!exchange && there >= 0 && d->live.inodes[there].folder && !is_empty(d, (uint32_t)there)) {
        errno = ENOTEMPTY;
        return -1;
    }
    if (passes_time(d, op.kind)) return -1;
    op.folder = (uint32_t)folder;
    op.to_folder = (uint32_t)to_folder;
    op.inode = (uint32_t)inode;
    record(d, op);
    return 0;
}

int disk_remove(const char *path, bool folder) {
    sim_disk *d = current;
    disk_op op = {.kind = DISK_REMOVE};
    int parent = walk(d, path, op.name), inode = look_up(d, path);
    if (inode < 0) return -1;
    if (d->live.inodes[inode].folder != folder) {
        errno = folder ? ENOTDIR : EISDIR;
        return -1;
    }
    if (folder && !is_empty(d, (uint32_t)inode)) {
        errno = ENOTEMPTY;
        return -1;
    }
    if (passes_time(d, DISK_REMOVE)) return -1;
    op.folder = (uint32_t)parent;
    record(d, op);
    return 0;
}

int disk_mkdir(const char *path) {
    return make(current, path, DISK_MKDIR) < 0 ? -1 : 0;
}

int disk_stat(const char *path, struct stat *out) {
    int inode = look_up(current, path);
    if (inode < 0) return -1;
    memset(out, 0, sizeof *out);
    out->st_mode = current->live.inodes[inode].folder ? S_IFDIR | 0755 : S_IFREG | 0644;
    out->st_size = current->live.inodes[inode].size;
    return 0;
}

int disk_fstat(int fd, struct stat *out) {
    const disk_inode *inode = &current->live.inodes[file_of(current, fd)->inode];
    memset(out, 0, sizeof *out);
    out->st_mode = inode->folder ? S_IFDIR | 0755 : S_IFREG | 0644;
    out->st_size = inode->size;
    return 0;
}

const char *disk_list(int fd, uint32_t *at) {
    uint32_t folder = file_of(current, fd)->inode;
    const disk_names *names = &current->live.names;
    while (*at < names->count)
        if (names->items[(*at)++].folder == folder) return names->items[*at - 1].name;
    return NULL;
}

bool disk_is_on(const char *path) {
    return current && strncmp(path, "/sim", 4) == 0 && (path[4] == '/' || !path[4]);
}

void sim_disk_settle(sim_disk *d) {
    settle(d, UINT64_MAX);
}
