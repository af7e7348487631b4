/* Converts messages from plain structs to protobuf-c's structs and back, by one function for each
 * message type and direction. See message_proto.h. */
#include "common/wire/message_proto.h"

#include <stdio.h>
#include <string.h>

#include "common/base/str.h"

/* ---- structs to protobuf ---- */

/* SET sets a field and marks it as present. TEXT only casts, so a text in protobuf-c's struct
 * points into the plain struct. */
#define SET(m, field, value) ((m)->has_##field = 1, (m)->field = (value))
#define TEXT(text)           ((char *)(uintptr_t)(text))

/* Returns a text that is valid UTF-8: the text itself if it is valid, otherwise a copy in
 * proto->text with ? for each byte that is not ASCII. A text may be invalid because it contains the
 * name of a file, or was cut inside a character. The peer would close the connection on invalid
 * UTF-8. */
static char *clean_text(const char *text, cop_message_proto *proto) {
    if (cop_utf8_valid(text, strlen(text))) return TEXT(text);
    snprintf(proto->text, sizeof proto->text, "%s", text);
    for (char *c = proto->text; *c; c++)
        if ((unsigned char)*c >= 0x80) *c = '?';
    return proto->text;
}

/* Returns the protobuf form of a segment in proto->segments[at]. NULL: there is no segment. */
static Coppice__Wire__Segment *segment_in(const cop_segment_name *name, cop_message_proto *proto,
                                          int at) {
    Coppice__Wire__Segment *m = &proto->segments[at];
    if (!name->id) return NULL;
    coppice__wire__segment__init(m);
    SET(m, id, name->id);
    SET(m, size, name->size);
    SET(m, pid, name->pid);
    SET(m, fd, name->fd);
    return m;
}

/* Sets a field of type Values. F32 is the default, so old peers see what they know. */
#define SET_VALUES(m, field, values)                                                               \
    if ((values) == COP_VALUES_BF16) SET(m, field, COPPICE__WIRE__VALUES__BF16)

static void to_hello(const cop_hello *h, Coppice__Wire__Hello *m) {
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

static void to_welcome(const cop_welcome *w, cop_message_proto *proto) {
    Coppice__Wire__Welcome *m = &proto->welcome;
    coppice__wire__welcome__init(m);
    SET(m, major, w->major);
    SET(m, minor, w->minor);
    SET(m, features, w->features);
    SET(m, worker, w->worker);
    SET(m, session, w->session);
    SET(m, heartbeat_ms, w->heartbeat_ms);
    m->build = TEXT(w->build);
    m->name = TEXT(w->name);
    m->proof = segment_in(&w->proof, proto, 0);
}

static void to_heartbeat(const cop_heartbeat *h, Coppice__Wire__Heartbeat *m) {
    coppice__wire__heartbeat__init(m);
    SET(m, worker, h->worker);
    SET(m, session, h->session);
    SET(m, lease, h->lease);
    SET(m, draining, h->draining);
}

static void to_heartbeat_reply(const cop_heartbeat_reply *h, Coppice__Wire__HeartbeatReply *m) {
    coppice__wire__heartbeat_reply__init(m);
    SET(m, drain, h->drain);
    SET(m, unknown, h->unknown);
    SET(m, cancel_lease, h->cancel_lease);
}

static void to_result(const cop_result *r, cop_message_proto *proto) {
    Coppice__Wire__Result *m = &proto->result;
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
    if (r->segment) SET(m, segment, r->segment);
    SET_VALUES(m, values, r->values);
    m->failure = clean_text(r->failure, proto);
}

static void to_pull(const cop_pull *p, cop_message_proto *proto) {
    Coppice__Wire__Pull *m = &proto->pull;
    coppice__wire__pull__init(m);
    SET(m, worker, p->worker);
    SET(m, session, p->session);
    SET(m, have_job, p->have_job);
    SET(m, have_version, p->have_version);
    SET_VALUES(m, have_values, p->have_values);
    SET(m, goodbye, p->goodbye);
    if (p->has_proof) {
        m->has_proof = 1;
        m->proof =
            (ProtobufCBinaryData){.len = sizeof p->proof, .data = (uint8_t *)(uintptr_t)p->proof};
    }
    if (!p->result.present) return;
    to_result(&p->result, proto);
    m->result = &proto->result;
}

static void to_lease(const cop_lease *l, cop_message_proto *proto) {
    Coppice__Wire__Lease *m = &proto->lease;
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
    if (l->kind == COP_LEASE_ENSEMBLE) {
        SET(m, member, l->member);
        SET(m, members, l->members);
        SET(m, whole, l->whole);
    }
    SET(m, kind, (Coppice__Wire__Result__Kind)l->kind);
    SET_VALUES(m, weights_values, l->weights_values);
    m->weights = segment_in(&l->weights, proto, 0);
    m->room = segment_in(&l->room, proto, 1);
}

static void to_nothing(const cop_nothing *n, Coppice__Wire__Nothing *m) {
    coppice__wire__nothing__init(m);
    SET(m, retry_ms, n->retry_ms);
    SET(m, drain, n->drain);
    SET(m, unknown, n->unknown);
}

static void to_failure(const cop_failure *f, cop_message_proto *proto) {
    Coppice__Wire__Failure *m = &proto->failure;
    coppice__wire__failure__init(m);
    SET(m, code, (uint32_t)f->code);
    m->text = clean_text(f->text, proto);
}

static void to_call(const cop_call *c, Coppice__Wire__Call *m) {
    coppice__wire__call__init(m);
    SET(m, method, c->method);
    SET(m, major, c->major);
    SET(m, minor, c->minor);
    m->token = TEXT(c->token);
}

void cop_message_to_proto(const cop_message *message, cop_message_proto *proto) {
    switch (message->type) {
    case COP_MESSAGE_HELLO:
        to_hello(&message->hello, &proto->hello);
        return;
    case COP_MESSAGE_WELCOME:
        to_welcome(&message->welcome, proto);
        return;
    case COP_MESSAGE_HEARTBEAT:
        to_heartbeat(&message->heartbeat, &proto->heartbeat);
        return;
    case COP_MESSAGE_HEARTBEAT_REPLY:
        to_heartbeat_reply(&message->heartbeat_reply, &proto->heartbeat_reply);
        return;
    case COP_MESSAGE_PULL:
        to_pull(&message->pull, proto);
        return;
    case COP_MESSAGE_LEASE:
        to_lease(&message->lease, proto);
        return;
    case COP_MESSAGE_NOTHING:
        to_nothing(&message->nothing, &proto->nothing);
        return;
    case COP_MESSAGE_FAILURE:
        to_failure(&message->failure, proto);
        return;
    case COP_MESSAGE_CALL:
        to_call(&message->call, &proto->call);
        return;
    case COP_MESSAGE_ANSWER:
        coppice__wire__answer__init(&proto->answer);
        SET(&proto->answer, method, message->answer.method);
        return;
    }
    COP_ASSERT(!"a message has one of the types");
}

/* ---- protobuf to structs ---- */

/* Copies a text; NULL counts as "". Returns false if the text does not fit. */
static bool take_text(char *to, size_t size, const char *from) {
    COP_ASSERT(size >= 1);
    return (size_t)snprintf(to, size, "%s", from ? from : "") < size;
}
#define TAKE_TEXT(to, from) take_text(to, sizeof(to), from)

/* Copies a sentence for people. If it does not fit, cuts it between two characters. */
static void cut_text(char *to, size_t size, const char *from) {
    size_t length = strlen(from ? from : "");
    if (length >= size) length = size - 1;
    while (length && !cop_utf8_valid(from, length)) length--;
    if (length) memcpy(to, from, length);
    to[length] = '\0';
}

/* Keeps the name even if its size is 0: opening such a segment fails. */
static cop_segment_name segment_from(const Coppice__Wire__Segment *m) {
    if (!m) return (cop_segment_name){0};
    return (cop_segment_name){.id = m->id, .size = m->size, .pid = m->pid, .fd = m->fd};
}

/* Sets *values from a field of type Values. False: this program does not know the type. */
static bool take_values(bool present, Coppice__Wire__Values from, cop_values *values) {
    *values = present && from == COPPICE__WIRE__VALUES__BF16 ? COP_VALUES_BF16 : COP_VALUES_F32;
    return !present || from == COPPICE__WIRE__VALUES__F32 || from == COPPICE__WIRE__VALUES__BF16;
}

static bool from_hello(const Coppice__Wire__Hello *m, cop_hello *h) {
    *h = (cop_hello){.major = m->major,
                     .minor = m->minor,
                     .threads = m->threads,
                     .features = m->features,
                     .worker = m->worker,
                     .session = m->session,
                     .is_client = m->role == COPPICE__WIRE__HELLO__ROLE__CLIENT,
                     .control = m->control};
    if (!m->has_self_test || m->self_test.len != sizeof h->self_test) return false;
    memcpy(h->self_test, m->self_test.data, sizeof h->self_test);
    return TAKE_TEXT(h->build, m->build) && TAKE_TEXT(h->token, m->token) &&
           TAKE_TEXT(h->name, m->name) && TAKE_TEXT(h->isa, m->isa) &&
           TAKE_TEXT(h->arithmetic, m->arithmetic) && TAKE_TEXT(h->fingerprint, m->fingerprint);
}

static bool from_welcome(const Coppice__Wire__Welcome *m, cop_welcome *w) {
    *w = (cop_welcome){.major = m->major,
                       .minor = m->minor,
                       .heartbeat_ms = m->heartbeat_ms,
                       .features = m->features,
                       .worker = m->worker,
                       .session = m->session,
                       .proof = segment_from(m->proof)};
    return TAKE_TEXT(w->build, m->build) && TAKE_TEXT(w->name, m->name);
}

static bool from_pull(const Coppice__Wire__Pull *m, cop_pull *p) {
    *p = (cop_pull){.worker = m->worker,
                    .session = m->session,
                    .have_job = m->have_job,
                    .have_version = m->have_version,
                    .goodbye = m->goodbye,
                    .has_proof = m->has_proof};
    if (m->has_proof && m->proof.len != sizeof p->proof) return false;
    if (!take_values(m->has_have_values, m->have_values, &p->have_values)) return false;
    if (m->has_proof) memcpy(p->proof, m->proof.data, sizeof p->proof);
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
                             .compute_ns = r->compute_ns,
                             .segment = r->segment};
    cut_text(p->result.failure, sizeof p->result.failure, r->failure);
    return take_values(r->has_values, r->values, &p->result.values);
}

static bool from_lease(const Coppice__Wire__Lease *m, cop_lease *l) {
    *l = (cop_lease){.kind = (cop_lease_kind)m->kind,
                     .lease = m->lease,
                     .job = m->job,
                     .step = m->step,
                     .version = m->version,
                     .deadline_ms = m->deadline_ms,
                     .attempt = m->attempt,
                     .first = m->first,
                     .count = m->count,
                     .batch = m->batch,
                     .member = m->member,
                     .members = m->members,
                     .whole = m->whole,
                     .weights = segment_from(m->weights),
                     .room = segment_from(m->room)};
    return m->has_kind && take_values(m->has_weights_values, m->weights_values, &l->weights_values);
}

static void from_failure(const Coppice__Wire__Failure *m, cop_failure *f) {
    const bool known = m->code != 0 && m->code < COP_ERR_COUNT;
    *f = (cop_failure){.code = known ? (cop_err)m->code : COP_ERR_INTERNAL};
    cut_text(f->text, sizeof f->text, m->text);
}

bool cop_message_from_proto(const ProtobufCMessage *base, cop_message *out) {
    COP_ASSERT(base->descriptor == cop_message_descriptor(out->type));
    switch (out->type) {
    case COP_MESSAGE_HELLO:
        return from_hello((const Coppice__Wire__Hello *)base, &out->hello);
    case COP_MESSAGE_WELCOME:
        return from_welcome((const Coppice__Wire__Welcome *)base, &out->welcome);
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
        return from_pull((const Coppice__Wire__Pull *)base, &out->pull);
    case COP_MESSAGE_LEASE:
        return from_lease((const Coppice__Wire__Lease *)base, &out->lease);
    case COP_MESSAGE_NOTHING: {
        const Coppice__Wire__Nothing *m = (const Coppice__Wire__Nothing *)base;
        out->nothing =
            (cop_nothing){.retry_ms = m->retry_ms, .drain = m->drain, .unknown = m->unknown};
        return true;
    }
    case COP_MESSAGE_FAILURE:
        from_failure((const Coppice__Wire__Failure *)base, &out->failure);
        return true;
    case COP_MESSAGE_CALL: {
        const Coppice__Wire__Call *m = (const Coppice__Wire__Call *)base;
        out->call = (cop_call){.method = m->method, .major = m->major, .minor = m->minor};
        return TAKE_TEXT(out->call.token, m->token);
    }
    case COP_MESSAGE_ANSWER:
        out->answer.method = ((const Coppice__Wire__Answer *)base)->method;
        return true;
    }
    return false;
}

const ProtobufCMessageDescriptor *cop_message_descriptor(unsigned type) {
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
