/* Who may do what. See access.c. */
#ifndef COP_COORDINATOR_ACCESS_H
#define COP_COORDINATOR_ACCESS_H

#include "common/net/net.h"
#include "coordinator/coordinator.h"

/* A worker's session: born by HELLO, ended by WORKER_GONE. */
typedef struct coord_session {
    /* id (ascending; modulo COP_WORKERS_MAX its place in the table), and the number that binds the
     * control socket; worker 0: free */
    uint64_t worker, secret;
    uint64_t connection[2]; /* work, control; 0: none */
    uint64_t held;      /* the PULL under way (cop_request *), for answering at the end; 0: none */
    uint64_t digesting; /* a PULL whose gradient is being hashed (cop_request *); 0: none */
    bool drain;
    uint32_t threads;
    char name[COP_NAME_MAX], isa[16], address[64], build[64];
    char certificate[COP_NAME_MAX]; /* its CN; "": none */
} coord_session;

/* Who is connected, and what they may do. */
typedef struct coord_access {
    const coord_config *config;
    char token[65];          /* "": none is required */
    coord_session *sessions; /* COP_WORKERS_MAX */
} coord_access;

/* The live session of a worker; NULL: it has none. */
coord_session *coord_session_find(const coord_access *access, uint64_t worker);
/* Answers the request with FAILURE. */
void coord_reply_failure(cop_request *request, cop_err code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* One kind of request and the role that it needs. */
typedef struct coord_right {
    cop_message_type type;
    uint32_t method; /* of a CALL */
    const char *name;
    unsigned role;
} coord_right;
/* All of them, one after the other; false at the end. */
bool coord_right_at(size_t at, coord_right *out);
bool coord_api_right_at(size_t at, coord_right *out); /* api.c: the methods of CALL */

/* Each of these answers the request with FAILURE and returns false when it is refused. */
bool coord_access_role(cop_request *request); /* by the certificate, if there is one */
bool coord_access_token(const coord_access *access, cop_request *request, const char *token);
/* May the worker be called so, by its certificate? */
bool coord_access_name(cop_request *request, const char *name);
/* What a new worker is called (unless another is), and what its misdeeds are held against: the
 * certificate, or of one that many have, and without any, the name. */
typedef struct coord_who {
    char name[COP_NAME_MAX], identity[COP_NAME_MAX + 16];
} coord_who;
void coord_access_identify(const cop_request *request, const cop_hello *hello, coord_who *out);
/* Who asks, as limits for each identity go: the certificate's name; "" for all who know the token.
 */
const char *coord_access_identity(const cop_request *request);
/* How many of `all` places one identity may take: `share`, or all where there is only one identity.
 */
uint32_t coord_access_share(const coord_access *access, uint32_t share, uint32_t all);
/* The session with this id and secret, if it belongs to the holder of the request's certificate (or
 * both have none); else NULL. */
coord_session *coord_access_session(const coord_access *access, const cop_request *request,
                                    uint64_t worker, uint64_t secret);

#endif
