/* coppice spec: prints the job file of a job or run. */
#include "client/load/history.h"

cop_err cli_spec(const cli_options *options, cop_error *error) {
    cli_record record;
    cop_str text = {0};
    COP_TRY(cli_record_load(options, options->positional[0], &record, error));
    if (!options->resolved) cop_document_strip_defaults(record.job);
    if (options->json)
        cop_document_print_json(&record.job->base, 0, &text);
    else
        cop_document_print_yaml(&record.job->base, &text);
    cop_err e = text.failed ? cop_no_memory(error) : COP_OK;
    if (!e) cli_print("%s%s", cop_str_text(&text), options->json ? "\n" : "");
    cop_str_fini(&text);
    cli_record_fini(&record);
    return e;
}
