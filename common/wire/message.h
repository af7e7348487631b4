/* Messages between coordinator, workers and clients, as plain structs. codec.h encodes them to
 * frames and decodes them. The in-memory transport passes the structs themselves, with references
 * to the same buffers, so it copies no tensor. docs/reference/protocol.md defines the fields. */
#ifndef COP_WIRE_MESSAGE_H
#define COP_WIRE_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/err.h"
#include "common/base/limits.h"
#include "common/base/segment.h"

#ifndef COP_PROTOCOL_MAJOR /* tests build a worker of another version */
#    define COP_PROTOCOL_MAJOR 1
#endif
#ifndef COP_PROTOCOL_MINOR /* tests build a worker of another version */
#    define COP_PROTOCOL_MINOR 3
#endif

/* The type of a message. Requests are sent by a worker or a client; the comment of a request names
 * the replies to it. FAILURE may be the reply to any request. The numbers are part of the protocol
 * and are never reused. */
typedef enum cop_message_type {
    COP_MESSAGE_HELLO = 1, /* request -> WELCOME */
    COP_MESSAGE_WELCOME = 2,
    COP_MESSAGE_HEARTBEAT = 3, /* request -> HEARTBEAT_REPLY */
    COP_MESSAGE_HEARTBEAT_REPLY = 4,
    COP_MESSAGE_PULL = 5, /* request -> LEASE or NOTHING, after up to COP_HOLD_MAX_MS */
    COP_MESSAGE_LEASE = 6,
    COP_MESSAGE_NOTHING = 7,
    COP_MESSAGE_FAILURE = 8,
    COP_MESSAGE_CALL = 9, /* request of a client -> ANSWER */
    COP_MESSAGE_ANSWER = 10
} cop_message_type;

/* The indices of the parts of a message. Only messages of the types that a comment names have the
 * part. A part that is not sent is NULL. The numbers are part of the protocol. */
enum {
    COP_PART_WEIGHTS = 0, /* LEASE: all weights, flat; NULL if the worker has this version, or
                             if they are in shared memory */
    COP_PART_SAMPLES = 1, /* LEASE: one row per sample, in the type of the data set */
    COP_PART_LABELS = 2,  /* LEASE: one label per sample, i32 */
    COP_PART_JOB = 3,     /* LEASE: a packed coppice.Job; NULL if the worker has it */
    /* PULL: the tensor of the result, which depends on the kind of its lease.
     * TRAIN: the sum of the gradients over the samples of the block, as long as the weights.
     * ENSEMBLE: the outputs of the last layer, f32 [members][outputs][samples].
     * EVALUATE, and a gradient in shared memory: NULL. */
    COP_PART_RESULT = 0,
    COP_PART_BODY = 0,    /* CALL, ANSWER: a packed request or answer of api.proto */
    COP_PART_BULK = 1,    /* CALL, ANSWER: a chunk of data or a model file; NULL if there is none */
    COP_MESSAGE_PARTS = 4 /* maximum number of parts */
};

/* A bit of cop_hello.features: the worker can use memory that the coordinator shares with it. */
#define COP_FEATURE_SHARED_MEMORY 1u

/* The first request on a connection. */
typedef struct cop_hello {
    uint32_t major; /* version of the protocol that the sender uses */
    uint32_t minor;
    uint32_t threads;            /* number of compute threads of the worker */
    uint64_t features;           /* bits COP_FEATURE_... */
    uint64_t worker;             /* on the control connection: as in the WELCOME */
    uint64_t session;            /* on the control connection: as in the WELCOME */
    bool is_client;              /* true: a client; false: a worker */
    bool control;                /* this is the control connection of a worker */
    char build[64];              /* version of the program, for people */
    char token[128];             /* the secret that gives access without TLS */
    char name[COP_NAME_MAX];     /* the name that the worker would like to have */
    char isa[16];                /* instruction set of the kernels */
    char arithmetic[32];         /* "portable-1" */
    char fingerprint[128];       /* fingerprint of OpenBLAS, for jobs with numerics: openblas */
    unsigned char self_test[32]; /* digest of the self-test (D9) */
} cop_hello;
/* The reply to HELLO. */
typedef struct cop_welcome {
    uint32_t major; /* version of the protocol that the coordinator uses */
    uint32_t minor;
    uint32_t heartbeat_ms;   /* time between two heartbeats */
    uint64_t features;       /* bits; none is defined, so 0 */
    uint64_t worker;         /* number of the worker in this session, never 0 */
    uint64_t session;        /* secret number that each later request repeats */
    char build[64];          /* version of the program, for people */
    char name[COP_NAME_MAX]; /* the name of the worker, made unique */
    cop_segment_name proof;  /* whoever can open it shares host and user; id 0: not offered */
} cop_welcome;
typedef struct cop_heartbeat {
    uint64_t worker;
    uint64_t session;
    uint64_t lease; /* the lease that the worker computes now; 0: none */
    bool draining;  /* the worker wants to leave */
} cop_heartbeat;
typedef struct cop_heartbeat_reply {
    bool drain;            /* the worker must finish its lease, then leave */
    bool unknown;          /* the session does not exist: the worker must send HELLO again */
    uint64_t cancel_lease; /* a lease whose result is not needed any more; 0: none */
} cop_heartbeat_reply;
typedef enum cop_lease_kind {
    COP_LEASE_TRAIN = 1,    /* gradients of shards */
    COP_LEASE_EVALUATE = 2, /* loss and number of correct samples in eval mode */
    COP_LEASE_ENSEMBLE = 3  /* outputs of the members of an ensemble; since protocol 1.1 */
} cop_lease_kind;
/* The type of the values of a tensor. */
typedef enum cop_values {
    COP_VALUES_F32 = 0,
    COP_VALUES_BF16 = 1 /* weights and gradients of jobs with `wire: bf16`; since protocol 1.3 */
} cop_values;
/* The size of a value in bytes. */
static inline size_t cop_values_size(cop_values values) {
    return values == COP_VALUES_BF16 ? sizeof(uint16_t) : sizeof(float);
}

/* The result of a lease. Its tensor is not in this struct, but in COP_PART_RESULT of the PULL. */
typedef struct cop_result {
    bool present; /* false: the PULL has no result, and the other fields are 0 */
    cop_lease_kind kind;
    uint64_t lease; /* this field, `kind` and the fields down to `count` are as in the lease */
    uint64_t job;
    uint64_t step;
    uint32_t attempt;
    uint32_t first;
    uint32_t count;
    double loss;         /* sum of the losses of the samples */
    uint64_t correct;    /* number of samples that were classified correctly */
    uint64_t samples;    /* number of samples that were computed */
    uint64_t compute_ns; /* time of the computation */
    uint64_t segment;    /* the lease's room, which has the gradient; 0: COP_PART_RESULT has it */
    cop_values values;   /* type of the tensor */
    char failure[256];   /* why the worker could not compute the lease; "": it could */
} cop_result;
/* A worker's request for a lease, with the result of the previous one. */
typedef struct cop_pull {
    uint64_t worker;
    uint64_t session;
    uint64_t have_job;      /* the job whose spec and weights the worker keeps; 0: none */
    uint64_t have_version;  /* version of these weights plus 1; 0: none */
    cop_values have_values; /* type of these weights, as the worker received them */
    bool goodbye;           /* this is the last PULL; the worker leaves */
    bool has_proof;         /* the worker has opened the segment in WELCOME */
    unsigned char proof[COP_SEGMENT_SECRET]; /* the secret in the memory of the segment */
    cop_result result;
} cop_pull;
/* The assignment of a block to a worker. */
typedef struct cop_lease {
    cop_lease_kind kind;
    uint64_t lease; /* number of the lease, never used twice */
    uint64_t job;
    uint64_t step;             /* TRAIN: from 1; ENSEMBLE: number of the block */
    uint64_t version;          /* version of the weights; ENSEMBLE: index of the averaged model */
    uint64_t deadline_ms;      /* time until the deadline, from now */
    uint32_t attempt;          /* 1 plus the number of leases of this block that failed */
    uint32_t first;            /* TRAIN: the first shard; otherwise: the first sample */
    uint32_t count;            /* TRAIN: number of shards; otherwise: number of samples */
    uint32_t batch;            /* TRAIN: number of samples of the whole step */
    uint32_t member;           /* ENSEMBLE: the first member to compute on these samples */
    uint32_t members;          /* ENSEMBLE: number of members to compute */
    bool whole;                /* ENSEMBLE: the only member is the whole network, in eval mode */
    cop_values weights_values; /* type of the weights, also if the worker has them already */
    cop_segment_name weights;  /* has the weights until the next PULL; id 0: they are a part */
    cop_segment_name room;     /* TRAIN: the gradient may be written into it; id 0: there is none */
} cop_lease;
/* The reply to a PULL if there is no lease. */
typedef struct cop_nothing {
    uint32_t retry_ms; /* the worker must ask again after this time; 0: at once */
    bool drain;        /* the worker must leave */
    bool unknown;      /* the session does not exist: the worker must send HELLO again */
} cop_nothing;
typedef struct cop_failure {
    cop_err code;
    char text[1000]; /* a sentence for people */
} cop_failure;
typedef struct cop_call {
    uint32_t method; /* coppice.api.Method of api.proto */
    uint32_t major;  /* version of the protocol that the client uses */
    uint32_t minor;
    char token[128]; /* the secret that gives access without TLS */
} cop_call;
typedef struct cop_answer {
    uint32_t method; /* as in the CALL */
} cop_answer;

/* One message. It owns the references in `part` and `receipt`; free them with cop_message_fini. */
typedef struct cop_message {
    cop_message_type type; /* selects the member of the union */
    union {
        cop_hello hello;
        cop_welcome welcome;
        cop_heartbeat heartbeat;
        cop_heartbeat_reply heartbeat_reply;
        cop_pull pull;
        cop_lease lease;
        cop_nothing nothing;
        cop_failure failure;
        cop_call call;
        cop_answer answer;
    };
    cop_buffer *part[COP_MESSAGE_PARTS]; /* a reference to each part, or NULL */
    /* Not part of the frame. NULL, or in a reply a buffer that shows when the reply no longer takes
     * memory: its last reference is released, on any thread, after the reply was sent or dropped.
     * The buffer's on_free can react to that. */
    cop_buffer *receipt;
} cop_message;

/* Releases the parts and the receipt, and zeroes the message. */
void cop_message_fini(cop_message *message);
/* The name of a message type, such as "HELLO"; "?" for an unknown type. Static. */
const char *cop_message_type_name(cop_message_type type);

#endif
