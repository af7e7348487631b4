/* Inside the project: job files with the `pinned` section, as run folders and model files keep
 * them. */
#ifndef COP_WIRE_DOCUMENT_INTERNAL_H
#define COP_WIRE_DOCUMENT_INTERNAL_H

#include "common/wire/document.h"

/* As cop_document_parse_job, but `pinned` is allowed. */
cop_err cop_document_parse_pinned(const char *text, size_t size, const char *name,
                                  Coppice__Job **out, cop_error *error);

#endif
