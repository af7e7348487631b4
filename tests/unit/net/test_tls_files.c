/* Certificates for tls+tcp:// are made, read and checked before a peer sees them.
 * LABELS: quick */
#include "unit/net/tls_fixture.h"

/* ---- loading ---- */

/* Loads ours/ca.pem with a certificate and a key from `ours` or `other`. */
static cop_err load(const char *certificate, const char *key, cop_tls_side side, cop_tls **out,
                    cop_error *error) {
    const cop_tls_options o = {.ca = path_of("ours", "ca.pem"), .cert = certificate, .key = key};
    memset(error, 0, sizeof *error);
    return cop_tls_load(&o, "worker", side, out, error);
}

static void check_refused(const char *certificate, const char *key, cop_tls_side side,
                          const char *words) {
    cop_tls *tls = NULL;
    cop_error error;
    cop_err e = load(certificate, key, side, &tls, &error);
    if (e != COP_ERR_INPUT || !strstr(error.text, words))
        fprintf(stderr, "%s: expected \"%s\", got %d %s\n", certificate, words, e, error.text);
    assert_int_equal(e, COP_ERR_INPUT);
    assert_non_null(strstr(error.text, words));
    assert_null(tls);
}

static void test_own_certificate_is_checked(void **state) {
    (void)state;
    const char *key = path_of("ours", "worker.key");
    cop_tls *tls;
    cop_error error;
    assert_int_equal(load(path_of("ours", "worker.pem"), key, COP_TLS_CLIENT, &tls, &error), 0);
    assert_string_equal(cop_tls_self(tls)->name, "worker");
    assert_int_equal(cop_tls_self(tls)->roles, COP_ROLE_WORKER);
    cop_tls_destroy(tls);
    assert_int_equal(load(path_of("ours", "both.pem"), key, COP_TLS_CLIENT, &tls, &error), 0);
    assert_int_equal(cop_tls_self(tls)->roles, COP_ROLE_WORKER | COP_ROLE_CLIENT);
    cop_tls_destroy(tls);
    check_refused(path_of("ours", "expired.pem"), key, COP_TLS_CLIENT, "\"worker\" expired on 20");
    check_refused(path_of("ours", "early.pem"), key, COP_TLS_CLIENT, "valid only from 20");
    check_refused(path_of("ours", "worker.pem"), key, COP_TLS_SERVER, "extended key usage");
    check_refused(path_of("ours", "coordinator.pem"), path_of("ours", "coordinator.key"),
                  COP_TLS_CLIENT, "extended key usage");
    check_refused(path_of("other", "worker.pem"), path_of("other", "worker.key"), COP_TLS_CLIENT,
                  "issued by another CA");
    check_refused(path_of("ours", "worker.pem"), path_of("ours", "client.key"), COP_TLS_CLIENT,
                  "does not belong to the certificate");
    check_refused(key, key, COP_TLS_CLIENT, "not a certificate");
    check_refused(path_of("ours", "worker.pem"), path_of("ours", "ca.pem"), COP_TLS_CLIENT,
                  "private key");
    for (int i = 0; i < 3; i++) {
        const char *const names[] = {"two-names.pem", "nul.pem", "escape.pem"};
        check_refused(path_of("ours", names[i]), key, COP_TLS_CLIENT, "one CN");
    }
}

static void test_key_readable_by_others_is_refused(void **state) {
    (void)state;
    const char *key = path_of("ours", "worker.key");
    const mode_t bad[] = {0644, 0604, 0660, 0601}, good[] = {0600, 0400, 0640, 0440};
    cop_tls *tls;
    cop_error error;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(chmod(key, bad[i]), 0);
        check_refused(path_of("ours", "worker.pem"), key, COP_TLS_CLIENT, "expected 0600");
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(chmod(key, good[3 - i]), 0);
        assert_int_equal(load(path_of("ours", "worker.pem"), key, COP_TLS_CLIENT, &tls, &error), 0);
        cop_tls_destroy(tls);
    }
}

static void test_missing_files_are_named(void **state) {
    (void)state;
    cop_tls *tls = NULL;
    cop_error error = {0};
    assert_int_equal(load("/nowhere/w.pem", "/nowhere/w.key", COP_TLS_CLIENT, &tls, &error),
                     COP_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, "/nowhere/w.pem"));
    const cop_tls_options none = {0};
    assert_int_equal(cop_tls_load(&none, "worker", COP_TLS_CLIENT, &tls, &error), COP_ERR_USAGE);
    assert_non_null(strstr(error.text, "--tls-dir"));
}

static void test_tls_options_must_match_the_address(void **state) {
    (void)state;
    char folder[256];
    snprintf(folder, sizeof folder, "%s/ours", root);
    const cop_tls_options o = {.folder = folder}, none = {0};
    cop_tls *tls = NULL;
    cop_error error = {0};
    const char *url = "tls+tcp://localhost:1";
    assert_int_equal(cop_tls_for_url("tcp://h:1", &none, "worker", 0, &tls, &error), COP_OK);
    assert_null(tls);
    assert_int_equal(cop_tls_for_url("tcp://h:1", &o, "worker", 0, &tls, &error), COP_ERR_USAGE);
    assert_non_null(strstr(error.text, "not encrypted"));
    assert_int_equal(cop_tls_for_url(url, &o, "worker", COP_ROLE_CLIENT, &tls, &error),
                     COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "OU=client"));
    assert_int_equal(cop_tls_for_url(url, &o, "worker", COP_ROLE_WORKER, &tls, &error), COP_OK);
    assert_non_null(tls);
    cop_tls_destroy(tls);
}

/* ---- creating ---- */

static void test_certificate_folder_is_private(void **state) {
    (void)state;
    const char *const keys[] = {"ca.key", "coordinator.key", "worker.key", "client.key"};
    struct stat status;
    assert_int_equal(stat(path_of("other", ""), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0700);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(stat(path_of("other", keys[i]), &status), 0);
        assert_int_equal(status.st_mode & 07777, 0600);
    }
}

static void test_existing_certificates_are_not_overwritten(void **state) {
    (void)state;
    char folder[128];
    snprintf(folder, sizeof folder, "%s/ours", root);
    const cop_tls_issue again = {"worker", "worker", NULL, 1};
    cop_error error = {0};
    X509 *before = read_certificate(path_of("ours", "worker.pem"));
    assert_int_equal(cop_tls_create_folder(folder, &again, 1, &error), COP_ERR_EXISTS);
    assert_int_equal(cop_tls_add_certificate(folder, &again, &error), COP_ERR_EXISTS);
    assert_non_null(strstr(error.text, "worker.key already exists"));
    X509 *after = read_certificate(path_of("ours", "worker.pem"));
    assert_int_equal(X509_cmp(before, after), 0);
    X509_free(before);
    X509_free(after);
    /* If a certificate exists without its key, no new key is left behind. */
    assert_int_equal(rename(path_of("ours", "client.key"), path_of("ours", "kept")), 0);
    const cop_tls_issue client = {"client", "client", NULL, 1};
    assert_int_equal(cop_tls_add_certificate(folder, &client, &error), COP_ERR_EXISTS);
    assert_false(cop_file_exists(path_of("ours", "client.key")));
    assert_int_equal(rename(path_of("ours", "kept"), path_of("ours", "client.key")), 0);
}

static void test_certificate_names_are_checked(void **state) {
    (void)state;
    char folder[128];
    snprintf(folder, sizeof folder, "%s/ours", root);
    const char *const bad[] = {"",
                               "../x",
                               "a/b",
                               "a b",
                               "-a",
                               ".a",
                               "a\n",
                               "a\"b",
                               "*",
                               "-*",
                               "a*",
                               "a-*-*",
                               "0123456789012345678901234567890123456789012345678901234567890"};
    cop_error error = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const cop_tls_issue issue = {"worker", bad[i], NULL, 1};
        assert_int_equal(cop_tls_add_certificate(folder, &issue, &error), COP_ERR_USAGE);
    }
    const cop_tls_issue role = {"root", "x", NULL, 1};
    assert_int_equal(cop_tls_add_certificate(folder, &role, &error), COP_ERR_USAGE);
    const char *const hosts[] = {"good.example", "bad,DNS:evil", NULL};
    const cop_tls_issue issue = {"coordinator", "x", hosts, 1};
    assert_int_equal(cop_tls_add_certificate(folder, &issue, &error), COP_ERR_USAGE);
    assert_non_null(strstr(error.text, "bad,DNS:evil"));
}

static void test_certificates_for_one_name_and_for_many(void **state) {
    (void)state;
    const cop_peer one = {true, COP_ROLE_WORKER, "desk-7"}, many = {true, COP_ROLE_WORKER, "lab-*"};
    const cop_peer star = {true, COP_ROLE_WORKER, "-*"}, nobody = {0};
    assert_true(cop_peer_allows_name(&one, "desk-7"));
    assert_true(cop_peer_allows_name(&many, "lab-7"));
    const char *const wrong[] = {"", "desk", "desk-", "desk-7-2", "lab", "lab-", "lax-7", "xlab-7"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_false(cop_peer_allows_name(&one, wrong[i]));
        assert_false(cop_peer_allows_name(&many, wrong[i]));
        assert_false(cop_peer_allows_name(&star, wrong[i])); /* not for all names */
        assert_int_equal(cop_peer_allows_name(&nobody, wrong[i]), *wrong[i] == '\0');
    }
    const char *const names[][3] = {{"worker", "worker-*", "worker"},
                                    {"worker", "worker", "worker"},
                                    {"worker", "lab-*", "worker-lab"},
                                    {"client", "alice", "client-alice"}};
    for (int i = 0; i < 4; i++) {
        const cop_tls_issue issue = {names[i][0], names[i][1], NULL, 1};
        char stem[COP_NAME_MAX];
        cop_tls_issue_stem(&issue, stem);
        assert_string_equal(stem, names[i][2]);
    }
}

int main(void) {
    cop_log_configure(COP_LOG_NONE, false);
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_certificate_is_checked),
        cmocka_unit_test(test_key_readable_by_others_is_refused),
        cmocka_unit_test(test_missing_files_are_named),
        cmocka_unit_test(test_tls_options_must_match_the_address),
        cmocka_unit_test(test_certificate_folder_is_private),
        cmocka_unit_test(test_existing_certificates_are_not_overwritten),
        cmocka_unit_test(test_certificate_names_are_checked),
        cmocka_unit_test(test_certificates_for_one_name_and_for_many),
    };
    return cmocka_run_group_tests_name("tls files", tests, make_root, remove_root);
}
