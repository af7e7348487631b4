/* Writes safetensors files. See safetensors.h. */
#include "common/interchange/safetensors_tensor.h"

#include <string.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/str.h"

/* Asserts what callers must get right, for example that each tensor's size matches its dtype and
 * shape. */
static void check_content(const cop_safetensors_content *content) {
    COP_ASSERT(content->tensors || content->count == 0);
    COP_ASSERT(content->metadata || content->metadata_count == 0);
    for (size_t i = 0; i < content->count; i++) {
        const cop_tensor_entry *t = &content->tensors[i];
        uint64_t bytes;
        COP_ASSERT(t->rank >= 0 && t->rank <= COP_TENSOR_RANK_MAX &&
                   safetensors_dtype_size(t->dtype) > 0);
        COP_ASSERT(safetensors_tensor_bytes(t, &bytes) && bytes == t->size &&
                   (t->data || t->size == 0));
    }
}

static void append_metadata(const cop_safetensors_content *content, cop_str *out) {
    cop_str_append(out, "\"__metadata__\":{");
    for (size_t i = 0; i < content->metadata_count; i++) {
        if (i) cop_str_append(out, ",");
        cop_str_append_json(out, content->metadata[i].key);
        cop_str_append(out, ":");
        cop_str_append_json(out, content->metadata[i].value);
    }
    cop_str_append(out, content->count ? "}," : "}");
}

static void append_header(const cop_safetensors_content *content, cop_str *out) {
    uint64_t at = 0;
    check_content(content);
    cop_str_append(out, "{");
    if (content->metadata_count) append_metadata(content, out);
    for (size_t i = 0; i < content->count; i++) {
        const cop_tensor_entry *t = &content->tensors[i];
        if (i) cop_str_append(out, ",");
        cop_str_append_json(out, t->name);
        cop_str_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", t->dtype);
        for (int d = 0; d < t->rank; d++)
            cop_str_printf(out, "%s%lld", d ? "," : "", (long long)t->dims[d]);
        cop_str_printf(out, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                       (unsigned long long)(at + t->size));
        at += t->size;
    }
    cop_str_append(out, "}");
    while (!out->failed && (out->length + 8) % 64) cop_str_append(out, " ");
}

/* Lists the parts of the file: the length, the header, then the tensors. `parts` has
 * content->count + 2 entries. */
static void list_parts(const cop_safetensors_content *content, const cop_str *header,
                       unsigned char length[8], cop_file_part *parts) {
    COP_ASSERT(!header->failed && (header->length + 8) % 64 == 0);
    cop_store_u64(length, header->length);
    parts[0] = (cop_file_part){length, 8};
    parts[1] = (cop_file_part){header->text, header->length};
    for (size_t i = 0; i < content->count; i++)
        parts[i + 2] = (cop_file_part){content->tensors[i].data, content->tensors[i].size};
}

cop_err cop_safetensors_write(const char *path, const cop_safetensors_content *content,
                              cop_error *error) {
    cop_str header = {0};
    unsigned char length[8];
    const size_t count = content->count + 2;
    cop_file_part *parts = cop_alloc_array(count, sizeof *parts);
    append_header(content, &header);
    cop_err e = parts && !header.failed ? COP_OK : cop_no_memory(error);
    if (!e) {
        list_parts(content, &header, length, parts);
        e = cop_file_write(path, parts, count, 0644, error);
    }
    cop_str_fini(&header);
    cop_free(parts);
    return e;
}

cop_err cop_safetensors_encode(const cop_safetensors_content *content, char **out, size_t *size,
                               cop_error *error) {
    cop_str header = {0};
    unsigned char length[8];
    append_header(content, &header);
    size_t total = 8 + header.length;
    for (size_t i = 0; i < content->count; i++) total += content->tensors[i].size;
    char *bytes = header.failed ? NULL : cop_alloc_raw(total);
    if (!bytes) {
        cop_str_fini(&header);
        return cop_no_memory(error);
    }
    cop_store_u64(length, header.length);
    memcpy(bytes, length, 8);
    memcpy(bytes + 8, header.text, header.length);
    char *at = bytes + 8 + header.length;
    for (size_t i = 0; i < content->count; i++) {
        memcpy(at, content->tensors[i].data, content->tensors[i].size);
        at += content->tensors[i].size;
    }
    COP_ASSERT(at == bytes + total);
    cop_str_fini(&header);
    *out = bytes;
    *size = total;
    return COP_OK;
}
