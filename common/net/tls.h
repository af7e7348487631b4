/* TLS for tls+tcp:// addresses: mutual certificates, TLS 1.2 or newer (W7).
 *
 * nng carries the SP messages, OpenSSL encrypts. A thread of ours accepts or dials, does the
 * handshake, and passes bytes between the connection and a socket pair; nng has the other end of
 * the pair as a "socket://" pipe. On the wire this is SP over TLS, the same as nng's own tls+tcp
 * transport. We do not use that transport, because it never closes a connection whose peer falls
 * silent during the handshake, gives no reason for a refusal, and encrypts only 0.3 GB/s (mbedTLS)
 * where OpenSSL encrypts 10.
 *
 * A certificate identifies its holder: the CN of its subject is the name, and each OU is a role. If
 * the CN of a worker ends in "-*", many workers share the certificate, and each chooses its own
 * name after the '-'. Any other CN is one worker, however often it connects. */
#ifndef COP_NET_TLS_H
#define COP_NET_TLS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/limits.h"

/* What a peer may do. A certificate for both roles has both OUs. */
#define COP_ROLE_WORKER 1u /* OU=worker: join the pool, pull shards */
#define COP_ROLE_CLIENT 2u /* OU=client: every call */

/* The identity of a peer, from its certificate. */
typedef struct cop_peer {
    bool certified; /* false: it has no certificate and needs a token; the rest is empty */
    unsigned roles;
    char name[COP_NAME_MAX];
} cop_peer;
/* Returns "worker", "client", "worker and client" or "no role". Static. */
const char *cop_roles_text(unsigned roles);

/* True: many workers share this certificate; *length gets the length of the common prefix of their
 * names, including the '-'. False: *length gets the length of the name. */
bool cop_peer_is_many(const cop_peer *peer, size_t *length);
/* True: the certificate allows the worker to use this name. */
bool cop_peer_may_be(const cop_peer *peer, const char *name);

typedef enum cop_tls_side { COP_TLS_SERVER, COP_TLS_CLIENT } cop_tls_side;

/* --tls-dir, --tls-ca, --tls-cert, --tls-key, --tls-name. NULL: not given; then COPPICE_TLS_DIR
 * and so on replace it. */
typedef struct cop_tls_options {
    const char *folder; /* has ca.pem, STEM.pem and STEM.key, for files that are not given */
    const char *ca, *cert, *key;
    const char *name; /* expected in the coordinator's certificate; NULL: the host of the URL */
} cop_tls_options;
/* Rows of cop_option for these options, but for --tls-name, in a table for a `type` with a field
 * `cop_tls_options tls`. */
#define COP_TLS_OPTIONS(type, stem)                                                                \
    {.name = "tls-dir",                                                                            \
     .argument = "DIR",                                                                            \
     .help = "folder with ca.pem, " stem ".pem and " stem                                          \
             ".key, for tls+tcp:// (default COPPICE_TLS_DIR)",                                     \
     .kind = COP_OPTION_TEXT,                                                                      \
     .offset = offsetof(type, tls.folder)},                                                        \
        {.name = "tls-ca",                                                                         \
         .argument = "FILE",                                                                       \
         .help = "the CA's certificate, if not in --tls-dir (default COPPICE_TLS_CA)",             \
         .kind = COP_OPTION_TEXT,                                                                  \
         .offset = offsetof(type, tls.ca)},                                                        \
        {.name = "tls-cert",                                                                       \
         .argument = "FILE",                                                                       \
         .help = "the " stem "'s certificate, if not in --tls-dir (default COPPICE_TLS_CERT)",     \
         .kind = COP_OPTION_TEXT,                                                                  \
         .offset = offsetof(type, tls.cert)},                                                      \
    {                                                                                              \
        .name = "tls-key", .argument = "FILE",                                                     \
        .help = "the " stem "'s private key, if not in --tls-dir (default COPPICE_TLS_KEY)",       \
        .kind = COP_OPTION_TEXT, .offset = offsetof(type, tls.key)                                 \
    }

/* Loaded credentials. They never change, so any thread may use them. They must outlive the servers
 * and links that use them. */
typedef struct cop_tls cop_tls;
/* Reads and checks credentials: the key belongs to the certificate, others cannot read the key, the
 * CA issued the certificate for this side of a connection, and it is valid now. Logs a warning if
 * it expires within 30 days. The caller owns *out (cop_tls_destroy). INPUT: the error names the
 * file and its fault. USAGE: neither the file nor a folder is given. */
cop_err cop_tls_load(const cop_tls_options *options, const char *stem, cop_tls_side side,
                     cop_tls **out, cop_error *error);
/* Frees the credentials, after all servers and links that use them. NULL has no effect. */
void cop_tls_destroy(cop_tls *tls);
/* Returns our own identity, from our certificate. Owned by `tls`. */
const cop_peer *cop_tls_self(const cop_tls *tls);
/* Loads the credentials of a program that connects to `url`, as cop_tls_load does. If `url` has no
 * TLS, *out is NULL, and a given option is an error (USAGE). The certificate must have the roles in
 * `role` (0: any); if it has not, INPUT. */
cop_err cop_tls_for_url(const char *url, const cop_tls_options *options, const char *stem,
                        unsigned role, cop_tls **out, cop_error *error);

/* ---- making certificates (tls_issue.c) ---- */
/* A certificate to create. */
typedef struct cop_tls_issue {
    const char *role;         /* "coordinator", "worker", "client" */
    const char *name;         /* CN: letters, digits, '.', '_', '-'; a worker's may end in "-*" */
    const char *const *hosts; /* of a coordinator: DNS names and IP addresses; NULL-terminated */
    int days;                 /* of validity */
} cop_tls_issue;
/* Writes the stem of its file names (without .pem and .key): "ROLE-NAME" without the "-*", or
 * "ROLE" if role and name are equal. */
void cop_tls_issue_stem(const cop_tls_issue *issue, char out[COP_NAME_MAX]);
/* Creates a folder, which must be absent or empty, with a CA (ca.pem, ca.key) and these
 * certificates (STEM.pem, STEM.key). On failure it creates nothing. Keys have mode 0600. EXISTS:
 * the folder is not empty. USAGE: a role, name, host or number of days is not valid. */
cop_err cop_tls_create_folder(const char *folder, const cop_tls_issue *issues, int count,
                              cop_error *error);
/* Creates one more certificate with the folder's CA. EXISTS: a file with its name exists. INPUT:
 * the CA cannot be read. USAGE: as above. */
cop_err cop_tls_add(const char *folder, const cop_tls_issue *issue, cop_error *error);

#endif
