/* What strangers and madmen can do at the ports: nothing to the job, and nothing to the process. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "bootstrap/conn.h"
#include "bootstrap/gang.h"
#include "bootstrap/id.h"

static unsigned seed;

static void seed_set(void)
{
    const char *given = getenv("RAILCCL_TEST_SEED");
    seed = given ? (unsigned)strtoul(given, NULL, 0) : 90125;
    print_message("seed %u (RAILCCL_TEST_SEED)\n", seed);
}

static uint32_t dice(uint32_t n) { return (uint32_t)rand_r(&seed) % n; }

static int dial(const struct endpoint *endpoint)
{
    struct sockaddr_storage to;
    endpoint_to(endpoint, 0, 0, &to);
    int fd = socket_connect(&to);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (fd < 0 || poll(&p, 1, 5000) != 1 || socket_error(fd) != 0) {
        socket_close(fd);
        return -1;
    }
    return fd;
}

static void send_all(int fd, const void *bytes, size_t n)
{
    for (size_t at = 0; at < n; ) {
        ssize_t sent = send(fd, (const uint8_t *)bytes + at, n - at, MSG_NOSIGNAL);
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        if (sent < 0 && errno == EAGAIN && poll(&p, 1, 2000) == 1) continue;
        if (sent <= 0) return; /* it has hung up: fine */
        at += (size_t)sent;
    }
}

/* False when the far end hangs up or 5 s pass first. */
static bool read_all(int fd, void *bytes, size_t n)
{
    for (size_t at = 0; at < n; ) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 5000) != 1) return false;
        ssize_t got = recv(fd, (uint8_t *)bytes + at, n - at, 0);
        if (got <= 0) return false;
        at += (size_t)got;
    }
    return true;
}

/* Milliseconds until the far end hangs up, -1 if it does not within `limit_ms`. */
static int hangs_up_after(int fd, int limit_ms)
{
    uint64_t start = rail_now_ns();
    char bytes[512];
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int passed_ms = (int)((rail_now_ns() - start) / RAIL_NS_PER_MS);
        if (passed_ms > limit_ms || poll(&p, 1, limit_ms - passed_ms) != 1) return -1;
        if (recv(fd, bytes, sizeof bytes, 0) <= 0) return (int)((rail_now_ns() - start) / RAIL_NS_PER_MS);
    }
}

static bool prove(int fd, const uint8_t *key, const char *purpose)
{
    struct auth auth;
    auth_start(&auth, &(struct auth_config){.role = AUTH_CONNECTER, .purpose = purpose, .key = key});
    for (;;) {
        enum rail_result result = auth_pump(&auth, fd);
        if (result != RAIL_NOT_YET) return result == RAIL_OK;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 5000) != 1) return false;
    }
}

static void join_all(const uint8_t *id, uint32_t n, double limit_s)
{
    struct member members[16];
    for (uint32_t r = 0; r < n; r++) member_set(&members[r], id, r, n, 20);
    gang_start(members, n);
    gang_join(members, n);
    for (uint32_t r = 0; r < n; r++) {
        if (members[r].result != RAIL_OK) fail_msg("rank %u: %s", r, members[r].text);
        if (members[r].seconds > limit_s) fail_msg("rank %u took %.1f s", r, members[r].seconds);
    }
}

static void new_root(struct unique_id *id)
{
    uint8_t bytes[BOOTSTRAP_ID_BYTES];
    new_id(bytes);
    assert_int_equal(id_open(bytes, id), RAIL_OK);
}

static void two_hundred_silent_connections_disturb_nobody_and_are_dropped(void **state)
{
    (void)state;
    enum { SILENT = 200 };
    struct unique_id id;
    int silent[SILENT], before = count_descriptors();
    new_root(&id);
    uint64_t refused = bootstrap_refused();
    for (int i = 0; i < SILENT; i++) {
        silent[i] = dial(&id.endpoints[0]);
        assert_true(silent[i] >= 0);
        if (i % 3 == 1) send_all(silent[i], "railcca\1", 1 + (size_t)i % 8); /* some begin well */
    }
    /* A rank that waits keeps the root alive, so that their own deadline is what ends them. */
    struct member waiting;
    member_set(&waiting, (const uint8_t *)&id, 0, 2, 20);
    gang_start(&waiting, 1);
    for (int i = 0; i < SILENT; i++) {
        int ms = hangs_up_after(silent[i], 7000);
        if (ms < 0) fail_msg("connection %d is still there after 7 s", i);
        if (i == 0) assert_in_range(ms, 4000, 6500);
        socket_close(silent[i]);
    }
    assert_int_equal(bootstrap_refused() - refused, SILENT);
    struct member other;
    member_set(&other, (const uint8_t *)&id, 1, 2, 5);
    gang_start(&other, 1);
    gang_join(&other, 1);
    gang_join(&waiting, 1);
    assert_int_equal(other.result, RAIL_OK);
    assert_int_equal(waiting.result, RAIL_OK);
    expect_descriptors(before);
}

static void a_flood_pushes_out_its_own_oldest_and_the_job_joins(void **state)
{
    (void)state;
    enum { FLOOD = 1500 };
    static int flood[FLOOD];
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < 2 * FLOOD + 200) {
        print_message("ulimit -n is %llu: too few descriptors for this\n", (unsigned long long)limit.rlim_cur);
        skip();
    }
    struct unique_id id;
    int before = count_descriptors(), dropped = 0;
    new_root(&id);
    for (int i = 0; i < FLOOD; i++) flood[i] = dial(&id.endpoints[0]);
    join_all((const uint8_t *)&id, 9, 4.0); /* they stay: only being pushed out makes room */
    for (int i = 0; i < FLOOD; i++) {
        dropped += flood[i] < 0 || hangs_up_after(flood[i], 1) >= 0;
        if (flood[i] >= 0) socket_close(flood[i]);
    }
    assert_true(dropped >= FLOOD - 1024);
    expect_descriptors(before);
}

static void garbage_is_hung_up_on_at_once(void **state)
{
    (void)state;
    static const char *const greetings[] = {"GET / HTTP/1.0\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01", "railccX",
        "\0\0\0\0"};
    struct unique_id id;
    new_root(&id);
    for (size_t i = 0; i < sizeof greetings / sizeof greetings[0]; i++) {
        int fd = dial(&id.endpoints[0]);
        send_all(fd, greetings[i], i == 4 ? 4 : strlen(greetings[i]));
        int ms = hangs_up_after(fd, 2000);
        if (ms < 0) fail_msg("greeting %zu is still listened to", i);
        socket_close(fd);
    }
    join_all((const uint8_t *)&id, 3, 5);
}

static void random_bytes_and_mutated_handshakes_never_get_in(void **state)
{
    (void)state;
    seed_set();
    struct unique_id id;
    uint8_t key[AUTH_KEY_BYTES], bytes[400];
    new_root(&id);
    auth_derive(id.secret, "root", key);
    for (int round = 0; round < 800; round++) {
        int fd = dial(&id.endpoints[0]);
        assert_true(fd >= 0);
        struct auth auth;
        size_t n;
        auth_start(&auth, &(struct auth_config){.role = AUTH_CONNECTER, .purpose = "root", .key = key});
        const void *hello = auth_output(&auth, &n);
        memcpy(bytes, hello, n);
        for (size_t i = n; i < sizeof bytes; i++) bytes[i] = (uint8_t)dice(256);
        for (uint32_t flips = dice(4); flips > 0; flips--) bytes[dice((uint32_t)n)] ^= (uint8_t)(1u << dice(8));
        send_all(fd, bytes, dice(2) ? n : dice(sizeof bytes)); /* without its proof even a perfect hello is nothing */
        if (dice(8) == 0) (void)hangs_up_after(fd, 2);
        socket_close(fd);
    }
    join_all((const uint8_t *)&id, 5, 10);
}

/* Somebody who holds the secret, and says nonsense in the place of hello. */
static void mutated_hellos_of_a_proven_rank_leave_the_process_whole(void **state)
{
    (void)state;
    seed_set();
    int before = count_descriptors();
    for (int round = 0; round < 25; round++) {
        struct unique_id id;
        uint8_t key[AUTH_KEY_BYTES];
        new_root(&id);
        auth_derive(id.secret, "root", key);
        int fd = dial(&id.endpoints[0]);
        assert_true(fd >= 0 && prove(fd, key, "root"));
        struct { struct frame_head head; struct wire_hello hello; uint8_t more[64]; } m;
        memset(&m, 0, sizeof m);
        m.head = (struct frame_head){.type = FRAME_HELLO, .bytes = sizeof m.hello};
        m.hello = (struct wire_hello){.version = WIRE_VERSION, .n_ranks = 2, .person = {.rank = 1, .pid = 7},
                                      .left_ms = dice(100) ? 200 : UINT32_MAX, .n_endpoints = 1};
        memcpy(m.hello.endpoints, id.endpoints, sizeof m.hello.endpoints);
        for (uint32_t flips = dice(6); flips > 0; flips--) {
            uint8_t *at = (uint8_t *)&m + dice(dice(2) ? sizeof m.head + 16 : sizeof m);
            *at = dice(2) ? (uint8_t)dice(256) : *at ^ (uint8_t)(1u << dice(8));
        }
        send_all(fd, &m, dice(4) ? sizeof m.head + sizeof m.hello : dice(sizeof m));
        usleep(dice(3000));
        socket_close(fd); /* it takes this rank for dead, tells nobody, and waits for the other 60 s: end it */
        struct member other;
        member_set(&other, (const uint8_t *)&id, 0, 2, 0.4);
        gang_start(&other, 1);
        gang_join(&other, 1);
        assert_int_not_equal(other.result, RAIL_OK);
        assert_true(other.text[0] != '\0' && other.seconds < 10);
    }
    int after = count_descriptors();
    /* Roots that refuse wait for rank 1 to come and hear it: their listeners (one to three each) may still be open. */
    assert_true(after >= before);
}

/* Plays rank 1 of 2 up to its place in the tree, then sends mutated frames to rank 0, which is real. */
static int become_rank_1(const struct unique_id *id)
{
    struct { struct frame_head head; struct wire_hello hello; } hello;
    struct { struct frame_head head; struct wire_welcome welcome; } answer;
    struct { struct frame_head head; struct wire_child child; } child;
    struct { struct frame_head head; struct wire_adopted adopted; } answered;
    uint8_t key[AUTH_KEY_BYTES], secret[AUTH_KEY_BYTES];
    auth_derive(id->secret, "root", key);
    int fd = dial(&id->endpoints[0]);
    if (fd < 0 || !prove(fd, key, "root")) return -1;
    memset(&hello, 0, sizeof hello);
    hello.head = (struct frame_head){.type = FRAME_HELLO, .bytes = sizeof hello.hello};
    hello.hello = (struct wire_hello){.version = WIRE_VERSION, .n_ranks = 2, .person = {.rank = 1, .pid = 7},
        .left_ms = 5000};
    send_all(fd, &hello, sizeof hello);
    if (!read_all(fd, &answer, sizeof answer) || answer.head.type != FRAME_WELCOME) return -1;
    struct frame_head joined = {.type = FRAME_JOINED};
    send_all(fd, &joined, sizeof joined);
    socket_close(fd);
    struct { char purpose[16]; uint8_t session[WIRE_SESSION_BYTES]; uint32_t n_ranks, reserved; } message = {
        .purpose = "communicator", .n_ranks = 2,
    };
    memcpy(message.session, answer.welcome.session, WIRE_SESSION_BYTES);
    auth_mac(id->secret, &message, sizeof message, secret);
    auth_derive(secret, "tree", key);
    fd = dial(&answer.welcome.endpoints[0]);
    if (fd < 0 || !prove(fd, key, "tree")) return -1;
    memset(&child, 0, sizeof child);
    child.head = (struct frame_head){.type = FRAME_CHILD, .bytes = sizeof child.child};
    child.child.person.rank = 1;
    strcpy(child.child.person.host, "liar");
    send_all(fd, &child, sizeof child);
    if (!read_all(fd, &answered, sizeof answered) || answered.head.type != FRAME_ADOPTED) return -1;
    return fd;
}

static void work_of_rank_0(struct member *m)
{
    uint8_t table[2 * 24] = {0};
    for (int i = 0; i < 3 && m->result == RAIL_OK; i++)
        m->result = bootstrap_allgather(m->bootstrap, table, 24, rail_deadline_in_ns(RAIL_NS_PER_S));
}

static void mutated_frames_in_the_tree_end_the_communicator_not_the_process(void **state)
{
    (void)state;
    seed_set();
    int before = count_descriptors(), errors = 0;
    for (int round = 0; round < 80; round++) {
        struct unique_id id;
        struct member top;
        new_root(&id);
        member_set(&top, (const uint8_t *)&id, 0, 2, 10);
        top.work = work_of_rank_0;
        gang_start(&top, 1);
        int fd = become_rank_1(&id);
        assert_true(fd >= 0);
        for (uint32_t frames = 1 + dice(4), sequence = 1; frames > 0; frames--, sequence++) {
            static const uint32_t types[] = {FRAME_GATHER, FRAME_GATHER, FRAME_GATHER, FRAME_AWAITS, FRAME_NEWS,
                                             FRAME_GOODBYE, FRAME_SPREAD, FRAME_HELLO, FRAME_ADOPTED, FRAME_BEAT,
                                             FRAME_BEAT, FRAME_FINDING, FRAME_FINDING, 0, 0xffffffff};
            static const uint64_t sizes[] = {0, 24, 48, 64, sizeof(struct wire_news), 1ull << 20, 1ull << 30,
                1ull << 31,
                                             1ull << 40, UINT64_MAX};
            struct { struct frame_head head; uint8_t payload[600]; } m;
            for (size_t i = 0; i < sizeof m.payload; i++) m.payload[i] = (uint8_t)dice(256);
            m.head.type = types[dice(sizeof types / sizeof types[0])];
            m.head.sequence = dice(5) ? sequence : dice(1000);
            m.head.bytes = m.head.type == FRAME_GATHER && dice(3) ? 24
                           : m.head.type == FRAME_NEWS ? sizeof(struct wire_news)
                           : m.head.type == FRAME_AWAITS ? 64
                           : m.head.type == FRAME_BEAT ? sizeof(struct wire_beat)
                           : m.head.type == FRAME_FINDING ? sizeof(struct wire_finding)
                           : sizes[dice(sizeof sizes / sizeof sizes[0])];
            size_t n = m.head.bytes < sizeof m.payload ? m.head.bytes : sizeof m.payload;
            send_all(fd, &m, sizeof m.head + (dice(8) ? n : dice((uint32_t)n + 1)));
        }
        usleep(dice(2000));
        socket_close(fd);
        gang_join(&top, 1);
        errors += top.result != RAIL_OK;
        assert_true(top.seconds < 8);
        if (top.result != RAIL_OK) assert_true(top.text[0] != '\0');
    }
    assert_true(errors > 40);
    expect_descriptors(before);
}

/* ---- no descriptors left ---- */

static bool limit_to(int more)
{
    /* The next descriptor's number tells how many are in use below the limit. */
    int next = dup(0);
    if (next < 0) return false;
    close(next);
    struct rlimit limit = {.rlim_cur = (rlim_t)(next + more), .rlim_max = (rlim_t)(next + more)};
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

#define CHECK(number, condition)                                                                                       \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s: last error: %s\n", #condition, rail_last_error());                                    \
            _exit(number);                                                                                             \
        }                                                                                                              \
    } while (0)

/* In a process of its own, with a service thread that runs already. */
static void without_descriptors_there_is_an_error_text_and_no_leak(void **state)
{
    (void)state;
    skip_where_forking_is_not_allowed();
    pid_t child = fork();
    if (child == 0) {
        uint8_t id[BOOTSTRAP_ID_BYTES], other[BOOTSTRAP_ID_BYTES];
        CHECK(1, warm_up(NULL) == 0 && bootstrap_root_create(id) == RAIL_OK);
        int before = count_descriptors();
        CHECK(2, limit_to(0));
        CHECK(3, bootstrap_root_create(other) != RAIL_OK && rail_last_error()[0]);
        struct member m;
        member_set(&m, id, 0, 1, 3);
        member_main(&m);
        CHECK(4, m.result != RAIL_OK && m.seconds < 2 && strstr(m.text, "Too many open files"));
        struct rlimit limit = {.rlim_cur = 4096, .rlim_max = 4096};
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) _exit(0); /* not root: the rest cannot be looked at */
        CHECK(5, count_descriptors() == before);
        member_set(&m, id, 0, 1, 3);
        member_main(&m);
        CHECK(6, m.result == RAIL_OK); /* and the root still serves */
        _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (status != 0) fail_msg("status %x", status);
}

static void a_root_without_descriptors_tells_the_ranks(void **state)
{
    (void)state;
    skip_where_forking_is_not_allowed();
    int to_ranks[2], to_root[2];
    assert_int_equal(pipe(to_ranks), 0);
    assert_int_equal(pipe(to_root), 0);
    pid_t child = fork();
    if (child == 0) {
        uint8_t id[BOOTSTRAP_ID_BYTES];
        CHECK(1, warm_up(NULL) == 0 && bootstrap_root_create(id) == RAIL_OK);
        CHECK(2, limit_to(3)); /* 3 of 8 ranks fit */
        CHECK(3, write(to_ranks[1], id, sizeof id) == sizeof id);
        char byte;
        close(to_root[1]);
        _exit(read(to_root[0], &byte, 1) == 0 ? 0 : 4);
    }
    uint8_t id[BOOTSTRAP_ID_BYTES];
    assert_int_equal(read(to_ranks[0], id, sizeof id), (int)sizeof id);
    struct member members[8];
    int told = 0;
    for (uint32_t r = 0; r < 8; r++) member_set(&members[r], id, r, 8, 8);
    gang_start(members, 8);
    gang_join(members, 8);
    for (uint32_t r = 0; r < 8; r++) {
        assert_int_not_equal(members[r].result, RAIL_OK);
        told += strstr(members[r].text, "raise ulimit -n") != NULL;
        assert_true(members[r].seconds < 9);
    }
    for (uint32_t r = 0; r < 8 && told < 3; r++) print_message("rank %u: %s\n", r, members[r].text);
    assert_true(told >= 3);
    close(to_root[1]);
    int status = -1;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    close(to_ranks[0]);
    close(to_ranks[1]);
    close(to_root[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_descriptors_there_is_an_error_text_and_no_leak),
        cmocka_unit_test(a_root_without_descriptors_tells_the_ranks),
        cmocka_unit_test(two_hundred_silent_connections_disturb_nobody_and_are_dropped),
        cmocka_unit_test(a_flood_pushes_out_its_own_oldest_and_the_job_joins),
        cmocka_unit_test(garbage_is_hung_up_on_at_once),
        cmocka_unit_test(random_bytes_and_mutated_handshakes_never_get_in),
        cmocka_unit_test(mutated_frames_in_the_tree_end_the_communicator_not_the_process),
        cmocka_unit_test(mutated_hellos_of_a_proven_rank_leave_the_process_whole),
    };
    signal(SIGPIPE, SIG_IGN);
    cmocka_set_test_filter(getenv("RAILCCL_TEST_FILTER"));
    return cmocka_run_group_tests(tests, warm_up, NULL);
}
