/* The worker's side of shared memory. See share.h. It keeps the mappings of the newest leases,
 * because a job uses the same few segments in turn. */
#include "worker/share.h"

#include "common/base/log.h"

#define IDLE_LEASES 32 /* a mapping that this many leases did not use is closed */

/* Opens a segment in /proc, or else through the coordinator's socket in the folder of --shm. */
static cop_err open_segment(const worker_share *share, const cop_segment_name *name,
                            cop_segment_access access, cop_segment **out, cop_error *error) {
    char path[COP_SEGMENT_SOCKET_PATH];
    const cop_err e = cop_segment_open(name, access, out, error);
    if (!e || !share->folder || !cop_segment_socket_path(share->folder, share->socket_id, path))
        return e;
    return cop_segment_fetch(path, name, access, out, error);
}

void worker_share_join(worker_share *share, const cop_welcome *welcome) {
    cop_segment *segment = NULL;
    cop_error error = {0};
    share->proven = false;
    share->socket_id = welcome->proof.id;
    if (!share->offered || !welcome->proof.id) return;
    if (open_segment(share, &welcome->proof, COP_SEGMENT_READ, &segment, &error)) {
        cop_log(COP_LOG_INFO, "worker",
                "no shared memory with the coordinator, weights and gradients go over the "
                "connection: %s",
                error.text);
        return;
    }
    memcpy(share->proof, segment->secret, sizeof share->proof);
    share->proven = true;
    cop_segment_release(segment);
    cop_log(COP_LOG_INFO, "worker",
            "weights and gradients are in memory shared with the "
            "coordinator");
}

static void close_kept(worker_share *share, int at) {
    cop_segment_release(share->kept[at].segment);
    share->kept[at].segment = NULL;
}

void worker_share_forget(worker_share *share) {
    for (int i = 0; i < WORKER_SEGMENTS_MAX; i++) close_kept(share, i);
}

static void close_idle(worker_share *share) {
    for (int i = 0; i < WORKER_SEGMENTS_MAX; i++)
        if (share->kept[i].segment && share->leases - share->kept[i].used > IDLE_LEASES)
            close_kept(share, i);
}

/* The place of the kept segment with this name. -1: no segment with this name is kept. */
static int find_kept(const worker_share *share, const cop_segment_name *name, bool writable) {
    for (int i = 0; i < WORKER_SEGMENTS_MAX; i++) {
        const cop_segment *s = share->kept[i].segment;
        if (s && s->name.id == name->id && s->name.size == name->size &&
            share->kept[i].writable == writable)
            return i;
    }
    return -1;
}

/* A free place. If there is none, the place of the least recently used segment. */
static int free_place(worker_share *share) {
    int oldest = 0;
    for (int i = 0; i < WORKER_SEGMENTS_MAX; i++) {
        if (!share->kept[i].segment) return i;
        if (share->kept[i].used < share->kept[oldest].used) oldest = i;
    }
    close_kept(share, oldest);
    return oldest;
}

/* Makes a buffer for the data of a segment. */
static cop_err open_buffer(worker_share *share, const cop_segment_name *name, bool writable,
                           cop_buffer **out, cop_error *error) {
    int at = find_kept(share, name, writable);
    if (at < 0) {
        cop_segment *segment = NULL;
        COP_TRY(open_segment(share, name, writable ? COP_SEGMENT_WRITE : COP_SEGMENT_READ, &segment,
                             error));
        at = free_place(share);
        share->kept[at].segment = segment;
        share->kept[at].writable = writable;
    }
    share->kept[at].used = share->leases;
    *out = cop_buffer_of_segment(share->kept[at].segment);
    return *out ? COP_OK : cop_no_memory(error);
}

cop_err worker_share_take(worker_share *share, cop_message *lease, cop_buffer **room,
                          cop_error *error) {
    const cop_lease *l = &lease->lease;
    COP_ASSERT(lease->type == COP_MESSAGE_LEASE);
    *room = NULL;
    share->leases++;
    close_idle(share);
    if (!share->proven && (l->weights.id || l->room.id))
        return cop_fail(error, COP_ERR_PROTOCOL, "the lease has shared memory without a proof");
    if (l->weights.id && lease->part[COP_PART_WEIGHTS])
        return cop_fail(error, COP_ERR_PROTOCOL, "the lease has its weights twice");
    if (l->weights.id)
        COP_TRY(open_buffer(share, &l->weights, false, &lease->part[COP_PART_WEIGHTS], error));
    if (l->room.id) COP_TRY(open_buffer(share, &l->room, true, room, error));
    return COP_OK;
}
