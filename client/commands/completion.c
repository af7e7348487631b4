/* coppice completion: scripts for bash, zsh and fish, generated from the tables of commands and
 * options. The scripts ask the coordinator for numbers and names of jobs when the user presses Tab.
 */
#include <stdio.h>
#include <string.h>

#include "client/cli.h"

/* A shell command that prints the numbers and names of the newest jobs. */
#define ASK_JOBS                                                                                   \
    "coppice jobs --limit 50 --timeout 1 2>/dev/null | awk 'NR > 1 {print $1; print $2}'"

static bool takes_job(const cli_command *c) {
    return strstr(c->arguments, "JOB") && !strstr(c->arguments, "JOB.yaml");
}

static const char *words_of(const cli_command *c) {
    if (strcmp(c->name, "data") == 0) return "list get rm";
    return strcmp(c->name, "completion") == 0 ? "bash zsh fish" : "";
}

/* ---- bash ---- */

static void bash_words(const cli_command *c, cop_str *out) {
    cop_str_printf(out, "    %s) words=\"", c->name);
    for (size_t i = 0; i < cli_option_count(); i++) {
        cli_option o;
        if (cli_option_at(c, i, &o)) cop_str_printf(out, "--%s ", o.name);
    }
    cop_str_printf(out, "%s\"", words_of(c));
    if (takes_job(c)) cop_str_append(out, "; jobs=1");
    cop_str_append(out, " ;;\n");
}

static void write_bash(cop_str *out) {
    cop_str_append(out, "# bash completion for coppice: source <(coppice completion bash)\n"
                        "_coppice() {\n"
                        "  local cur=${COMP_WORDS[COMP_CWORD]} words= jobs=\n"
                        "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n    words=\"");
    for (const cli_command *c = cli_commands(); c->name; c++) cop_str_printf(out, "%s ", c->name);
    cop_str_append(out, "--help --version\"\n  else\n    case ${COMP_WORDS[1]} in\n");
    for (const cli_command *c = cli_commands(); c->name; c++) bash_words(c, out);
    cop_str_append(out, "    esac\n  fi\n  case ${COMP_WORDS[COMP_CWORD-1]} in\n");
    for (size_t i = 0; i < cli_option_count(); i++) {
        cli_option o;
        cli_option_at(NULL, i, &o);
        if (o.values)
            cop_str_printf(out,
                           "    --%s) COMPREPLY=($(compgen -W \"%s\" -- \"$cur\")); return ;;\n",
                           o.name, o.values);
    }
    cop_str_append(out, "  esac\n  case $cur in\n"
                        "    -*) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n"
                        "    *) [ -z \"$jobs\" ] || words+=\" $(" ASK_JOBS ")\"\n"
                        "       COMPREPLY=($(compgen -W \"$words\" -f -- \"$cur\")) ;;\n"
                        "  esac\n}\ncomplete -o filenames -F _coppice coppice\n");
}

/* ---- zsh ---- */

/* Appends a help text that the caller puts into single quotes in a script for zsh or fish. Quotes
 * would end the word, and brackets and colons the description, so they become blanks. */
static void quote_help(const char *help, cop_str *out) {
    for (const char *p = help; *p; p++) {
        const char c = *p == '\'' || *p == '[' || *p == ']' || *p == ':' ? ' ' : *p;
        cop_str_append_bytes(out, &c, 1);
    }
}

static void zsh_options(const cli_command *c, cop_str *out) {
    cop_str_printf(out, "    (%s) _arguments -S", c->name);
    for (size_t i = 0; i < cli_option_count(); i++) {
        cli_option o;
        if (!cli_option_at(c, i, &o)) continue;
        cop_str_printf(out, " \\\n      '--%s[", o.name);
        quote_help(o.help, out);
        cop_str_append(out, "]");
        if (o.values)
            cop_str_printf(out, ":value:(%s)", o.values);
        else if (o.takes_value)
            cop_str_append(out, ":value:_files");
        cop_str_append(out, "'");
    }
    if (*words_of(c)) cop_str_printf(out, " \\\n      '1:word:(%s)'", words_of(c));
    cop_str_printf(out, " \\\n      '*:argument:%s' ;;\n",
                   takes_job(c) ? "_coppice_jobs" : "_files");
}

static void write_zsh(cop_str *out) {
    cop_str_append(out, "#compdef coppice\n"
                        "# zsh completion for coppice: source <(coppice completion zsh)\n"
                        "_coppice_jobs() {\n  local -a jobs\n  jobs=(${(f)\"$(" ASK_JOBS ")\"})\n"
                        "  (( ${#jobs} )) && compadd -a jobs\n  _files\n}\n"
                        "_coppice() {\n  local -a commands\n  commands=(\n");
    for (const cli_command *c = cli_commands(); c->name; c++) {
        cop_str_printf(out, "    '%s:", c->name);
        quote_help(c->summary, out);
        cop_str_append(out, "'\n");
    }
    cop_str_append(out, "  )\n  if (( CURRENT == 2 )); then\n"
                        "    _describe command commands\n    return\n  fi\n"
                        "  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n"
                        "  case $command in\n");
    for (const cli_command *c = cli_commands(); c->name; c++) zsh_options(c, out);
    cop_str_append(out, "  esac\n}\ncompdef _coppice coppice\n");
}

/* ---- fish ---- */

static void fish_options(const cli_command *c, cop_str *out) {
    for (size_t i = 0; i < cli_option_count(); i++) {
        cli_option o;
        if (!cli_option_at(c, i, &o)) continue;
        cop_str_printf(out, "complete -c coppice -n '__fish_seen_subcommand_from %s' -l %s",
                       c->name, o.name);
        if (o.takes_value) cop_str_append(out, " -r");
        if (o.values) cop_str_printf(out, " -f -a '%s'", o.values);
        cop_str_append(out, " -d '");
        quote_help(o.help, out);
        cop_str_append(out, "'\n");
    }
    if (*words_of(c))
        cop_str_printf(out, "complete -c coppice -n '__fish_seen_subcommand_from %s' -f -a '%s'\n",
                       c->name, words_of(c));
    if (takes_job(c))
        cop_str_printf(out,
                       "complete -c coppice -n '__fish_seen_subcommand_from %s' -a "
                       "'(__coppice_jobs)'\n",
                       c->name);
}

static void write_fish(cop_str *out) {
    cop_str_append(out, "# fish completion for coppice: coppice completion fish | source\n"
                        "function __coppice_jobs\n  " ASK_JOBS "\nend\n");
    for (const cli_command *c = cli_commands(); c->name; c++) {
        cop_str_printf(out, "complete -c coppice -n __fish_use_subcommand -f -a %s -d '", c->name);
        quote_help(c->summary, out);
        cop_str_append(out, "'\n");
    }
    for (const cli_command *c = cli_commands(); c->name; c++) fish_options(c, out);
}

cop_err cli_completion_command(const cli_options *options, cop_error *error) {
    static const char *const shells[] = {"bash", "zsh", "fish"};
    static void (*const write[])(cop_str *) = {write_bash, write_zsh, write_fish};
    const char *shell = options->positional_count ? options->positional[0] : "bash";
    cop_str script = {0};
    for (int i = 0; i < 3; i++)
        if (strcmp(shells[i], shell) == 0) write[i](&script);
    if (!script.length)
        return cop_fail(error, COP_ERR_USAGE,
                        "no completion for \"%s\": expected bash, zsh or fish", shell);
    cop_err e = script.failed ? cop_no_memory(error) : COP_OK;
    cli_print("%s", cop_str_text(&script));
    cop_str_fini(&script);
    return e;
}
