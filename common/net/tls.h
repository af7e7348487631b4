/* TLS for tls+tcp:// addresses: mutual certificates, TLS 1.2 or newer (W7).
 *
 * nng carries SP messages, OpenSSL the encryption: a thread of our own accepts or dials, makes the
 * handshake, and passes bytes between the connection and a socket pair whose other end nng has as a
 * "socket://" pipe. On the wire this is SP over TLS, as nng's own tls+tcp transport speaks it. Why
 * not that one: it never gives up on a peer that falls silent in the handshake, tells no reason for
 * a refusal, and its cipher (mbedTLS) moves 0.3 GB/s where OpenSSL's moves 10.
 *
 * A certificate says who its holder is: the CN of its subject is the name, each OU a role. A
 * worker's CN that ends in "-*" is for many: its holders take names of their own behind the '-',
 * and are told apart by them; any other CN is one worker, however often it connects. */
#ifndef COP_NET_TLS_H
#define COP_NET_TLS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/limits.h"

/* What a peer may do. A certificate for both has both OUs. */
#define COP_ROLE_WORKER 1u /* OU=worker: join the pool, pull shards */
#define COP_ROLE_CLIENT 2u /* OU=client: every call */

/* Who is at the other end. */
typedef struct cop_peer {
    bool certified; /* by a certificate; if not, the rest is empty and a token must do */
    unsigned roles;
    char name[COP_NAME_MAX];
} cop_peer;
/* "worker", "client", "worker and client", "no role". Static. */
const char *cop_roles_text(unsigned roles);

/* Is it one of many with the same certificate? *length gets that of the common beginning of their
 * names, the '-' included; or of the whole name. */
bool cop_peer_is_many(const cop_peer *peer, size_t *length);
/* May the holder of this certificate be called so? */
bool cop_peer_may_be(const cop_peer *peer, const char *name);

typedef enum cop_tls_side { COP_TLS_SERVER, COP_TLS_CLIENT } cop_tls_side;

/* --tls-dir, --tls-ca, --tls-cert, --tls-key, --tls-name; NULL: not given. What is not given comes
 * from COPPICE_TLS_DIR and so on. */
typedef struct cop_tls_options {
    const char *folder; /* stands for ca = folder/ca.pem, cert = folder/STEM.pem, key = ... .key */
    const char *ca, *cert, *key;
    const char *name; /* expected in the coordinator's certificate; NULL: the host of the URL */
} cop_tls_options;
/* The five as lines for --help. */
#define COP_TLS_HELP(stem)                                                                         \
    "  --tls-dir DIR      certificates of tls+tcp://: DIR/ca.pem, DIR/" stem ".pem, DIR/" stem     \
    ".key\n"                                                                                       \
    "  --tls-ca FILE, --tls-cert FILE, --tls-key FILE\n"                                           \
    "                     ... or each file separately (default COPPICE_TLS_DIR, _CA, _CERT, "      \
    "_KEY)\n"

/* Loaded credentials. Never change; any thread. They must outlive the servers and links that use
 * them. */
typedef struct cop_tls cop_tls;
/* Reads and checks them: that the key is the certificate's and not readable by everyone, that the
 * CA issued the certificate, for this side of a connection, and that it is valid now. INPUT names
 * the file and what is wrong with it; USAGE when a file is not named at all. Warns in the log when
 * less than 30 days are left. */
cop_err cop_tls_load(const cop_tls_options *options, const char *stem, cop_tls_side side,
                     cop_tls **out, cop_error *error);
void cop_tls_destroy(cop_tls *tls);
/* Who we are, by our own certificate. */
const cop_peer *cop_tls_self(const cop_tls *tls);
/* Credentials for a program that talks to `url`: NULL for another address than tls+tcp://, where
 * naming a file is a mistake (USAGE). `role` is what the program needs (0: none). */
cop_err cop_tls_for_url(const char *url, const cop_tls_options *options, const char *stem,
                        unsigned role, cop_tls **out, cop_error *error);

/* ---- making certificates (tls_issue.c) ---- */
typedef struct cop_tls_issue {
    const char *role;         /* "coordinator", "worker", "client" */
    const char *name;         /* CN; letters, digits, '.', '_', '-'; at its end may stand "-*" */
    const char *const *hosts; /* of a coordinator: DNS names and IP addresses; NULL-terminated */
    int days;
} cop_tls_issue;
/* The files' name without .pem and .key: the role, and "-NAME" if the name (without "-*") is
 * another. */
void cop_tls_issue_stem(const cop_tls_issue *issue, char out[COP_NAME_MAX]);
/* A new folder (absent, or empty) with a CA and a certificate for each of `issues`, all or nothing:
 * ca.pem, ca.key, STEM.pem, STEM.key; keys have mode 0600. EXISTS if there is something already. */
cop_err cop_tls_create_folder(const char *folder, const cop_tls_issue *issues, int count,
                              cop_error *error);
/* One more certificate of the folder's CA. EXISTS if it is there. */
cop_err cop_tls_add(const char *folder, const cop_tls_issue *issue, cop_error *error);

#endif
