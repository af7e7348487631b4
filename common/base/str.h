/* Growing strings, and the nearest valid name for error messages. */
#ifndef COP_BASE_STR_H
#define COP_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing, always NUL-terminated string. {0} is an empty one. On out of memory `failed` is set,
 * further appends do nothing, and `text` stays valid (what fitted). */
typedef struct cop_str {
    char *text; /* NULL while empty: use cop_str_text */
    size_t length, capacity;
    bool failed;
} cop_str;

void cop_str_append(cop_str *s, const char *text);
void cop_str_append_bytes(cop_str *s, const void *bytes, size_t length);
void cop_str_printf(cop_str *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cop_str_vprintf(cop_str *s, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));
void cop_str_clear(cop_str *s); /* keeps memory */
void cop_str_fini(cop_str *s);
const char *cop_str_text(const cop_str *s); /* "" when empty */
/* Take the text away (caller frees with cop_free); s becomes empty. NULL when `failed`. */
char *cop_str_take(cop_str *s);
/* Append `text` as a JSON string with quotes and escapes; invalid UTF-8 becomes U+FFFD. Control
 * characters are escaped, with those that turn the direction of text (U+202E ...). */
void cop_str_append_json(cop_str *s, const char *text);

/* Appends to the text in out[size], which stays whole: what does not fit is left out. Never add up
 * what snprintf returns: it is the length that was wanted. */
void cop_text_add(char *out, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The next line of *rest, which then is what follows it, without its end, cut to `size` bytes.
 * False: there is none. */
bool cop_take_line(const char **rest, char *out, size_t size);
/* Append a number as JSON has it: null where it is not finite. */
void cop_str_append_json_real(cop_str *s, double value);

/* Of `count` names the one nearest to `word` (Damerau-Levenshtein, case ignored), or NULL if none
 * is near (distance > 1 + length/3). */
const char *cop_nearest_name(const char *word, const char *const *names, size_t count);
bool cop_utf8_valid(const char *bytes, size_t length); /* false also for embedded NUL */
/* Fit to be shown as a name: valid UTF-8 without control characters, not empty. */
bool cop_name_ok(const char *bytes, size_t length);
/* A text that may quote others, for a terminal: control characters, and those that turn the
 * direction of text, become '?', one for each byte. */
void cop_replace_controls(char *text);
/* Human forms into a caller's buffer, returned: 11.6 MB, 1.2 k, 3 min 04 s. */
const char *cop_format_bytes(double bytes, char out[32]);
const char *cop_format_count(double count, char out[32]);
const char *cop_format_seconds(double seconds, char out[32]);
/* A job's number for people: "12", or "eval-3" of an evaluation. */
const char *cop_format_job(uint64_t job, char out[32]);
/* Locale-free: parse the whole of `text`; false unless all of it is a number in range. */
bool cop_parse_u64(const char *text, uint64_t *out); /* decimal or 0x */
bool cop_parse_i64(const char *text, int64_t *out);
bool cop_parse_f64(const char *text, double *out); /* finite only, C locale */
/* Size with unit: 64, 64k, 16MiB, 2G (powers of 1024). */
bool cop_parse_size(const char *text, uint64_t *out);

#endif
