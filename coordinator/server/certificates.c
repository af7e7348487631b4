/* coppice-coordinator --init-tls: creates a CA with certificates, and prints how to use the files;
 * or, with --add, creates more certificates of an existing CA. See common/net/tls.h. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/str.h"
#include "coordinator/coordinator.h"

#define DAYS_DEFAULT 825
#define HOSTS_MAX    (COORD_LIST_MAX + 3)

/* Lists the hosts for which the coordinator's certificate is valid: the names of this machine, and
 * the hosts of --tls-host. `hosts` gets a NULL at its end. `own` gets the name of this machine; an
 * element of `hosts` may point to it. */
static void list_hosts(const coord_certificates *c, char own[256],
                       const char *hosts[HOSTS_MAX + 1]) {
    int count = 0;
    hosts[count++] = "localhost";
    hosts[count++] = "127.0.0.1";
    const char *letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-";
    if (gethostname(own, 256) == 0 && *own && !own[strspn(own, letters)]) hosts[count++] = own;
    for (const char *const *host = c->hosts; *host && count < HOSTS_MAX; host++)
        hosts[count++] = *host;
    COP_ASSERT(count <= HOSTS_MAX);
    hosts[count] = NULL;
}

static void print_hosts(const char *const *hosts) {
    for (; *hosts; hosts++) printf("%s%s", *hosts, hosts[1] ? ", " : "\n");
}

static cop_err create(const coord_certificates *c, const char *const *hosts, int days,
                      cop_error *error) {
    const cop_tls_issue issues[] = {{"coordinator", "coordinator", hosts, days},
                                    {"worker", "worker-*", NULL, days},
                                    {"client", "client", NULL, days}};
    COP_TRY(cop_tls_create_folder(c->folder, issues, 3, error));
    printf("%s/ca.pem                         needed by every program\n"
           "%s/ca.key                         signs new certificates: keep it off the network\n"
           "%s/coordinator.pem, coordinator.key   for ",
           c->folder, c->folder, c->folder);
    print_hosts(hosts);
    printf("%s/worker.pem, worker.key         for workers with names worker-...\n"
           "%s/client.pem, client.key         for users and scripts\n\n"
           "coppice-coordinator --listen tls+tcp://0.0.0.0:29700 --tls-dir %s\n"
           "coppice-worker --join tls+tcp://HOST:29700 --tls-dir DIR   # DIR: ca.pem, worker.pem, "
           "worker.key\n"
           "coppice jobs --coordinator tls+tcp://HOST:29700 --tls-dir DIR\n",
           c->folder, c->folder, c->folder);
    return COP_OK;
}

/* Adds the certificate that `request` describes as "ROLE:NAME". */
static cop_err add(const coord_certificates *c, const char *request, const char *const *hosts,
                   int days, cop_error *error) {
    char role[32], stem[COP_NAME_MAX];
    const char *colon = strchr(request, ':');
    if (!colon || colon == request || (size_t)(colon - request) >= sizeof role)
        return cop_fail(error, COP_ERR_USAGE,
                        "--add is \"%.80s\": expected worker:NAME, client:NAME or coordinator:NAME",
                        request);
    snprintf(role, sizeof role, "%.*s", (int)(colon - request), request);
    const cop_tls_issue issue = {role, colon + 1, hosts, days};
    COP_TRY(cop_tls_add_certificate(c->folder, &issue, error));
    cop_tls_issue_stem(&issue, stem);
    printf("%s/%s.pem, %s.key\n", c->folder, stem, stem);
    return COP_OK;
}

cop_err coord_make_certificates(const coord_certificates *c, cop_error *error) {
    const char *hosts[HOSTS_MAX + 1];
    char own[256];
    int64_t days = DAYS_DEFAULT;
    if (c->days && (!cop_parse_i64(c->days, &days) || days < 1 || days > 3650))
        return cop_fail(error, COP_ERR_USAGE, "--tls-days is \"%s\": expected 1 to 3650", c->days);
    list_hosts(c, own, hosts);
    if (!c->add[0]) return create(c, hosts, (int)days, error);
    for (const char *const *request = c->add; *request; request++)
        COP_TRY(add(c, *request, hosts, (int)days, error));
    return COP_OK;
}
