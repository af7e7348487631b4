/* The API, as the server uses it: calls of clients go in, and each is answered at once, after work
 * on the thread pool, or when there is news. Loop thread. */
#ifndef COP_COORDINATOR_SERVICE_H
#define COP_COORDINATOR_SERVICE_H

#include "coordinator/api/access.h"
#include "coordinator/engine/engine.h"

typedef struct coord_api coord_api;

/* Borrows engine and access, and becomes the engine's listener. The engine has a store and data
 * sets. The caller owns *out. NO_MEMORY. */
cop_err coord_api_create(coord_engine *engine, const coord_access *access, coord_api **out,
                         cop_error *error);
/* Frees. Before it: coord_api_release, and the end of the transport, whose replies refer to the
 * API.
 */
void coord_api_destroy(coord_api *api);
/* When the server stops: runs the loop until all tasks have ended, and answers held requests with
 * CLOSED. */
void coord_api_release(coord_api *api);
/* A CALL arrived; owns the request. */
void coord_api_on_call(coord_api *api, cop_request *request);
/* A connection is gone: drops its held requests. */
void coord_api_on_gone(coord_api *api, uint64_t connection);
/* Something about this job changed, so its watchers are answered. job 0: workers or data, which
 * nobody watches. */
void coord_api_changed(coord_api *api, uint64_t job);
/* Regularly: answers watchers, ends evaluations without clients, frees unused data sets. */
void coord_api_tick(coord_api *api, uint64_t now_ns);
/* "RUNNING"; "?" for no state. Static. Any thread. */
const char *coord_state_name(coord_job_state state);
/* At the start: takes up the unfinished jobs of the store. CORRUPT, IO, NO_MEMORY. */
cop_err coord_api_recover(coord_api *api, cop_error *error);

#endif
