/* The network: calls of workers and clients to the coordinator, as common/net/link_nng.c makes
 * them. Each link makes one call at a time. If the link is not connected, it tries to connect again
 * and again, until the call's deadline. A call whose connection is lost ends with COP_ERR_CLOSED,
 * and the caller does not know whether its request arrived. Messages can be late, duplicated or
 * lost. */
#include "sim/sim.h"

#include "common/base/alloc.h"

#define RECONNECT_FIRST_MS 50
#define RECONNECT_MOST_MS  1000

sim_party *sim_party_of(sim *s, uint32_t peer) {
    return peer < s->worker_count ? &s->workers[peer].party
                                  : &s->clients[peer - s->worker_count].party;
}

/* How long a message takes: about 0.05 to 2 ms, and longer during a fault DELAY. */
static uint64_t delay_of(sim *s, sim_stream *dice, uint32_t peer) {
    uint64_t delay = 50000 + sim_below(dice, 2 * SIM_MS);
    uint32_t longest_ms = sim_fault_on(s, SIM_DELAY, peer, s->now);
    if (longest_ms) delay += sim_heavy(dice, SIM_MS, longest_ms * SIM_MS);
    return delay;
}

/* Sends a message, which may be lost. During a partition, most messages are lost; the others arrive
 * after its end, as if TCP had sent them again. */
static void transmit(sim *s, sim_event event, sim_fault_kind partition) {
    uint32_t peer = event.message->peer;
    sim_party *party = sim_party_of(s, peer);
    uint64_t delay = delay_of(s, &party->network, peer);
    uint32_t keep = sim_fault_on(s, partition, peer, s->now);
    bool lost = sim_chance(&party->network, sim_fault_on(s, SIM_LOSS, peer, s->now));
    if (keep) {
        lost = lost || !sim_chance(&party->network, keep);
        delay += sim_fault_ends(s, partition, peer) - s->now;
    }
    if (lost) {
        sim_trace(s, "lost on its way");
        cop_free(event.message);
        return;
    }
    sim_post(s, delay, event);
}

/* ---- the asking side ---- */

static bool reaches(const sim *s, uint32_t peer) {
    return s->host.up && !sim_fault_on(s, SIM_PARTITION_TO, peer, s->now) &&
           !sim_fault_on(s, SIM_PARTITION_FROM, peer, s->now);
}

void sim_send(sim *s, uint32_t peer, sim_link_kind kind) {
    sim_party *party = sim_party_of(s, peer);
    sim_link *link = &party->link[kind];
    if (!link->calling || link->sent) return;
    if (link->host_life != s->host.life || !s->host.up) {
        if (!reaches(s, peer)) {
            uint64_t wait =
                sim_heavy(&party->network, RECONNECT_FIRST_MS * SIM_MS, RECONNECT_MOST_MS * SIM_MS);
            sim_post(s, wait,
                     (sim_event){.kind = SIM_SEND,
                                 .peer = peer,
                                 .life = party->life,
                                 .call = link->call,
                                 .link = kind});
            return;
        }
        link->connection = ++s->next_connection;
        link->host_life = s->host.life;
    }
    link->sent = true;
    link->request.connection = link->connection;
    link->request.host_life = link->host_life;
    sim_event event = {.kind = SIM_REQUEST, .life = link->host_life};
    bool twice = sim_chance(&party->network, sim_fault_on(s, SIM_DUPLICATE, peer, s->now));
    for (int copy = 0; copy < (twice ? 2 : 1); copy++) {
        event.message = sim_message_new(&link->request);
        transmit(s, event, SIM_PARTITION_TO);
    }
}

void sim_call(sim *s, uint32_t peer, const sim_message *request, uint64_t timeout) {
    sim_party *party = sim_party_of(s, peer);
    sim_link *link = &party->link[request->link];
    COP_ASSERT(!link->calling);
    link->calling = true;
    link->sent = false;
    link->request = *request;
    link->request.peer = peer;
    link->request.life = party->life;
    link->request.call = ++link->call;
    sim_post(s, timeout,
             (sim_event){.kind = SIM_TIMEOUT,
                         .peer = peer,
                         .life = party->life,
                         .call = link->call,
                         .link = request->link});
    sim_send(s, peer, request->link);
}

bool sim_call_ends(sim *s, const sim_event *event) {
    sim_link *link = &sim_party_of(s, event->peer)->link[event->link];
    if (!link->calling || link->call != event->call)
        return false; /* the event belongs to an earlier call */
    const sim_message *m = event->message;
    if (m && (link->host_life != m->host_life || link->connection != m->connection)) return false;
    link->calling = false;
    return true;
}

/* ---- the answering side ---- */

void sim_reply(sim *s, const sim_message *request, sim_message *answer) {
    answer->peer = request->peer;
    answer->life = request->life;
    answer->call = request->call;
    answer->link = request->link;
    answer->connection = request->connection;
    answer->host_life = request->host_life;
    sim_event event = {.kind = SIM_REPLY,
                       .peer = request->peer,
                       .life = request->life,
                       .call = request->call,
                       .link = request->link,
                       .message = sim_message_new(answer)};
    transmit(s, event, SIM_PARTITION_FROM);
}

/* ---- connections that end ---- */

/* A connection is lost. The asking side learns it, unless nothing from the coordinator reaches it.
 */
static void lose(sim *s, uint32_t peer, sim_link_kind kind) {
    sim_party *party = sim_party_of(s, peer);
    sim_link *link = &party->link[kind];
    link->host_life = 0;
    if (!link->calling || !link->sent || sim_fault_on(s, SIM_PARTITION_FROM, peer, s->now)) return;
    sim_post(
        s, 50000 + sim_below(&party->network, 20 * SIM_MS),
        (sim_event){
            .kind = SIM_LOST, .peer = peer, .life = party->life, .call = link->call, .link = kind});
}

void sim_cut(sim *s, uint32_t peer, sim_link_kind kind, bool noticed) {
    sim_party *party = sim_party_of(s, peer);
    sim_link *link = &party->link[kind];
    if (!link->host_life) return;
    uint64_t connection = link->connection;
    uint32_t life = link->host_life;
    lose(s, peer, kind);
    if (!noticed || sim_fault_on(s, SIM_PARTITION_TO, peer, s->now)) return;
    sim_post(s, 50000 + sim_below(&party->network, 20 * SIM_MS),
             (sim_event){.kind = SIM_GONE, .life = life, .value = connection});
}

void sim_host_gone(sim *s) {
    for (uint32_t peer = 0; peer < s->worker_count + s->client_count; peer++)
        for (int kind = 0; kind < SIM_LINKS; kind++)
            if (sim_party_of(s, peer)->link[kind].host_life == s->host.life)
                lose(s, peer, (sim_link_kind)kind);
}
