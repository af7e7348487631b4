/* Deliberate bugs, to show that the simulator finds them (tests/sim,
 * docs/explanation/reliability.md). Only the program sim-with-bugs is built with COP_INJECT_BUGS.
 * In that program, COP_INJECT_BUG(NAME, right, wrong) is `wrong` if the bug NAME was chosen, and
 * `right` if not. In all other programs it is always `right`, and costs nothing. */
#ifndef COP_BASE_INJECTED_BUGS_H
#define COP_BASE_INJECTED_BUGS_H

/* X(name, a description of the bug) */
#define COP_BUG_TABLE(X)                                                                           \
    X(STALE_RESULT, "a result of an old lease or step is accepted as the awaited one")             \
    X(FREE_FIRST, "a worker becomes free before its result is judged, but its slot does not")      \
    X(KEEP_DUPLICATE, "a duplicate result is kept once more")                                      \
    X(EPOCH_END, "the short batch comes one step too early")                                       \
    X(BLOCK_ORDER, "gradients are summed in the wrong order")                                      \
    X(DOUBLE_UPDATE, "some steps are updated twice")                                               \
    X(NO_DEADLINE, "leases have no deadline")                                                      \
    X(OWN_DEADLINE, "a worker's deadline depends only on its own times")                           \
    X(BELIEVE_CLAIM, "a worker's reported computing time is believed without a check")             \
    X(WRONG_HOLDER, "when a worker dies, another worker's lease of the same block is also lost")   \
    X(NEVER_SILENT, "a silent worker is never removed")                                            \
    X(WORKERS_LIMIT, "limits.workers is not enforced")                                             \
    X(FORGET_PIN, "the OpenBLAS that a job is pinned to is not stored")                            \
    X(DROP_PIN, "the OpenBLAS that a job is pinned to is dropped when too many writes wait")       \
    X(LOSE_PAUSE, "a pause requested during an update is lost")                                    \
    X(LEAK_SLOT, "a gradient leaks when a step is abandoned")                                      \
    X(EVALUATION_ORDER, "losses of an evaluation are summed in the wrong order")                   \
    X(SAVE_EARLY, "a checkpoint is requested before its update")                                   \
    X(RESUME_WRONG, "a job continues one step after its checkpoint")                               \
    X(LIAR_BELIEVED, "different results count as equal")                                           \
    X(NAN_BELIEVED, "workers that agree on a non-finite value are believed")                       \
    X(DIVERGE_AT_ONCE, "a job fails as diverged on results that were never audited")               \
    X(BLAME_JOB, "three workers that report they cannot compute a block fail its job")             \
    X(NO_UNDO, "results that a liar sent before its detection are kept")                           \
    X(FORGET_JOB, "a queued job is not recovered after a restart")                                 \
    X(FORGET_KEY, "submission keys are lost in a restart")                                         \
    X(UNSYNCED_JOB, "a submission is acknowledged before its sync")                                \
    X(SYNC_FILE, "files are renamed into place without a sync")                                    \
    X(SYNC_FOLDER, "names in folders are not synced")                                              \
    X(OLD_FIRST, "old checkpoints are removed before the new one is complete")                     \
    X(PRUNE_NEWEST, "the newest checkpoint is removed instead of the oldest")                      \
    X(NO_HELLO, "a worker that is unknown to its coordinator does not join again")

typedef enum cop_bug {
    COP_BUG_NONE,
#define X(name, text) COP_BUG_##name,
    COP_BUG_TABLE(X)
#undef X
        COP_BUG_COUNT
} cop_bug;

#ifdef COP_INJECT_BUGS
extern cop_bug cop_injected_bug;
#    define COP_INJECT_BUG(name, right, wrong)                                                     \
        (cop_injected_bug == COP_BUG_##name ? (wrong) : (right))
#else
#    ifdef __clang__ /* clang warns of code that only a bug would reach */
#        pragma clang diagnostic ignored "-Wunreachable-code"
#    endif
#    define COP_INJECT_BUG(name, right, wrong) (right)
#endif

#endif
