/* Downloads of public data sets. */
#ifndef COP_CLIENT_REMOTE_DOWNLOAD_H
#define COP_CLIENT_REMOTE_DOWNLOAD_H

#include "common/data/data.h"

/* Downloads a set into folder (created): mirrors in turn, SHA-256 checked against the table,
 * resumed by range requests, renamed into place when whole. UNSUPPORTED if built without libcurl.
 * COPPICE_MIRROR=URL is tried first (tests, private mirrors). */
cop_err cli_download(const char *source, const char *folder, cop_data_progress progress,
                     void *context, cop_error *error);

#endif
