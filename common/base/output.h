/* Standard output of a program, at its end. */
#ifndef COP_BASE_OUTPUT_H
#define COP_BASE_OUTPUT_H

#include <stdbool.h>

/* Has whoever read standard output gone (`| head`)? */
bool cop_stdout_is_unread(void);
/* The last thing that a main does: flushes and closes standard output and returns the exit status:
 * `status`, or 1 with a sentence when not all could be written. When the reader has gone, ends the
 * program by SIGPIPE, as filters do, without a word. */
int cop_close_stdout(const char *program, int status);

#endif
