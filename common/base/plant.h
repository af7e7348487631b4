/* Bugs on purpose, to show that the simulator sees them (tests/sim,
 * docs/explanation/reliability.md). Only the program sim-planted is built with COP_PLANTS; there,
 * COP_PLANT(NAME, right, wrong) is `wrong` once that bug was chosen. Everywhere else it is `right`,
 * and nothing more. */
#ifndef COP_BASE_PLANT_H
#define COP_BASE_PLANT_H

/* X(name, what is wrong) */
#define COP_PLANT_TABLE(X)                                                                         \
    X(STALE_RESULT, "a result of a lease or step that is past is taken for the one awaited")       \
    X(FREE_FIRST, "a worker is free before its result was judged, and its place is not")           \
    X(KEEP_DUPLICATE, "a result that has come before is kept once more")                           \
    X(EPOCH_END, "the short batch comes one step too early")                                       \
    X(BLOCK_ORDER, "gradients are summed in the wrong order")                                      \
    X(DOUBLE_UPDATE, "some steps are updated twice")                                               \
    X(NO_DEADLINE, "leases have no deadline")                                                      \
    X(OWN_DEADLINE, "a worker's deadline follows its own times alone")                             \
    X(BELIEVE_CLAIM, "a worker's computing time is believed whatever it is")                       \
    X(WRONG_HOLDER, "when a worker dies, another's lease of the same block is lost, too")          \
    X(NEVER_SILENT, "a worker that is not heard any more is not given up")                         \
    X(WORKERS_LIMIT, "limits.workers is not kept")                                                 \
    X(FORGET_PIN, "the OpenBLAS that a job is pinned to is not stored")                            \
    X(DROP_PIN, "the OpenBLAS that a job is pinned to is dropped when too many writes wait")       \
    X(LOSE_PAUSE, "a pause that comes during an update is lost")                                   \
    X(LEAK_SLOT, "a gradient is left behind when a step is given up")                              \
    X(EVALUATION_ORDER, "losses of an evaluation are summed in the wrong order")                   \
    X(SAVE_EARLY, "a checkpoint is asked for before the update that it is of")                     \
    X(RESUME_WRONG, "a job goes on one step after its checkpoint")                                 \
    X(LIAR_BELIEVED, "results that differ count as equal")                                         \
    X(NAN_BELIEVED, "workers who agree that a value is not finite are believed")                   \
    X(BLAME_JOB, "three reports of workers that cannot compute a block fail its job")              \
    X(NO_UNDO, "what a liar did before it was found out stays")                                    \
    X(FORGET_JOB, "a job that was only queued is not taken up after a restart")                    \
    X(FORGET_KEY, "keys of submissions are not known after a restart")                             \
    X(UNSYNCED_JOB, "a submission is acknowledged before its sync")                                \
    X(SYNC_FILE, "files are renamed into place without a sync")                                    \
    X(SYNC_FOLDER, "names in folders are not synced")                                              \
    X(OLD_FIRST, "old checkpoints are removed before the new one is there")                        \
    X(PRUNE_NEWEST, "the newest checkpoint is removed in place of the oldest")                     \
    X(NO_HELLO, "a worker that its coordinator does not know does not join again")

typedef enum cop_plant {
    COP_PLANT_NONE,
#define X(name, text) COP_PLANT_##name,
    COP_PLANT_TABLE(X)
#undef X
        COP_PLANT_COUNT
} cop_plant;

#ifdef COP_PLANTS
extern cop_plant cop_planted;
#    define COP_PLANT(name, right, wrong) (cop_planted == COP_PLANT_##name ? (wrong) : (right))
#else
#    ifdef __clang__ /* what only the other choice would reach */
#        pragma clang diagnostic ignored "-Wunreachable-code"
#    endif
#    define COP_PLANT(name, right, wrong) (right)
#endif

#endif
