/* Releases messages, and names their types. See message.h. */
#include "common/wire/message.h"

void cop_message_fini(cop_message *message) {
    for (int i = 0; i < COP_MESSAGE_PARTS; i++) cop_buffer_release(message->part[i]);
    cop_buffer_release(message->receipt);
    memset(message, 0, sizeof *message);
}

const char *cop_message_type_name(cop_message_type type) {
    static const char *const names[] = {"?",     "HELLO", "WELCOME", "HEARTBEAT", "HEARTBEAT_REPLY",
                                        "PULL",  "LEASE", "NOTHING", "FAILURE",   "CALL",
                                        "ANSWER"};
    return type >= COP_MESSAGE_HELLO && type <= COP_MESSAGE_ANSWER ? names[type] : names[0];
}
