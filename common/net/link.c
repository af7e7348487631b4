/* Links: the part of the client side that is the same for all transports. See net.h. */
#include "common/net/internal.h"

cop_err cop_link_call(cop_link *link, cop_message *request, cop_message *reply, uint32_t timeout_ms,
                      cop_error *error) {
    COP_ASSERT(request->type >= COP_MESSAGE_HELLO && request->type <= COP_MESSAGE_ANSWER);
    COP_ASSERT(reply && reply != request);
    if (atomic_load(&link->canceled)) {
        cop_message_fini(request);
        return cop_fail(error, COP_ERR_CLOSED, "the call to %s was canceled", link->address);
    }
    COP_TRY(link->ops->call(link, request, reply, timeout_ms, error));
    COP_ASSERT(reply->type >= COP_MESSAGE_HELLO && reply->type <= COP_MESSAGE_ANSWER);
    if (reply->type != COP_MESSAGE_FAILURE) return COP_OK;
    cop_err code = reply->failure.code;
    cop_fail(error, code, "%s", reply->failure.text);
    cop_message_fini(reply);
    return code;
}

void cop_link_cancel(cop_link *link) {
    atomic_store(&link->canceled, true);
    link->ops->cancel(link);
}

void cop_link_interrupt(cop_link *link) {
    link->ops->interrupt(link);
}

void cop_link_set_impatient(cop_link *link) {
    if (link->ops->set_impatient) link->ops->set_impatient(link);
}

void cop_link_set_follower(cop_link *link, const cop_link_follower *follower) {
    COP_ASSERT(follower->wants && follower->follow);
    if (link->ops->set_follower) link->ops->set_follower(link, follower);
}

void cop_link_close(cop_link *link) {
    if (link) link->ops->close(link);
}

const char *cop_link_address(const cop_link *link) {
    return link->address;
}
