/* Growing strings, the valid name nearest to a wrong one, and numbers from and to text. */
#ifndef COP_BASE_STR_H
#define COP_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing string. {0} is an empty one. If memory runs out during an append, `failed` becomes
 * true: the text stays as it was, and further appends have no effect. */
typedef struct cop_str {
    char *text;      /* NUL-terminated; NULL before the first append, so use cop_str_text */
    size_t length;   /* bytes of text, without the NUL */
    size_t capacity; /* bytes that are allocated */
    bool failed;
} cop_str;

/* These functions append a text, bytes (which may include NUL), or formatted text. What they append
 * must not be part of the string itself, because the string may move. */
void cop_str_append(cop_str *s, const char *text);
void cop_str_append_bytes(cop_str *s, const void *bytes, size_t length);
void cop_str_printf(cop_str *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cop_str_vprintf(cop_str *s, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));
/* Empties the string, and keeps its memory and `failed`. */
void cop_str_clear(cop_str *s);
/* Frees the memory. The string is then {0} and may be used again. */
void cop_str_fini(cop_str *s);
/* Returns the text, which is "" if the string is empty. It is valid until the next change of the
 * string. */
const char *cop_str_text(const cop_str *s);
/* Moves the text out of the string, which is then {0}. The caller frees the text with cop_free.
 * NULL: memory has run out, now or during an earlier append. */
char *cop_str_take(cop_str *s);
/* Appends `text` as a JSON string with quotes. Each byte that is not valid UTF-8 becomes U+FFFD.
 * Control characters, and characters that change the direction of text (such as U+202E), become
 * escape sequences. */
void cop_str_append_json(cop_str *s, const char *text);

/* Appends formatted text to the text in out[size], and truncates the result if it does not fit. Use
 * this instead of adding up the results of snprintf: they are lengths before truncation. */
void cop_text_append(char *out, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Copies the next line of *rest to out[size], without its newline, and truncates it if it does not
 * fit. Moves *rest behind the line. False: *rest is empty, so no line is left. */
bool cop_take_line(const char **rest, char *out, size_t size);
/* Appends a number as JSON with up to 17 significant digits, or null if it is not finite. */
void cop_str_append_json_real(cop_str *s, double value);

/* Returns the name nearest to `word`, to suggest it in an error. The distance is the number of
 * characters to insert, delete, replace, or swap with their neighbour, ignoring case. NULL: all
 * distances are greater than 1 + strlen(word) / 3. Names of more than 64 bytes are never near. */
const char *cop_nearest_name(const char *word, const char *const *names, size_t count);
/* True: `text` is longer than `ending` and ends with it, ignoring case. For example,
 * cop_ends_with("a.PNG", ".png") is true. */
bool cop_ends_with(const char *text, const char *ending);
/* True: the bytes are valid UTF-8 without NUL. */
bool cop_utf8_valid(const char *bytes, size_t length);
/* True: the bytes may be used as a name that people see. They are valid UTF-8, have no control
 * characters, and are not empty. */
bool cop_name_ok(const char *bytes, size_t length);
/* Makes a text safe for a terminal: replaces each byte of a control character, of a line separator,
 * or of a character that changes the direction of text, with '?'. */
void cop_replace_controls(char *text);
/* These functions format a number for people, such as "11.6 MB" (10^6 bytes), "1.2 k" and "3 min
 * 04 s". A time that is negative, NaN, or at least 10^12 seconds becomes "?". Each function writes
 * to `out` and returns it. */
const char *cop_format_bytes(double bytes, char out[32]);
const char *cop_format_count(double count, char out[32]);
const char *cop_format_seconds(double seconds, char out[32]);
/* Formats the number of a job for people: "12" or, for an evaluation of a finished job, "eval-3".
 * Returns `out`. */
const char *cop_format_job(uint64_t job, char out[32]);
/* These functions parse a text that is a number and nothing else. They do not depend on the locale.
 * False: the text is not such a number, or the number is out of range; *out is unchanged. */
bool cop_parse_u64(const char *text, uint64_t *out); /* decimal, or hexadecimal after 0x */
bool cop_parse_i64(const char *text, int64_t *out);  /* decimal, with or without a sign */
bool cop_parse_f64(const char *text, double *out);   /* decimal, finite */
/* Parses a number of bytes with an optional unit, such as 64, 64k, 16MiB or 2G. The units are
 * powers of 1024. False: the text is not a size, or does not fit into *out, which is unchanged. */
bool cop_parse_size(const char *text, uint64_t *out);

#endif
