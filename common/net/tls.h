/* TLS for tls+tcp:// addresses: mutual certificates, TLS 1.2 or newer (W7).
 *
 * nng carries the SP messages, OpenSSL encrypts. A thread of ours accepts or dials, makes the
 * handshake, and passes bytes between the connection and a socket pair; nng has the other end of
 * the pair as a "socket://" pipe. On the wire this is SP over TLS, as with nng's own tls+tcp
 * transport. We do not use that transport: it never gives up on a peer that falls silent in the
 * handshake, gives no reason for a refusal, and its cipher (mbedTLS) moves 0.3 GB/s where OpenSSL
 * moves 10.
 *
 * A certificate identifies its holder: the CN of its subject is the name, each OU a role. If a
 * worker's CN ends in "-*", the certificate is for many workers; each chooses its name after the
 * '-', which distinguishes them. Any other CN is one worker, however often it connects. */
#ifndef COP_NET_TLS_H
#define COP_NET_TLS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/limits.h"

/* What a peer may do. A certificate for both roles has both OUs. */
#define COP_ROLE_WORKER 1u /* OU=worker: join the pool, pull shards */
#define COP_ROLE_CLIENT 2u /* OU=client: every call */

/* The identity of a peer. */
typedef struct cop_peer {
    bool certified; /* it has a certificate; if not, the rest is empty and a token is required */
    unsigned roles;
    char name[COP_NAME_MAX];
} cop_peer;
/* "worker", "client", "worker and client", "no role". Static. */
const char *cop_roles_text(unsigned roles);

/* True: several workers share this certificate. *length gets the length of the common start of
 * their names, including the '-'; otherwise that of the whole name. */
bool cop_peer_is_many(const cop_peer *peer, size_t *length);
/* True: the certificate allows this name. */
bool cop_peer_may_be(const cop_peer *peer, const char *name);

typedef enum cop_tls_side { COP_TLS_SERVER, COP_TLS_CLIENT } cop_tls_side;

/* --tls-dir, --tls-ca, --tls-cert, --tls-key, --tls-name; NULL: not given. A missing option comes
 * from COPPICE_TLS_DIR and so on. */
typedef struct cop_tls_options {
    const char *folder; /* gives ca = folder/ca.pem, cert = folder/STEM.pem, key = ... .key */
    const char *ca, *cert, *key;
    const char *name; /* expected in the coordinator's certificate; NULL: the host of the URL */
} cop_tls_options;
/* The options as lines for --help. */
#define COP_TLS_HELP(stem)                                                                         \
    "  --tls-dir DIR      certificates of tls+tcp://: DIR/ca.pem, DIR/" stem ".pem, DIR/" stem     \
    ".key\n"                                                                                       \
    "  --tls-ca FILE, --tls-cert FILE, --tls-key FILE\n"                                           \
    "                     ... or each file separately (default COPPICE_TLS_DIR, _CA, _CERT, "      \
    "_KEY)\n"

/* Loaded credentials. They never change; any thread. They must outlive the servers and links that
 * use them. */
typedef struct cop_tls cop_tls;
/* Reads and checks credentials: the key belongs to the certificate and is not readable by everyone,
 * the CA issued the certificate for this side of a connection, and it is valid now. INPUT: the
 * error names the file and its fault. USAGE: a file is not named at all. Logs a warning if fewer
 * than 30 days are left. */
cop_err cop_tls_load(const cop_tls_options *options, const char *stem, cop_tls_side side,
                     cop_tls **out, cop_error *error);
/* Frees the credentials. NULL has no effect. */
void cop_tls_destroy(cop_tls *tls);
/* Our own identity, by our certificate. */
const cop_peer *cop_tls_self(const cop_tls *tls);
/* Loads the credentials of a program that talks to `url`. *out is NULL for an address without TLS;
 * there, a named file is an error (USAGE). `role` is the role that the program needs (0: none). */
cop_err cop_tls_for_url(const char *url, const cop_tls_options *options, const char *stem,
                        unsigned role, cop_tls **out, cop_error *error);

/* ---- making certificates (tls_issue.c) ---- */
typedef struct cop_tls_issue {
    const char *role;         /* "coordinator", "worker", "client" */
    const char *name;         /* CN: letters, digits, '.', '_', '-'; may end in "-*" */
    const char *const *hosts; /* of a coordinator: DNS names and IP addresses; NULL-terminated */
    int days;
} cop_tls_issue;
/* The file name without .pem and .key: the role, and "-NAME" if the name without "-*" differs from
 * it. */
void cop_tls_issue_stem(const cop_tls_issue *issue, char out[COP_NAME_MAX]);
/* Creates a folder (absent or empty before) with a CA and one certificate per issue, all or
 * nothing: ca.pem, ca.key, STEM.pem, STEM.key. Keys have mode 0600. EXISTS: the folder is not
 * empty. */
cop_err cop_tls_create_folder(const char *folder, const cop_tls_issue *issues, int count,
                              cop_error *error);
/* Creates one more certificate with the folder's CA. EXISTS: it already exists. */
cop_err cop_tls_add(const char *folder, const cop_tls_issue *issue, cop_error *error);

#endif
