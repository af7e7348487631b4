/* The API, as the server uses it: calls of clients go in, answers go out when there is something to
 * answer. Loop thread. */
#ifndef COP_COORDINATOR_SERVICE_H
#define COP_COORDINATOR_SERVICE_H

#include "coordinator/api/access.h"
#include "coordinator/engine/engine.h"

typedef struct coord_api coord_api;

/* Borrows engine and access, and becomes the engine's listener. */
cop_err coord_api_create(coord_engine *engine, const coord_access *access, coord_api **out,
                         cop_error *error);
void coord_api_destroy(coord_api *api);
/* At the end, on the loop: finishes tasks, answers held requests. */
void coord_api_release(coord_api *api);
void coord_api_on_call(coord_api *api, cop_request *request);
void coord_api_on_gone(coord_api *api, uint64_t connection);
/* Something about this job changed: watchers are answered (not more often than every 100 ms each).
 * job 0: workers or data changed. */
void coord_api_changed(coord_api *api, uint64_t job);
void coord_api_tick(coord_api *api, uint64_t now_ns);
/* Take up unfinished jobs of the store at start. */
cop_err coord_api_recover(coord_api *api, cop_error *error);

#endif
