/* Access rights: which role a request needs, which credentials give it, and the limits of one
 * identity. See access.c. Loop thread unless a comment says otherwise. */
#ifndef COP_COORDINATOR_ACCESS_H
#define COP_COORDINATOR_ACCESS_H

#include "common/net/net.h"
#include "coordinator/coordinator.h"

/* The session of a worker, from its HELLO to WORKER_GONE. */
typedef struct coord_session {
    uint64_t worker;        /* its number, ascending; modulo COP_WORKERS_MAX its index in the table;
                               0: no worker */
    uint64_t secret;        /* the worker proves with it that the control socket is its own */
    uint64_t connection[2]; /* work, control; 0: none */
    uint64_t held;          /* the unanswered PULL (cop_request *) that the core knows; 0: none */
    uint64_t digesting;     /* the unanswered PULL that waits for `hashing`; 0: none */
    bool hashing; /* a task hashes a gradient of this session, or of the one before it: the
                     place is not free */
    bool drain;
    uint32_t threads;
    char name[COP_NAME_MAX], isa[16], address[64], build[64];
    char certificate[COP_NAME_MAX]; /* its name; "": none */
} coord_session;

typedef struct coord_access {
    const coord_config *config;
    char token[65];          /* "": none is required */
    coord_session *sessions; /* COP_WORKERS_MAX */
} coord_access;

/* The session of this worker; NULL: it has none. */
coord_session *coord_session_find(const coord_access *access, uint64_t worker);
/* Answers the request with FAILURE. */
void coord_reply_failure(cop_request *request, cop_err code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A kind of request and the role that it needs. */
typedef struct coord_right {
    cop_message_type type;
    uint32_t method; /* of a CALL */
    const char *name;
    unsigned role;
} coord_right;
/* Lists all kinds: at = 0, 1 ... False: there are no more. */
bool coord_right_at(size_t at, coord_right *out);
/* Those of CALL, from the table of methods in api.c. */
bool coord_api_right_at(size_t at, coord_right *out);

/* These three return false if they refuse the request, which they have then answered. */
/* Does the certificate, if there is one, have the role that the request needs? */
bool coord_access_role(cop_request *request);
/* Without a certificate: is the token right? */
bool coord_access_token(const coord_access *access, cop_request *request, const char *token);
/* Does the certificate allow a worker of this name? */
bool coord_access_name(cop_request *request, const char *name);

/* The name of a new worker (made unique later), and the identity that its strikes count against:
 * the certificate; or the name, if there is no certificate or many workers share it. */
typedef struct coord_worker_identity {
    char name[COP_NAME_MAX], identity[COP_NAME_MAX + 16];
} coord_worker_identity;
void coord_access_identify(const cop_request *request, const cop_hello *hello,
                           coord_worker_identity *out);
/* The identity that limits count against: the name in the certificate, or "" for all who know the
 * token. Lives as long as the request. Any thread. */
const char *coord_access_identity(const cop_request *request);
/* How many of `all` places one identity may take: `share`, or all of them if there is only one
 * identity (no TLS). Any thread. */
uint32_t coord_access_share(const coord_access *access, uint32_t share, uint32_t all);
/* The session with this number and secret, if the request comes with the same certificate (or both
 * have none); NULL otherwise. */
coord_session *coord_access_session(const coord_access *access, const cop_request *request,
                                    uint64_t worker, uint64_t secret);

#endif
