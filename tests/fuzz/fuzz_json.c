/* Fuzz target: random bytes as a stream of JSON results. The JSON that is printed for an
 * accepted result must be accepted, too, and be printed the same again. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/wire/codec.h"
#include "common/wire/document.h"
#include "proto/api.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void print_and_read_again(const ProtobufCMessage *message) {
    cop_str text = {0}, twice = {0};
    ProtobufCMessage *again = NULL;
    cop_document_print_json(message, 0, &text);
    cop_json_stream s = {
        .name = "again", .at = cop_str_text(&text), .end = cop_str_text(&text) + text.length};
    if (cop_document_next_json(&s, message->descriptor, &again, NULL) || !again) __builtin_trap();
    cop_document_print_json(again, 0, &twice);
    if (strcmp(cop_str_text(&text), cop_str_text(&twice)) != 0) __builtin_trap();
    cop_proto_free(again);
    cop_str_fini(&text);
    cop_str_fini(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cop_json_stream s = {
        .name = "fuzz", .at = (const char *)data, .end = (const char *)data + size};
    ProtobufCMessage *message = NULL;
    cop_error error = {0};
    while (
        !cop_document_next_json(&s, &coppice__api__ensemble_result__descriptor, &message, &error) &&
        message) {
        print_and_read_again(message);
        cop_proto_free(message);
    }
    if (s.at != s.end && (!error.code || !error.text[0])) __builtin_trap();
    return 0;
}
