/* Errors: one table defines codes, names and texts.
 *
 * A function that can fail returns a cop_err (0 = ok). If a person may read the error, it also
 * fills a cop_error: the code, and one sentence that names the fault, its place and the expected
 * value. Bad input and bad peers return errors. COP_ASSERT checks our own invariants, in release
 * builds too. */
#ifndef COP_BASE_ERR_H
#define COP_BASE_ERR_H

#include <stdarg.h>
#include <stddef.h>

/* X(name, number, short text, exit status of a program that ends with it) */
#define COP_ERR_TABLE(X)                                                                           \
    X(OK, 0, "ok", 0)                                                                              \
    X(USAGE, 1, "bad usage", 2)                                                                    \
    X(INPUT, 2, "bad input", 2)                                                                    \
    X(NOT_FOUND, 3, "not found", 2)                                                                \
    X(EXISTS, 4, "already exists", 2)                                                              \
    X(CORRUPT, 5, "damaged data", 2)                                                               \
    X(UNSUPPORTED, 6, "not supported here", 2)                                                     \
    X(IO, 7, "input/output failed", 1)                                                             \
    X(NO_SPACE, 8, "no space left", 1)                                                             \
    X(NO_MEMORY, 9, "out of memory", 1)                                                            \
    X(TIMEOUT, 10, "timed out", 1)                                                                 \
    X(UNREACHABLE, 11, "not reachable", 2)                                                         \
    X(CLOSED, 12, "connection closed", 1)                                                          \
    X(DENIED, 13, "permission denied", 2)                                                          \
    X(PROTOCOL, 14, "protocol violation", 1)                                                       \
    X(VERSION, 15, "incompatible version", 1)                                                      \
    X(LIMIT, 16, "limit exceeded", 2)                                                              \
    X(DIVERGED, 17, "training diverged", 1)                                                        \
    X(CANCELED, 18, "canceled", 1)                                                                 \
    X(BUSY, 19, "busy", 1)                                                                         \
    X(INTERNAL, 20, "internal error", 1)                                                           \
    X(IN_USE, 21, "in use by another", 2)

typedef enum cop_err {
#define X(name, number, text, status) COP_ERR_##name = number,
    COP_ERR_TABLE(X)
#undef X
} cop_err;
#define COP_OK COP_ERR_OK

/* The number of codes. They are 0 to COP_ERR_COUNT - 1; a code from a peer must be one of them. */
enum {
    COP_ERR_COUNT = 0
#define X(name, number, text, status) +1
    COP_ERR_TABLE(X)
#undef X
};

/* An error code with its sentence. Initialize it with {0}; there is nothing to free. */
typedef struct cop_error {
    cop_err code;
    char text[1000];
} cop_error;

/* The name of a code ("INPUT"), its short text ("bad input"), and the exit status of a program that
 * ends with it. An unknown code gives "UNKNOWN", "unknown error" and 1. Static. */
const char *cop_err_name(cop_err code);
const char *cop_err_text(cop_err code);
int cop_err_exit_status(cop_err code);

/* Fills `error` (may be NULL) with the code and a formatted sentence without a final dot or
 * newline. Returns the code, for `return cop_fail(error, COP_ERR_INPUT, "...")`. */
cop_err cop_fail(cop_error *error, cop_err code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
cop_err cop_vfail(cop_error *error, cop_err code, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

/* Fails with NO_MEMORY and its short text. Inline, so that static analysers see that it never
 * returns COP_OK. */
static inline cop_err cop_no_memory(cop_error *error) {
    cop_fail(error, COP_ERR_NO_MEMORY, "%s", cop_err_text(COP_ERR_NO_MEMORY));
    return COP_ERR_NO_MEMORY;
}

/* Like cop_fail for a failed system call: appends ": " and strerror(number), and maps ENOSPC and
 * EDQUOT to NO_SPACE, ENOENT and ENOTDIR to NOT_FOUND, EISDIR to EXISTS, EACCES, EPERM and EROFS
 * to DENIED, ENOMEM to NO_MEMORY, others to IO. */
cop_err cop_fail_errno(cop_error *error, int number, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Inserts "prefix: " (a file name, a field path) before the sentence of an error. Returns the code
 * of the error. If `error` is NULL it returns INTERNAL, so pass an error where the code matters. */
cop_err cop_error_prefix(cop_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Prints file, line and condition, and aborts the program. Use COP_ASSERT for our own mistakes
 * only, never for input. */
_Noreturn void cop_panic(const char *file, int line, const char *condition);
#define COP_ASSERT(condition) ((condition) ? (void)0 : cop_panic(__FILE__, __LINE__, #condition))

/* Returns from the function on an error; for code without cleanup. */
#define COP_TRY(expression)                                                                        \
    do {                                                                                           \
        cop_err cop_try_ = (expression);                                                           \
        if (cop_try_ != COP_OK) return cop_try_;                                                   \
    } while (0)

#endif
