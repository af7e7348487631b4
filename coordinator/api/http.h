/* The HTTP routes: /livez, /readyz, /metrics and /api/v1/... See http.c. */
#ifndef COP_COORDINATOR_HTTP_H
#define COP_COORDINATOR_HTTP_H

#include "common/net/net.h"

typedef struct coord_http coord_http;

/* Serves the routes at an address (common/net/http.h). Each request that needs credentials becomes
 * a call of a client to `transport`, which must outlive the HTTP server. The caller owns *out.
 * Errors are those of cop_http_start. */
cop_err coord_http_start(const char *address, cop_server *transport, coord_http **out,
                         cop_error *error);
/* To be called regularly by the loop. `ready` false: the coordinator is stopping. */
void coord_http_tick(coord_http *http, bool ready);
/* Stops serving and frees the server. Call it between cop_server_close and cop_server_destroy of
 * the transport, when all requests are answered or dropped. NULL has no effect. */
void coord_http_stop(coord_http *http);

#endif
