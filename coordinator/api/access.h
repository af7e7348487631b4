/* Who may do what. See access.c. */
#ifndef COP_COORDINATOR_ACCESS_H
#define COP_COORDINATOR_ACCESS_H

#include "coordinator/server/host.h"

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
bool coord_access_token(const coord_server *server, cop_request *request, const char *token);
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
uint32_t coord_access_share(const coord_server *server, uint32_t share, uint32_t all);
/* The session with this id and secret, if it belongs to the holder of the request's certificate (or
 * both have none); else NULL. */
coord_session *coord_access_session(coord_server *server, const cop_request *request,
                                    uint64_t worker, uint64_t secret);

#endif
