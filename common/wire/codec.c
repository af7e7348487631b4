/* Frames: the one place where messages become bytes and bytes become messages. See codec.h and
 * docs/PROTOCOL.md. */
#include "common/wire/codec.h"

#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "proto/wire.pb-c.h"

#define MAGIC 0x57504f43u /* "COPW" */
#define PAD   64

typedef struct frame_header {
    uint32_t magic;
    uint16_t version, type;
    uint32_t proto_size, flags;
    uint64_t part_size[COP_MESSAGE_PARTS];
    uint64_t head_hash, body_hash;
} frame_header;
_Static_assert(sizeof(frame_header) == COP_FRAME_HEADER_SIZE, "the frame header is 64 bytes");

/* ---- structs to protobuf: storage for the message being packed ---- */

typedef struct packed_form {
    Coppice__Wire__Result result; /* inside pull */
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
} packed_form;

/* Field = value, marked as present. Strings are borrowed. */
#define SET(m, field, value) ((m)->has_##field = 1, (m)->field = (value))
#define TEXT(text)           ((char *)(uintptr_t)(text))

static void form_hello(const cop_hello *h, Coppice__Wire__Hello *m) {
    coppice__wire__hello__init(m);
    SET(m, major, h->major);
    SET(m, minor, h->minor);
    SET(m, features, h->features);
    SET(m, role,
        h->is_client ? COPPICE__WIRE__HELLO__ROLE__CLIENT : COPPICE__WIRE__HELLO__ROLE__WORKER);
    SET(m, threads, h->threads);
    SET(m, control, h->control);
    SET(m, worker, h->worker);
    SET(m, session, h->session);
    m->has_self_test = 1;
    m->self_test = (ProtobufCBinaryData){.len = sizeof h->self_test,
                                         .data = (uint8_t *)(uintptr_t)h->self_test};
    m->build = TEXT(h->build);
    m->token = TEXT(h->token);
    m->name = TEXT(h->name);
    m->isa = TEXT(h->isa);
    m->arithmetic = TEXT(h->arithmetic);
    m->fingerprint = TEXT(h->fingerprint);
}

static void form_welcome(const cop_welcome *w, Coppice__Wire__Welcome *m) {
    coppice__wire__welcome__init(m);
    SET(m, major, w->major);
    SET(m, minor, w->minor);
    SET(m, features, w->features);
    SET(m, worker, w->worker);
    SET(m, session, w->session);
    SET(m, heartbeat_ms, w->heartbeat_ms);
    m->build = TEXT(w->build);
    m->name = TEXT(w->name);
}

static void form_heartbeat(const cop_heartbeat *h, Coppice__Wire__Heartbeat *m) {
    coppice__wire__heartbeat__init(m);
    SET(m, worker, h->worker);
    SET(m, session, h->session);
    SET(m, lease, h->lease);
    SET(m, draining, h->draining);
}

static void form_heartbeat_reply(const cop_heartbeat_reply *h, Coppice__Wire__HeartbeatReply *m) {
    coppice__wire__heartbeat_reply__init(m);
    SET(m, drain, h->drain);
    SET(m, unknown, h->unknown);
    SET(m, cancel_lease, h->cancel_lease);
}

static void form_result(const cop_result *r, Coppice__Wire__Result *m) {
    coppice__wire__result__init(m);
    SET(m, lease, r->lease);
    SET(m, job, r->job);
    SET(m, step, r->step);
    SET(m, attempt, r->attempt);
    SET(m, first, r->first);
    SET(m, count, r->count);
    SET(m, loss, r->loss);
    SET(m, correct, r->correct);
    SET(m, samples, r->samples);
    SET(m, compute_ns, r->compute_ns);
    SET(m, kind, (Coppice__Wire__Result__Kind)r->kind);
    m->failure = TEXT(r->failure);
}

static void form_pull(const cop_pull *p, packed_form *form) {
    Coppice__Wire__Pull *m = &form->pull;
    coppice__wire__pull__init(m);
    SET(m, worker, p->worker);
    SET(m, session, p->session);
    SET(m, have_job, p->have_job);
    SET(m, have_version, p->have_version);
    SET(m, goodbye, p->goodbye);
    if (!p->result.present) return;
    form_result(&p->result, &form->result);
    m->result = &form->result;
}

static void form_lease(const cop_lease *l, Coppice__Wire__Lease *m) {
    coppice__wire__lease__init(m);
    SET(m, lease, l->lease);
    SET(m, job, l->job);
    SET(m, step, l->step);
    SET(m, attempt, l->attempt);
    SET(m, first, l->first);
    SET(m, count, l->count);
    SET(m, batch, l->batch);
    SET(m, version, l->version);
    SET(m, deadline_ms, l->deadline_ms);
    SET(m, kind, (Coppice__Wire__Result__Kind)l->kind);
}

static void form_nothing(const cop_nothing *n, Coppice__Wire__Nothing *m) {
    coppice__wire__nothing__init(m);
    SET(m, retry_ms, n->retry_ms);
    SET(m, drain, n->drain);
    SET(m, unknown, n->unknown);
}

static void form_failure(const cop_failure *f, Coppice__Wire__Failure *m) {
    coppice__wire__failure__init(m);
    SET(m, code, (uint32_t)f->code);
    m->text = TEXT(f->text);
}

static void form_call(const cop_call *c, Coppice__Wire__Call *m) {
    coppice__wire__call__init(m);
    SET(m, method, c->method);
    SET(m, major, c->major);
    SET(m, minor, c->minor);
    m->token = TEXT(c->token);
}

static void form_message(const cop_message *message, packed_form *form) {
    switch (message->type) {
    case COP_MESSAGE_HELLO:
        form_hello(&message->hello, &form->hello);
        return;
    case COP_MESSAGE_WELCOME:
        form_welcome(&message->welcome, &form->welcome);
        return;
    case COP_MESSAGE_HEARTBEAT:
        form_heartbeat(&message->heartbeat, &form->heartbeat);
        return;
    case COP_MESSAGE_HEARTBEAT_REPLY:
        form_heartbeat_reply(&message->heartbeat_reply, &form->heartbeat_reply);
        return;
    case COP_MESSAGE_PULL:
        form_pull(&message->pull, form);
        return;
    case COP_MESSAGE_LEASE:
        form_lease(&message->lease, &form->lease);
        return;
    case COP_MESSAGE_NOTHING:
        form_nothing(&message->nothing, &form->nothing);
        return;
    case COP_MESSAGE_FAILURE:
        form_failure(&message->failure, &form->failure);
        return;
    case COP_MESSAGE_CALL:
        form_call(&message->call, &form->call);
        return;
    case COP_MESSAGE_ANSWER:
        coppice__wire__answer__init(&form->answer);
        SET(&form->answer, method, message->answer.method);
        return;
    }
    COP_ASSERT(!"a message has one of the types");
}

/* ---- encoding ---- */

static size_t parts_size(const cop_message *message) {
    size_t size = 0;
    for (int i = 0; i < COP_MESSAGE_PARTS; i++)
        if (message->part[i]) size += cop_align_up(message->part[i]->size, PAD);
    return size;
}

size_t cop_codec_size(const cop_message *message) {
    packed_form form;
    form_message(message, &form);
    size_t proto = protobuf_c_message_get_packed_size(&form.base);
    return cop_align_up(COP_FRAME_HEADER_SIZE + proto, PAD) + parts_size(message);
}

/* One pass over memory copies and hashes. */
static void copy_parts(const cop_message *message, char *to, frame_header *header) {
    cop_xxh3 hash;
    cop_xxh3_init(&hash);
    for (int i = 0; i < COP_MESSAGE_PARTS; i++) {
        const cop_buffer *part = message->part[i];
        if (!part) continue;
        size_t padded = cop_align_up(part->size, PAD);
        cop_xxh3_copy(&hash, to, part->data, part->size);
        memset(to + part->size, 0, padded - part->size);
        cop_xxh3_update(&hash, to + part->size, padded - part->size);
        header->flags |= 1u << i;
        header->part_size[i] = part->size;
        to += padded;
    }
    header->body_hash = cop_xxh3_final(&hash);
}

void cop_codec_encode(const cop_message *message, void *out) {
    packed_form form;
    frame_header header = {
        .magic = MAGIC, .version = COP_PROTOCOL_MAJOR, .type = (uint16_t)message->type};
    char *bytes = out;
    form_message(message, &form);
    header.proto_size =
        (uint32_t)protobuf_c_message_pack(&form.base, (uint8_t *)bytes + COP_FRAME_HEADER_SIZE);
    COP_ASSERT(header.proto_size <= COP_FRAME_PROTO_MAX);
    size_t head = COP_FRAME_HEADER_SIZE + header.proto_size, body = cop_align_up(head, PAD);
    memset(bytes + head, 0, body - head);
    copy_parts(message, bytes + body, &header);
    /* The head's hash covers the body's hash too, with its own field zero. */
    memcpy(bytes, &header, sizeof header);
    header.head_hash = cop_hash_xxh3(bytes, body);
    memcpy(bytes, &header, sizeof header);
}

/* ---- protobuf to structs ---- */

static void copy_text(char *to, size_t size, const char *from) {
    snprintf(to, size, "%s", from ? from : "");
}
#define COPY_TEXT(to, from) copy_text(to, sizeof(to), from)

static bool read_hello(const Coppice__Wire__Hello *m, cop_hello *h) {
    *h = (cop_hello){.major = m->major,
                     .minor = m->minor,
                     .threads = m->threads,
                     .features = m->features,
                     .worker = m->worker,
                     .session = m->session,
                     .is_client = m->role == COPPICE__WIRE__HELLO__ROLE__CLIENT,
                     .control = m->control};
    COPY_TEXT(h->build, m->build);
    COPY_TEXT(h->token, m->token);
    COPY_TEXT(h->name, m->name);
    COPY_TEXT(h->isa, m->isa);
    COPY_TEXT(h->arithmetic, m->arithmetic);
    COPY_TEXT(h->fingerprint, m->fingerprint);
    if (!m->has_self_test || m->self_test.len != sizeof h->self_test) return false;
    memcpy(h->self_test, m->self_test.data, sizeof h->self_test);
    return true;
}

static void read_welcome(const Coppice__Wire__Welcome *m, cop_welcome *w) {
    *w = (cop_welcome){.major = m->major,
                       .minor = m->minor,
                       .heartbeat_ms = m->heartbeat_ms,
                       .features = m->features,
                       .worker = m->worker,
                       .session = m->session};
    COPY_TEXT(w->build, m->build);
    COPY_TEXT(w->name, m->name);
}

static bool read_pull(const Coppice__Wire__Pull *m, cop_pull *p) {
    *p = (cop_pull){.worker = m->worker,
                    .session = m->session,
                    .have_job = m->have_job,
                    .have_version = m->have_version,
                    .goodbye = m->goodbye};
    const Coppice__Wire__Result *r = m->result;
    if (!r) return true;
    if (!r->has_kind) return false;
    p->result = (cop_result){.present = true,
                             .kind = (cop_lease_kind)r->kind,
                             .lease = r->lease,
                             .job = r->job,
                             .step = r->step,
                             .attempt = r->attempt,
                             .first = r->first,
                             .count = r->count,
                             .loss = r->loss,
                             .correct = r->correct,
                             .samples = r->samples,
                             .compute_ns = r->compute_ns};
    COPY_TEXT(p->result.failure, r->failure);
    return true;
}

static bool read_lease(const Coppice__Wire__Lease *m, cop_lease *l) {
    *l = (cop_lease){.kind = (cop_lease_kind)m->kind,
                     .lease = m->lease,
                     .job = m->job,
                     .step = m->step,
                     .version = m->version,
                     .deadline_ms = m->deadline_ms,
                     .attempt = m->attempt,
                     .first = m->first,
                     .count = m->count,
                     .batch = m->batch};
    return m->has_kind;
}

static void read_failure(const Coppice__Wire__Failure *m, cop_failure *f) {
    *f = (cop_failure){.code = m->code == 0 || m->code > COP_ERR_INTERNAL ? COP_ERR_INTERNAL
                                                                          : (cop_err)m->code};
    COPY_TEXT(f->text, m->text);
}

static bool read_message(const ProtobufCMessage *base, cop_message *out) {
    switch (out->type) {
    case COP_MESSAGE_HELLO:
        return read_hello((const Coppice__Wire__Hello *)base, &out->hello);
    case COP_MESSAGE_WELCOME:
        read_welcome((const Coppice__Wire__Welcome *)base, &out->welcome);
        return true;
    case COP_MESSAGE_HEARTBEAT: {
        const Coppice__Wire__Heartbeat *m = (const Coppice__Wire__Heartbeat *)base;
        out->heartbeat = (cop_heartbeat){
            .worker = m->worker, .session = m->session, .lease = m->lease, .draining = m->draining};
        return true;
    }
    case COP_MESSAGE_HEARTBEAT_REPLY: {
        const Coppice__Wire__HeartbeatReply *m = (const Coppice__Wire__HeartbeatReply *)base;
        out->heartbeat_reply = (cop_heartbeat_reply){
            .drain = m->drain, .unknown = m->unknown, .cancel_lease = m->cancel_lease};
        return true;
    }
    case COP_MESSAGE_PULL:
        return read_pull((const Coppice__Wire__Pull *)base, &out->pull);
    case COP_MESSAGE_LEASE:
        return read_lease((const Coppice__Wire__Lease *)base, &out->lease);
    case COP_MESSAGE_NOTHING: {
        const Coppice__Wire__Nothing *m = (const Coppice__Wire__Nothing *)base;
        out->nothing =
            (cop_nothing){.retry_ms = m->retry_ms, .drain = m->drain, .unknown = m->unknown};
        return true;
    }
    case COP_MESSAGE_FAILURE:
        read_failure((const Coppice__Wire__Failure *)base, &out->failure);
        return true;
    case COP_MESSAGE_CALL: {
        const Coppice__Wire__Call *m = (const Coppice__Wire__Call *)base;
        out->call = (cop_call){.method = m->method, .major = m->major, .minor = m->minor};
        COPY_TEXT(out->call.token, m->token);
        return true;
    }
    case COP_MESSAGE_ANSWER:
        out->answer.method = ((const Coppice__Wire__Answer *)base)->method;
        return true;
    }
    return false;
}

static const ProtobufCMessageDescriptor *descriptor_of(unsigned type) {
    switch (type) {
    case COP_MESSAGE_HELLO:
        return &coppice__wire__hello__descriptor;
    case COP_MESSAGE_WELCOME:
        return &coppice__wire__welcome__descriptor;
    case COP_MESSAGE_HEARTBEAT:
        return &coppice__wire__heartbeat__descriptor;
    case COP_MESSAGE_HEARTBEAT_REPLY:
        return &coppice__wire__heartbeat_reply__descriptor;
    case COP_MESSAGE_PULL:
        return &coppice__wire__pull__descriptor;
    case COP_MESSAGE_LEASE:
        return &coppice__wire__lease__descriptor;
    case COP_MESSAGE_NOTHING:
        return &coppice__wire__nothing__descriptor;
    case COP_MESSAGE_FAILURE:
        return &coppice__wire__failure__descriptor;
    case COP_MESSAGE_CALL:
        return &coppice__wire__call__descriptor;
    case COP_MESSAGE_ANSWER:
        return &coppice__wire__answer__descriptor;
    default:
        return NULL;
    }
}

/* ---- decoding ---- */

/* Checks every length against every other; *body is where the parts begin. */
static cop_err check_frame(const cop_buffer *frame, const frame_header *h, size_t *body,
                           cop_error *error) {
    if (h->magic != MAGIC) return cop_fail(error, COP_ERR_PROTOCOL, "not a Coppice frame");
    if (h->version != COP_PROTOCOL_MAJOR)
        return cop_fail(error, COP_ERR_VERSION, "the peer speaks protocol %u, this program %d",
                        h->version, COP_PROTOCOL_MAJOR);
    if (h->proto_size > COP_FRAME_PROTO_MAX ||
        COP_FRAME_HEADER_SIZE + (size_t)h->proto_size > frame->size ||
        h->flags >> COP_MESSAGE_PARTS)
        return cop_fail(error, COP_ERR_PROTOCOL, "the frame's header lies about its lengths");
    *body = cop_align_up(COP_FRAME_HEADER_SIZE + (size_t)h->proto_size, PAD);
    size_t left = frame->size >= *body ? frame->size - *body : 0;
    bool fits = frame->size >= *body;
    for (int i = 0; i < COP_MESSAGE_PARTS && fits; i++) {
        bool there = h->flags >> i & 1;
        fits = there ? h->part_size[i] <= left && cop_align_up(h->part_size[i], PAD) <= left
                     : h->part_size[i] == 0;
        if (fits && there) left -= cop_align_up(h->part_size[i], PAD);
    }
    if (!fits || left)
        return cop_fail(error, COP_ERR_PROTOCOL, "the frame's header lies about its lengths");
    return COP_OK;
}

static cop_err check_hashes(const cop_buffer *frame, const frame_header *h, size_t body,
                            cop_error *error) {
    const char *bytes = frame->data;
    frame_header zeroed = *h;
    zeroed.head_hash = 0;
    if (cop_hash_xxh3_pair(&zeroed, sizeof zeroed, bytes + sizeof zeroed, body - sizeof zeroed) !=
            h->head_hash ||
        cop_hash_xxh3(bytes + body, frame->size - body) != h->body_hash)
        return cop_fail(error, COP_ERR_PROTOCOL, "the frame was damaged on its way (hash)");
    return COP_OK;
}

static void release_frame(cop_buffer *part) {
    cop_buffer_release(part->owner);
    cop_free(part);
}

static cop_err make_parts(cop_buffer *frame, const frame_header *h, size_t body, cop_message *out) {
    for (int i = 0; i < COP_MESSAGE_PARTS; i++) {
        if (!(h->flags >> i & 1)) continue;
        out->part[i] =
            cop_buffer_wrap((char *)frame->data + body, h->part_size[i], frame, release_frame);
        if (!out->part[i]) return COP_ERR_NO_MEMORY;
        cop_buffer_hold(frame);
        body += cop_align_up(h->part_size[i], PAD);
    }
    return COP_OK;
}

static cop_err decode_proto(const cop_buffer *frame, const frame_header *h, cop_message *out,
                            cop_error *error) {
    const ProtobufCMessageDescriptor *descriptor = descriptor_of(h->type);
    ProtobufCMessage *message = NULL;
    if (!descriptor) return cop_fail(error, COP_ERR_PROTOCOL, "unknown message type %u", h->type);
    COP_TRY(cop_proto_unpack(descriptor, (const char *)frame->data + COP_FRAME_HEADER_SIZE,
                             h->proto_size, COP_FRAME_UNPACK_MAX, &message, error));
    out->type = (cop_message_type)h->type;
    bool good = read_message(message, out);
    cop_proto_free(message);
    return good ? COP_OK
                : cop_fail(error, COP_ERR_PROTOCOL, "a field of %s is missing or malformed",
                           cop_message_type_name(out->type));
}

cop_err cop_codec_decode(cop_buffer *frame, cop_message *out, cop_error *error) {
    frame_header h;
    size_t body = 0;
    memset(out, 0, sizeof *out);
    if (frame->size < sizeof h)
        return cop_fail(error, COP_ERR_PROTOCOL, "a frame has at least %d bytes, this one has %zu",
                        COP_FRAME_HEADER_SIZE, frame->size);
    memcpy(&h, frame->data, sizeof h);
    COP_TRY(check_frame(frame, &h, &body, error));
    COP_TRY(check_hashes(frame, &h, body, error));
    cop_err e = decode_proto(frame, &h, out, error);
    if (!e && (e = make_parts(frame, &h, body, out))) cop_fail(error, e, "out of memory");
    if (e) cop_message_fini(out);
    return e;
}
