/* NICs that vanish between being chosen and being told: what is told is what is there. Each case runs in a network
 * namespace of its own, with virtual cables as NICs. */
#include "transport/net_nics.h"

#include "base/log.h"
#include "base/params.h"
#include "transport/net.h"

static void choose_nics(void)
{
    three_nics();
    setenv("NCCL_SOCKET_IFNAME", "n", 1);
    rail_params_reload();
}

/* "n0:0 n2:2": names and numbers of what is told; "" when telling failed. */
static const char *told(void)
{
    static char text[200];
    struct net_address a;
    text[0] = '\0';
    if (net_describe(&a) != RAIL_OK) return text;
    for (uint32_t i = 0; i < a.n_rails; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s:%u", i ? " " : "", a.rails[i].name, a.rails[i].number);
    return text;
}

static void want(int line, const char *have, const char *expected)
{
    if (strcmp(have, expected) == 0) return;
    fprintf(stderr, "line %d: told \"%s\", not \"%s\": %s\n", line, have, expected, rail_last_error());
    _exit(1);
}
#define TOLD(expected) want(__LINE__, told(), expected)

static void comes_and_goes(const void *argument)
{
    (void)argument;
    choose_nics();
    TOLD("n0:0 n1:1 n2:2");
    must("ip link del n1");
    TOLD("n0:0 n2:2");
    must("ip link add n1 type veth peer name p1 && ip link set p1 up && ip link set n1 up && ip addr add 10.9.1.1/24 dev n1");
    TOLD("n0:0 n1:1 n2:2");
    must("ip link set p2 down"); /* the cable is out: no carrier */
    TOLD("n0:0 n1:1");
    must("ip link set p2 up; ip link set n0 down");
    TOLD("n1:1 n2:2");
    must("ip link set n0 name m0 && ip link set m0 up && ip addr replace 10.9.0.1/24 dev m0");
    TOLD("m0:0 n1:1 n2:2"); /* it is the address that was chosen, whatever the name */
}
static void what_is_gone_is_not_told_and_what_is_back_is(void **state) { (void)state; in_a_child(comes_and_goes, NULL); }

static void all_gone(const void *argument)
{
    (void)argument;
    choose_nics();
    TOLD("n0:0 n1:1 n2:2");
    must("for r in 0 1 2; do ip link del n$r; done");
    TOLD("");
    if (!strstr(rail_last_error(), "none of the 3 NICs")) _exit(2);
}
static void when_all_are_gone_the_error_says_so(void **state) { (void)state; in_a_child(all_gone, NULL); }

/* Chosen, and gone before a socket was bound to it. */
static void gone_at_bind(const void *argument)
{
    (void)argument;
    choose_nics();
    struct net_config config = fixture_config(3, 1);
    for (uint32_t r = 0; r < 3; r++)
        ((struct sockaddr_in *)(void *)&config.rails[r].address.address)->sin_addr.s_addr =
            htonl(0x0a090001u + ((r == 1 ? 9 : r) << 8)); /* 10.9.9.1 is nobody's */
    struct net *net;
    struct net_address a;
    if (net_create(&config, &net) != RAIL_OK || net_describe_on(net, &a) != RAIL_OK) _exit(1);
    if (a.n_rails != 2 || a.rails[0].number != 0 || a.rails[1].number != 2) _exit(2);
    must("ip addr add 10.9.9.1/24 dev n1");
    if (net_describe_on(net, &a) != RAIL_OK || a.n_rails != 3 || a.rails[1].number != 1 || a.rails[1].port == 0) _exit(3);
    net_destroy(net);
}
static void a_nic_that_goes_before_it_is_bound_is_left_out(void **state) { (void)state; in_a_child(gone_at_bind, NULL); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_gone_is_not_told_and_what_is_back_is),
        cmocka_unit_test(when_all_are_gone_the_error_says_so),
        cmocka_unit_test(a_nic_that_goes_before_it_is_bound_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
