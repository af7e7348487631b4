/* The API, as the server uses it. The server passes in the calls of clients. The API answers each
 * of them at once, after work on the thread pool, or when there is news for it. All functions are
 * for the loop thread, unless their comment says otherwise. */
#ifndef COP_COORDINATOR_SERVICE_H
#define COP_COORDINATOR_SERVICE_H

#include "coordinator/api/access.h"
#include "coordinator/engine/engine.h"

typedef struct coord_api coord_api;

/* Borrows `engine` and `access`, and becomes the engine's listener. The engine must have a store
 * and data sets. The caller owns *out (coord_api_destroy). NO_MEMORY. */
cop_err coord_api_create(coord_engine *engine, const coord_access *access, coord_api **out,
                         cop_error *error);
/* Frees the API. The caller must first call coord_api_release and destroy the transport, because
 * replies in the transport refer to places of the API. */
void coord_api_destroy(coord_api *api);
/* For the end of the server: runs the loop until all tasks have ended, then answers the held
 * requests with CLOSED. */
void coord_api_release(coord_api *api);
/* Handles a CALL that arrived. The API owns the request. */
void coord_api_on_call(coord_api *api, cop_request *request);
/* Handles the end of a connection: drops its held requests. */
void coord_api_on_gone(coord_api *api, uint64_t connection);
/* Notes that this job or evaluation has changed; one of the next ticks answers its watchers. Job 0
 * stands for workers or data, which nobody watches. */
void coord_api_changed(coord_api *api, uint64_t job);
/* To be called regularly. Answers watchers if there is news for them or their time is over, cancels
 * evaluations whose clients are gone, and frees data sets in memory that nobody uses. */
void coord_api_tick(coord_api *api, uint64_t now_ns);
/* Returns the name of a state, such as "RUNNING", or "?" if it is not a state. The string is
 * static. Any thread. */
const char *coord_state_name(coord_job_state state);
/* For the start of the server: reads the jobs of the store and gives the unfinished ones to the
 * core. CORRUPT, IO, NO_MEMORY. */
cop_err coord_api_recover(coord_api *api, cop_error *error);

#endif
