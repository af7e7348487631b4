/* Messages between coordinator, workers and clients, as plain structs. codec.h encodes and decodes
 * them. The in-memory transport passes the structs themselves, with references to the same buffers,
 * and copies no tensor. docs/reference/protocol.md defines the fields. */
#ifndef COP_WIRE_MESSAGE_H
#define COP_WIRE_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/err.h"
#include "common/base/limits.h"

#ifndef COP_PROTOCOL_MAJOR /* tests build a worker of another version */
#    define COP_PROTOCOL_MAJOR 1
#endif
#ifndef COP_PROTOCOL_MINOR /* likewise */
#    define COP_PROTOCOL_MINOR 1
#endif

/* Numbers are part of the protocol and never reused. */
typedef enum cop_message_type {
    COP_MESSAGE_HELLO = 1, /* -> WELCOME or FAILURE */
    COP_MESSAGE_WELCOME = 2,
    COP_MESSAGE_HEARTBEAT = 3, /* -> HEARTBEAT_REPLY */
    COP_MESSAGE_HEARTBEAT_REPLY = 4,
    COP_MESSAGE_PULL = 5, /* -> LEASE or NOTHING (held for up to COP_HOLD_MAX_MS) */
    COP_MESSAGE_LEASE = 6,
    COP_MESSAGE_NOTHING = 7,
    COP_MESSAGE_FAILURE = 8,
    COP_MESSAGE_CALL = 9, /* a client's request -> ANSWER or FAILURE */
    COP_MESSAGE_ANSWER = 10
} cop_message_type;

/* What the parts of a message hold, by its type. A part that is not sent is NULL; all other types
 * have no parts. The numbers are part of the protocol. */
enum {
    COP_PART_WEIGHTS = 0, /* LEASE: f32, flat; NULL if the worker has this version */
    COP_PART_SAMPLES = 1, /* LEASE: one row per sample, in the type of the data set */
    COP_PART_LABELS = 2,  /* LEASE: i32, one per sample */
    COP_PART_JOB = 3,     /* LEASE: a packed coppice.Job; NULL if the worker has it */
    COP_PART_RESULT = 0,  /* PULL, of TRAIN: f32, the sum of the block's gradients; of ENSEMBLE:
                             f32 [members][classes][samples], the outputs; of EVALUATE: NULL */
    COP_PART_BODY = 0,    /* CALL, ANSWER: a packed request or answer of api.proto */
    COP_PART_BULK = 1,    /* CALL, ANSWER: bytes that do not fit into the body; NULL if none */
    COP_MESSAGE_PARTS = 4
};

typedef struct cop_hello {
    uint32_t major, minor, threads;
    uint64_t features, worker, session;
    bool is_client, control;
    char build[64], token[128], name[COP_NAME_MAX], isa[16], arithmetic[32], fingerprint[128];
    unsigned char self_test[32];
} cop_hello;
typedef struct cop_welcome {
    uint32_t major, minor, heartbeat_ms;
    uint64_t features, worker, session;
    char build[64], name[COP_NAME_MAX];
} cop_welcome;
typedef struct cop_heartbeat {
    uint64_t worker, session, lease;
    bool draining;
} cop_heartbeat;
typedef struct cop_heartbeat_reply {
    bool drain, unknown;
    uint64_t cancel_lease;
} cop_heartbeat_reply;
typedef enum cop_lease_kind {
    COP_LEASE_TRAIN = 1,
    COP_LEASE_EVALUATE = 2,
    COP_LEASE_ENSEMBLE = 3 /* since 1.1 */
} cop_lease_kind;
/* What a worker computed for a lease. The tensor itself is COP_PART_RESULT of the PULL. */
typedef struct cop_result {
    bool present;
    cop_lease_kind kind;
    uint64_t lease, job, step;
    uint32_t attempt, first, count;
    double loss;
    uint64_t correct, samples, compute_ns;
    char failure[256];
} cop_result;
typedef struct cop_pull {
    uint64_t worker, session, have_job, have_version;
    bool goodbye;
    cop_result result;
} cop_pull;
typedef struct cop_lease {
    cop_lease_kind kind;
    uint64_t lease, job, step, version, deadline_ms;
    uint32_t attempt, first, count, batch;
    uint32_t member, members; /* ENSEMBLE: members [member, member + members) on these samples */
    bool whole;               /* ENSEMBLE: the one member is the whole network, in eval mode */
} cop_lease;
typedef struct cop_nothing {
    uint32_t retry_ms;
    bool drain, unknown;
} cop_nothing;
typedef struct cop_failure {
    cop_err code;
    char text[1000];
} cop_failure;
typedef struct cop_call {
    uint32_t method, major, minor;
    char token[128];
} cop_call;
typedef struct cop_answer {
    uint32_t method;
} cop_answer;

typedef struct cop_message {
    cop_message_type type;
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
    cop_buffer *part[COP_MESSAGE_PARTS]; /* each held by the message, or NULL */
    /* Held by a reply, or NULL; not part of the frame. Its last release, on any thread, tells its
     * owner that the reply no longer takes memory: it has left, or was dropped. */
    cop_buffer *receipt;
} cop_message;

/* Releases the parts and the receipt, and zeroes the message. */
void cop_message_fini(cop_message *message);
/* The name of a type, such as "HELLO"; "?" for an unknown one. Static. */
const char *cop_message_type_name(cop_message_type type);

#endif
