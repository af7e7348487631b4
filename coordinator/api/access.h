/* Access rights: which role each request needs, which credentials give this role, and how much one
 * identity may use. See access.c. All functions are for the loop thread, unless their comment says
 * otherwise. */
#ifndef COP_COORDINATOR_ACCESS_H
#define COP_COORDINATOR_ACCESS_H

#include "common/net/net.h"
#include "coordinator/coordinator.h"

/* The session of a worker, from its HELLO to WORKER_GONE. */
typedef struct coord_session {
    uint64_t worker;        /* the worker's number; later workers get larger ones. The number modulo
                               COP_WORKERS_MAX is the index of the session. 0: there is no worker */
    uint64_t secret;        /* random; the requests of the worker must contain it */
    uint64_t connection[2]; /* number of the work connection and of the control connection; 0:
                               not connected */
    uint64_t held;          /* the unanswered PULL (cop_request *) that the core knows; 0: none */
    uint64_t digesting;     /* the unanswered PULL (cop_request *) that is given to the core when
                               `hashing` ends; 0: none */
    bool hashing; /* a task hashes a tensor of this worker. If worker is 0, the worker has left, and
                     its place is not free until the task ends */
    bool drain;   /* the worker must leave, and gets no more work */
    bool shares;  /* the worker has proven that it shares this host and user */
    bool proof_refused;       /* the worker's proof that it shares this host was wrong */
    cop_buffer *lent_weights; /* the weights in shared memory that it reads; NULL: none */
    cop_buffer_pool *rooms;   /* segments for its gradients; NULL: it has had none */
    size_t room_size;         /* bytes of each of them */
    cop_buffer *room;         /* into which it writes the next gradient; NULL: none */
    uint64_t taken_room;      /* the segment of its last gradient that was taken; 0: none */
    uint32_t threads;
    char path[8];            /* how weights and gradients travel: "shm", "ipc", "tcp", "tls" or
                                "memory" */
    char name[COP_NAME_MAX]; /* unique among the sessions */
    char isa[16];            /* instruction set of its kernels */
    char address[64];
    char build[64];                 /* version of its program */
    char certificate[COP_NAME_MAX]; /* the name in its certificate; "": it has none */
} coord_session;

typedef struct coord_access {
    const coord_config *config; /* borrowed */
    char token[65];             /* "": no token is required */
    coord_session *sessions;    /* array of COP_WORKERS_MAX */
} coord_access;

/* Returns the session of this worker. NULL: it has none. */
coord_session *coord_session_find(const coord_access *access, uint64_t worker);
/* Answers the request with FAILURE, which has this code and text. */
void coord_reply_failure(cop_request *request, cop_err code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A kind of request and the role that it needs. */
typedef struct coord_right {
    cop_message_type type;
    uint32_t method; /* method of a CALL; 0 for other requests */
    const char *name;
    unsigned role; /* COP_ROLE_... */
} coord_right;
/* Copies row `at` of the list of all requests, from 0. False: there is no such row. */
bool coord_right_at(size_t at, coord_right *out);
/* Copies row `at` of the list of the methods of CALL (the table in api.c). False: there is no such
 * row. */
bool coord_api_right_at(size_t at, coord_right *out);

/* The next three functions check a request. If they refuse it, they answer it with FAILURE and
 * return false. */
/* True if the connection has no certificate, or if its certificate has the role that the request
 * needs. Also true for an unknown request, which is refused later. */
bool coord_access_role(cop_request *request);
/* True if the connection has a certificate, or if the token is right, or if none is required. */
bool coord_access_token(const coord_access *access, cop_request *request, const char *token);
/* True if the name is valid and the certificate, if there is one, allows a worker of this name. */
bool coord_access_name(cop_request *request, const char *name);

/* The name and the identity of a new worker. */
typedef struct coord_worker_identity {
    char name[COP_NAME_MAX]; /* the name that the worker asked for; sessions.c makes it unique */
    /* The identity that gets its strikes: the name in its certificate if this is for a single
     * worker, otherwise the worker's own name. If it has a certificate, the text "certificate "
     * comes first. */
    char identity[COP_NAME_MAX + 16];
} coord_worker_identity;
void coord_access_identify(const cop_request *request, const cop_hello *hello,
                           coord_worker_identity *out);
/* Returns the identity to which limits apply: the name in the certificate, or "" for all peers
 * without a certificate. It is valid as long as the request. Any thread. */
const char *coord_access_identity(const cop_request *request);
/* Returns how many of `all` places one identity may take: `share`, but not more than `all`. Without
 * TLS there is only one identity, and it may take all of them. Any thread. */
uint32_t coord_access_share(const coord_access *access, uint32_t share, uint32_t all);
/* Returns the session with this number and secret. NULL: there is none, or the certificate of the
 * request's sender is not that of the session's HELLO (having no certificate is a difference, too).
 */
coord_session *coord_access_session(const coord_access *access, const cop_request *request,
                                    uint64_t worker, uint64_t secret);

#endif
