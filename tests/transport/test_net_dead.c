/* Lanes that die under way, as real sockets see it: NICs that go, and a far end that does not read. NICs are virtual
 * cables in a network namespace of each case's own; both processes are in it, so only what the kernel tells of a NIC
 * changes, and lanes would go on for ever without that. */
#include "transport/net_nics.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "base/log.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { FOUND_MS = 2000 };
#else
enum { FOUND_MS = 200 };
#endif

static void complain(int line, const char *what, const char *text)
{
    fprintf(stderr, "line %d: %s: %s\n", line, what, text);
    _exit(1);
}
#define WANT(is, text) do { if (!(is)) complain(__LINE__, #is, text); } while (0)

/* Two processes, a link from the first to the second, and a message that has arrived. */
struct pair { struct net *net[2]; struct link *out, *in; };

static bool give_bytes(struct pair *p, size_t bytes)
{
    void *slot;
    if (p->out->ops->acquire(p->out, &slot) != RAIL_OK) return false;
    memset(slot, 1, bytes);
    p->out->ops->publish(p->out, bytes, 0);
    return true;
}

static bool give(struct pair *p) { return give_bytes(p, p->out->slot_bytes); }

static bool take(struct pair *p)
{
    const void *slot;
    size_t bytes;
    uint64_t signature;
    if (p->in->ops->wait(p->in, &slot, &bytes, &signature) != RAIL_OK) return false;
    p->in->ops->release(p->in);
    return true;
}

static const char *failure(const struct link *link) /* "": none */
{
    const struct net_link *l = (const struct net_link *)(const void *)link;
    return atomic_load(&l->failed) ? l->why : "";
}

/* Messages flow for `ms`, or until the sender has failed. Returns how long. */
static int flow(struct pair *p, int ms)
{
    uint64_t began_ns = rail_now_ns();
    while (rail_now_ns() - began_ns < (uint64_t)ms * RAIL_NS_PER_MS && !*failure(p->out)) {
        bool gave = give(p), moved = take(p) || gave;
        for (int i = 0; i < 2; i++) moved |= net_progress_on(p->net[i]);
        if (!moved) usleep(200);
    }
    return (int)((rail_now_ns() - began_ns) / RAIL_NS_PER_MS);
}

static uint32_t lanes_up(struct net *net)
{
    pthread_mutex_lock(&net->lock);
    uint32_t n = net->n_up;
    pthread_mutex_unlock(&net->lock);
    return n;
}

static struct pair pair_open(const struct net_config *config)
{
    struct pair p;
    struct net_address at[2];
    for (int i = 0; i < 2; i++) {
        p.net[i] = fixture_net(config, 5, 6);
        if (i == 1) p.net[i]->config.repairs = false; /* else either may find it first */
        at[i] = fixture_address(p.net[i]);
    }
    const struct net_link_request q = {.comm_key = 5, .from = 0, .to = 1, .n_slots = 256};
    struct net_link_request sends = q;
    sends.sender = true;
    p.out = fixture_open(p.net[0], &at[1], sends);
    p.in = fixture_open(p.net[1], &at[0], q);
    WANT(p.out && p.in, rail_last_error());
    for (int i = 0; i < 200 && lanes_up(p.net[0]) < config->n_rails; i++) flow(&p, 10);
    WANT(lanes_up(p.net[0]) == config->n_rails, "lanes are not up");
    return p;
}

static void pair_close(struct pair *p)
{
    p->out->ops->close(p->out);
    p->in->ops->close(p->in);
    for (int i = 0; i < 2; i++) {
        net_comm_remove_on(p->net[i], 5);
        net_destroy(p->net[i]);
    }
}

static struct pair on_nics(bool repairs)
{
    three_nics();
    struct net_config config = fixture_config(N_NICS, 1);
    config.repairs = repairs;
    for (uint32_t r = 0; r < N_NICS; r++) {
        struct sockaddr_in *in = (void *)&config.rails[r].address.address;
        in->sin_addr.s_addr = htonl(0x0a090001u + (r << 8));
        snprintf(config.rails[r].name, sizeof config.rails[r].name, "n%u", r);
    }
    return pair_open(&config);
}

/* "n0 n1- n2": how a process calls its NICs; - is behind those that are gone. */
static const char *nics(struct net *net)
{
    static char text[N_NICS * 20];
    text[0] = '\0';
    pthread_mutex_lock(&net->lock);
    for (int r = 0; r < N_NICS; r++)
        snprintf(text + strlen(text), 20, "%s%s%s", r ? " " : "", net->rails[r].interface.name,
            net->rails[r].gone ? "-" : "");
    pthread_mutex_unlock(&net->lock);
    return text;
}

static void expect_nics(int line, struct net *net, const char *expected)
{
    for (int i = 0; i < 1000 && strcmp(nics(net), expected) != 0; i++)
        usleep(1000); /* the service thread hears of it */
    if (strcmp(nics(net), expected) != 0) complain(line, expected, nics(net));
}
#define NICS(net, expected) expect_nics(__LINE__, net, expected)

/* ---- NICs that go ---- */

struct going { const char *command, *text; };

/* One end does not repair, so a lane's end is its links' end, and they have its text. */
static void expect_end(struct pair *p, const char *text)
{
    int ms = flow(p, 5000);
    WANT(strstr(failure(p->out), text), failure(p->out));
    WANT(ms < FOUND_MS, "found too late");
}

static void goes(const void *argument)
{
    const struct going *g = argument;
    struct pair p = on_nics(true);
    flow(&p, 50);
    must(g->command);
    expect_end(&p, g->text);
    NICS(p.net[0], "n0 n1- n2");
    pair_close(&p);
}

static void a_nic_that_goes_ends_its_lanes_with_its_name_and_the_cause(void **state)
{
    (void)state;
    static const struct going going[] = {
        {"ip link set p1 down", "rail 1 (n1) 10.9.1.1:"},
        {"ip link set p1 down", "NIC n1 is gone: it has no carrier"},
        {"ip link set n1 down", "NIC n1 is gone: it is down"},
        {"ip link del n1", "NIC n1 is gone: it "}, /* was removed, or, if seen a moment earlier, is down */
        {"ip addr del 10.9.1.1/24 dev n1", "NIC n1 is gone: it has lost its address"},
        {"ip addr del 10.9.1.1/24 dev n1 && ip addr add 10.9.1.7/24 dev n1", "NIC n1 is gone: it has lost its address"},
    };
    for (size_t i = 0; i < sizeof going / sizeof going[0]; i++) in_a_child(goes, &going[i]);
}

static void comes_back(const void *argument)
{
    (void)argument;
    struct pair p = on_nics(true);
    must("ip link set p1 down");
    expect_end(&p, "NIC n1 is gone: it has no carrier");
    must("ip link set p1 up && ip link set n1 up");
    NICS(p.net[0], "n0 n1 n2");
    must("ip link set n1 down && ip link set n1 name m1 && ip link set m1 up");
    NICS(p.net[0], "n0 m1 n2");
    pair_close(&p);
}
static void a_nic_that_is_back_is_marked_and_has_its_new_name(void **state) { (void)state; in_a_child(comes_back,
    NULL); }

static void strangers_change(const void *argument)
{
    (void)argument;
    struct pair p = on_nics(true);
    must("ip link add x type veth peer name y && ip link set x up && ip addr add 10.8.0.1/24 dev x && "
         "ip link set x down && ip link del x && ip link set n1 mtu 1400 && ip addr add 10.9.1.77/24 dev n1 && "
         "ip addr del 10.9.1.77/24 dev n1");
    flow(&p, 100);
    WANT(!*failure(p.out), failure(p.out));
    pair_close(&p);
}
static void changes_that_are_nothing_to_us_end_nothing(void **state) { (void)state; in_a_child(strangers_change,
    NULL); }

/* More than the socket holds while nobody reads it: the kernel drops, and says that it did. */
static void too_much(const void *argument)
{
    (void)argument;
    struct pair p = on_nics(true);
    int small = 2048;
    WANT(setsockopt(p.net[0]->carrier.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0, strerror(errno));
    pthread_mutex_lock(&p.net[0]->lock);
    must("ip link add x type veth peer name y && for i in $(seq 40); do ip link set x up; ip link set x down; done; "
         "ip link set p1 down");
    pthread_mutex_unlock(&p.net[0]->lock);
    expect_end(&p, "NIC n1 is gone: it has no carrier");
    pair_close(&p);
}
static void what_the_kernel_could_not_tell_is_looked_for(void **state) { (void)state; in_a_child(too_much, NULL); }

/* Anybody with privileges may write to the socket. */
static void forged(const void *argument)
{
    (void)argument;
    struct pair p = on_nics(true);
    struct sockaddr_nl to;
    socklen_t bytes = sizeof to;
    WANT(getsockname(p.net[0]->carrier.fd, (struct sockaddr *)&to, &bytes) == 0, strerror(errno));
    to.nl_groups = 0;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    for (uint64_t k = 0; k < 2000; k++) {
        union { struct nlmsghdr header; uint64_t words[32]; } message;
        for (int i = 0; i < 32; i++) message.words[i] = mix(k * 32 + (uint64_t)i);
        message.header.nlmsg_len = (uint32_t)(mix(k) % 300);
        message.header.nlmsg_type = (uint16_t)(RTM_NEWLINK + mix(k + 7) % 6);
        if (sendto(fd, &message, sizeof message, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to) < 0)
            WANT(errno == EAGAIN || errno == ENOBUFS, strerror(errno));
        if (k % 50 == 0) flow(&p, 1);
    }
    close(fd);
    flow(&p, 100);
    WANT(!*failure(p.out), failure(p.out));
    must("ip link set p1 down"); /* and the kernel is still heard */
    expect_end(&p, "NIC n1 is gone: it has no carrier");
    pair_close(&p);
}
static void what_others_say_on_the_kernels_socket_is_not_believed(void **state) { (void)state; in_a_child(forged,
    NULL); }

static void switched_off(const void *argument)
{
    (void)argument;
    struct pair p = on_nics(false);
    WANT(p.net[0]->carrier.fd < 0, "there is a socket");
    must("ip link set p1 down");
    flow(&p, 300);
    WANT(!*failure(p.out), failure(p.out));
    pair_close(&p);
}
static void switched_off_no_nic_is_watched(void **state) { (void)state; in_a_child(switched_off, NULL); }

/* ---- a far end that does not read ---- */

static struct net_lane *lane_of(struct net *net, uint32_t rail)
{
    for (uint32_t i = 0; i < net->n_up; i++)
        if (net->up[i]->rail == rail) return net->up[i];
    abort();
}

static void unread(bool repairs, int *ms, char why[NET_WHY_BYTES])
{
    struct net_config config = fixture_config(2, 1);
    config.repairs = repairs;
    struct pair p = pair_open(&config);
    pthread_mutex_lock(&p.net[1]->lock);
    struct net_lane *lane = lane_of(p.net[1], 1);
    net_lane_unwatch(p.net[1], lane);
    pthread_mutex_unlock(&p.net[1]->lock);
    *ms = flow(&p, repairs ? 20000 : 2000);
    snprintf(why, NET_WHY_BYTES, "%s", failure(p.out));
    pair_close(&p);
}

static void a_lane_that_is_never_read_ends(void **state)
{
    (void)state;
    int ms;
    char why[NET_WHY_BYTES];
    unread(true, &ms, why);
    if (!strstr(why, "rail 1 (lo1) ")) fail_msg("after %d ms: %s", ms, why);
    if (!strstr(why, "is not read: the other process ")) fail_msg("after %d ms: %s", ms, why);
    /* A second after the last byte: window probes may squeeze some more of them in, after 200, 400, 800 ms ... */
    assert_in_range(ms, 1000, 10000);
    unread(false, &ms, why);
    assert_string_equal(why, "");
}

/* Two messages under way at a time, which fit into the least window that Linux begins with, 64 KiB: the far kernel
 * takes all that comes, so no lane is held back. Only that nobody answers on the lane that is not read tells of it. */
static void a_lane_that_is_not_read_ends_though_its_kernel_has_room(void **state)
{
    (void)state;
    struct net_config config = fixture_config(2, 1);
    struct pair p = pair_open(&config);
    pthread_mutex_lock(&p.net[1]->lock);
    net_lane_unwatch(p.net[1], lane_of(p.net[1], 1));
    pthread_mutex_unlock(&p.net[1]->lock);
    uint64_t began_ns = rail_now_ns(), stood_ns = began_ns;
    for (int under_way = 0; !*failure(p.out) && rail_now_ns() - began_ns < 40 * RAIL_NS_PER_S;) {
        if (under_way < 2 && give_bytes(&p, 24 << 10)) under_way++;
        if (take(&p)) under_way--, stood_ns = rail_now_ns();
        for (int i = 0; i < 2; i++) net_progress_on(p.net[i]);
    }
    int ms = (int)((rail_now_ns() - stood_ns) / RAIL_NS_PER_MS);
    const char *why = failure(p.out);
    if (!strstr(why, "rail 1 (lo1) ")) fail_msg("after %d ms: %s", ms, why);
    if (!strstr(why, "is not read: the other process did not answer on it for ")) fail_msg("after %d ms: %s", ms, why);
    /* A second of nothing, and two without an answer; they begin anew when this thread does not run for 100 ms. */
    assert_in_range(ms, 2900, 40000);
    pair_close(&p);
}

/* One thread drives both; when it does not drive the first one's service thread looks at its lanes. The other process
 * is stopped, as far as the first can tell: nobody reads any of its lanes. */
static void a_process_that_reads_nothing_at_all_is_waited_for(void **state)
{
    (void)state;
    struct net_config config = fixture_config(2, 1);
    struct pair p = pair_open(&config);
    pthread_mutex_lock(&p.net[1]->lock);
    for (uint64_t end_ns = rail_now_ns() + 3 * RAIL_NS_PER_S; rail_now_ns() < end_ns; usleep(1000)) {
        give(&p);
        net_progress_on(p.net[0]);
    }
    assert_string_equal(failure(p.out), "");
    pthread_mutex_unlock(&p.net[1]->lock);
    flow(&p, 300);
    assert_string_equal(failure(p.out), "");
    pair_close(&p);
}

/* ---- fork ---- */

static void a_forked_child_has_no_copy_of_the_socket(void **state)
{
    (void)state;
    struct net_config config = fixture_config(2, 1);
    struct pair p = pair_open(&config);
    int fd = p.net[0]->carrier.fd, status = -1;
    if (fd < 0) skip(); /* netlink is forbidden here */
    pid_t child = fork();
    if (child == 0) _exit(fcntl(fd, F_GETFD) < 0 && errno == EBADF ? 0 : 1);
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* First those that fork: children of a process that has a service thread are not what they are about. */
        cmocka_unit_test(a_nic_that_goes_ends_its_lanes_with_its_name_and_the_cause),
        cmocka_unit_test(a_nic_that_is_back_is_marked_and_has_its_new_name),
        cmocka_unit_test(changes_that_are_nothing_to_us_end_nothing),
        cmocka_unit_test(what_the_kernel_could_not_tell_is_looked_for),
        cmocka_unit_test(what_others_say_on_the_kernels_socket_is_not_believed),
        cmocka_unit_test(switched_off_no_nic_is_watched),
        cmocka_unit_test(a_lane_that_is_never_read_ends),
        cmocka_unit_test(a_lane_that_is_not_read_ends_though_its_kernel_has_room),
        cmocka_unit_test(a_process_that_reads_nothing_at_all_is_waited_for),
        cmocka_unit_test(a_forked_child_has_no_copy_of_the_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
