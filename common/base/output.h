/* What all programs do at their end: report an error, and close standard output. */
#ifndef COP_BASE_OUTPUT_H
#define COP_BASE_OUTPUT_H

#include <stdbool.h>

#include "common/base/err.h"

/* True: standard output is a pipe whose reader has closed it, as in `coppice ... | head`. */
bool cop_stdout_is_unread(void);
/* Prints "PROGRAM: sentence" to standard error, and returns the exit status for the error's
 * code. */
int cop_print_error(const char *program, const cop_error *error);
/* Flushes and closes standard output; call it last in main. Returns the exit status of the program:
 * `status` or, if that is 0 and some output could not be written, 1 after an error message. If the
 * reader of a pipe is gone, SIGPIPE ends the program without a message, as with other filters. */
int cop_close_stdout(const char *program, int status);

#endif
