/* Imports weights that another program trained: finds tensors by name in a safetensors file and
 * converts them to f32. See import.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/interchange/import.h"
#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/log.h"
#include "common/base/str.h"

/* Converts an IEEE 754 binary16 (1 sign bit, 5 exponent bits, 10 fraction bits) to f32. The result
 * is exact. */
static float from_f16(uint16_t h) {
    const uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = h >> 10 & 31, fraction = h & 1023;
    uint32_t bits = sign;
    float value;
    if (exponent == 31)
        bits |= 0x7f800000u | fraction << 13;
    else if (exponent)
        bits |= (exponent + 112) << 23 | fraction << 13;
    memcpy(&value, &bits, sizeof value);
    if (exponent || !fraction) return value;
    return (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f; /* subnormal */
}

static float from_bf16(uint16_t h) {
    const uint32_t bits = (uint32_t)h << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void shape_text(const int64_t *dims, int rank, char *out, size_t size) {
    snprintf(out, size, "(");
    for (int d = 0; d < rank; d++)
        cop_text_append(out, size, "%s%lld", d ? ", " : "", (long long)dims[d]);
    cop_text_append(out, size, ")");
}

static cop_err check_tensor(const cop_parameter *p, const cop_tensor_entry *t, const char *path,
                            cop_error *error) {
    char found[160], wanted[80];
    int64_t dims[4];
    COP_ASSERT(p->rank >= 0 && p->rank <= 4 && t->rank <= COP_TENSOR_RANK_MAX);
    bool same = t->rank == p->rank;
    for (int d = 0; d < p->rank; d++) {
        dims[d] = p->dims[d];
        same = same && t->dims[d] == dims[d];
    }
    if (!same) {
        shape_text(t->dims, t->rank, found, sizeof found);
        shape_text(dims, p->rank, wanted, sizeof wanted);
        return cop_fail(error, COP_ERR_INPUT,
                        "%s: tensor %s has the shape %s, but the job expects %s", path, p->name,
                        found, wanted);
    }
    if (strcmp(t->dtype, "F32") != 0 && strcmp(t->dtype, "F16") != 0 &&
        strcmp(t->dtype, "BF16") != 0)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s: tensor %s has the dtype %s: expected F32, F16 or BF16", path, p->name,
                        t->dtype);
    return COP_OK;
}

static cop_err convert(const cop_parameter *p, const cop_tensor_entry *t, const char *path,
                       float *out, cop_error *error) {
    const unsigned char *bytes = t->data;
    const bool wide = strcmp(t->dtype, "F32") == 0, brain = strcmp(t->dtype, "BF16") == 0;
    COP_ASSERT(t->size == (size_t)p->count * (wide ? sizeof(float) : sizeof(uint16_t)));
    for (int64_t i = 0; i < p->count; i++) {
        uint16_t half = 0;
        if (wide)
            memcpy(&out[i], bytes + 4 * i, 4);
        else
            memcpy(&half, bytes + 2 * i, 2);
        if (!wide) out[i] = brain ? from_bf16(half) : from_f16(half);
        if (!isfinite(out[i]))
            return cop_fail(error, COP_ERR_INPUT, "%s: value %lld of tensor %s is %s", path,
                            (long long)i, p->name, isnan(out[i]) ? "NaN" : "infinite");
    }
    return COP_OK;
}

/* Returns the length of a prefix that all names share and that ends in a dot, such as "module.".
 * Without the prefix, one of the names must be that of the model's first parameter. Returns 0 if
 * there is no such prefix. PyTorch's wrappers put one before all names: DataParallel puts
 * "module.", compile puts "_orig_mod.", and modules around the model often put "model." or "net.".
 */
static size_t common_prefix(const cop_model *model, const cop_safetensors *file) {
    const size_t count = cop_safetensors_count(file);
    if (!count || !cop_model_parameter_count(model)) return 0;
    const char *first = cop_safetensors_at(file, 0)->name, *wanted = NULL;
    wanted = cop_model_parameter(model, 0)->name;
    for (const char *dot = strchr(first, '.'); dot; dot = strchr(dot + 1, '.')) {
        const size_t length = (size_t)(dot + 1 - first);
        bool all = true, found = false;
        for (size_t i = 0; i < count && all; i++) {
            const char *name = cop_safetensors_at(file, i)->name;
            all = strncmp(name, first, length) == 0;
            found = found || (all && strcmp(name + length, wanted) == 0);
        }
        if (!all) return 0;
        if (found) return length;
    }
    return 0;
}

static const cop_tensor_entry *find_tensor(const cop_safetensors *file, const char *name,
                                           size_t prefix) {
    for (size_t i = 0; i < cop_safetensors_count(file); i++)
        if (strcmp(cop_safetensors_at(file, i)->name + prefix, name) == 0)
            return cop_safetensors_at(file, i);
    return NULL;
}

/* Fails because the file has no tensor of this name. The error lists up to 8 names that it has. */
static cop_err fail_missing(const char *name, const cop_safetensors *file, const char *path,
                            cop_error *error) {
    const size_t count = cop_safetensors_count(file);
    cop_str names = {0};
    for (size_t i = 0; i < count && i < 8; i++)
        cop_str_printf(&names, "%s%.60s", i ? ", " : "", cop_safetensors_at(file, i)->name);
    cop_fail(error, COP_ERR_INPUT,
             "%s has no tensor %s, which the job needs; it has: %s%s (the names of parameters "
             "start with the number of their layer in the job file)",
             path, name, count ? cop_str_text(&names) : "none", count > 8 ? ", ..." : "");
    cop_str_fini(&names);
    return COP_ERR_INPUT;
}

static cop_err find_extra(const cop_model *model, const cop_safetensors *file, size_t prefix,
                          const char *path, cop_error *error) {
    for (size_t i = 0; i < cop_safetensors_count(file); i++) {
        const char *name = cop_safetensors_at(file, i)->name;
        bool known = false;
        for (int k = 0; k < cop_model_parameter_count(model) && !known; k++)
            known = strcmp(cop_model_parameter(model, k)->name, name + prefix) == 0;
        if (!known)
            return cop_fail(error, COP_ERR_INPUT,
                            "%s: the job has no parameter for tensor %s (the names of parameters "
                            "start with the number of their layer in the job file)",
                            path, name);
    }
    return COP_OK;
}

cop_err cop_import_tensors(const cop_model *model, const cop_safetensors *file, const char *path,
                           float *flat, cop_error *error) {
    const size_t prefix = common_prefix(model, file);
    if (prefix)
        cop_log(COP_LOG_WARN, "import", "%s: all names begin with \"%.*s\": this prefix is ignored",
                path, (int)prefix, cop_safetensors_at(file, 0)->name);
    memset(flat, 0, (size_t)cop_model_floats(model) * sizeof *flat);
    for (int i = 0; i < cop_model_parameter_count(model); i++) {
        const cop_parameter *p = cop_model_parameter(model, i);
        const cop_tensor_entry *t = find_tensor(file, p->name, prefix);
        if (!t) return fail_missing(p->name, file, path, error);
        COP_ASSERT(p->offset >= 0 && p->offset + p->count <= cop_model_floats(model));
        COP_TRY(check_tensor(p, t, path, error));
        COP_TRY(convert(p, t, path, flat + p->offset, error));
    }
    return find_extra(model, file, prefix, path, error);
}

cop_err cop_import_weights(const cop_model *model, const char *path, float *flat,
                           cop_error *error) {
    cop_safetensors *file;
    COP_TRY(cop_safetensors_open(path, &file, error));
    cop_err e = cop_import_tensors(model, file, path, flat, error);
    cop_safetensors_close(file);
    return e;
}
