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
    char *data;      /* what was written */
    uint32_t size;   /* length of `data` */
    uint32_t synced; /* this many bytes from the start of `data` survive a loss of power */
} disk_inode;

typedef struct disk_name {
    uint32_t folder; /* index of the folder's inode */
    uint32_t inode;  /* index of the inode that has this name */
    char name[DISK_NAME];
} disk_name;

typedef struct disk_names {
    disk_name *items;
    uint32_t count, capacity;
} disk_names;

typedef struct disk_tree {
    disk_inode *inodes;
    uint32_t inode_count, inode_capacity;
    disk_names names;  /* the current names, of all folders */
    disk_names synced; /* for each folder, its names at its last fsync */
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

/* A system call in the journal. */
typedef struct disk_op {
    uint64_t time; /* when it ended */
    disk_op_kind kind;
    uint32_t folder, inode, to_folder;
    uint32_t size; /* write: length of `bytes` */
    char name[DISK_NAME], to_name[DISK_NAME];
    char *bytes;
} disk_op;

typedef struct disk_file {
    bool open;
    uint32_t inode;
    uint32_t at; /* where the next read begins */
} disk_file;

struct sim_disk {
    sim *s;
    sim_stream dice;
    uint64_t clock; /* virtual time of the current caller; system calls advance it */
    disk_tree live; /* the state after all system calls so far */
    disk_tree past; /* the state after the system calls that no crash can undo any more */
    disk_op *ops;   /* the journal: system calls that are in `live` but not in `past` */
    uint32_t op_count, op_capacity;
    disk_file files[DISK_FILES];
};

/* Is this path on the model's disk? False outside sim_disk_begin and sim_disk_end. */
bool disk_is_on(const char *path);
/* The next functions do what the system calls of their names do. On failure they return -1 and set
 * errno. */
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
/* The next name in a folder; NULL: there are no more. *at is 0 before the first call. */
const char *disk_list(int fd, uint32_t *at);

#endif
