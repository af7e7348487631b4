/* What all programs do at their end: report an error, and close standard output. */
#ifndef COP_BASE_OUTPUT_H
#define COP_BASE_OUTPUT_H

#include <stdbool.h>

#include "common/base/err.h"

/* True: the reader of standard output is gone (`| head`). */
bool cop_stdout_is_unread(void);
/* Prints "PROGRAM: sentence" to standard error, and returns the exit status for the error. */
int cop_print_error(const char *program, const cop_error *error);
/* Flushes and closes standard output; call it last in main. Returns the exit status: `status`, or 1
 * after an error message if some output could not be written. If the reader is gone, SIGPIPE ends
 * the program without a message, as with other filters. */
int cop_close_stdout(const char *program, int status);

#endif
