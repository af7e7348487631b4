/* The disk's internals: trees and journal (disk.c), and system calls (syscalls.c). */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include "sim/sim.h"

struct stat;

#define DISK_NAME  80
#define DISK_FILES 16
#define DISK_FD    1000000 /* the model's file descriptors start here */

typedef struct disk_inode {
    bool folder;
    char *data; /* what was written; its first `synced` bytes are safe */
    uint32_t size, synced;
} disk_inode;

typedef struct disk_name {
    uint32_t folder, inode;
    char name[DISK_NAME];
} disk_name;

typedef struct disk_names {
    disk_name *items;
    uint32_t count, capacity;
} disk_names;

typedef struct disk_tree {
    disk_inode *inodes;
    uint32_t inode_count, inode_capacity;
    disk_names names, synced; /* the current names; the names at the folder's last fsync */
} disk_tree;

typedef enum disk_op_kind {
    DISK_CREATE = 1,
    DISK_MKDIR,
    DISK_WRITE,
    DISK_SYNC,
    DISK_RENAME,
    DISK_EXCHANGE,
    DISK_REMOVE
} disk_op_kind;

typedef struct disk_op {
    uint64_t time;
    disk_op_kind kind;
    uint32_t folder, inode, to_folder, size;
    char name[DISK_NAME], to_name[DISK_NAME];
    char *bytes;
} disk_op;

typedef struct disk_file {
    bool open;
    uint32_t inode, at;
} disk_file;

struct sim_disk {
    sim *s;
    sim_stream dice;
    uint64_t clock; /* time of the current caller */
    disk_tree live, past;
    disk_op *ops;
    uint32_t op_count, op_capacity;
    disk_file files[DISK_FILES];
};

/* Does a path belong to the model while its system calls are redirected? */
bool disk_is_on(const char *path);
/* Like the system calls of these names: -1 and errno on failure. */
int disk_open(const char *path, int flags);
void disk_close(int fd);
long disk_read(int fd, void *to, size_t size);
long disk_write(int fd, const void *from, size_t size);
int disk_sync(int fd);
int disk_rename(const char *from, const char *to, bool exchange);
int disk_remove(const char *path, bool folder);
int disk_mkdir(const char *path);
int disk_stat(const char *path, struct stat *out);
int disk_fstat(int fd, struct stat *out);
const char *disk_list(int fd, uint32_t *at); /* NULL: no more names */

#endif
