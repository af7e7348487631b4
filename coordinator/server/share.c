/* Memory shared with workers on this host (docs/explanation/trust.md). A worker that has opened the
 * coordinator's segment shares its host and user. From then on its leases name the segment of the
 * weights, and a segment for the gradient, its "room". The coordinator owns both. If the worker is
 * killed, or never answers, the coordinator only drops its references.
 *
 * - Nobody writes to weights that a worker reads: its session holds them until its next PULL.
 * - A worker can write only to its own rooms, and at any time. So the coordinator copies a gradient
 *   before it compares it with another one. It does not copy other gradients: the update reads them
 *   once, in place. If the update finds a value that is not finite, the engine copies the gradients
 *   and repeats the update, so that everything that follows is decided on the same bytes. */
#include "coordinator/server/server.h"

#include "common/base/hash.h"
#include "common/base/log.h"

void coord_share_start(coord_server *server) {
    cop_error error = {0};
    if (!server->config.share_memory) return;
    if (cop_segment_create(1, COP_SEGMENT_READ, &server->proof, &error))
        cop_log(COP_LOG_WARN, "coordinator",
                "no memory is shared with workers, weights and gradients go over the connections: "
                "%s",
                error.text);
    server->engine.share_memory = server->proof != NULL;
}

void coord_share_stop(coord_server *server) {
    cop_segment_release(server->proof);
    server->proof = NULL;
}

void coord_share_offer(const coord_server *server, const cop_hello *hello, cop_welcome *welcome) {
    const bool wanted = !hello->control && hello->features & COP_FEATURE_SHARED_MEMORY;
    if (wanted && server->proof) welcome->proof = server->proof->name;
}

void coord_share_check(const coord_server *server, coord_session *s, const cop_pull *pull) {
    cop_buffer_release(s->lent_weights); /* the worker no longer reads them */
    s->lent_weights = NULL;
    if (!pull->has_proof || !server->proof || s->shares || s->proof_refused) return;
    s->shares = cop_equal_constant_time(pull->proof, server->proof->secret, sizeof pull->proof);
    s->proof_refused = !s->shares;
    if (s->shares)
        snprintf(s->path, sizeof s->path, "shm");
    else
        cop_log_peer(COP_LOG_WARN, "coordinator", *s->certificate ? s->certificate : s->name,
                     "worker %s claims to share this host, but its proof is wrong: weights and "
                     "gradients go over the connection",
                     s->name);
}

/* Makes sure that the session has a room of this size. If memory runs out, the session has no
 * room. */
static void take_room(coord_session *s, size_t size) {
    if (s->rooms && s->room_size != size) {
        cop_buffer_release(s->room);
        s->room = NULL;
        cop_buffer_pool_destroy(s->rooms);
        s->rooms = NULL;
    }
    if (!s->rooms) s->rooms = cop_buffer_pool_create_shared(size, true);
    s->room_size = size;
    if (s->rooms && !s->room) s->room = cop_buffer_pool_take(s->rooms);
    if (!s->room || s->room->segment) return;
    cop_buffer_release(s->room);
    s->room = NULL;
}

void coord_share_lend(coord_session *s, const coord_resident *resident, cop_message *lease) {
    cop_buffer *weights = lease->part[COP_PART_WEIGHTS];
    COP_ASSERT(lease->type == COP_MESSAGE_LEASE && !s->lent_weights);
    if (!s->shares || !resident) return;
    if (weights && weights->segment) {
        lease->lease.weights = weights->segment->name;
        lease->part[COP_PART_WEIGHTS] = NULL;
        s->lent_weights = weights;
    }
    if (lease->lease.kind != COP_LEASE_TRAIN) return;
    take_room(s, cop_job_sent_bytes(resident->job));
    if (s->room) lease->lease.room = s->room->segment->name;
}

bool coord_share_is_repeated(const coord_session *s, const cop_result *r) {
    const bool offered = s->room && s->room->segment->name.id == r->segment;
    return r->present && r->segment && r->segment == s->taken_room && !offered;
}

cop_buffer *coord_share_result(const coord_session *s, const cop_result *r) {
    return s->room && s->room->segment->name.id == r->segment ? s->room : NULL;
}

void coord_share_note_received(coord_session *s, const cop_result *r) {
    if (!r->segment || !coord_share_result(s, r)) return;
    s->taken_room = r->segment;
    cop_buffer_release(s->room); /* the result's slot may hold it until the update is done */
    s->room = NULL;
}

void coord_share_end(coord_session *s) {
    cop_buffer_release(s->lent_weights);
    cop_buffer_release(s->room);
    cop_buffer_pool_destroy(s->rooms);
    s->lent_weights = s->room = NULL;
    s->rooms = NULL;
    s->shares = false;
}
