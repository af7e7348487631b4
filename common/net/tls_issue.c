/* Creates a CA, and certificates for coordinators, workers and clients. See tls.h. A coordinator's
 * certificate is for servers (serverAuth) and has the coordinator's hosts; those of workers and
 * clients are for clients (clientAuth). The OU is the role, and the CN is the name. Keys are ECDSA
 * P-256. */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/net/tls.h"

#define CA_DAYS      3650  /* for how many days a CA is valid */
#define BACKDATED_S  3600  /* certificates are valid from an hour ago, because clocks differ */
#define SERIAL_BITS  127   /* random bits of a serial number */
#define PEM_FILE_MAX 65536 /* bytes of ca.pem or ca.key */

typedef struct key_pair {
    X509 *certificate;
    EVP_PKEY *key;
} key_pair;

static void free_pair(key_pair *pair) {
    X509_free(pair->certificate);
    EVP_PKEY_free(pair->key);
    *pair = (key_pair){0};
}

static cop_err fail_openssl(cop_error *error, const char *what) {
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return cop_fail(error, COP_ERR_INTERNAL, "%s: %s", what, text ? text : "out of memory");
}

/* ---- checking the request ---- */

/* Returns the length of the name without a final "-*". */
static int bare_length(const char *name) {
    size_t length = strlen(name);
    bool many = length > 2 && strcmp(name + length - 2, "-*") == 0;
    return (int)(many ? length - 2 : length);
}

void cop_tls_issue_stem(const cop_tls_issue *issue, char out[COP_NAME_MAX]) {
    int length = bare_length(issue->name);
    bool same = (int)strlen(issue->role) == length &&
                strncmp(issue->role, issue->name, (size_t)length) == 0;
    snprintf(out, COP_NAME_MAX, "%s%s%.*s", issue->role, same ? "" : "-", same ? 0 : length,
             issue->name);
}

static bool is_plain_name(const char *text, const char *extra, size_t limit) {
    size_t length = strlen(text);
    bool good = length > 0 && length <= limit && *text != '.' && *text != '-';
    for (const char *p = text; good && *p; p++)
        good = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
               strchr(extra, *p);
    return good;
}

static bool is_address(const char *host) {
    unsigned char bytes[16];
    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

static cop_err check_issue(const cop_tls_issue *issue, cop_error *error) {
    bool coordinator = strcmp(issue->role, "coordinator") == 0;
    COP_ASSERT(!coordinator || issue->hosts);
    if (!coordinator && strcmp(issue->role, "worker") != 0 && strcmp(issue->role, "client") != 0)
        return cop_fail(error, COP_ERR_USAGE, "role \"%s\": expected coordinator, worker or client",
                        issue->role);
    char bare[COP_NAME_MAX];
    snprintf(bare, sizeof bare, "%.*s", bare_length(issue->name), issue->name);
    bool many = strlen(bare) < strlen(issue->name);
    if (!is_plain_name(bare, "._-", 60) || (many && strcmp(issue->role, "worker") != 0))
        return cop_fail(error, COP_ERR_USAGE,
                        "name \"%.80s\": expected at most 60 letters, digits, '.', '_' and '-', "
                        "beginning with a letter or digit; a worker's may end in \"-*\"",
                        issue->name);
    if (issue->days < 1 || issue->days > CA_DAYS)
        return cop_fail(error, COP_ERR_USAGE, "%d days: expected 1 to %d", issue->days, CA_DAYS);
    for (const char *const *host = issue->hosts; coordinator && *host; host++)
        if (!is_address(*host) && !is_plain_name(*host, ".-_", 253))
            return cop_fail(error, COP_ERR_USAGE,
                            "host \"%.80s\": expected a DNS name or an IP address", *host);
    return COP_OK;
}

/* ---- certificates ---- */

static bool set_serial(X509 *certificate) {
    BIGNUM *number = BN_new();
    bool good = number && BN_rand(number, SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) &&
                BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
    BN_free(number);
    return good;
}

static bool add_text(X509_NAME *name, const char *field, const char *text) {
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, (const unsigned char *)text, -1,
                                      -1, 0) == 1;
}

/* Adds an extension, whose value is in the notation of OpenSSL's configuration files. `value` must
 * be a constant of ours, because this notation gives special meanings to some texts. */
static bool add_extension(X509 *certificate, X509 *issuer, int id, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, id, value);
    bool good = extension && X509_add_ext(certificate, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return good;
}

/* Makes OpenSSL's form of a host, which is a DNS name or an IP address. NULL: out of memory. */
static GENERAL_NAME *make_host(const char *host) {
    GENERAL_NAME *name = GENERAL_NAME_new();
    if (!name) return NULL;
    if (is_address(host)) {
        ASN1_OCTET_STRING *bytes = a2i_IPADDRESS(host);
        if (bytes) GENERAL_NAME_set0_value(name, GEN_IPADD, bytes);
        if (bytes) return name;
    } else {
        ASN1_IA5STRING *text = ASN1_IA5STRING_new();
        if (text && ASN1_STRING_set(text, host, -1)) {
            GENERAL_NAME_set0_value(name, GEN_DNS, text);
            return name;
        }
        ASN1_IA5STRING_free(text);
    }
    GENERAL_NAME_free(name);
    return NULL;
}

static bool add_hosts(X509 *certificate, const char *const *hosts) {
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    bool good = names != NULL;
    for (; good && *hosts; hosts++) {
        GENERAL_NAME *name = make_host(*hosts);
        good = name && sk_GENERAL_NAME_push(names, name) > 0;
        if (!good) GENERAL_NAME_free(name);
    }
    good = good && X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, 0) == 1;
    GENERAL_NAMES_free(names);
    return good;
}

/* Creates a key, and a certificate for it with serial number, dates and subject. The certificate is
 * not signed yet. `unit` NULL: the subject has no OU. */
static bool begin_pair(key_pair *pair, const char *unit, const char *name, int days) {
    pair->key = EVP_EC_gen("P-256");
    pair->certificate = X509_new();
    X509 *c = pair->certificate;
    return pair->key && c && X509_set_version(c, X509_VERSION_3) && set_serial(c) &&
           X509_gmtime_adj(X509_getm_notBefore(c), -BACKDATED_S) &&
           X509_time_adj_ex(X509_getm_notAfter(c), days, 0, NULL) &&
           X509_set_pubkey(c, pair->key) &&
           (!unit || add_text(X509_get_subject_name(c), "OU", unit)) &&
           add_text(X509_get_subject_name(c), "CN", name);
}

static cop_err make_ca(key_pair *out, cop_error *error) {
    char name[64];
    unsigned char number[4];
    bool good = RAND_bytes(number, sizeof number) == 1;
    snprintf(name, sizeof name, "Coppice CA %02x%02x%02x%02x", number[0], number[1], number[2],
             number[3]);
    good = good && begin_pair(out, NULL, name, CA_DAYS);
    X509 *c = out->certificate;
    good = good && X509_set_issuer_name(c, X509_get_subject_name(c)) &&
           add_extension(c, c, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
           add_extension(c, c, NID_key_usage, "critical,keyCertSign,cRLSign") &&
           add_extension(c, c, NID_subject_key_identifier, "hash") &&
           X509_sign(c, out->key, EVP_sha256()) > 0;
    return good ? COP_OK : fail_openssl(error, "cannot create the CA's certificate");
}

static cop_err make_pair(const key_pair *ca, const cop_tls_issue *issue, key_pair *out,
                         cop_error *error) {
    COP_ASSERT(ca->certificate && ca->key && !out->certificate && !out->key);
    bool coordinator = strcmp(issue->role, "coordinator") == 0;
    bool good = begin_pair(out, issue->role, issue->name, issue->days);
    X509 *c = out->certificate;
    good = good && X509_set_issuer_name(c, X509_get_subject_name(ca->certificate)) &&
           add_extension(c, ca->certificate, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(c, ca->certificate, NID_key_usage, "critical,digitalSignature") &&
           add_extension(c, ca->certificate, NID_ext_key_usage,
                         coordinator ? "serverAuth" : "clientAuth") &&
           add_extension(c, ca->certificate, NID_subject_key_identifier, "hash") &&
           add_extension(c, ca->certificate, NID_authority_key_identifier, "keyid:always") &&
           (!coordinator || add_hosts(c, issue->hosts)) && X509_sign(c, ca->key, EVP_sha256()) > 0;
    return good ? COP_OK : fail_openssl(error, "cannot create a certificate");
}

/* ---- files ---- */

/* Writes a new file. EXISTS: the file already exists; it is unchanged. */
static cop_err write_new(const char *path, const char *text, size_t size, unsigned mode,
                         cop_error *error) {
    char temporary[4096];
    if (snprintf(temporary, sizeof temporary, "%s.new-%d", path, (int)getpid()) >=
        (int)sizeof temporary)
        return cop_fail(error, COP_ERR_INPUT, "%s: the path is too long", path);
    cop_file_part part = {text, size};
    COP_TRY(cop_file_write(temporary, &part, 1, mode, error));
    cop_err e = COP_OK;
    if (link(temporary, path) != 0)
        e = errno == EEXIST
                ? cop_fail(error, COP_ERR_EXISTS,
                           "%s already exists: remove it first to create a new one", path)
                : cop_fail_errno(error, errno, "cannot write %s", path);
    unlink(temporary);
    return e;
}

/* Writes FOLDER/STEM.key and FOLDER/STEM.pem, or neither. */
static cop_err write_pair(const char *folder, const char *stem, const key_pair *pair,
                          cop_error *error) {
    char paths[2][4096];
    const char *const ends[] = {"key", "pem"};
    BIO *texts[2] = {BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem())};
    bool good =
        texts[0] && texts[1] &&
        PEM_write_bio_PKCS8PrivateKey(texts[0], pair->key, NULL, NULL, 0, NULL, NULL) == 1 &&
        PEM_write_bio_X509(texts[1], pair->certificate) == 1;
    cop_err e = good ? COP_OK : fail_openssl(error, "cannot write a certificate");
    int written = 0;
    for (; written < 2 && !e; written += !e) {
        char *text;
        long size = BIO_get_mem_data(texts[written], &text);
        snprintf(paths[written], sizeof paths[written], "%s/%s.%s", folder, stem, ends[written]);
        e = write_new(paths[written], text, (size_t)size, written == 0 ? 0600 : 0644, error);
    }
    if (e && written == 1) unlink(paths[0]);
    for (int i = 0; i < 2; i++) BIO_free(texts[i]); /* this also overwrites the key in memory */
    return e;
}

static cop_err issue_into(const char *folder, const key_pair *ca, const cop_tls_issue *issue,
                          cop_error *error) {
    char stem[COP_NAME_MAX];
    key_pair pair = {0};
    cop_tls_issue_stem(issue, stem);
    cop_err e = make_pair(ca, issue, &pair, error);
    if (!e) e = write_pair(folder, stem, &pair, error);
    free_pair(&pair);
    return e;
}

static cop_err fill_folder(const char *folder, const cop_tls_issue *issues, int count,
                           cop_error *error) {
    key_pair ca = {0};
    cop_err e = make_ca(&ca, error);
    if (!e) e = write_pair(folder, "ca", &ca, error);
    for (int i = 0; i < count && !e; i++) e = issue_into(folder, &ca, &issues[i], error);
    free_pair(&ca);
    return e;
}

cop_err cop_tls_create_folder(const char *folder, const cop_tls_issue *issues, int count,
                              cop_error *error) {
    char temporary[4096], **names = NULL;
    size_t existing = 0;
    COP_ASSERT(count >= 0 && (issues || !count));
    for (int i = 0; i < count; i++) COP_TRY(check_issue(&issues[i], error));
    if (cop_folder_list(folder, &names, &existing, NULL) == COP_OK) cop_free(names);
    if (existing || cop_file_exists(folder))
        return cop_fail(error, COP_ERR_EXISTS,
                        "%s exists and is not empty: nothing in it was changed (--add creates one "
                        "more certificate)",
                        folder);
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/') length--;
    if (snprintf(temporary, sizeof temporary, "%.*s.new-XXXXXX", (int)length, folder) >=
        (int)sizeof temporary - 64)
        return cop_fail(error, COP_ERR_INPUT, "%s: the path is too long", folder);
    if (!mkdtemp(temporary)) return cop_fail_errno(error, errno, "cannot create %s", folder);
    cop_err e = fill_folder(temporary, issues, count, error);
    if (!e) e = cop_file_rename(temporary, folder, error);
    if (e) cop_folder_remove(temporary, NULL);
    return e;
}

static cop_err read_ca(const char *folder, key_pair *out, cop_error *error) {
    const char *const names[] = {"ca.pem", "ca.key"};
    for (int i = 0; i < 2; i++) {
        char *path = cop_path_join(folder, names[i]), *text = NULL;
        size_t size = 0;
        cop_err e =
            path ? cop_file_read(path, PEM_FILE_MAX, &text, &size, error) : cop_no_memory(error);
        BIO *bio = e ? NULL : BIO_new_mem_buf(text, (int)size);
        if (!e && i == 0) out->certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        if (!e && i == 1) out->key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
        if (!e && !(i ? (void *)out->key : (void *)out->certificate))
            e = cop_fail(error, COP_ERR_INPUT, "%s: not %s in PEM form", path,
                         i ? "an unencrypted private key" : "a certificate");
        BIO_free(bio);
        if (text) OPENSSL_cleanse(text, size);
        cop_free(text);
        cop_free(path);
        COP_TRY(e);
    }
    if (X509_check_private_key(out->certificate, out->key) == 1) return COP_OK;
    ERR_clear_error();
    return cop_fail(error, COP_ERR_INPUT, "%s: ca.key is not the key of ca.pem", folder);
}

cop_err cop_tls_add_certificate(const char *folder, const cop_tls_issue *issue, cop_error *error) {
    key_pair ca = {0};
    COP_TRY(check_issue(issue, error));
    cop_err e = read_ca(folder, &ca, error);
    if (!e) e = issue_into(folder, &ca, issue, error);
    free_pair(&ca);
    return e;
}
