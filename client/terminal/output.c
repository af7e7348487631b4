/* Output for people and programs: colours, tables, JSON lines, the progress bar. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/cli.h"
#include "common/base/clock.h"
#include "common/base/output.h"

bool cli_is_tty(int fd) {
    return isatty(fd) == 1;
}

static const struct {
    const char *name, *code;
} colors[] = {{"reset", "\033[0m"}, {"bold", "\033[1m"},   {"dim", "\033[2m"},
              {"red", "\033[31m"},  {"green", "\033[32m"}, {"yellow", "\033[33m"}};
#define COLORS (sizeof colors / sizeof *colors)

const char *cli_color(int fd, const char *name) {
    const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");
    if ((no_color && *no_color) || (terminal && strcmp(terminal, "dumb") == 0) || !cli_is_tty(fd))
        return "";
    for (size_t i = 0; i < COLORS; i++)
        if (strcmp(colors[i].name, name) == 0) return colors[i].code;
    return "";
}

static bool output_lost; /* some output was not printed, because memory ran out */

/* The length of the control sequence at `p` if it may be printed: a line end, or a sequence of
 * `colors`. 0: there is no such sequence at `p`. */
static size_t allowed_control(const char *p) {
    for (size_t i = 0; i < COLORS; i++)
        if (strncmp(p, colors[i].code, strlen(colors[i].code)) == 0) return strlen(colors[i].code);
    return *p == '\n';
}

/* Prints a text, which may contain names and sentences from other people. Replaces all control
 * characters except allowed_control, because they could change the terminal. */
static void print_text(FILE *to, char *text) {
    for (size_t own = 0; *text; text += own) {
        size_t plain = 0;
        while (text[plain] && !(own = allowed_control(text + plain))) plain++;
        const char kept = text[plain];
        text[plain] = '\0';
        cop_replace_controls(text);
        fputs(text, to);
        if (!kept) return;
        text += plain;
        *text = kept;
        fwrite(text, 1, own, to);
    }
}

/* Formats a text and prints it. A text of less than 1000 bytes needs no allocation, so that short
 * results are printed even when memory has run out. */
static void print_to(FILE *to, const char *format, va_list arguments) {
    char line[1000];
    cop_str text = {0};
    va_list again;
    va_copy(again, arguments);
    const int length = vsnprintf(line, sizeof line, format, arguments);
    if (length >= (int)sizeof line) cop_str_vprintf(&text, format, again);
    va_end(again);
    if (text.failed)
        output_lost = true;
    else if (length > 0)
        print_text(to, text.length ? text.text : line);
    cop_str_fini(&text);
}

/* Ends the program if standard output is a pipe whose reader has closed it, such as `| head`.
 * Nobody would see further output. */
static void stop_if_unread(void) {
    if (ferror(stdout) && cop_stdout_is_unread()) exit(cop_close_stdout("coppice", 1));
}

void cli_print(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_to(stdout, format, arguments);
    va_end(arguments);
    stop_if_unread();
}

void cli_note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_to(stderr, format, arguments);
    va_end(arguments);
}

void cli_print_json(const ProtobufCMessage *message) {
    cop_str line = {0};
    cop_document_print_json(message, 0, &line);
    if (line.failed)
        output_lost = true;
    else
        puts(cop_str_text(&line));
    cop_str_fini(&line);
    stop_if_unread();
}

cop_err cli_output_finish(cop_error *error) {
    if ((fflush(stdout) || ferror(stdout)) && !cop_stdout_is_unread())
        return cop_fail(error, COP_ERR_IO, "cannot write to standard output");
    if (output_lost)
        return cop_fail(
            error, COP_ERR_NO_MEMORY,
            "the command succeeded, but there is not enough memory to print its result");
    return COP_OK;
}

const char *cli_quote(cop_str *into, const char *text) {
    COP_ASSERT(text != NULL);
    cop_str_clear(into);
    cop_str_append_json(into, text);
    return cop_str_text(into);
}

/* ---- tables ---- */

#define CELL_MAX     2000 /* maximum bytes of a printed cell */
#define FLEXIBLE_MIN 8    /* minimum width of a column marked 'f' */

/* The number of characters in a UTF-8 text: all bytes except continuation bytes. */
static int display_width(const char *text) {
    int count = 0;
    for (const char *p = text; *p; p++) count += ((unsigned char)*p & 0xc0) != 0x80;
    return count;
}

/* Copies a cell and replaces its control characters, because another user may have chosen the text.
 * Returns `out`. */
static const char *copy_clean(const char *cell, char out[CELL_MAX]) {
    snprintf(out, CELL_MAX, "%s", cell);
    cop_replace_controls(out);
    return out;
}

/* Prints a cell. If it has more than `width` characters, it is cut, and its last one is an
 * ellipsis. */
static void print_cell(const char *cell, int width) {
    COP_ASSERT(width >= 0);
    char text[CELL_MAX];
    copy_clean(cell, text);
    if (display_width(text) > width) {
        char *end = text;
        for (int i = 1; i < width; i++) {
            end++;
            while (((unsigned char)*end & 0xc0) == 0x80) end++;
        }
        snprintf(end, sizeof text - (size_t)(end - text), "…");
    }
    fputs(text, stdout);
}

/* The current width of the terminal in columns. 80 if the descriptor is not a terminal, or if the
 * width is unknown or at most 20. */
static int terminal_width(int descriptor) {
    struct winsize size;
    return cli_is_tty(descriptor) && ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 20
               ? size.ws_col
               : 80;
}

/* Narrows the columns that are marked 'f', always the widest of them, until the table fits the
 * terminal or all of them have FLEXIBLE_MIN characters. */
static void fit_columns(int *width, int columns, const char *align) {
    int sum = 2 * (columns - 1), limit = terminal_width(STDOUT_FILENO);
    for (int c = 0; c < columns; c++) sum += width[c];
    while (sum > limit) {
        int widest = -1;
        for (int c = 0; c < columns; c++)
            if (align[c] == 'f' && width[c] > FLEXIBLE_MIN &&
                (widest < 0 || width[c] > width[widest]))
                widest = c;
        if (widest < 0) return;
        width[widest]--;
        sum--;
    }
}

const char *cli_shorten(const char *text, char *out, size_t size) {
    size_t length = strlen(text);
    COP_ASSERT(size > 8);
    if (length < size) return memcpy(out, text, length + 1);
    length = size - 3;
    while (length && ((unsigned char)text[length] & 0xc0) == 0x80) length--;
    memcpy(out, text, length);
    memcpy(out + length, "..", 3);
    COP_ASSERT(length + 2 < size);
    return out;
}

void cli_print_table(const char *const *cells, int rows, int columns, const char *align) {
    int width[32] = {0};
    COP_ASSERT(rows >= 1 && columns >= 1 && columns <= 32);
    COP_ASSERT(!memchr(align, '\0', (size_t)columns));
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
            char text[CELL_MAX];
            COP_ASSERT(cells[r * columns + c] != NULL);
            int w = display_width(copy_clean(cells[r * columns + c], text));
            if (w > width[c]) width[c] = w;
        }
    fit_columns(width, columns, align);
    for (int r = 0; r < rows; r++) {
        if (r == 0) fputs(cli_color(1, "bold"), stdout);
        for (int c = 0; c < columns; c++) {
            const char *cell = cells[r * columns + c];
            char text[CELL_MAX];
            int pad = width[c] - display_width(copy_clean(cell, text));
            if (pad < 0) pad = 0;
            if (align[c] == 'r') printf("%*s", pad, "");
            print_cell(cell, width[c]);
            if (align[c] != 'r' && c < columns - 1) printf("%*s", pad, "");
            if (c < columns - 1) fputs("  ", stdout);
        }
        if (r == 0) fputs(cli_color(1, "reset"), stdout);
        putchar('\n');
    }
}

/* ---- progress ---- */

void cli_progress_start(cli_progress *p, bool quiet) {
    *p = (cli_progress){
        .quiet = quiet, .tty = cli_is_tty(STDERR_FILENO), .started_ns = cop_clock_ns()};
}

#define BAR_MAX    24
#define BAR_SMALL  12
#define BAR_MIN    4
#define BAR_MARGIN 8 /* columns for blanks and the percentage */

/* Removes the field that contains `mark` from a text whose fields are separated by two blanks. */
static void drop_field(char *text, const char *mark) {
    COP_ASSERT(*mark);
    char *at = strstr(text, mark);
    if (!at) return;
    while (at > text && !(at[-1] == ' ' && at[-2] == ' ')) at--;
    const char *next = strstr(at, "  ");
    if (next)
        memmove(at, next + 2, strlen(next + 2) + 1);
    else if (at > text)
        at[-2] = '\0';
}

/* Draws the bar and the text. If the terminal is too narrow, the fields in `droppable` are left out
 * one after another, until the text fits. */
static void draw_bar(double fraction, const char *text) {
    static const char *const droppable[] = {"epoch ", "samples/s", " workers", "loss "};
    const int width = terminal_width(STDERR_FILENO);
    COP_ASSERT(fraction >= 0 && fraction <= 1);
    char line[512] = "", fitting[256];
    snprintf(fitting, sizeof fitting, "%s", text);
    cop_replace_controls(fitting); /* the text may quote a coordinator */
    for (size_t i = 0; i < sizeof droppable / sizeof *droppable; i++)
        if (display_width(fitting) > width - BAR_MARGIN - BAR_SMALL)
            drop_field(fitting, droppable[i]);
    int bar = width - BAR_MARGIN - display_width(fitting);
    bar = bar > BAR_MAX ? BAR_MAX : bar < BAR_MIN ? BAR_MIN : bar;
    int filled = (int)(fraction * bar + 0.5), text_width = width - bar - BAR_MARGIN;
    for (int i = 0; i < bar; i++) cop_text_append(line, sizeof line, "%s", i < filled ? "█" : "░");
    fprintf(stderr, "\r%s %3d %% %.*s\033[K", line, (int)(fraction * 100),
            text_width > 0 ? text_width : 0, fitting);
    fflush(stderr);
}

void cli_progress_show(cli_progress *p, double fraction, const char *text) {
    if (p->quiet) return;
    COP_ASSERT(p->started_ns != 0);
    uint64_t now = cop_clock_ns(), since = now - p->last_ns;
    if (!(fraction >= 0)) fraction = 0; /* the fraction may also be NaN, from 0 / 0 */
    if (fraction > 1) fraction = 1;
    p->last_fraction = fraction;
    if (p->tty) {
        if (p->last_ns && since < 100000000u) return;
        draw_bar(fraction, text);
    } else {
        /* The first line comes after two seconds, another one every five seconds. */
        uint64_t wait = p->last_ns ? 5000000000u : 2000000000u;
        if (now - (p->last_ns ? p->last_ns : p->started_ns) < wait) return;
        cli_note("%3d %% %s\n", (int)(fraction * 100), text);
    }
    p->last_ns = now;
}

void cli_progress_end(cli_progress *p) {
    if (p->quiet || !p->tty || !p->last_ns) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
}

void cli_data_progress(void *context, const char *what, uint64_t done, uint64_t total) {
    char a[32], b[32], text[256];
    snprintf(text, sizeof text, "%s  %s of %s", what, cop_format_bytes((double)done, a),
             cop_format_bytes((double)total, b));
    cli_progress_show(context, total ? (double)done / (double)total : 0, text);
}
