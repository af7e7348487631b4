/* Inside common/wire: messages in protobuf-c's form, between the plain structs of message.h and the
 * frames of codec.c. */
#ifndef COP_WIRE_MESSAGE_PROTO_H
#define COP_WIRE_MESSAGE_PROTO_H

#include "common/wire/message.h"
#include "proto/wire.pb-c.h"

/* One message while it is packed. Strings are borrowed from the plain struct. */
typedef struct cop_message_proto {
    Coppice__Wire__Result result; /* inside pull */
    char text[sizeof(((cop_failure *)0)->text)];
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

/* Converts a message to its protobuf form; its parts are not included. proto->base is the result,
 * for protobuf_c_message_pack. It points into `message`, which must live as long. */
void cop_message_to_proto(const cop_message *message, cop_message_proto *proto);
/* The descriptor of a message type; NULL: unknown type. */
const ProtobufCMessageDescriptor *cop_message_descriptor(unsigned type);
/* Fills the struct that out->type selects; false: a field is missing or too long. */
bool cop_message_from_proto(const ProtobufCMessage *base, cop_message *out);

#endif
