/* TLS for tls+tcp:// addresses, version 1.2 or newer. Both sides must present certificates.
 *
 * OpenSSL encrypts, and nng handles the messages. A thread of ours accepts or opens the TCP
 * connection, does the TLS handshake, and then passes bytes between the connection and one end of a
 * socket pair. nng gets the other end, as a pipe of its "socket://" transport. The bytes on the
 * network are the same as with nng's own tls+tcp transport: nng's protocol SP inside TLS. We do not
 * use that transport for three reasons. If a peer falls silent during the handshake, it never
 * closes the connection. It gives no reason for a refusal. And its mbedTLS encrypts only 0.3 GB/s,
 * while OpenSSL encrypts more than 30 times as much.
 *
 * A certificate identifies its holder: the CN of its subject is the name, and each OU is a role. If
 * the CN of a worker ends in "-*", many workers share the certificate, and each of them chooses its
 * own name, which begins with the CN up to and including that '-'. A certificate with any other CN
 * belongs to one worker, whose name is the CN. */
#ifndef COP_NET_TLS_H
#define COP_NET_TLS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/limits.h"

/* The roles: what a peer may do. A certificate for both roles has both OUs. */
#define COP_ROLE_WORKER 1u /* OU=worker: the peer may join the pool and pull shards */
#define COP_ROLE_CLIENT 2u /* OU=client: the peer may make every call of a client */

/* The identity of a peer, from its certificate. */
typedef struct cop_peer {
    bool certified;          /* false: it has no certificate, and the other fields are empty */
    unsigned roles;          /* COP_ROLE_WORKER, COP_ROLE_CLIENT, both or none */
    char name[COP_NAME_MAX]; /* the CN */
} cop_peer;
/* Returns "worker", "client", "worker and client" or "no role", as a static string. */
const char *cop_roles_text(unsigned roles);

/* True: many workers share this certificate, because its CN ends in "-*". Then *length gets the
 * length of the beginning that their names share, including the '-'. False: *length gets the length
 * of the name. */
bool cop_peer_is_shared(const cop_peer *peer, size_t *length);
/* True: the certificate allows a worker to use the name `name`. */
bool cop_peer_allows_name(const cop_peer *peer, const char *name);

typedef enum cop_tls_side { COP_TLS_SERVER, COP_TLS_CLIENT } cop_tls_side;

/* The values of the TLS options. If an option was not given, its field is NULL, and the value of
 * its environment variable is used. */
typedef struct cop_tls_options {
    const char *folder; /* --tls-dir or COPPICE_TLS_DIR: the folder of files that are NULL below */
    const char *ca;     /* --tls-ca or COPPICE_TLS_CA; in the folder: ca.pem */
    const char *cert;   /* --tls-cert or COPPICE_TLS_CERT; in the folder: STEM.pem */
    const char *key;    /* --tls-key or COPPICE_TLS_KEY; in the folder: STEM.key */
    /* --tls-name or COPPICE_TLS_NAME: the host that the coordinator's certificate must be for. If
     * neither is given, this is the host of the URL. */
    const char *name;
} cop_tls_options;
/* The rows of a table of options (cop_option) for all these options except --tls-name. `type` is
 * the caller's struct, which has a field `cop_tls_options tls`. */
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
/* The rows of all options by which a program proves its identity to a coordinator: those of
 * COP_TLS_OPTIONS, --tls-name, --token and --token-file. So `type` also has the fields `token` and
 * `token_file`. */
#define COP_CREDENTIAL_OPTIONS(type, stem)                                                         \
    {.name = "token",                                                                              \
     .argument = "TEXT",                                                                           \
     .help = "the coordinator's token (default COPPICE_TOKEN, or that of your own coordinator "    \
             "on this machine)",                                                                   \
     .kind = COP_OPTION_TEXT,                                                                      \
     .offset = offsetof(type, token)},                                                             \
        {.name = "token-file",                                                                     \
         .argument = "FILE",                                                                       \
         .help = "file that contains the token",                                                   \
         .kind = COP_OPTION_TEXT,                                                                  \
         .offset = offsetof(type, token_file)},                                                    \
        COP_TLS_OPTIONS(type, stem), {                                                             \
        .name = "tls-name", .argument = "HOST",                                                    \
        .help = "the name in the coordinator's certificate (default: the host in the URL)",        \
        .kind = COP_OPTION_TEXT, .offset = offsetof(type, tls.name)                                \
    }

/* Loaded credentials: our certificate and its key, and the CA's certificate. They never change, so
 * any thread may use them. They must outlive the servers and links that use them. */
typedef struct cop_tls cop_tls;
/* Reads credentials, and checks that
 *  - the key belongs to the certificate;
 *  - its file has at most mode 0640, so that other users cannot read it;
 *  - the CA issued the certificate, for this side of a connection (`side`);
 *  - the certificate is valid now, and its subject has exactly one CN.
 * `stem` is the STEM of the file names in the folder. Logs a warning if the certificate expires
 * within 30 days. The caller owns *out and frees it with cop_tls_destroy. INPUT: a check failed;
 * the error names the file and its fault. USAGE: neither a file nor the folder is given. */
cop_err cop_tls_load(const cop_tls_options *options, const char *stem, cop_tls_side side,
                     cop_tls **out, cop_error *error);
/* Frees the credentials. Free the servers and links that use them first. NULL has no effect. */
void cop_tls_destroy(cop_tls *tls);
/* Returns our own identity, from our certificate. Owned by `tls`. */
const cop_peer *cop_tls_self(const cop_tls *tls);
/* Loads the credentials of a program that connects to `url`, like cop_tls_load. `role` has the
 * roles that the certificate must have; 0 requires none. If `url` is not tls+tcp://, it loads
 * nothing, and *out is NULL. INPUT: as for cop_tls_load, or the certificate lacks a role. USAGE: as
 * for cop_tls_load, or an option is given although `url` is not tls+tcp://. */
cop_err cop_tls_for_url(const char *url, const cop_tls_options *options, const char *stem,
                        unsigned role, cop_tls **out, cop_error *error);

/* ---- making certificates (tls_issue.c) ---- */
/* A certificate to create. */
typedef struct cop_tls_issue {
    const char *role; /* "coordinator", "worker" or "client"; the OU */
    const char *name; /* the CN: letters, digits, '.', '_' and '-'; a worker's may end in "-*" */
    /* The DNS names and IP addresses of a coordinator, NULL-terminated. Not used for other
     * roles. */
    const char *const *hosts;
    int days; /* number of days for which the certificate is valid */
} cop_tls_issue;
/* Writes the stem of the certificate's file names, to which ".pem" and ".key" are appended. The
 * stem is "ROLE-NAME", where NAME is without a final "-*". If NAME equals ROLE, the stem is
 * "ROLE". */
void cop_tls_issue_stem(const cop_tls_issue *issue, char out[COP_NAME_MAX]);
/* Creates a folder with a new CA (ca.pem, ca.key) and with `count` certificates that this CA issues
 * (STEM.pem, STEM.key). The folder must be absent or empty. Keys have mode 0600. After an error,
 * nothing has been created. EXISTS: the folder is not empty, or is a file. USAGE: a role, a name, a
 * host or a number of days is not valid. */
cop_err cop_tls_create_folder(const char *folder, const cop_tls_issue *issues, int count,
                              cop_error *error);
/* Adds a certificate to such a folder, issued by the folder's CA. EXISTS: the folder already has
 * one of its files. NOT_FOUND, INPUT and others: the CA's files cannot be read or used. USAGE: the
 * role, the name, a host or the number of days is not valid. */
cop_err cop_tls_add_certificate(const char *folder, const cop_tls_issue *issue, cop_error *error);

#endif
