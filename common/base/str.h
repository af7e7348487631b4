/* Growing strings, the nearest valid name for error messages, and numbers from and to text. */
#ifndef COP_BASE_STR_H
#define COP_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing string, always NUL-terminated. {0} is an empty one. If memory runs out, `failed` is
 * set: the text stays as it was, and further appends have no effect. */
typedef struct cop_str {
    char *text; /* NULL while empty: use cop_str_text */
    size_t length, capacity;
    bool failed;
} cop_str;

/* Append a text, bytes (which may include NUL), or formatted text. The argument must not be part of
 * the string itself, because the string may move. */
void cop_str_append(cop_str *s, const char *text);
void cop_str_append_bytes(cop_str *s, const void *bytes, size_t length);
void cop_str_printf(cop_str *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cop_str_vprintf(cop_str *s, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));
/* Empties the string and keeps its memory. */
void cop_str_clear(cop_str *s);
/* Frees the memory; the string is empty and usable again. */
void cop_str_fini(cop_str *s);
/* Returns the text; "" if empty. Valid until the next change. */
const char *cop_str_text(const cop_str *s);
/* Moves the text out of the string, which becomes empty. The caller frees it with cop_free. NULL:
 * out of memory, now or earlier (`failed`). */
char *cop_str_take(cop_str *s);
/* Appends `text` as a JSON string with quotes and escapes. Invalid UTF-8 becomes U+FFFD. Control
 * characters are escaped, and so are those that change the direction of text (U+202E ...). */
void cop_str_append_json(cop_str *s, const char *text);

/* Appends to the text in out[size], and truncates it if it does not fit. Use this instead of adding
 * up results of snprintf, which returns the untruncated length. */
void cop_text_add(char *out, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Copies the next line of *rest to out[size], without its newline and truncated if it does not fit.
 * Moves *rest past the line. False: no line is left. */
bool cop_take_line(const char **rest, char *out, size_t size);
/* Appends a number as JSON with 17 significant digits; null if it is not finite. */
void cop_str_append_json_real(cop_str *s, double value);

/* Returns the name nearest to `word` (Damerau-Levenshtein distance, ignoring case). NULL: none is
 * near, because every distance is greater than 1 + length/3. */
const char *cop_nearest_name(const char *word, const char *const *names, size_t count);
/* True: `text` is longer than `ending` and ends with it, ignoring case: cop_ends_in("a.PNG",
 * ".png"). */
bool cop_ends_in(const char *text, const char *ending);
/* True: valid UTF-8 without NUL. */
bool cop_utf8_valid(const char *bytes, size_t length);
/* True: usable as a visible name, which is valid UTF-8 without control characters, not empty. */
bool cop_name_ok(const char *bytes, size_t length);
/* Makes a text safe for a terminal: replaces each byte of a control character, or of a character
 * that changes the direction of text, with '?'. */
void cop_replace_controls(char *text);
/* Format a number for people: "11.6 MB" (powers of 1000), "1.2 k", "3 min 04 s". A time that is
 * negative, NaN or huge is "?". Each writes to `out` and returns it. */
const char *cop_format_bytes(double bytes, char out[32]);
const char *cop_format_count(double count, char out[32]);
const char *cop_format_seconds(double seconds, char out[32]);
/* Formats the number of a job for people: "12", or "eval-3" for an evaluation. */
const char *cop_format_job(uint64_t job, char out[32]);
/* Parse a whole text, independent of the locale. False: it is not entirely a number, or the number
 * is out of range; *out is unchanged. */
bool cop_parse_u64(const char *text, uint64_t *out); /* decimal, or hexadecimal after 0x */
bool cop_parse_i64(const char *text, int64_t *out);  /* decimal, with or without a sign */
bool cop_parse_f64(const char *text, double *out);   /* decimal, finite */
/* Parses a size in bytes with an optional unit: 64, 64k, 16MiB, 2G (powers of 1024). False: it is
 * not a size, or too large; *out is unchanged. */
bool cop_parse_size(const char *text, uint64_t *out);

#endif
