/* Included before each source by clang-tidy only (tests/tools/tidy.py). The analyzer sees one file
 * at a time, and this header tells it that functions that make an error never return COP_OK.
 * Otherwise it would assume that they might, and report uninitialised results behind such calls. */
#include "common/base/err.h"

#define never_ok(call)                                                                             \
    ({                                                                                             \
        cop_err never_ok_ = (call);                                                                \
        never_ok_ != COP_OK ? never_ok_ : COP_ERR_INPUT;                                           \
    })
#define cop_fail(...)         never_ok(cop_fail(__VA_ARGS__))
#define cop_vfail(...)        never_ok(cop_vfail(__VA_ARGS__))
#define cop_fail_errno(...)   never_ok(cop_fail_errno(__VA_ARGS__))
#define cop_error_prefix(...) never_ok(cop_error_prefix(__VA_ARGS__))
