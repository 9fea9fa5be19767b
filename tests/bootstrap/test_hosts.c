/* Two hosts, as two network namespaces with a cable (veth) between them: which addresses are used, and which are not.
 * Needs root. */
#include <poll.h>
#include <sched.h>
#include <sys/wait.h>

#include "bootstrap/gang.h"
#include "bootstrap/id.h"

struct host {
    pid_t pid;
    int to[2], from[2]; /* pipes: bytes for the host, bytes from it */
};

struct scenario {
    const char *set_up[2];   /* shell commands in each host; the cable's ends are called cable0 */
    const char *interfaces[2]; /* NCCL_SOCKET_IFNAME */
    uint32_t ranks[2];
    double limit_s;
};

static void pass(int fd, void *bytes, size_t n, bool out)
{
    ssize_t done = out ? write(fd, bytes, n) : read(fd, bytes, n);
    if (done != (ssize_t)n) _exit(80);
}

static void gather(struct member *m)
{
    uint32_t n = m->config.n_ranks;
    uint32_t *table = calloc(n, sizeof *table);
    table[m->config.rank] = m->config.rank + 1000;
    m->result = bootstrap_allgather(m->bootstrap, table, sizeof *table, m->config.deadline);
    for (uint32_t r = 0; r < n; r++)
        if (m->result == RAIL_OK && table[r] != r + 1000) m->result = RAIL_E_INTERNAL;
    free(table);
}

/* The host's process: in a namespace of its own; host 0 makes the id. Ranks alternate between the hosts. */
static void live(const struct host *host, const struct scenario *s, int which)
{
    char byte = 0;
    uint8_t id[BOOTSTRAP_ID_BYTES];
    struct member members[16];
    close(host->to[1]);
    close(host->from[0]);
    if (unshare(CLONE_NEWNET) != 0) _exit(77);
    pass(host->from[1], &byte, 1, true);
    pass(host->to[0], &byte, 1, false); /* the cable is there */
    if (system(s->set_up[which]) != 0) _exit(77);
    /* The cable carries when its other end is up, too. */
    if (system("for i in $(seq 100); do ip -o link show cable0 | grep -q LOWER_UP && exit 0; sleep 0.05; done; "
               "exit 1") != 0)
        _exit(83);
    if (s->interfaces[which]) setenv("NCCL_SOCKET_IFNAME", s->interfaces[which], 1);
    rail_params_reload();
    if (which == 0) {
        if (bootstrap_root_create(id) != RAIL_OK) {
            fprintf(stderr, "%s\n", rail_last_error());
            _exit(81);
        }
        pass(host->from[1], id, sizeof id, true);
    } else {
        pass(host->to[0], id, sizeof id, false);
    }
    uint32_t n = s->ranks[0] + s->ranks[1];
    for (uint32_t i = 0; i < s->ranks[which]; i++) {
        uint32_t rank = s->ranks[0] == s->ranks[1] ? 2 * i + (uint32_t)which : (which ? s->ranks[0] : 0) + i;
        member_set(&members[i], id, rank, n, 25);
        members[i].work = gather;
    }
    gang_start(members, s->ranks[which]);
    gang_join(members, s->ranks[which]);
    for (uint32_t i = 0; i < s->ranks[which]; i++) {
        if (members[i].result == RAIL_OK && members[i].seconds < s->limit_s) continue;
        fprintf(stderr, "rank %u after %.1f s: %s\n", members[i].config.rank, members[i].seconds, members[i].text);
        _exit(82);
    }
    usleep(100000); /* host 0's root has ended */
    _exit(0);
}

static void play(const struct scenario *s)
{
    skip_where_forking_is_not_allowed();
    struct host hosts[2];
    uint8_t id[BOOTSTRAP_ID_BYTES];
    char byte = 0, command[300];
    bool ready = true;
    for (int h = 0; h < 2; h++) {
        if (pipe(hosts[h].to) != 0 || pipe(hosts[h].from) != 0) abort();
        hosts[h].pid = fork();
        if (hosts[h].pid == 0) {
            if (h == 1) close(hosts[0].to[1]);
            live(&hosts[h], s, h);
        }
        close(hosts[h].to[0]);
        close(hosts[h].from[1]);
    }
    for (int h = 0; h < 2; h++) ready = read(hosts[h].from[0], &byte, 1) == 1 && ready;
    snprintf(command, sizeof command, "ip link add cable0 netns %d type veth peer name cable0 netns %d 2>/dev/null",
             (int)hosts[0].pid, (int)hosts[1].pid);
    ready = ready && system(command) == 0;
    for (int h = 0; h < 2 && ready; h++) ready = write(hosts[h].to[1], &byte, 1) == 1;
    if (ready && read(hosts[0].from[0], id, sizeof id) == sizeof id)
        ready = write(hosts[1].to[1], id, sizeof id) == sizeof id;
    for (int h = 0; h < 2; h++) {
        close(hosts[h].to[1]); /* where something failed, both end by this */
        close(hosts[h].from[0]);
    }
    int status[2];
    for (int h = 0; h < 2; h++) waitpid(hosts[h].pid, &status[h], 0);
    if (!ready || status[0] == 77 << 8 || status[1] == 77 << 8) {
        print_message("needs root, `ip` and veth\n");
        skip();
    }
    for (int h = 0; h < 2; h++)
        if (status[h] != 0) fail_msg("host %d: status %x", h, status[h]);
}

static void ranks_of_two_hosts_find_one_another(void **state)
{
    (void)state;
    play(&(struct scenario){
        .set_up = {"ip link set lo up; ip addr add 10.77.0.1/24 dev cable0 && ip link set cable0 up",
                   "ip link set lo up; ip addr add 10.77.0.2/24 dev cable0 && ip link set cable0 up"},
        .ranks = {6, 6}, .limit_s = 10,
    });
}

/* The scope of a link-local address is a number of its own on every host: the far end must try its own interfaces. */
static void link_local_ipv6_is_enough(void **state)
{
    (void)state;
    play(&(struct scenario){
        .set_up = {"echo 0 >/proc/sys/net/ipv6/conf/cable0/accept_dad; ip link set lo up; ip link set cable0 up",
                   "echo 0 >/proc/sys/net/ipv6/conf/cable0/accept_dad; ip link add other0 type veth peer name other1; "
                   "ip link set other0 up; ip link set other1 up; "
                   "ip link set lo up; ip link set cable0 up"},
        .ranks = {4, 4}, .limit_s = 20,
    });
}

/* The root offers two addresses; packets to the first vanish on their way from host 1. */
static void an_address_that_swallows_packets_is_passed_over(void **state)
{
    (void)state;
    play(&(struct scenario){
        .set_up = {"ip link set lo up; ip addr add 10.77.0.1/24 dev cable0 && ip link set cable0 up && "
                   "ip link add other0 type veth peer name other1 && ip link set other1 up && ip addr add 10.99.0.1/24 "
                   "dev other0 && ip link set other0 up",
                   "ip link set lo up; ip addr add 10.77.0.2/24 dev cable0 && ip link set cable0 up && "
                   "ip route add 10.99.0.0/24 via 10.77.0.77"},
        .interfaces = {"=other0,cable0", NULL}, .ranks = {3, 3}, .limit_s = 20,
    });
}

/* Both hosts have the same private address on another interface: who answers there is somebody else, or nobody. */
static void an_address_that_exists_on_both_hosts_leads_to_the_right_one(void **state)
{
    (void)state;
    play(&(struct scenario){
        .set_up = {"ip link set lo up; ip addr add 10.77.0.1/24 dev cable0 && ip link set cable0 up && "
                   "ip link add other0 type veth peer name other1 && ip link set other1 up && ip addr add "
                   "172.17.0.1/16 dev other0 && ip link set other0 up",
                   "ip link set lo up; ip addr add 10.77.0.2/24 dev cable0 && ip link set cable0 up && "
                   "ip link add other0 type veth peer name other1 && ip link set other1 up && ip addr add "
                   "172.17.0.1/16 dev other0 && ip link set other0 up"},
        .interfaces = {"=other0,cable0", "=other0,cable0"}, .ranks = {10, 6}, .limit_s = 20,
    });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_of_two_hosts_find_one_another),
        cmocka_unit_test(link_local_ipv6_is_enough),
        cmocka_unit_test(an_address_that_swallows_packets_is_passed_over),
        cmocka_unit_test(an_address_that_exists_on_both_hosts_leads_to_the_right_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
