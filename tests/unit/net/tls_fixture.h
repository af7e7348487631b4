/* Good and bad certificates for the TLS tests, in a temporary folder. `ours` and `other` are the
 * folders of two CAs. */
#ifndef COP_TESTS_TLS_FIXTURE_H
#define COP_TESTS_TLS_FIXTURE_H

#include "conformance/net/harness.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <sys/stat.h>

static char root[64]; /* the temporary folder */

static inline const char *path_of(const char *folder, const char *name) {
    static char paths[64][256]; /* a path stays valid for 64 calls, which is enough for a test */
    static int next;
    char *out = paths[next++ % 64];
    snprintf(out, sizeof paths[0], "%s/%s/%s", root, folder, name);
    return out;
}

static inline void make_folder(const char *name) {
    static const char *const hosts[] = {"127.0.0.1", "localhost", NULL};
    const cop_tls_issue issues[] = {{"coordinator", "coordinator", hosts, 30},
                                    {"worker", "worker", NULL, 30},
                                    {"client", "client", NULL, 30}};
    char folder[256];
    cop_error error = {0};
    snprintf(folder, sizeof folder, "%s/%s", root, name);
    cop_err e = cop_tls_create_folder(folder, issues, 3, &error);
    if (e) fprintf(stderr, "%s\n", error.text);
    COP_ASSERT(!e);
}

static inline X509 *read_certificate(const char *path) {
    FILE *file = fopen(path, "r");
    COP_ASSERT(file);
    X509 *certificate = PEM_read_X509(file, NULL, NULL, NULL);
    fclose(file);
    COP_ASSERT(certificate);
    return certificate;
}

static inline EVP_PKEY *read_key(const char *path) {
    FILE *file = fopen(path, "r");
    COP_ASSERT(file);
    EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    fclose(file);
    COP_ASSERT(key);
    return key;
}

static inline void write_certificate(const char *path, X509 *certificate) {
    FILE *file = fopen(path, "w");
    COP_ASSERT(file && PEM_write_X509(file, certificate) == 1);
    fclose(file);
}

/* Makes a changed copy of a certificate: reads FOLDER/FROM.pem, changes it with `change`, signs it
 * again with the key of the folder's CA, and writes FOLDER/NAME.pem. The certificate's own key
 * stays the same. */
static inline void make_changed(const char *folder, const char *from, const char *name,
                                void (*change)(X509 *certificate)) {
    char file[64];
    snprintf(file, sizeof file, "%s.pem", from);
    X509 *certificate = read_certificate(path_of(folder, file));
    EVP_PKEY *ca = read_key(path_of(folder, "ca.key"));
    change(certificate);
    COP_ASSERT(X509_sign(certificate, ca, EVP_sha256()) > 0);
    snprintf(file, sizeof file, "%s.pem", name);
    write_certificate(path_of(folder, file), certificate);
    X509_free(certificate);
    EVP_PKEY_free(ca);
}

static inline void expire(X509 *c) {
    X509_gmtime_adj(X509_getm_notBefore(c), -20 * 86400);
    X509_gmtime_adj(X509_getm_notAfter(c), -10 * 86400);
}

static inline void not_yet(X509 *c) {
    X509_gmtime_adj(X509_getm_notBefore(c), 5 * 86400);
}

static inline void soon_over(X509 *c) {
    X509_gmtime_adj(X509_getm_notAfter(c), 3 * 86400);
}

static inline void add_name(X509 *c, const char *field, const char *text, int length) {
    X509_NAME *name = X509_NAME_dup(X509_get_subject_name(c));
    X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, (const unsigned char *)text, length, -1,
                               0);
    X509_set_subject_name(c, name);
    X509_NAME_free(name);
}

static inline void second_name(X509 *c) {
    add_name(c, "CN", "somebody", -1);
}

static inline void both_roles(X509 *c) {
    add_name(c, "OU", "client", -1);
}

static inline void only_name(X509 *c, const char *text, int length) {
    X509_NAME *name = X509_NAME_new();
    X509_set_subject_name(c, name);
    X509_NAME_free(name);
    add_name(c, "CN", text, length);
}

static inline void many_names(X509 *c) {
    X509_NAME *name = X509_NAME_new();
    X509_NAME_add_entry_by_txt(name, "OU", MBSTRING_UTF8, (const unsigned char *)"worker", -1, -1,
                               0);
    X509_set_subject_name(c, name);
    X509_NAME_free(name);
    add_name(c, "CN", "lab-*", -1);
}

static inline void no_role(X509 *c) {
    only_name(c, "nobody", -1);
}

static inline void nul_in_name(X509 *c) {
    only_name(c, "root\0.example", 13);
}

static inline void escape_in_name(X509 *c) {
    only_name(c, "desk\033[2J", -1);
}

static inline int make_root(void **state) {
    (void)state;
    snprintf(root, sizeof root, "%s/cop-test-tls-%d", P_tmpdir, getpid());
    cop_folder_remove(root, NULL);
    if (mkdir(root, 0700)) return -1;
    make_folder("ours");
    make_folder("other");
    make_changed("ours", "worker", "expired", expire);
    make_changed("ours", "worker", "early", not_yet);
    make_changed("ours", "worker", "soon", soon_over);
    make_changed("ours", "worker", "two-names", second_name);
    make_changed("ours", "worker", "both", both_roles);
    make_changed("ours", "worker", "no-role", no_role);
    make_changed("ours", "worker", "many", many_names);
    make_changed("ours", "worker", "nul", nul_in_name);
    make_changed("ours", "worker", "escape", escape_in_name);
    make_changed("ours", "coordinator", "expired-coordinator", expire);
    return 0;
}

static inline int remove_root(void **state) {
    (void)state;
    remove_test_tls();
    return cop_folder_remove(root, NULL) ? -1 : 0;
}

#endif
