/* Which block of a round a worker should get. See round.h. */
#include "coordinator/core/round.h"

#include "common/base/err.h"
#include "common/base/saturate.h"

bool round_takes_part(const round_block *b, uint64_t worker, uint64_t identity) {
    for (int h = 0; h < ROUND_HOLDERS; h++)
        if (b->holder[h].worker == worker ||
            (b->audited && b->holder[h].worker && b->holder[h].identity == identity))
            return true;
    for (uint32_t v = 0; b->audited && v < b->votes; v++)
        if (b->vote[v].worker == worker || b->vote[v].identity == identity) return true;
    return false;
}

static bool takes_part(const round_block *b, const round_asker *asker) {
    return round_takes_part(b, asker->worker, asker->identity);
}

uint64_t round_lacking_size(const coord_round *r) {
    uint64_t size = 0;
    for (uint32_t i = 0, left = r->lacking_second_vote; left; i++) {
        if (!round_wants_auditor(&r->blocks[i])) continue;
        size += r->blocks[i].count;
        left--;
    }
    return size;
}

uint64_t round_leased_since(const round_block *b) {
    uint64_t since = UINT64_MAX;
    for (int h = 0; h < ROUND_HOLDERS; h++)
        if (b->holder[h].worker && b->holder[h].begun_ns < since) since = b->holder[h].begun_ns;
    return since;
}

bool round_has_work(const coord_round *r, uint64_t now_ns) {
    return r->pending > 0 || r->lacking_second_vote > 0 ||
           (r->done < r->count && now_ns >= r->overdue_ns);
}

/* May the worker have this block? It must be pending. A worker must not check its own identity, and
 * does not get a block again soon after it sent a bad result for it. */
static bool may_have(const round_block *b, const round_asker *asker, uint64_t now_ns) {
    if (b->state != ROUND_PENDING || takes_part(b, asker)) return false;
    return asker->only_worker || b->last_worker != asker->worker || now_ns >= b->avoid_until_ns;
}

static bool suits_better(const round_block *a, const round_block *b, uint32_t largest) {
    bool a_fits = a->count <= largest, b_fits = b->count <= largest;
    if (a_fits != b_fits) return a_fits;
    return a_fits ? a->count > b->count : a->count < b->count;
}

static int pick_pending(coord_round *r, const round_asker *asker, uint64_t now_ns) {
    int plain = -1;
    uint32_t urgent_left = r->urgent;
    bool any_suits = asker->largest >= r->largest, found = false;
    while (r->first_pending < r->count && r->blocks[r->first_pending].state != ROUND_PENDING)
        r->first_pending++;
    for (uint32_t i = r->first_pending; i < r->count && (!found || urgent_left > 0); i++) {
        const round_block *b = &r->blocks[i];
        urgent_left -= b->state == ROUND_PENDING && b->urgent;
        if (!may_have(b, asker, now_ns)) continue;
        if (b->urgent) return (int)i;
        if (plain < 0 || (!any_suits && suits_better(b, &r->blocks[plain], asker->largest)))
            plain = (int)i;
        found = any_suits;
    }
    return plain;
}

static int pick_lacking_vote(const coord_round *r, const round_asker *asker) {
    for (uint32_t i = 0; i < r->count; i++)
        if (round_wants_auditor(&r->blocks[i]) && !takes_part(&r->blocks[i], asker)) return (int)i;
    return -1;
}

static int pick_overdue(coord_round *r, const round_asker *asker, uint64_t now_ns) {
    int found = -1;
    if (now_ns < r->overdue_ns) return -1;
    r->overdue_ns = UINT64_MAX;
    for (uint32_t i = 0; i < r->count; i++) {
        const round_block *b = &r->blocks[i];
        if (b->state != ROUND_LEASED) continue;
        uint64_t after = round_next_copy_ns(b);
        if (after < r->overdue_ns) r->overdue_ns = after;
        if (found < 0 && now_ns >= after && !takes_part(b, asker)) found = (int)i;
    }
    return found;
}

int round_pick(coord_round *r, const round_asker *asker, uint64_t now_ns) {
    int pending = r->pending ? pick_pending(r, asker, now_ns) : -1;
    if (pending < 0 && r->lacking_second_vote) pending = pick_lacking_vote(r, asker);
    return pending >= 0 ? pending : pick_overdue(r, asker, now_ns);
}

/* How much longer a lease will probably take, in ns; 0: unknown. If a lease has exceeded the
 * expected time by x, it is expected to take another x. */
static uint64_t remaining_ns(const round_holder *h, uint64_t now_ns) {
    uint64_t spent = now_ns - h->begun_ns;
    if (!h->expected_ns) return 0;
    return spent < h->expected_ns ? h->expected_ns - spent : spent - h->expected_ns;
}

/* Estimates in how many ns the block will have all results that it needs. *last is the estimate for
 * its present holders alone. *but_last is the estimate if one more holder sent its result at once.
 * False: the block cannot be leased once more, or was already. */
static bool ends_in(const round_block *b, uint64_t now_ns, uint64_t *last, uint64_t *but_last) {
    uint32_t holders = 0;
    *last = *but_last = 0;
    if (b->state != ROUND_LEASED || (b->votes && !b->audited)) return false;
    for (int h = 0; h < ROUND_HOLDERS; h++) {
        const round_holder *holder = &b->holder[h];
        if (!holder->worker) continue;
        if (holder->worker == COORD_SELF) return false;
        const uint64_t end = remaining_ns(holder, now_ns);
        holders++;
        if (end > *last) {
            *but_last = *last;
            *last = end;
        } else if (end > *but_last) {
            *but_last = end;
        }
    }
    return holders < ROUND_HOLDERS && b->votes + holders == b->needs;
}

/* A copy pays only if the holders still need at least COPY_PERCENT of the copy's computing time,
 * plus COPY_GAIN_NS for the messages of the copy. */
#define COPY_PERCENT 125
#define COPY_GAIN_NS 2000000

int round_pick_slow(const coord_round *r, const round_asker *asker, uint32_t threads,
                    double round_ns, uint64_t now_ns) {
    int found = -1;
    uint64_t best_gain = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        const round_block *b = &r->blocks[i];
        uint64_t theirs, others, rounds = r->evaluate ? 1 : (b->count + threads - 1) / threads;
        if (!ends_in(b, now_ns, &theirs, &others) || takes_part(b, asker)) continue;
        const uint64_t mine = cop_saturate(round_ns * (double)rounds);
        if (theirs < mine / 100 * COPY_PERCENT + COPY_GAIN_NS || theirs < others + COPY_GAIN_NS)
            continue;
        const uint64_t gain = theirs - (mine > others ? mine : others);
        if (gain <= best_gain) continue;
        best_gain = gain;
        found = (int)i;
    }
    return found;
}
