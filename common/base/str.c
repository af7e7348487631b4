/* Growing strings, the valid name nearest to a wrong one, and numbers from and to text. See
 * str.h. */
#include "common/base/str.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/alloc.h"
#include "common/base/err.h"
#include "common/base/limits.h"

static bool reserve(cop_str *s, size_t more) {
    if (s->failed) return false;
    if (more >= SIZE_MAX / 2 - s->length) { /* doubling the capacity below could overflow */
        s->failed = true;
        return false;
    }
    if (s->length + more + 1 <= s->capacity) return true;
    size_t capacity = s->capacity ? s->capacity * 2 : 64;
    while (capacity < s->length + more + 1) capacity *= 2;
    char *text = cop_realloc(s->text, capacity);
    if (!text) {
        s->failed = true;
        return false;
    }
    s->text = text;
    s->capacity = capacity;
    COP_ASSERT(s->length + more < capacity); /* room for the NUL, too */
    return true;
}

void cop_str_append_bytes(cop_str *s, const void *bytes, size_t length) {
    const uintptr_t from = (uintptr_t)bytes, own = (uintptr_t)s->text;
    COP_ASSERT(bytes || !length);
    /* `bytes` must not be part of the string, because reserve may move the string. */
    COP_ASSERT(!s->text || from < own || from > own + s->length);
    if (!reserve(s, length)) return;
    if (length) memcpy(s->text + s->length, bytes, length);
    s->length += length;
    s->text[s->length] = '\0';
}

void cop_str_append(cop_str *s, const char *text) {
    cop_str_append_bytes(s, text, strlen(text));
}

void cop_str_vprintf(cop_str *s, const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    if (length >= 0 && reserve(s, (size_t)length)) {
        vsnprintf(s->text + s->length, (size_t)length + 1, format, again);
        s->length += (size_t)length;
    }
    va_end(again);
}

void cop_str_printf(cop_str *s, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    cop_str_vprintf(s, format, arguments);
    va_end(arguments);
}

void cop_text_append(char *out, size_t size, const char *format, ...) {
    const size_t length = strnlen(out, size);
    va_list arguments;
    if (length >= size) return; /* the text in `out` has no NUL, so there is no room left */
    va_start(arguments, format);
    vsnprintf(out + length, size - length, format, arguments);
    va_end(arguments);
}

void cop_str_clear(cop_str *s) {
    s->length = 0;
    if (s->text) s->text[0] = '\0';
}

void cop_str_fini(cop_str *s) {
    cop_free(s->text);
    *s = (cop_str){0};
}

const char *cop_str_text(const cop_str *s) {
    return s->text ? s->text : "";
}

char *cop_str_take(cop_str *s) {
    char *text = s->failed ? NULL : s->text ? s->text : cop_strdup("");
    if (s->failed) cop_free(s->text);
    *s = (cop_str){0};
    return text;
}

/* ---- UTF-8 and JSON ---- */

/* Returns the length of the UTF-8 sequence at p, or 0 if it is not valid or is NUL. `size` bytes
 * can be read at p. */
static size_t utf8_sequence(const unsigned char *p, size_t size) {
    if (p[0] < 0x80) return p[0] ? 1 : 0;
    size_t length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    uint32_t code = p[0] & (0xffu >> (length + 1));
    if (p[0] < 0xc2 || p[0] > 0xf4 || size < length) return 0;
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (p[i] & 0x3fu);
    }
    static const uint32_t minimum[] = {0, 0, 0x80, 0x800, 0x10000};
    if (code < minimum[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return 0;
    return length;
}

bool cop_ends_with(const char *text, const char *ending) {
    const size_t length = strlen(text), tail = strlen(ending);
    return length > tail && strcasecmp(text + length - tail, ending) == 0;
}

bool cop_utf8_valid(const char *bytes, size_t length) {
    const unsigned char *p = (const unsigned char *)bytes;
    for (size_t i = 0; i < length;) {
        size_t n = utf8_sequence(p + i, length - i);
        if (!n) return false;
        i += n;
    }
    return true;
}

/* Returns the length in bytes of the control character at p, or 0 if the character at p is not a
 * control character. */
static size_t control_length(const unsigned char *p, size_t size) {
    if (p[0] < 0x20 || p[0] == 0x7f) return 1;
    return p[0] == 0xc2 && size > 1 && p[1] >= 0x80 && p[1] < 0xa0 ? 2 : 0; /* U+0080 to U+009F */
}

bool cop_name_ok(const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (control_length((const unsigned char *)bytes + i, length - i)) return false;
    return length > 0 && cop_utf8_valid(bytes, length);
}

/* Like control_length, but also for characters that change the direction of text or break its line:
 * U+061C, U+200E, U+200F, U+2028 to U+202E, U+2066 to U+2069. Names may contain these characters,
 * but on a terminal they could make a text look like a different one. */
static size_t unsafe_length(const unsigned char *p, size_t size) {
    if (size > 1 && p[0] == 0xd8 && p[1] == 0x9c) return 2;
    if (size < 3 || p[0] != 0xe2) return control_length(p, size);
    const bool is_unsafe = (p[1] == 0x80 && (p[2] == 0x8e || p[2] == 0x8f)) ||
                           (p[1] == 0x80 && p[2] >= 0xa8 && p[2] <= 0xae) ||
                           (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9);
    return is_unsafe ? 3 : 0;
}

bool cop_take_line(const char **rest, char *out, size_t size) {
    const size_t length = strcspn(*rest, "\n");
    COP_ASSERT(size > 0);
    if (!**rest) return false;
    snprintf(out, size, "%.*s", (int)length, *rest);
    *rest += length + ((*rest)[length] == '\n');
    return true;
}

void cop_replace_controls(char *text) {
    for (size_t size = strlen(text); size; size--, text++)
        memset(text, '?', unsafe_length((const unsigned char *)text, size));
}

static void append_json_character(cop_str *s, unsigned char c) {
    switch (c) {
    case '"':
        cop_str_append(s, "\\\"");
        break;
    case '\\':
        cop_str_append(s, "\\\\");
        break;
    case '\n':
        cop_str_append(s, "\\n");
        break;
    case '\r':
        cop_str_append(s, "\\r");
        break;
    case '\t':
        cop_str_append(s, "\\t");
        break;
    default:
        if (c < 0x20 || c == 0x7f)
            cop_str_printf(s, "\\u%04x", c);
        else
            cop_str_append_bytes(s, &c, 1);
    }
}

/* Decodes a valid UTF-8 sequence of two or three bytes. */
static uint32_t decode_utf8(const unsigned char *p, size_t length) {
    const uint32_t low = p[length - 1] & 0x3fu;
    return length == 2 ? (p[0] & 0x1fu) << 6 | low
                       : (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | low;
}

void cop_str_append_json(cop_str *s, const char *text) {
    const unsigned char *p = (const unsigned char *)text;
    size_t size = strlen(text);
    cop_str_append(s, "\"");
    while (size) {
        size_t n = utf8_sequence(p, size);
        if (n == 1)
            append_json_character(s, *p);
        else if (n && unsafe_length(p, size))
            cop_str_printf(s, "\\u%04x", decode_utf8(p, n));
        else if (n)
            cop_str_append_bytes(s, p, n);
        else
            cop_str_append(s, "\xef\xbf\xbd");
        p += n ? n : 1;
        size -= n ? n : 1;
    }
    cop_str_append(s, "\"");
}

void cop_str_append_json_real(cop_str *s, double value) {
    if (isfinite(value))
        cop_str_printf(s, "%.17g", value);
    else
        cop_str_append(s, "null");
}

/* ---- nearest name ---- */

#define NEAREST_MAX 64

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static size_t min3(size_t a, size_t b, size_t c) {
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

/* Returns how many characters must be inserted, deleted, replaced, or swapped with their neighbour
 * to make a into b, ignoring case (optimal string alignment distance). SIZE_MAX: a or b is longer
 * than NEAREST_MAX. */
static size_t distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n > NEAREST_MAX || m > NEAREST_MAX) return SIZE_MAX;
    size_t rows[3][NEAREST_MAX + 1];
    for (size_t j = 0; j <= m; j++) rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = rows[i % 3], *last = rows[(i - 1) % 3], *before = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            char ca = lower(a[i - 1]), cb = lower(b[j - 1]);
            now[j] = min3(last[j] + 1, now[j - 1] + 1, last[j - 1] + (ca != cb));
            bool swapped = i > 1 && j > 1 && ca == lower(b[j - 2]) && lower(a[i - 2]) == cb;
            if (swapped && before[j - 2] + 1 < now[j]) now[j] = before[j - 2] + 1;
        }
    }
    return rows[n % 3][m];
}

const char *cop_nearest_name(const char *word, const char *const *names, size_t count) {
    COP_ASSERT(names || !count);
    const char *nearest = NULL;
    size_t best = 2 + strlen(word) / 3;
    for (size_t i = 0; i < count; i++) {
        size_t d = distance(word, names[i]);
        if (d < best) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}

/* ---- text from numbers ---- */

const char *cop_format_bytes(double bytes, char out[32]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    int unit = 0;
    while (bytes >= 999.5 && unit < 5) {
        bytes /= 1000;
        unit++;
    }
    snprintf(out, 32,
             unit == 0       ? "%.0f %s"
             : bytes < 99.95 ? "%.1f %s"
                             : "%.0f %s",
             bytes, units[unit]);
    return out;
}

const char *cop_format_count(double count, char out[32]) {
    static const char *const units[] = {"", " k", " M", " G", " T", " P"};
    int unit = 0;
    while (count >= 999.5 && unit < 5) {
        count /= 1000;
        unit++;
    }
    snprintf(out, 32, unit == 0 ? "%.0f%s" : "%.3g%s", count, units[unit]);
    return out;
}

const char *cop_format_job(uint64_t job, char out[32]) {
    const bool evaluation = job > COP_EVALUATION_NUMBERS;
    snprintf(out, 32, "%s%llu", evaluation ? "eval-" : "",
             (unsigned long long)(evaluation ? job - COP_EVALUATION_NUMBERS : job));
    return out;
}

const char *cop_format_seconds(double seconds, char out[32]) {
    if (!(seconds >= 0 && seconds < 1e12)) /* true for NaN, too */
        snprintf(out, 32, "?");
    else if (seconds < 1)
        snprintf(out, 32, "%.0f ms", seconds * 1e3);
    else if (seconds < 60)
        snprintf(out, 32, "%.1f s", seconds);
    else if (seconds < 3600)
        snprintf(out, 32, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    else
        snprintf(out, 32, "%.0f h %02d min", floor(seconds / 3600),
                 (int)(fmod(seconds, 3600) / 60));
    return out;
}

/* ---- numbers from text ---- */

bool cop_parse_u64(const char *text, uint64_t *out) {
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    if (text[hex ? 2 : 0] < '0' || (!hex && text[0] > '9')) return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, hex ? 16 : 10);
    if (errno || *end || end == text) return false;
    *out = value;
    return true;
}

bool cop_parse_i64(const char *text, int64_t *out) {
    const char *digits = text[0] == '-' || text[0] == '+' ? text + 1 : text;
    if (digits[0] < '0' || digits[0] > '9') return false;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || *end) return false;
    *out = value;
    return true;
}

bool cop_parse_f64(const char *text, double *out) {
    /* strtod would also accept hexadecimal numbers, "inf" and white space in front, so this allows
     * only the characters of decimal numbers. Programs never call setlocale, so strtod uses the C
     * locale. */
    if (!*text || text[strspn(text, "0123456789+-.eE")]) return false;
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !isfinite(value)) return false;
    *out = value;
    return true;
}

bool cop_parse_size(const char *text, uint64_t *out) {
    size_t digits = strspn(text, "0123456789");
    char number[24];
    uint64_t value;
    if (!digits || digits >= sizeof number) return false;
    memcpy(number, text, digits);
    number[digits] = '\0';
    if (!cop_parse_u64(number, &value)) return false;
    const char *unit = text + digits;
    int shift = 0;
    if (*unit) {
        static const char units[] = "kmgt";
        const char *at = strchr(units, lower(*unit));
        if (!at) return false;
        shift = 10 * (int)(at - units + 1);
        unit++;
        if (*unit && strcmp(unit, "B") != 0 && strcmp(unit, "iB") != 0) return false;
    }
    if (shift && value > (UINT64_MAX >> shift)) return false;
    *out = value << shift;
    return true;
}
