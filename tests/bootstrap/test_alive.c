/* Who is asked whether it is still there: this process, one whose ports are closed, and those whose ports are another's. */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "bootstrap/alive.h"
#include "base/clock.h"

static struct bootstrap_place here(void)
{
    struct bootstrap_place place;
    assert_int_equal(bootstrap_place_here(&place), RAIL_OK);
    assert_true(place.n_endpoints > 0);
    return place;
}

static struct alive_asked ask(const struct bootstrap_place *place)
{
    struct alive_asked asked = {.place = place, .same_host = true};
    alive_ask(&asked, 1);
    return asked;
}

/* A listener on loopback, and the place of a process that had its port. */
static int listener(struct bootstrap_place *place)
{
    struct sockaddr_storage at = {0};
    socklen_t bytes = sizeof at;
    struct sockaddr_in in = {.sin_family = AF_INET};
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memcpy(&at, &in, sizeof in);
    int fd = socket_listen(&at, 8);
    assert_true(fd >= 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &bytes), 0);
    *place = (struct bootstrap_place){.n_endpoints = 1, .number = 1};
    endpoint_from(&place->endpoints[0], &at);
    return fd;
}

static void this_process_is_there(void **state)
{
    (void)state;
    struct bootstrap_place place = here();
    uint64_t began_ns = rail_now_ns();
    for (int i = 0; i < 20; i++) {
        struct alive_asked asked = ask(&place);
        assert_false(asked.gone);
        assert_false(asked.silent);
    }
    print_message("asked 20 times in %.1f ms\n", (double)(rail_now_ns() - began_ns) / 1e6);
}

/* Both are asked at once, and only the number differs. */
static void who_has_got_the_ports_of_the_dead_is_not_the_dead(void **state)
{
    (void)state;
    struct bootstrap_place mine = here(), of_the_dead = mine;
    of_the_dead.number++;
    struct alive_asked both[2] = {{.place = &mine, .same_host = true}, {.place = &of_the_dead, .same_host = true}};
    alive_ask(both, 2);
    assert_false(both[0].gone);
    assert_true(both[1].gone);
}

/* The dead listened at one address more, whose port is free. */
static void one_port_taken_and_one_free(void **state)
{
    (void)state;
    struct bootstrap_place place = here(), closed;
    place.number++;
    socket_close(listener(&closed));
    place.endpoints[place.n_endpoints < BOOTSTRAP_PLACE_ENDPOINTS ? place.n_endpoints++ : 0] = closed.endpoints[0];
    assert_true(ask(&place).gone);
}

static void who_refuses_is_gone(void **state)
{
    (void)state;
    struct bootstrap_place place;
    socket_close(listener(&place));
    assert_true(ask(&place).gone);
}

/* As a process that is stopped does: the kernel takes the call. */
static void who_takes_the_call_and_says_nothing_may_be_anything(void **state)
{
    (void)state;
    struct bootstrap_place place;
    int fd = listener(&place);
    uint64_t began_ns = rail_now_ns();
    struct alive_asked asked = ask(&place);
    assert_in_range(rail_now_ns() - began_ns, 20 * RAIL_NS_PER_MS, RAIL_NS_PER_S);
    assert_false(asked.gone);
    assert_false(asked.silent);
    socket_close(fd);
}

struct talker { int listener; const char *says; };

static void *talk(void *arg)
{
    struct talker *t = arg;
    struct pollfd p = {.fd = t->listener, .events = POLLIN};
    if (poll(&p, 1, 5000) != 1) return NULL;
    int fd = socket_accept(t->listener);
    if (*t->says) (void)!write(fd, t->says, strlen(t->says));
    if (*t->says) poll(NULL, 0, 100);
    socket_close(fd);
    return NULL;
}

static struct alive_asked ask_talker(const char *says)
{
    struct bootstrap_place place;
    struct talker t = {.listener = listener(&place), .says = says};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, talk, &t), 0);
    struct alive_asked asked = ask(&place);
    pthread_join(thread, NULL);
    socket_close(t.listener);
    return asked;
}

static void who_speaks_otherwise_is_somebody_else(void **state)
{
    (void)state;
    assert_true(ask_talker("220 mail.example ESMTP\r\n").gone);
}

/* So does one of ours, when strangers crowd its door. */
static void who_hangs_up_may_be_anything(void **state)
{
    (void)state;
    assert_false(ask_talker("").gone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(this_process_is_there),
        cmocka_unit_test(who_has_got_the_ports_of_the_dead_is_not_the_dead),
        cmocka_unit_test(one_port_taken_and_one_free),
        cmocka_unit_test(who_refuses_is_gone),
        cmocka_unit_test(who_takes_the_call_and_says_nothing_may_be_anything),
        cmocka_unit_test(who_speaks_otherwise_is_somebody_else),
        cmocka_unit_test(who_hangs_up_may_be_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
