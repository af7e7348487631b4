/* Credentials: reads and checks our certificate and key, identifies peers, and explains faults of
 * certificates. See tls.h. */
#include "common/net/tls_internal.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/str.h"

#define PEM_FILE_MAX  (1u << 20) /* bytes of one file with certificates or a key */
#define WARN_DAYS     30         /* a certificate that is valid for fewer days causes a warning */
#define CIPHERS_TLS12 "ECDHE+AESGCM:ECDHE+CHACHA20"

/* ---- texts ---- */

const char *cop_roles_text(unsigned roles) {
    static const char *const texts[] = {"no role", "worker", "client", "worker and client"};
    return texts[roles & (COP_ROLE_WORKER | COP_ROLE_CLIENT)];
}

bool cop_peer_is_shared(const cop_peer *peer, size_t *length) {
    *length = strlen(peer->name);
    bool many = *length > 2 && strcmp(peer->name + *length - 2, "-*") == 0;
    if (many) (*length)--;
    return many;
}

bool cop_peer_allows_name(const cop_peer *peer, const char *name) {
    size_t length;
    if (!cop_peer_is_shared(peer, &length)) return strcmp(name, peer->name) == 0;
    return strncmp(name, peer->name, length) == 0 && name[length] != '\0';
}

/* Formats a time, such as "2026-11-25 10:47:07 UTC". Returns `out`. */
static const char *date_text(const ASN1_TIME *time, char out[40]) {
    struct tm tm;
    if (!ASN1_TIME_to_tm(time, &tm) || !strftime(out, 40, "%Y-%m-%d %H:%M:%S UTC", &tm))
        snprintf(out, 40, "an unknown date");
    return out;
}

/* Returns the text of this thread's newest OpenSSL error, or "" if there is none. Clears the
 * thread's queue of errors. */
static const char *openssl_text(void) {
    unsigned long code = ERR_peek_last_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return text ? text : "";
}

/* Copies the text of the entry at index `place` of the subject. False: the text is empty, has
 * COP_NAME_MAX bytes or more, or has control characters; `out` is then "". */
static bool subject_text(X509_NAME *subject, int place, char out[COP_NAME_MAX]) {
    unsigned char *utf8 = NULL;
    X509_NAME_ENTRY *entry = X509_NAME_get_entry(subject, place);
    int length = entry ? ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(entry)) : -1;
    bool good = length > 0 && length < COP_NAME_MAX && cop_name_ok((char *)utf8, (size_t)length);
    snprintf(out, COP_NAME_MAX, "%.*s", good ? length : 0, good ? (char *)utf8 : "");
    OPENSSL_free(utf8);
    return good;
}

/* Reads the CN and the OUs of the certificate's subject. True only if the subject has exactly one
 * CN and subject_text accepts it. OUs that name no role are ignored. */
static bool read_identity(X509 *certificate, cop_peer *out) {
    X509_NAME *subject = X509_get_subject_name(certificate);
    char unit[COP_NAME_MAX];
    *out = (cop_peer){.certified = true};
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    bool good = at >= 0 && X509_NAME_get_index_by_NID(subject, NID_commonName, at) < 0 &&
                subject_text(subject, at, out->name);
    for (at = -1;
         (at = X509_NAME_get_index_by_NID(subject, NID_organizationalUnitName, at)) >= 0;) {
        if (!subject_text(subject, at, unit)) continue;
        if (strcmp(unit, "worker") == 0) out->roles |= COP_ROLE_WORKER;
        if (strcmp(unit, "client") == 0) out->roles |= COP_ROLE_CLIENT;
    }
    return good;
}

/* Writes the hosts that a certificate is for, as many as fit, such as "DNS:localhost, DNS:pool". If
 * there are none, it writes "no name". */
static void list_hosts(X509 *certificate, char *out, size_t size) {
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int listed = 0;
    snprintf(out, size, "no name");
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && strlen(out) + 80 < size; i++) {
        char text[80] = "";
        BIO *bio = BIO_new(BIO_s_mem());
        if (bio && GENERAL_NAME_print(bio, sk_GENERAL_NAME_value(names, i)))
            BIO_read(bio, text, sizeof text - 1);
        BIO_free(bio);
        if (!listed) out[0] = '\0';
        cop_text_append(out, size, "%s%s", listed++ ? ", " : "", text);
    }
    GENERAL_NAMES_free(names);
}

/* Writes a sentence about the fault of `certificate`. `code` is an error of OpenSSL's verifier, and
 * `what` names the certificate, such as "the CA's certificate". */
static void describe_verdict(int code, X509 *certificate, const char *what, char *out,
                             size_t size) {
    char name[COP_NAME_MAX], date[40], hosts[200];
    cop_peer peer;
    read_identity(certificate, &peer);
    snprintf(name, sizeof name, "%s", peer.name[0] ? peer.name : "without a usable CN");
    switch (code) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        snprintf(out, size, "%s \"%.100s\" expired on %s", what, name,
                 date_text(X509_get0_notAfter(certificate), date));
        return;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        snprintf(out, size, "%s \"%.100s\" is valid only from %s on (is the clock right?)", what,
                 name, date_text(X509_get0_notBefore(certificate), date));
        return;
    case X509_V_ERR_INVALID_PURPOSE:
        snprintf(out, size,
                 "%s \"%.100s\" is not meant for this side of a connection (its "
                 "extended key usage)",
                 what, name);
        return;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        list_hosts(certificate, hosts, sizeof hosts);
        snprintf(out, size, "%s \"%.100s\" is for %s, not for this host", what, name, hosts);
        return;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        snprintf(out, size, "%s \"%.100s\" was issued by another CA", what, name);
        return;
    default:
        snprintf(out, size, "%s \"%.100s\": %s", what, name, X509_verify_cert_error_string(code));
    }
}

/* ---- reading and checking our own files ---- */

static int no_password(char *buffer, int size, int writing, void *unused) {
    (void)buffer, (void)size, (void)writing, (void)unused;
    return -1; /* no password: OpenSSL must not ask for one at the terminal */
}

/* Checks that other users cannot read or change the key, and that its group cannot change it. The
 * group may read it, because services and container secrets need this. */
static cop_err check_key_mode(const char *path, cop_error *error) {
    struct stat status;
    if (stat(path, &status) != 0) return COP_OK; /* OpenSSL will report that the file is gone */
    if ((status.st_mode & 027) == 0) return COP_OK;
    return cop_fail(error, COP_ERR_INPUT,
                    "%s: this private key has mode %04o: expected 0600 (at most 0640), so that "
                    "others cannot read it (chmod 600 %s)",
                    path, (unsigned)status.st_mode & 07777, path);
}

/* Checks that a file exists and can be read, because OpenSSL's own messages about this are poor. */
static cop_err check_file(const char *path, cop_error *error) {
    char *text;
    size_t size;
    COP_TRY(cop_file_read(path, PEM_FILE_MAX, &text, &size, error));
    OPENSSL_cleanse(text, size);
    cop_free(text);
    return COP_OK;
}

static cop_err load_files(SSL_CTX *context, const cop_tls_options *o, cop_error *error) {
    COP_ASSERT(o->ca && o->cert && o->key);
    COP_TRY(check_file(o->ca, error));
    COP_TRY(check_file(o->cert, error));
    COP_TRY(check_file(o->key, error));
    COP_TRY(check_key_mode(o->key, error));
    SSL_CTX_set_default_passwd_cb(context, no_password);
    ERR_clear_error();
    if (SSL_CTX_load_verify_file(context, o->ca) != 1)
        return cop_fail(error, COP_ERR_INPUT, "%s: not a CA's certificate in PEM form (%s)", o->ca,
                        openssl_text());
    if (SSL_CTX_use_certificate_chain_file(context, o->cert) != 1)
        return cop_fail(error, COP_ERR_INPUT, "%s: not a certificate in PEM form (%s)", o->cert,
                        openssl_text());
    if (SSL_CTX_use_PrivateKey_file(context, o->key, SSL_FILETYPE_PEM) == 1 &&
        SSL_CTX_check_private_key(context) == 1)
        return COP_OK;
    unsigned long code = ERR_peek_last_error();
    bool other = ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH ||
                 ERR_GET_REASON(code) == X509_R_KEY_TYPE_MISMATCH;
    if (other) {
        ERR_clear_error();
        return cop_fail(error, COP_ERR_INPUT, "%s: this key does not belong to the certificate %s",
                        o->key, o->cert);
    }
    return cop_fail(error, COP_ERR_INPUT, "%s: not an unencrypted private key in PEM form (%s)",
                    o->key, openssl_text());
}

/* Checks that a peer that uses the same CA would accept our certificate. */
static cop_err check_own(const cop_tls *tls, const cop_tls_options *o, cop_error *error) {
    X509 *certificate = SSL_CTX_get0_certificate(tls->context);
    STACK_OF(X509) *chain = NULL;
    SSL_CTX_get0_chain_certs(tls->context, &chain);
    X509_STORE_CTX *check = X509_STORE_CTX_new();
    if (!check ||
        !X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(tls->context), certificate, chain)) {
        X509_STORE_CTX_free(check);
        return cop_no_memory(error);
    }
    X509_STORE_CTX_set_default(check, tls->side == COP_TLS_SERVER ? "ssl_server" : "ssl_client");
    bool good = X509_verify_cert(check) == 1;
    int code = X509_STORE_CTX_get_error(check);
    X509_STORE_CTX_free(check);
    ERR_clear_error();
    if (good) return COP_OK;
    char text[400];
    describe_verdict(code, certificate, "the certificate", text, sizeof text);
    return cop_fail(error, COP_ERR_INPUT, "%s: %s", o->cert, text);
}

static void warn_of_expiry(const cop_tls *tls, const char *path) {
    const ASN1_TIME *end = X509_get0_notAfter(SSL_CTX_get0_certificate(tls->context));
    int days = 0, seconds = 0;
    char date[40];
    if (!ASN1_TIME_diff(&days, &seconds, NULL, end) || days >= WARN_DAYS) return;
    cop_log(COP_LOG_WARN, "tls", "%s expires on %s, in %d days", path, date_text(end, date), days);
}

static int on_verified(int good, X509_STORE_CTX *check) {
    SSL *ssl = X509_STORE_CTX_get_ex_data(check, SSL_get_ex_data_X509_STORE_CTX_idx());
    tls_verdict *verdict = ssl ? SSL_get_app_data(ssl) : NULL;
    if (good || !verdict || verdict->text[0]) return good;
    int code = X509_STORE_CTX_get_error(check);
    /* For a wrong date the sentence names the certificate with that date, which may be the CA's.
     * For all other faults it names the peer's own certificate, because people know that one. */
    bool dated = code == X509_V_ERR_CERT_HAS_EXPIRED || code == X509_V_ERR_CERT_NOT_YET_VALID;
    bool ca = dated && X509_STORE_CTX_get_error_depth(check) > 0;
    describe_verdict(
        code, ca ? X509_STORE_CTX_get_current_cert(check) : X509_STORE_CTX_get0_cert(check),
        ca ? "the CA's certificate" : "the certificate", verdict->text, sizeof verdict->text);
    return good;
}

/* Makes both sides present certificates. Forbids renegotiation and session tickets, so that the
 * certificates are checked for each connection. False: OpenSSL refused a setting. */
static bool configure_context(SSL_CTX *context) {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verified);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
                                     SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_read_ahead(context, 1);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, CIPHERS_TLS12) == 1 &&
           SSL_CTX_set_num_tickets(context, 0) == 1;
}

static cop_err load_credentials(cop_tls *tls, const cop_tls_options *o, cop_error *error) {
    tls->context =
        SSL_CTX_new(tls->side == COP_TLS_SERVER ? TLS_server_method() : TLS_client_method());
    if (!tls->context || !configure_context(tls->context))
        return cop_fail(error, COP_ERR_NO_MEMORY, "TLS cannot be set up: %s", openssl_text());
    COP_TRY(load_files(tls->context, o, error));
    if (!read_identity(SSL_CTX_get0_certificate(tls->context), &tls->self))
        return cop_fail(error, COP_ERR_INPUT,
                        "%s: expected one CN in the certificate's subject, printable and shorter "
                        "than %d bytes",
                        o->cert, COP_NAME_MAX);
    COP_TRY(check_own(tls, o, error));
    if (o->name && snprintf(tls->name, sizeof tls->name, "%s", o->name) >= (int)sizeof tls->name)
        return cop_fail(error, COP_ERR_USAGE, "--tls-name is longer than %zu characters",
                        sizeof tls->name - 1);
    warn_of_expiry(tls, o->cert);
    return COP_OK;
}

/* ---- options ---- */

static const char *or_environment(const char *given, const char *name) {
    const char *value = given ? NULL : getenv(name);
    return given ? given : value && *value ? value : NULL;
}

/* Copies the options to *out. An option that is not given gets its value from the environment or,
 * if it is a file and its variable is not set either, from the folder. paths[] gets the paths in
 * the folder that were allocated, which the caller frees. */
static cop_err complete_options(const cop_tls_options *given, const char *stem, char *paths[3],
                                cop_tls_options *out, cop_error *error) {
    static const char *const flags[] = {"--tls-ca", "--tls-cert", "--tls-key"};
    const char *folder = or_environment(given->folder, "COPPICE_TLS_DIR");
    *out = (cop_tls_options){.ca = or_environment(given->ca, "COPPICE_TLS_CA"),
                             .cert = or_environment(given->cert, "COPPICE_TLS_CERT"),
                             .key = or_environment(given->key, "COPPICE_TLS_KEY"),
                             .name = or_environment(given->name, "COPPICE_TLS_NAME")};
    const char **const files[] = {&out->ca, &out->cert, &out->key};
    const char *const stems[] = {"ca", stem, stem}, *const ends[] = {".pem", ".pem", ".key"};
    for (int i = 0; i < 3; i++) {
        char name[COP_NAME_MAX];
        snprintf(name, sizeof name, "%s%s", stems[i], ends[i]);
        if (!*files[i] && folder) *files[i] = paths[i] = cop_path_join(folder, name);
        if (*files[i]) continue;
        return folder ? cop_no_memory(error)
                      : cop_fail(error, COP_ERR_USAGE,
                                 "tls+tcp:// needs certificates: pass --tls-dir DIR (or %s FILE), "
                                 "with DIR from coppice-coordinator --init-tls DIR",
                                 flags[i]);
    }
    return COP_OK;
}

cop_err cop_tls_load(const cop_tls_options *options, const char *stem, cop_tls_side side,
                     cop_tls **out, cop_error *error) {
    char *paths[3] = {0};
    cop_tls_options resolved;
    cop_tls *tls = cop_alloc(sizeof *tls);
    if (!tls) return cop_no_memory(error);
    tls->side = side;
    cop_err e = complete_options(options, stem, paths, &resolved, error);
    if (!e) e = load_credentials(tls, &resolved, error);
    for (int i = 0; i < 3; i++) cop_free(paths[i]);
    if (e)
        cop_tls_destroy(tls);
    else
        *out = tls;
    return e;
}

void cop_tls_destroy(cop_tls *tls) {
    if (tls) SSL_CTX_free(tls->context);
    cop_free(tls);
}

const cop_peer *cop_tls_self(const cop_tls *tls) {
    return &tls->self;
}

cop_err cop_tls_for_url(const char *url, const cop_tls_options *o, const char *stem, unsigned role,
                        cop_tls **out, cop_error *error) {
    *out = NULL;
    if (strncmp(url, "tls+tcp://", 10) != 0) {
        if (!o->folder && !o->ca && !o->cert && !o->key && !o->name) return COP_OK;
        return cop_fail(error, COP_ERR_USAGE,
                        "--tls-... is given, but %s is not encrypted: expected tls+tcp://HOST:PORT",
                        url);
    }
    COP_TRY(cop_tls_load(o, stem, COP_TLS_CLIENT, out, error));
    const cop_peer *self = cop_tls_self(*out);
    if ((self->roles & role) == role) return COP_OK;
    cop_err e = cop_fail(error, COP_ERR_INPUT,
                         "the certificate \"%s\" has %s%s: expected OU=%s in its subject",
                         self->name, self->roles ? "only the role of a " : "",
                         cop_roles_text(self->roles), cop_roles_text(role));
    cop_tls_destroy(*out);
    *out = NULL;
    return e;
}

/* ---- connections ---- */

/* Makes the handshake fail if the peer's certificate is not for `host`, which is an IP address or a
 * DNS name. False: OpenSSL cannot use `host`. */
static bool expect_host(SSL *ssl, const char *host) {
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    char name[TLSEXT_MAXLEN_host_name + 1]; /* a copy: OpenSSL's macro takes no const pointer */
    if (X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1) return true;
    ERR_clear_error();
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
                                               X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return snprintf(name, sizeof name, "%s", host) < (int)sizeof name &&
           SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

SSL *net_tls_create(const cop_tls *tls, int fd, const char *host, tls_verdict *verdict) {
    COP_ASSERT(fd >= 0 && verdict && (tls->side == COP_TLS_SERVER || *host));
    SSL *ssl = SSL_new(tls->context);
    if (!ssl) return NULL;
    bool good = SSL_set_fd(ssl, fd) == 1 && SSL_set_app_data(ssl, verdict) == 1;
    if (tls->side == COP_TLS_SERVER)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    if (good && tls->side == COP_TLS_CLIENT)
        good = expect_host(ssl, tls->name[0] ? tls->name : host);
    if (good) return ssl;
    SSL_free(ssl);
    return NULL;
}

bool net_tls_peer(SSL *ssl, cop_peer *out, tls_verdict *verdict) {
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    if (certificate && SSL_get_verify_result(ssl) == X509_V_OK && read_identity(certificate, out))
        return true;
    *out = (cop_peer){0};
    snprintf(verdict->text, sizeof verdict->text,
             "the certificate has no usable name: expected one CN in its subject");
    return false;
}

/* Returns a text for an alert that a peer sends when it refuses our certificate. NULL: `reason` is
 * not such an alert. */
static const char *refusal_text(int reason) {
    switch (reason) {
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        return "it reports that our certificate has expired";
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
        return "it reports that our certificate was issued by another CA";
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
        return "it requires a certificate";
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
        return "it does not accept our certificate";
    default:
        return NULL;
    }
}

bool net_tls_explain(const tls_verdict *verdict, int number, char *out, size_t size) {
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
    const char *refusal = refusal_text(reason), *other = openssl_text();
    if (verdict->text[0]) {
        snprintf(out, size, "%s", verdict->text);
        return true;
    }
    if (refusal || reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
        snprintf(out, size, "%s", refusal ? refusal : "it has no certificate");
        return true;
    }
    bool closed = !*other || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING;
    bool plain = reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST ||
                 reason == SSL_R_RECORD_TOO_SMALL || reason == SSL_R_PACKET_LENGTH_TOO_LONG ||
                 reason == SSL_R_BAD_RECORD_TYPE;
    if (plain)
        snprintf(out, size, "it does not speak TLS");
    else if (closed && number)
        snprintf(out, size, "%s", strerror(number));
    else
        snprintf(out, size, "%s",
                 closed ? "the connection was closed during the handshake" : other);
    return false;
}
