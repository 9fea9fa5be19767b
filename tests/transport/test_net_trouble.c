/* test_net_trouble.c - links when things go wrong: wrong secrets, garbage at the door, dying peers, protocol violations,
 * ends that differ, exhausted descriptors; and what an idle or forked process does. */
#include "transport/net_fixture.h"

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { KEY = 77 };

struct two {
    struct net *net[2];
    struct net_address address[2];
    struct link *out, *in; /* 0 -> 1: `out` is net[0]'s end, `in` net[1]'s */
};

static _Atomic int wakes;
static void count_wake(void *owner) { (void)owner; atomic_fetch_add(&wakes, 1); }

static struct net_link_request request(bool sender)
{
    return (struct net_link_request){.comm_key = KEY, .from = 0, .to = 1, .sender = sender, .wake = count_wake};
}

static void two_nets(struct two *t, const struct net_config *config, uint8_t secret_of_second)
{
    *t = (struct two){0};
    for (int i = 0; i < 2; i++) {
        t->net[i] = fixture_net(config, KEY, i ? secret_of_second : 1);
        t->address[i] = fixture_address(t->net[i]);
    }
}

static void two_open(struct two *t, uint32_t n_rails)
{
    struct net_config config = fixture_config(n_rails, 1);
    two_nets(t, &config, 1);
    t->out = fixture_open(t->net[0], &t->address[1], request(true));
    t->in = fixture_open(t->net[1], &t->address[0], request(false));
    assert_non_null(t->out);
    assert_non_null(t->in);
}

static void two_close(struct two *t)
{
    if (t->out) t->out->ops->close(t->out);
    if (t->in) t->in->ops->close(t->in);
    for (int i = 0; i < 2; i++) {
        if (!t->net[i]) continue;
        net_comm_remove_on(t->net[i], KEY);
        net_destroy(t->net[i]);
    }
}

static bool drive_until(struct two *t, bool (*done)(struct two *), uint64_t timeout_ns)
{
    struct rail_deadline deadline = rail_deadline_in_ns(timeout_ns);
    while (!done(t)) {
        for (int i = 0; i < 2; i++)
            if (t->net[i]) net_progress_on(t->net[i]);
        if (rail_deadline_passed(deadline)) return false;
        sched_yield();
    }
    return true;
}

static bool out_ready(struct two *t)
{
    void *slot;
    return t->out->ops->acquire(t->out, &slot) == RAIL_OK;
}
static bool out_failed(struct two *t)
{
    void *slot;
    enum rail_result r = t->out->ops->acquire(t->out, &slot);
    return r != RAIL_OK && r != RAIL_NOT_YET;
}
static bool in_ready(struct two *t)
{
    const void *slot;
    size_t bytes;
    uint64_t signature;
    return t->in->ops->wait(t->in, &slot, &bytes, &signature) == RAIL_OK;
}
static bool in_failed(struct two *t)
{
    const void *slot;
    size_t bytes;
    uint64_t signature;
    enum rail_result r = t->in->ops->wait(t->in, &slot, &bytes, &signature);
    return r != RAIL_OK && r != RAIL_NOT_YET;
}
static bool out_drained(struct two *t) { return t->out->ops->drained(t->out); }

static void publish(struct two *t, size_t bytes)
{
    void *slot;
    assert_int_equal(t->out->ops->acquire(t->out, &slot), RAIL_OK);
    memset(slot, 7, bytes);
    t->out->ops->publish(t->out, bytes, 42);
}

#define SECONDS(n) ((n) * RAIL_NS_PER_S)

static void a_sender_stops_at_its_credit(void **state)
{
    (void)state;
    struct two t;
    two_open(&t, 1);
    assert_true(drive_until(&t, out_ready, SECONDS(10)));
    for (int i = 0; i < 4; i++) publish(&t, 1000);
    void *slot;
    for (int i = 0; i < 1000; i++) {
        net_progress_on(t.net[0]);
        net_progress_on(t.net[1]);
        assert_int_equal(t.out->ops->acquire(t.out, &slot), RAIL_NOT_YET);
    }
    assert_false(out_drained(&t));
    assert_true(drive_until(&t, in_ready, SECONDS(10)));
    t.in->ops->release(t.in);
    assert_true(drive_until(&t, out_ready, SECONDS(10))); /* the tick brings a single credit */
    two_close(&t);
}

static void nobody_inside_still_delivers_and_credits(void **state)
{
    (void)state;
    struct two t;
    two_open(&t, 2);
    /* No net_progress from here on: only the service thread works. */
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while (!out_ready(&t) && !rail_deadline_passed(deadline)) usleep(1000);
    for (int i = 0; i < 4; i++) publish(&t, 262144);
    for (int i = 0; i < 4; i++) {
        while (!in_ready(&t) && !rail_deadline_passed(deadline)) usleep(1000);
        assert_true(in_ready(&t));
        t.in->ops->release(t.in);
    }
    while (!out_drained(&t) && !rail_deadline_passed(deadline)) usleep(1000);
    assert_true(out_drained(&t));
    assert_true(atomic_load(&wakes) > 0);
    two_close(&t);
}

/* How often the service thread has gone to sleep so far: once per wake-up. */
static uint64_t service_wakeups(void)
{
    uint64_t n = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *d; (d = readdir(tasks));) {
        char path[300], line[128];
        snprintf(path, sizeof path, "/proc/self/task/%s/status", d->d_name);
        FILE *f = d->d_name[0] == '.' ? NULL : fopen(path, "r");
        bool ours = false;
        while (f && fgets(line, sizeof line, f)) {
            unsigned long long switches;
            if (strncmp(line, "Name:", 5) == 0) ours = strstr(line, "railccl") != NULL;
            if (ours && sscanf(line, "voluntary_ctxt_switches: %llu", &switches) == 1) n += switches;
        }
        if (f) fclose(f);
    }
    closedir(tasks);
    return n;
}

static void an_idle_process_is_silent(void **state)
{
    (void)state;
    struct two t;
    two_open(&t, 2);
    assert_true(drive_until(&t, out_ready, SECONDS(10)));
    publish(&t, 100);
    assert_true(drive_until(&t, in_ready, SECONDS(10)));
    t.in->ops->release(t.in);
    assert_true(drive_until(&t, out_drained, SECONDS(10)));
    usleep(100000); /* the last ticks */
    uint64_t before = service_wakeups();
    usleep(1000000);
    uint64_t after = service_wakeups();
    if (after != before) print_error("%d wake-ups in an idle second\n", (int)(after - before));
    assert_true(before > 0);
    assert_int_equal(after - before, 0);
    two_close(&t);
}

static void a_receiver_that_opens_late_gets_everything(void **state)
{
    (void)state;
    struct two t;
    struct net_config config = fixture_config(1, 1);
    two_nets(&t, &config, 1);
    t.out = fixture_open(t.net[0], &t.address[1], request(true));
    /* Make sure that lanes exist although the second side opened something else first. */
    struct net_link_request other = request(true);
    other.channel = 9;
    struct link *early = fixture_open(t.net[1], &t.address[0], other);
    struct rail_deadline deadline = rail_deadline_in_ns(RAIL_NS_PER_S / 5);
    while (!rail_deadline_passed(deadline)) {
        net_progress_on(t.net[0]);
        net_progress_on(t.net[1]);
        assert_false(out_ready(&t));
    }
    t.in = fixture_open(t.net[1], &t.address[0], request(false));
    assert_true(drive_until(&t, out_ready, SECONDS(10)));
    publish(&t, 5000);
    assert_true(drive_until(&t, in_ready, SECONDS(10)));
    early->ops->close(early);
    two_close(&t);
}

static void ends_that_differ_are_told_so(void **state)
{
    (void)state;
    struct two t;
    struct net_config config = fixture_config(1, 1);
    two_nets(&t, &config, 1);
    struct net_link_request q = request(true);
    t.out = fixture_open(t.net[0], &t.address[1], q);
    q.sender = false;
    q.slot_bytes = 65536;
    t.in = fixture_open(t.net[1], &t.address[0], q);
    assert_true(drive_until(&t, out_failed, SECONDS(10)));
    assert_non_null(strstr(rail_last_error(), "4 slots of 262144"));
    assert_non_null(strstr(rail_last_error(), "4 of 65536"));
    assert_true(drive_until(&t, in_failed, SECONDS(10)));
    two_close(&t);
}

static void a_wrong_secret_is_refused(void **state)
{
    (void)state;
    struct two t;
    struct net_config config = fixture_config(1, 1);
    config.connect_timeout_ns = RAIL_NS_PER_S / 2;
    two_nets(&t, &config, 2);
    t.out = fixture_open(t.net[0], &t.address[1], request(true));
    t.in = fixture_open(t.net[1], &t.address[0], request(false));
    /* The end that connects learns it; the other keeps waiting. */
    bool first_connects = memcmp(t.net[0]->process, t.net[1]->process, 16) < 0;
    assert_true(drive_until(&t, first_connects ? out_failed : in_failed, SECONDS(5)));
    assert_non_null(strstr(rail_last_error(), "secret"));
    assert_true(atomic_load(&t.net[first_connects]->knocks_refused) > 0);
    two_close(&t);
}

static void a_communicator_known_late_is_waited_for(void **state)
{
    (void)state;
    struct two t;
    struct net_config config = fixture_config(1, 1);
    two_nets(&t, &config, 1);
    bool first_connects = memcmp(t.net[0]->process, t.net[1]->process, 16) < 0;
    struct net *accepter = t.net[first_connects];
    net_comm_remove_on(accepter, KEY);
    t.out = fixture_open(t.net[0], &t.address[1], request(true));
    t.in = fixture_open(t.net[1], &t.address[0], request(false));
    struct rail_deadline deadline = rail_deadline_in_ns(RAIL_NS_PER_S / 5);
    while (!rail_deadline_passed(deadline)) {
        net_progress_on(t.net[0]);
        net_progress_on(t.net[1]);
    }
    uint8_t secret[32];
    memset(secret, 1, sizeof secret);
    assert_int_equal(net_comm_add_on(accepter, KEY, secret), RAIL_OK);
    assert_true(drive_until(&t, out_ready, SECONDS(10)));
    two_close(&t);
}

static int knock_at(const struct net_address *a)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(a->rails[0].port)};
    memcpy(&in.sin_addr, a->rails[0].address, 4);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (void *)&in, sizeof in), 0);
    return fd;
}

static uint32_t strangers_waiting(struct two *t)
{
    uint32_t n = 0;
    for (int i = 0; i < 2; i++) {
        pthread_mutex_lock(&t->net[i]->lock);
        n += t->net[i]->n_knocks;
        pthread_mutex_unlock(&t->net[i]->lock);
    }
    return n;
}

static void garbage_and_silence_at_the_listener_disturb_nobody(void **state)
{
    (void)state;
    struct two t;
    two_open(&t, 1);
    assert_true(drive_until(&t, out_ready, SECONDS(10)));
    enum { STRANGERS = 100 };
    int fds[STRANGERS];
    uint64_t x = 1;
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = knock_at(&t.address[i % 2]);
        uint8_t garbage[256];
        for (size_t j = 0; j < sizeof garbage; j++) garbage[j] = (uint8_t)(x = mix(x));
        if (i % 3 == 0) memcpy(garbage, "railcca\1", 8); /* begins well */
        if (i % 4 != 1) (void)!send(fds[i], garbage, sizeof garbage, MSG_NOSIGNAL);
        net_progress_on(t.net[0]);
        net_progress_on(t.net[1]);
    }
    publish(&t, 100000);
    assert_true(drive_until(&t, in_ready, SECONDS(10)));
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(5));
    while (strangers_waiting(&t) > 0 && !rail_deadline_passed(deadline)) {
        net_progress_on(t.net[0]);
        net_progress_on(t.net[1]);
    }
    assert_int_equal(strangers_waiting(&t), 0);
    assert_int_equal(atomic_load(&t.net[0]->knocks_refused) + atomic_load(&t.net[1]->knocks_refused), STRANGERS);
    for (int i = 0; i < STRANGERS; i++) close(fds[i]);
    two_close(&t);
}

static void a_closed_end_is_heard_of(void **state)
{
    (void)state;
    struct two t;
    two_open(&t, 2);
    assert_true(drive_until(&t, out_ready, SECONDS(10)));
    publish(&t, 200000);
    t.out->ops->close(t.out); /* nobody drove in between: what is cut goes out, then CLOSE */
    t.out = NULL;
    assert_true(drive_until(&t, in_ready, SECONDS(10)));
    t.in->ops->release(t.in);
    assert_true(drive_until(&t, in_failed, SECONDS(10)));
    assert_non_null(strstr(rail_last_error(), "closed its end"));
    two_close(&t);

    two_open(&t, 1);
    assert_true(drive_until(&t, out_ready, SECONDS(10)));
    publish(&t, 2000);
    t.in->ops->close(t.in);
    t.in = NULL;
    assert_true(drive_until(&t, out_failed, SECONDS(10)));
    assert_true(out_drained(&t)); /* nobody waits for what will not come */
    two_close(&t);
}

/* Two communicators share the lanes; the second is removed at the receiver, before its sender opens, or after. */
static void an_end_whose_communicator_is_gone_is_refused(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        struct two t;
        uint8_t secret[32];
        two_open(&t, 1);
        assert_true(drive_until(&t, out_ready, SECONDS(10)));
        memset(secret, 2, sizeof secret);
        for (int i = 0; i < 2; i++) assert_int_equal(net_comm_add_on(t.net[i], KEY + 1, secret), RAIL_OK);
        struct link *first = t.out;
        struct net_link_request q = request(true);
        q.comm_key = KEY + 1;
        if (!late) net_comm_remove_on(t.net[1], KEY + 1);
        t.out = fixture_open(t.net[0], &t.address[1], q);
        assert_non_null(t.out);
        for (int i = 0; i < 200; i++) assert_false(drive_until(&t, out_ready, SECONDS(0))); /* OPEN arrives */
        if (late) net_comm_remove_on(t.net[1], KEY + 1);
        assert_true(drive_until(&t, out_failed, SECONDS(10)));
        assert_non_null(strstr(rail_last_error(), "rank 1 has closed its communicator"));
        t.out->ops->close(t.out);
        t.out = first; /* and the lanes work on */
        publish(&t, 100);
        assert_true(drive_until(&t, in_ready, SECONDS(10)));
        net_comm_remove_on(t.net[0], KEY + 1);
        two_close(&t);
    }
}

static void lanes_are_made_anew_for_the_next_communicator(void **state)
{
    (void)state;
    struct two t;
    struct net_config config = fixture_config(2, 2);
    two_nets(&t, &config, 1);
    for (int i = 0; i < 20; i++) {
        /* Ends close in any order; the next pair may be opened before the far side has seen the old lanes end. */
        t.out = fixture_open(t.net[0], &t.address[1], request(true));
        t.in = fixture_open(t.net[1], &t.address[0], request(false));
        assert_non_null(t.out);
        assert_non_null(t.in);
        if (!drive_until(&t, out_ready, SECONDS(10))) print_error("round %d: %s\n", i, rail_last_error());
        assert_true(drive_until(&t, out_ready, SECONDS(10)));
        publish(&t, 100000);
        assert_true(drive_until(&t, in_ready, SECONDS(10)));
        t.in->ops->release(t.in);
        assert_true(drive_until(&t, out_drained, SECONDS(10)));
        t.out->ops->close(t.out);
        t.in->ops->close(t.in);
        t.out = t.in = NULL;
        net_comm_remove_on(t.net[i % 2], KEY);
        if (i % 3 == 0) net_comm_remove_on(t.net[1 - i % 2], KEY);
        uint8_t secret[32];
        memset(secret, 1, sizeof secret);
        assert_int_equal(net_comm_add_on(t.net[i % 2], KEY, secret), RAIL_OK);
        if (i % 3 == 0) assert_int_equal(net_comm_add_on(t.net[1 - i % 2], KEY, secret), RAIL_OK);
    }
    two_close(&t);
}

/* A frame that breaks the rules, from a peer that proved the secret. */
static void violations_close_the_connection(void **state)
{
    (void)state;
    static const struct { const char *what; struct frame frame; } bad[] = {
        {"frame type", {.type = 77}},
        {"with flags", {.type = FRAME_CREDIT, .flags = 1}},
        {"never was", {.type = FRAME_DATA, .link = 12345}},
        {"bytes in a frame of type", {.type = FRAME_DATA, .link = 1, .payload_bytes = 0xffffffff}},
        {"a slot of", {.type = FRAME_DATA, .link = 1, .slot_bytes = 262145, .payload_bytes = 1}},
        {"a chunk of", {.type = FRAME_DATA, .link = 1, .slot_bytes = 16384, .first_grain = 2, .payload_bytes = 100}},
        {"not whole grains", {.type = FRAME_DATA, .link = 1, .slot_bytes = 100000, .payload_bytes = 1}},
        {"gave credit", {.type = FRAME_DATA, .link = 1, .slot_bytes = 8, .payload_bytes = 8, .sequence = 4}},
        {"gave credit", {.type = FRAME_DATA, .link = 1, .slot_bytes = 8, .payload_bytes = 8, .sequence = 0x70000000}},
        {"which receives", {.type = FRAME_CREDIT, .credit_link = 1, .credit_sequence = 1}},
        {"ACCEPT", {.type = FRAME_ACCEPT, .link = 1, .sequence = 1, .slot_bytes = 4}},
        {"OPEN", {.type = FRAME_OPEN, .payload_bytes = 40}},
        {"is due", {.type = FRAME_OPEN, .payload_bytes = 40, .signature = 7}},
        {"acknowledged", {.type = FRAME_CREDIT, .signature = 9ull << 32}},
        {"BITMAPS", {.type = FRAME_BITMAPS, .link = 1}},
        {"LANE_DOWN", {.type = FRAME_LANE_DOWN, .sequence = 99}},
        {"which never was", {.type = FRAME_LANE_DOWN, .slot_bytes = 3}},
        {"out of step", {.type = FRAME_CREDIT, .number = 999}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct two t;
        two_open(&t, 1);
        assert_true(drive_until(&t, out_ready, SECONDS(10)));
        assert_true(drive_until(&t, out_ready, SECONDS(10)));
        static uint8_t zeros[256];
        pthread_mutex_lock(&t.net[0]->lock);
        struct lane *lane = &t.net[0]->up[0]->lane;
        struct frame f = bad[i].frame;
        if (f.number != 0) lane->out_number += 5;
        const struct net_peer *peer = ((struct net_lane *)lane->user)->peer;
        if (f.type >= FRAME_OPEN && f.type != FRAME_CREDIT && f.type != FRAME_DATA) f.signature += frame_control(peer->says_number + peer->n_said, 0);
        uint32_t payload_bytes = f.payload_bytes;
        if (payload_bytes > sizeof zeros) f.payload_bytes = 0;
        lane_queue(lane, &f, zeros, NULL);
        if (payload_bytes > sizeof zeros) memset(lane->out[lane->out_first].head + 12, 0xff, 4);
        lane_write(lane);
        pthread_mutex_unlock(&t.net[0]->lock);
        bool failed = drive_until(&t, in_failed, SECONDS(10));
        if (!failed || !strstr(((struct net_link *)(void *)t.in)->why, bad[i].what))
            print_error("case %d: wanted \"%s\", got \"%s\"\n", (int)i, bad[i].what, ((struct net_link *)(void *)t.in)->why);
        assert_true(failed);
        assert_non_null(strstr(((struct net_link *)(void *)t.in)->why, bad[i].what));
        assert_true(drive_until(&t, out_failed, SECONDS(10))); /* sees the end of file */
        two_close(&t);
    }
}

static void a_lost_peer_fails_its_links(void **state)
{
    (void)state;
    struct two t;
    two_open(&t, 1);
    assert_true(drive_until(&t, out_ready, SECONDS(10)));
    net_peer_lost_on(t.net[0], t.address[1].process, "rank 1 on host b died (signal 9)");
    assert_true(out_failed(&t));
    assert_non_null(strstr(rail_last_error(), "signal 9"));
    struct link *again = fixture_open(t.net[0], &t.address[1], (struct net_link_request){.comm_key = KEY, .channel = 3});
    assert_null(again);
    two_close(&t);
}

/* ---- real processes ---- */

/* ThreadSanitizer allows no threads after a fork of a process that has some. */
#if defined __SANITIZE_THREAD__
#define NEEDS_FORK() skip()
#elif defined __has_feature
#if __has_feature(thread_sanitizer)
#define NEEDS_FORK() skip()
#endif
#endif
#ifndef NEEDS_FORK
#define NEEDS_FORK() (void)0
#endif

static void child_streams(int to_parent, int from_parent, uint64_t die_after)
{
    struct net_config config = fixture_config(2, 1);
    struct net *net = fixture_net(&config, KEY, 1);
    struct net_address mine = fixture_address(net), parents;
    if (write(to_parent, &mine, sizeof mine) != (ssize_t)sizeof mine) _exit(3);
    if (read(from_parent, &parents, sizeof parents) != (ssize_t)sizeof parents) _exit(3);
    struct link *out = fixture_open(net, &parents, (struct net_link_request){.comm_key = KEY, .from = 0, .to = 1,
                                                                            .sender = true});
    struct link *in = fixture_open(net, &parents, (struct net_link_request){.comm_key = KEY, .from = 1, .to = 0});
    for (uint64_t n = 0;;) {
        void *slot;
        const void *got;
        size_t bytes;
        uint64_t signature;
        if (out->ops->acquire(out, &slot) == RAIL_OK) out->ops->publish(out, mix(n) % 262145, n), n++;
        if (in->ops->wait(in, &got, &bytes, &signature) == RAIL_OK) in->ops->release(in);
        net_progress_on(net);
        if (n >= die_after) kill(getpid(), SIGKILL);
    }
}

/* A machine that others share stands still for a while, now and then, and after a second of that one turn is left: what a turn of
 * the loop takes, which is microseconds, counts when it is below this. */
#define TURN_NS (20 * RAIL_NS_PER_MS)

static void a_peer_killed_at_any_moment_is_noticed_within_a_second(void **state)
{
    (void)state;
    NEEDS_FORK();
    for (uint64_t round = 0; round < 8; round++) {
        int up[2], down[2];
        assert_int_equal(pipe2(up, O_CLOEXEC) | pipe2(down, O_CLOEXEC), 0);
        pid_t child = fork();
        if (child == 0) child_streams(up[1], down[0], mix(round) % 200);
        close(up[1]);
        close(down[0]);
        struct net_config config = fixture_config(2, 1);
        struct two t = {.net = {fixture_net(&config, KEY, 1)}};
        t.address[0] = fixture_address(t.net[0]);
        assert_int_equal(read(up[0], &t.address[1], sizeof t.address[1]), sizeof t.address[1]);
        assert_int_equal(write(down[1], &t.address[0], sizeof t.address[0]), sizeof t.address[0]);
        t.out = fixture_open(t.net[0], &t.address[1], (struct net_link_request){.comm_key = KEY, .from = 1, .to = 0,
                                                                               .sender = true});
        t.in = fixture_open(t.net[0], &t.address[1], (struct net_link_request){.comm_key = KEY, .from = 0, .to = 1});
        uint64_t ran_ns = 0, stood_ns = 0, before_ns = 0, n = 0; /* since it died: of this process, by turns of the loop */
        struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(20));
        bool failed = false;
        while (!failed && ran_ns < SECONDS(1) && !rail_deadline_passed(deadline)) {
            void *slot;
            const void *got;
            size_t bytes;
            uint64_t signature;
            enum rail_result r = t.out->ops->acquire(t.out, &slot);
            if (r == RAIL_OK) t.out->ops->publish(t.out, mix(n) % 262145, n), n++;
            failed = r != RAIL_OK && r != RAIL_NOT_YET;
            r = t.in->ops->wait(t.in, &got, &bytes, &signature);
            if (r == RAIL_OK) t.in->ops->release(t.in);
            failed |= r != RAIL_OK && r != RAIL_NOT_YET;
            net_progress_on(t.net[0]);
            uint64_t now_ns = rail_now_ns();
            if (child == 0) *(now_ns - before_ns > TURN_NS ? &stood_ns : &ran_ns) += now_ns - before_ns;
            if (child > 0 && waitpid(child, NULL, WNOHANG) == child) child = 0;
            before_ns = now_ns;
        }
        const struct net_peer *peer = ((struct net_link *)(void *)t.out)->peer;
        bool died = child == 0, connected = n > 0; /* a connecter has a session before */
        if (!died) kill(child, SIGKILL), waitpid(child, NULL, 0);
        if (connected && !failed)
            fail_msg("round %d: nothing noticed: %s, %d ms and %d ms in which this process did not run; sent %d, %s, lanes up: %d, alone: %d",
                     (int)round, died ? "it died" : "it lives after 20 s", (int)(ran_ns / RAIL_NS_PER_MS),
                     (int)(stood_ns / RAIL_NS_PER_MS), (int)n, peer->connecter ? "connecter" : "accepter", (int)peer->n_up,
                     peer->repair.alone_ns != 0);
        two_close(&t);
        close(up[0]);
        close(down[1]);
    }
}

static int open_descriptors(void)
{
    int n = 0;
    for (int fd = 0; fd < 1024; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void a_forked_child_leaves_the_lanes_alone(void **state)
{
    (void)state;
    NEEDS_FORK();
    struct two t;
    two_open(&t, 2);
    assert_true(drive_until(&t, out_ready, SECONDS(10)));
    int before = open_descriptors();
    pid_t child = fork();
    if (child == 0) {
        void *slot;
        if (t.out->ops->acquire(t.out, &slot) != RAIL_E_USAGE) _exit(1);
        if (!strstr(rail_last_error(), "fork")) _exit(2);
        t.out->ops->publish(t.out, 8, 1); /* no effect */
        t.out->ops->close(t.out);
        if (open_descriptors() >= before) _exit(3);
        /* And it can have a network of its own. */
        struct net_config config = fixture_config(1, 1);
        struct net *net = fixture_net(&config, KEY, 1);
        struct net_address address = fixture_address(net);
        _exit(memcmp(address.process, t.address[0].process, 16) == 0 ? 4 : 0);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    publish(&t, 70000);
    assert_true(drive_until(&t, in_ready, SECONDS(10)));
    two_close(&t);
}

static void running_out_of_descriptors_passes(void **state)
{
    (void)state;
    struct two t;
    struct net_config config = fixture_config(1, 1);
    two_nets(&t, &config, 1);
    int hogs[1024], n = 0, fd;
    struct rlimit limit, small;
    getrlimit(RLIMIT_NOFILE, &limit);
    small = limit;
    small.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &small);
    while (n < 1024 && (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) hogs[n++] = fd;
    t.out = fixture_open(t.net[0], &t.address[1], request(true));
    t.in = fixture_open(t.net[1], &t.address[0], request(false));
    struct rail_deadline deadline = rail_deadline_in_ns(RAIL_NS_PER_S / 5);
    while (!rail_deadline_passed(deadline)) {
        net_progress_on(t.net[0]);
        net_progress_on(t.net[1]);
        assert_false(out_ready(&t));
    }
    close(hogs[--n]); /* one: enough to connect, not to accept */
    deadline = rail_deadline_in_ns(RAIL_NS_PER_S / 5);
    while (!rail_deadline_passed(deadline)) {
        net_progress_on(t.net[0]);
        net_progress_on(t.net[1]);
    }
    while (n > 0) close(hogs[--n]);
    setrlimit(RLIMIT_NOFILE, &limit);
    assert_true(drive_until(&t, out_ready, SECONDS(10)));
    two_close(&t);
}

static void no_descriptor_is_left(void **state)
{
    (void)state;
    int before = open_descriptors();
    for (int i = 0; i < 5; i++) {
        struct two t;
        two_open(&t, 3);
        if (i % 2) assert_true(drive_until(&t, out_ready, SECONDS(10)));
        two_close(&t);
    }
    assert_int_equal(open_descriptors(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sender_stops_at_its_credit),
        cmocka_unit_test(nobody_inside_still_delivers_and_credits),
        cmocka_unit_test(an_idle_process_is_silent),
        cmocka_unit_test(a_receiver_that_opens_late_gets_everything),
        cmocka_unit_test(ends_that_differ_are_told_so),
        cmocka_unit_test(a_wrong_secret_is_refused),
        cmocka_unit_test(a_communicator_known_late_is_waited_for),
        cmocka_unit_test(garbage_and_silence_at_the_listener_disturb_nobody),
        cmocka_unit_test(a_closed_end_is_heard_of),
        cmocka_unit_test(an_end_whose_communicator_is_gone_is_refused),
        cmocka_unit_test(lanes_are_made_anew_for_the_next_communicator),
        cmocka_unit_test(violations_close_the_connection),
        cmocka_unit_test(a_lost_peer_fails_its_links),
        cmocka_unit_test(a_peer_killed_at_any_moment_is_noticed_within_a_second),
        cmocka_unit_test(a_forked_child_leaves_the_lanes_alone),
        cmocka_unit_test(running_out_of_descriptors_passes),
        cmocka_unit_test(no_descriptor_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
