/* Errors: names, texts and sentences. See err.h. */
#include "common/base/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *cop_err_name(cop_err code) {
    switch (code) {
#define X(name, number, text, status)                                                              \
    case COP_ERR_##name:                                                                           \
        return #name;
        COP_ERR_TABLE(X)
#undef X
    }
    return "UNKNOWN";
}

const char *cop_err_text(cop_err code) {
    switch (code) {
#define X(name, number, text, status)                                                              \
    case COP_ERR_##name:                                                                           \
        return text;
        COP_ERR_TABLE(X)
#undef X
    }
    return "unknown error";
}

int cop_err_exit_status(cop_err code) {
    switch (code) {
#define X(name, number, text, status)                                                              \
    case COP_ERR_##name:                                                                           \
        return status;
        COP_ERR_TABLE(X)
#undef X
    }
    return 1;
}

cop_err cop_vfail(cop_error *error, cop_err code, const char *format, va_list arguments) {
    COP_ASSERT(code != COP_OK);
    if (error) {
        error->code = code;
        vsnprintf(error->text, sizeof error->text, format, arguments);
    }
    return code;
}

cop_err cop_fail(cop_error *error, cop_err code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    cop_vfail(error, code, format, arguments);
    va_end(arguments);
    return code;
}

static cop_err code_of_errno(int number) {
    switch (number) {
    case ENOSPC:
    case EDQUOT:
        return COP_ERR_NO_SPACE;
    case ENOENT:
    case ENOTDIR:
        return COP_ERR_NOT_FOUND;
    case EISDIR:
        return COP_ERR_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return COP_ERR_DENIED;
    case ENOMEM:
        return COP_ERR_NO_MEMORY;
    default:
        return COP_ERR_IO;
    }
}

cop_err cop_fail_errno(cop_error *error, int number, const char *format, ...) {
    cop_err code = code_of_errno(number);
    va_list arguments;
    va_start(arguments, format);
    cop_vfail(error, code, format, arguments);
    va_end(arguments);
    if (error) {
        size_t length = strlen(error->text);
        char reason[128];
        snprintf(error->text + length, sizeof error->text - length, ": %s",
                 strerror_r(number, reason, sizeof reason));
    }
    return code;
}

cop_err cop_error_prefix(cop_error *error, const char *format, ...) {
    if (!error) return COP_ERR_INTERNAL;
    char prefix[400], rest[sizeof error->text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(prefix, sizeof prefix, format, arguments);
    va_end(arguments);
    memcpy(rest, error->text, sizeof rest);
    size_t length = (size_t)snprintf(error->text, sizeof error->text, "%s: ", prefix);
    snprintf(error->text + length, sizeof error->text - length, "%s", rest);
    return error->code;
}

_Noreturn void cop_panic(const char *file, int line, const char *condition) {
    fprintf(stderr, "coppice: broken invariant at %s:%d: %s\n", file, line, condition);
    abort();
}
