/* Inside common/wire: converts messages between the plain structs of message.h and the structs that
 * protobuf-c generates from wire.proto. codec.c packs and unpacks the latter. */
#ifndef COP_WIRE_MESSAGE_PROTO_H
#define COP_WIRE_MESSAGE_PROTO_H

#include "common/wire/message.h"
#include "proto/wire.pb-c.h"

/* Memory for one message in protobuf-c's form. Its strings point into the plain struct or to
 * `text`. */
typedef struct cop_message_proto {
    Coppice__Wire__Result result;                /* pull.result points here if there is a result */
    Coppice__Wire__Segment segments[2];          /* welcome.proof, lease.weights and lease.room */
    char text[sizeof(((cop_failure *)0)->text)]; /* a text in which invalid UTF-8 was replaced */
    union {
        ProtobufCMessage base;
        Coppice__Wire__Hello hello;
        Coppice__Wire__Welcome welcome;
        Coppice__Wire__Heartbeat heartbeat;
        Coppice__Wire__HeartbeatReply heartbeat_reply;
        Coppice__Wire__Pull pull;
        Coppice__Wire__Lease lease;
        Coppice__Wire__Nothing nothing;
        Coppice__Wire__Failure failure;
        Coppice__Wire__Call call;
        Coppice__Wire__Answer answer;
    };
} cop_message_proto;

/* Converts a message, without its parts, to protobuf-c's form. The result is proto->base, which
 * protobuf_c_message_pack can pack. It points into `message`, so `message` must live as long as the
 * result is used. */
void cop_message_to_proto(const cop_message *message, cop_message_proto *proto);
/* The descriptor of a message type. NULL: the type is unknown. */
const ProtobufCMessageDescriptor *cop_message_descriptor(unsigned type);
/* Converts a message from protobuf-c's form, and fills the member of *out that out->type selects.
 * `base` must have the descriptor of that type. Returns false if a required field is missing or a
 * text is too long. */
bool cop_message_from_proto(const ProtobufCMessage *base, cop_message *out);

#endif
