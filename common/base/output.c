/* What all programs do at their end. See output.h. */
#include "common/base/output.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool cop_stdout_is_unread(void) {
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&out, 1, 0) == 1 && (out.revents & POLLERR);
}

int cop_print_error(const char *program, const cop_error *error) {
    COP_ASSERT(error->code != COP_OK);
    fprintf(stderr, "%s: %s\n", program, error->text[0] ? error->text : cop_err_text(error->code));
    return cop_err_exit_status(error->code);
}

int cop_close_stdout(const char *program, int status) {
    const bool failed_before = ferror(stdout) != 0;
    errno = 0;
    const bool failed = fflush(stdout) != 0 || failed_before;
    if (failed && cop_stdout_is_unread()) {
        signal(SIGPIPE, SIG_DFL); /* until now the program ignored it, because it uses sockets */
        raise(SIGPIPE);
    }
    const int number = errno;
    if (fclose(stdout) == 0 && !failed) return status;
    if (status) return status; /* the program has already reported an error */
    fprintf(stderr, "%s: cannot write to standard output%s%s\n", program, number ? ": " : "",
            number ? strerror(number) : "");
    return 1;
}
