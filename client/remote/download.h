/* Downloads of public data sets. */
#ifndef COP_CLIENT_REMOTE_DOWNLOAD_H
#define COP_CLIENT_REMOTE_DOWNLOAD_H

#include "common/data/data.h"

/* Downloads the files of the data set `source` into `folder`, which it creates if needed. For each
 * file it tries the mirrors in turn, beginning with the URL in COPPICE_MIRROR if that is set (for
 * tests and private mirrors). A partial download is resumed by a range request. A file is renamed
 * to its final name when it has passed the SHA-256 check. Files that exist and pass this check are
 * kept. `progress` may be NULL. Errors:
 * - INPUT: the data set is built in, so there is nothing to download
 * - NOT_FOUND: there is no download of this data set
 * - UNREACHABLE or CORRUPT: no mirror had a good copy of a file; the error has the reason for each
 * - UNSUPPORTED: this program was built without libcurl */
cop_err cli_download(const char *source, const char *folder, cop_data_progress progress,
                     void *context, cop_error *error);

#endif
