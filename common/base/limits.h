/* Every limit of the system. The assertions at the end check the relations between the limits.
 * docs/reference/limits.md is generated from this file; it has one line for each limit. */
#ifndef COP_BASE_LIMITS_H
#define COP_BASE_LIMITS_H

#define COP_LAYERS_MAX           256
#define COP_PARAMETERS_MAX       (1u << 29) /* floats in one model */
#define COP_UNITS_MAX            (1u << 20) /* features of one layer's output */
#define COP_BATCH_MAX            65536
#define COP_SHARDS_MAX           1024
#define COP_LEASE_SAMPLES_MAX    8192       /* samples in one lease */
#define COP_EVAL_SLICE           1000       /* samples of an evaluation in one lease (D10) */
#define COP_LEASE_MEMBERS_MAX    64         /* members of an ensemble in one lease */
#define COP_ENSEMBLE_BYTES_MAX   (1u << 30) /* memory for the sums of one ensemble */
#define COP_CLASSES_MAX          65536
#define COP_CLASS_NAME_MAX       200   /* bytes of the name of a class */
#define COP_CLASS_NAMES_BYTES    32768 /* bytes of all class names of a set, which a job contains */
#define COP_STATISTICS_MAX       16384 /* means of `normalize: standard`, and as many deviations */
#define COP_SAMPLES_MAX          0x7fffffffu
#define COP_INPUT_FILE_MAX       (8ull << 30) /* bytes of a file of samples for `predict` */
#define COP_INPUT_STREAM_MAX     (1ull << 30) /* bytes of samples for `predict` on standard input */
#define COP_JOB_FILE_MAX         (1u << 20)   /* bytes of a job file */
#define COP_JOB_YAML_DEPTH_MAX   16
#define COP_NAME_MAX             128 /* bytes of a name, including the final NUL */
#define COP_FRAME_HEADER_SIZE    64
#define COP_FRAME_PROTO_MAX      (64u << 10) /* protobuf header of a frame */
#define COP_FRAME_UNPACK_MAX     (4u << 20)  /* bytes of memory for unpacking one such header */
#define COP_FRAME_BODY_MAX       (2ull << 30)
#define COP_FRAME_SIZE_MAX       (COP_FRAME_HEADER_SIZE + COP_FRAME_PROTO_MAX + 64 + COP_FRAME_BODY_MAX)
#define COP_SEGMENT_SIZE_MAX     (2ull << 30) /* bytes of one segment of shared memory */
#define COP_CHUNK_SIZE           (4u << 20)   /* bytes of one chunk of an upload of data */
#define COP_WORKERS_MAX          1024         /* workers that are connected to one coordinator */
#define COP_POOL_MAX             16384        /* workers that the core can handle (in tests) */
#define COP_WORKER_THREADS_MAX   256          /* compute threads of one worker */
#define COP_WATCHES_MAX          512          /* requests that are held until there is news */
#define COP_CALLS_MAX            256          /* unanswered calls that read files or compute */
#define COP_LARGE_CALLS_MAX      32   /* of these, calls that hold a model, set or history */
#define COP_EVALUATIONS_MAX      4    /* running evaluations of finished jobs */
#define COP_EVALUATION_PLACES    16   /* evaluations that run or whose results are kept */
#define COP_CONNECTIONS_MAX      4096 /* connections of one coordinator */
#define COP_HTTP_CONNECTIONS_MAX 256  /* HTTP connections of one coordinator */
#define COP_HALF_OPEN_MAX        256  /* unfinished TLS handshakes; one more ends the oldest */
#define COP_JOBS_MAX             16384
#define COP_EVALUATION_NUMBERS   (1ull << 48) /* eval-N has the number COP_EVALUATION_NUMBERS + N */
#define COP_JOBS_PER_CLIENT_MAX  2048         /* unfinished jobs of one certificate */
/* What one identity may use of the totals above. An identity is a certificate, or all holders of
 * the token together. Without certificates there is only one identity, which may use the totals. */
#define COP_SESSIONS_PER_IDENTITY_MAX    768
#define COP_WATCHES_PER_IDENTITY_MAX     128
#define COP_CALLS_PER_IDENTITY_MAX       64
#define COP_LARGE_CALLS_PER_IDENTITY_MAX 8
#define COP_EVALUATIONS_PER_IDENTITY_MAX 3
#define COP_HEARTBEAT_MS                 500   /* time between two heartbeats of a worker */
#define COP_HEARTBEATS_MISSED            3     /* missed heartbeats before a worker is removed */
#define COP_CLIENT_TIMEOUT_MS            10000 /* default of a client's --timeout */
#define COP_HOLD_MAX_MS                  5000  /* longest time that a request is held for news */
#define COP_CHECKPOINTS_KEPT_MAX         1000

_Static_assert(COP_FRAME_UNPACK_MAX >= COP_FRAME_PROTO_MAX,
               "unpacking needs at least the packed size");
_Static_assert(COP_CLASS_NAMES_BYTES <= COP_FRAME_PROTO_MAX / 2,
               "class names must leave room for the rest of a job");
_Static_assert(COP_LEASE_SAMPLES_MAX >= COP_EVAL_SLICE, "an evaluation slice must fit a lease");
_Static_assert(COP_JOBS_PER_CLIENT_MAX <= COP_JOBS_MAX / 4,
               "one client must leave room for others");
_Static_assert(COP_SESSIONS_PER_IDENTITY_MAX <= COP_WORKERS_MAX / 4 * 3 &&
                   COP_WATCHES_PER_IDENTITY_MAX <= COP_WATCHES_MAX / 4 &&
                   COP_CALLS_PER_IDENTITY_MAX <= COP_CALLS_MAX / 4 &&
                   COP_LARGE_CALLS_PER_IDENTITY_MAX <= COP_LARGE_CALLS_MAX / 4 &&
                   COP_EVALUATIONS_PER_IDENTITY_MAX < COP_EVALUATIONS_MAX,
               "one identity must leave room for others");
_Static_assert(COP_EVALUATION_PLACES >= 2 * COP_EVALUATIONS_MAX,
               "ended evaluations need room in addition to the running ones");
_Static_assert(COP_CONNECTIONS_MAX >= 3 * COP_WORKERS_MAX,
               "a worker has two connections, and clients need some");
_Static_assert(COP_POOL_MAX >= COP_WORKERS_MAX, "the pool must hold every connected worker");
_Static_assert(COP_SEGMENT_SIZE_MAX >= 4ull * COP_PARAMETERS_MAX, "a model must fit a segment");
_Static_assert(COP_CHUNK_SIZE < COP_FRAME_BODY_MAX, "a chunk must fit a frame");
_Static_assert(COP_SHARDS_MAX <= COP_BATCH_MAX, "a shard has at least one sample");

#endif
