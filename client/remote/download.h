/* Downloads of public data sets. */
#ifndef COP_CLIENT_REMOTE_DOWNLOAD_H
#define COP_CLIENT_REMOTE_DOWNLOAD_H

#include "common/data/data.h"

/* Downloads the data set `source` into `folder`, which it creates. It tries the mirrors in turn,
 * COPPICE_MIRROR=URL first (for tests and private mirrors), and resumes by range requests. A file
 * that passes the SHA-256 check is renamed into place; existing good files are kept. `progress` may
 * be NULL. NOT_FOUND: this data set cannot be downloaded. UNREACHABLE or CORRUPT: no mirror has a
 * file; the error lists the reason of each. UNSUPPORTED: built without libcurl. */
cop_err cli_download(const char *source, const char *folder, cop_data_progress progress,
                     void *context, cop_error *error);

#endif
