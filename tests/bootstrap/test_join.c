/* Joining and the collectives of the tree: every size, both families, every way in which ranks can disagree. */
#include <sys/wait.h>

#include "base/log.h"
#include "bootstrap/gang.h"
#include "bootstrap/id.h"

static uint8_t pattern(uint32_t rank, size_t at, uint32_t turn)
{
    return (uint8_t)(rank * 31 + at * 7 + turn * 101 + 1);
}

static void gather_odd_sizes(struct member *m)
{
    static const size_t sizes[] = {1, 0, 3, 512, 7, 4096, 65537, 8};
    uint32_t n = m->config.n_ranks;
    for (uint32_t t = 0; t < sizeof sizes / sizeof sizes[0] && m->result == RAIL_OK; t++) {
        size_t each = sizes[t] > 5000 && n > 20 ? 777 : sizes[t];
        uint8_t *table = malloc(each * n + 1);
        memset(table, 0xEE, each * n + 1);
        for (size_t i = 0; i < each; i++) table[m->config.rank * each + i] = pattern(m->config.rank, i, t);
        m->result = bootstrap_allgather(m->bootstrap, table, each, m->config.deadline);
        for (uint32_t r = 0; r < n && m->result == RAIL_OK; r++)
            for (size_t i = 0; i < each; i++)
                if (table[r * each + i] != pattern(r, i, t)) m->result = RAIL_E_INTERNAL;
        if (table[each * n] != 0xEE) m->result = RAIL_E_INTERNAL;
        free(table);
        if (m->result == RAIL_OK) m->result = bootstrap_barrier(m->bootstrap, m->config.deadline);
    }
}

static void run_gang(const uint8_t *id, uint32_t n, void (*work)(struct member *))
{
    struct member *members = calloc(n, sizeof *members);
    for (uint32_t r = 0; r < n; r++) {
        member_set(&members[r], id, r, n, 60);
        members[r].work = work;
    }
    gang_start(members, n);
    gang_join(members, n);
    for (uint32_t r = 0; r < n; r++)
        if (members[r].result != RAIL_OK) fail_msg("n %u, rank %u: %d %s", n, r, members[r].result, members[r].text);
    free(members);
}

static void any_number_of_ranks_gathers_any_number_of_bytes(void **state)
{
    (void)state;
    static const uint32_t counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 10, 16, 17, 33, 64};
    int before = count_descriptors();
    for (uint32_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        uint8_t id[BOOTSTRAP_ID_BYTES];
        new_id(id);
        run_gang(id, counts[i], gather_odd_sizes);
    }
    expect_descriptors(before);
}

static void note_secret(struct member *m)
{
    memcpy(m->argument, bootstrap_secret(m->bootstrap), BOOTSTRAP_SECRET_BYTES);
}

static void all_ranks_have_one_secret_and_two_communicators_differ(void **state)
{
    (void)state;
    uint8_t secrets[2][5][BOOTSTRAP_SECRET_BYTES];
    setenv("NCCL_COMM_ID", "127.0.0.1:47013", 1); /* even with the same fixed address and secret */
    setenv("RAILCCL_SECRET", "x", 1);
    rail_params_reload();
    for (int c = 0; c < 2; c++) {
        struct member members[5];
        uint8_t id[BOOTSTRAP_ID_BYTES];
        new_id(id);
        for (uint32_t r = 0; r < 5; r++) {
            member_set(&members[r], id, r, 5, 20);
            members[r].work = note_secret;
            members[r].argument = secrets[c][r];
        }
        gang_start(members, 5);
        gang_join(members, 5);
        for (uint32_t r = 0; r < 5; r++) {
            if (members[r].result != RAIL_OK) fail_msg("rank %u: %s", r, members[r].text);
            assert_memory_equal(secrets[c][r], secrets[c][0], BOOTSTRAP_SECRET_BYTES);
        }
    }
    assert_memory_not_equal(secrets[0][0], secrets[1][0], BOOTSTRAP_SECRET_BYTES);
    unsetenv("NCCL_COMM_ID");
    unsetenv("RAILCCL_SECRET");
    rail_params_reload();
}

static void it_works_over_each_address_family(void **state)
{
    (void)state;
    static const struct { const char *interface, *family; int version; } cases[] = {
        {"=lo", "AF_INET", 4}, {"=lo", "AF_INET6", 6}, {"^lo", "AF_INET", 4}, {"^lo", "AF_INET6", 6}, {"=lo", NULL, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv("NCCL_SOCKET_IFNAME", cases[i].interface, 1);
        if (cases[i].family) setenv("NCCL_SOCKET_FAMILY", cases[i].family, 1);
        else unsetenv("NCCL_SOCKET_FAMILY");
        rail_params_reload();
        uint8_t bytes[BOOTSTRAP_ID_BYTES];
        struct unique_id id;
        if (bootstrap_root_create(bytes) != RAIL_OK) {
            print_message("no address for %s %s here: %s\n", cases[i].interface, cases[i].family, rail_last_error());
            continue;
        }
        assert_int_equal(id_open(bytes, &id), RAIL_OK);
        assert_int_equal(id.endpoints[0].family, cases[i].version);
        if (cases[i].interface[0] == '=') assert_true(endpoint_is_loopback(&id.endpoints[0]));
        run_gang(bytes, 11, gather_odd_sizes);
    }
    unsetenv("NCCL_SOCKET_IFNAME");
    unsetenv("NCCL_SOCKET_FAMILY");
    rail_params_reload();
}

static void a_wrong_interface_name_is_named_with_those_that_exist(void **state)
{
    (void)state;
    uint8_t id[BOOTSTRAP_ID_BYTES];
    setenv("NCCL_SOCKET_IFNAME", "nosuch0", 1);
    rail_params_reload();
    assert_int_not_equal(bootstrap_root_create(id), RAIL_OK);
    assert_non_null(strstr(rail_last_error(), "NCCL_SOCKET_IFNAME=\"nosuch0\""));
    assert_non_null(strstr(rail_last_error(), "lo 127.0.0.1"));
    unsetenv("NCCL_SOCKET_IFNAME");
    rail_params_reload();
}

static void ranks_may_come_long_before_a_fixed_root(void **state)
{
    (void)state;
    setenv("NCCL_COMM_ID", "[::1]:47014", 1);
    rail_params_reload();
    uint8_t id[BOOTSTRAP_ID_BYTES];
    struct member members[3];
    new_id(id);
    for (uint32_t r = 0; r < 3; r++) {
        member_set(&members[r], id, r, 3, 20);
        members[r].work = gather_odd_sizes;
    }
    gang_start(members + 1, 2);
    usleep(300000);
    gang_start(members, 1); /* rank 0 opens the port */
    gang_join(members, 3);
    for (int r = 0; r < 3; r++)
        if (members[r].result != RAIL_OK) fail_msg("rank %d: %s", r, members[r].text);
    unsetenv("NCCL_COMM_ID");
    rail_params_reload();
}

static void malformed_fixed_addresses_are_named(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "host", "1.2.3.4", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:12x",
        ":12",
                                      "::1:12", "[::1]", "[::1]12", "[]:12", "1.2.3.4:-5", "no.such.host.invalid:12"};
    for (size_t i = 1; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t id[BOOTSTRAP_ID_BYTES];
        setenv("NCCL_COMM_ID", bad[i], 1);
        rail_params_reload();
        if (bootstrap_root_create(id) != RAIL_E_ARGUMENT) fail_msg("\"%s\" was taken", bad[i]);
        assert_non_null(strstr(rail_last_error(), "NCCL_COMM_ID"));
        assert_non_null(strstr(rail_last_error(), bad[i]));
    }
    unsetenv("NCCL_COMM_ID");
    rail_params_reload();
}

static void ids_that_are_not_ours_or_damaged_are_refused(void **state)
{
    (void)state;
    uint8_t id[BOOTSTRAP_ID_BYTES], damaged[BOOTSTRAP_ID_BYTES] = {0};
    struct bootstrap *b;
    struct bootstrap_config config = {.id = damaged, .n_ranks = 1, .deadline = rail_deadline_in_ns(RAIL_NS_PER_S)};
    assert_int_equal(bootstrap_open(&config, &b), RAIL_E_ARGUMENT);
    new_id(id);
    for (int i = 0; i < BOOTSTRAP_ID_BYTES; i++) {
        memcpy(damaged, id, sizeof id);
        damaged[i] ^= 4;
        assert_int_equal(bootstrap_open(&config, &b), RAIL_E_ARGUMENT);
    }
    config.id = id;
    config.rank = 1;
    assert_int_equal(bootstrap_open(&config, &b), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_last_error(), "rank 1 of 1"));
    run_gang(id, 1, NULL);
}

static void missing_ranks_are_named_before_the_deadline(void **state)
{
    (void)state;
    uint8_t id[BOOTSTRAP_ID_BYTES];
    struct member members[5];
    static const uint32_t present[5] = {0, 1, 2, 4, 6};
    int before = count_descriptors();
    new_id(id);
    for (int i = 0; i < 5; i++) member_set(&members[i], id, present[i], 8, 2.0);
    gang_start(members, 5);
    gang_join(members, 5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(members[i].result, RAIL_E_TIMEOUT);
        if (!strstr(members[i].text, "rank 3, 5, 7 (3 of 8) did not arrive")) fail_msg("%s", members[i].text);
        assert_true(members[i].seconds < 3.0);
    }
    /* Who comes too late hears it at once. */
    struct member late;
    for (uint32_t r = 3; r < 8; r += 2) {
        member_set(&late, id, r, 8, 5.0);
        gang_start(&late, 1);
        gang_join(&late, 1);
        assert_int_equal(late.result, RAIL_E_TIMEOUT);
        assert_non_null(strstr(late.text, "rank 3, 5, 7 (3 of 8)"));
        assert_true(late.seconds < 2.0);
    }
    expect_descriptors(before); /* all 8 have heard: the root is gone */
}

static void a_rank_without_anybody_times_out_by_itself(void **state)
{
    (void)state;
    /* A listener that never speaks stands in for the root. */
    struct sockaddr_storage address = {0};
    ((struct sockaddr_in *)(void *)&address)->sin_family = AF_INET;
    ((struct sockaddr_in *)(void *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int before = count_descriptors();
    int listener = socket_listen(&address, 10);
    socklen_t bytes = sizeof address;
    getsockname(listener, (struct sockaddr *)&address, &bytes);
    struct unique_id id = {.kind = ID_ROOT_RUNS, .n_endpoints = 1};
    endpoint_from(&id.endpoints[0], &address);
    id_seal(&id);
    struct member m;
    member_set(&m, (const uint8_t *)&id, 1, 2, 0.7);
    gang_start(&m, 1);
    gang_join(&m, 1);
    assert_int_equal(m.result, RAIL_E_TIMEOUT);
    assert_true(m.seconds > 0.6 && m.seconds < 2.5);
    assert_non_null(strstr(m.text, "127.0.0.1:"));
    socket_close(listener);
    expect_descriptors(before);
}

static void a_root_that_is_gone_is_reported_within_seconds(void **state)
{
    (void)state;
    uint8_t id[BOOTSTRAP_ID_BYTES];
    new_id(id);
    run_gang(id, 2, NULL);
    usleep(50000);
    struct member m;
    member_set(&m, id, 0, 2, 60);
    gang_start(&m, 1);
    gang_join(&m, 1);
    assert_int_equal(m.result, RAIL_E_REMOTE);
    assert_non_null(strstr(m.text, "Connection refused"));
    assert_non_null(strstr(m.text, "used already"));
    assert_true(m.seconds < 10);
}

static void two_processes_of_one_rank_are_both_told(void **state)
{
    (void)state;
    uint8_t id[BOOTSTRAP_ID_BYTES];
    struct member members[4];
    char pid[32];
    new_id(id);
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    static const uint32_t ranks[4] = {0, 1, 2, 2};
    for (int i = 0; i < 4; i++) member_set(&members[i], id, ranks[i], 4, 10);
    gang_start(members, 4);
    gang_join(members, 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(members[i].result, RAIL_E_USAGE);
        assert_true(members[i].seconds < 2);
        assert_non_null(strstr(members[i].text, "two processes say they are rank 2"));
        assert_non_null(strstr(members[i].text, pid));
    }
}

static void different_numbers_of_ranks_are_named(void **state)
{
    (void)state;
    uint8_t id[BOOTSTRAP_ID_BYTES];
    struct member members[2];
    new_id(id);
    member_set(&members[0], id, 0, 8, 10);
    member_set(&members[1], id, 1, 4, 10);
    gang_start(members, 2);
    gang_join(members, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(members[i].result, RAIL_E_USAGE);
        assert_non_null(strstr(members[i].text, "there are"));
        assert_non_null(strstr(members[i].text, "4"));
        assert_non_null(strstr(members[i].text, "8"));
    }
}

static void a_wrong_secret_is_refused_and_disturbs_nobody(void **state)
{
    (void)state;
    uint8_t good[BOOTSTRAP_ID_BYTES];
    new_id(good);
    struct unique_id bad;
    assert_int_equal(id_open(good, &bad), RAIL_OK);
    bad.secret[5] ^= 1;
    id_seal(&bad);
    struct member members[3], liar;
    for (uint32_t r = 0; r < 3; r++) member_set(&members[r], good, r, 3, 20);
    member_set(&liar, (const uint8_t *)&bad, 2, 3, 20);
    uint64_t refused = bootstrap_refused();
    gang_start(members, 2);
    gang_start(&liar, 1);
    gang_join(&liar, 1);
    assert_int_equal(liar.result, RAIL_E_REMOTE);
    assert_non_null(strstr(liar.text, "does not know this secret"));
    assert_true(liar.seconds < 2);
    assert_true(bootstrap_refused() > refused);
    gang_start(members + 2, 1);
    gang_join(members, 3);
    for (int r = 0; r < 3; r++) assert_int_equal(members[r].result, RAIL_OK);
}

static void the_stop_flag_ends_waiting(void **state)
{
    (void)state;
    uint8_t id[BOOTSTRAP_ID_BYTES];
    _Atomic uint32_t stop = 0;
    struct member members[2];
    int before = count_descriptors();
    new_id(id);
    for (uint32_t r = 0; r < 2; r++) member_set(&members[r], id, r, 3, 60);
    members[0].config.stop = &stop;
    gang_start(members, 2);
    usleep(200000);
    uint64_t start = rail_now_ns();
    atomic_store(&stop, 1);
    gang_join(members, 2);
    assert_true(rail_now_ns() - start < 2 * RAIL_NS_PER_S);
    assert_int_equal(members[0].result, RAIL_E_ABORTED);
    assert_int_equal(members[1].result, RAIL_E_REMOTE); /* and who waited with it need not wait for the deadline */
    assert_non_null(strstr(members[1].text, "rank 0"));
    struct member late;
    member_set(&late, id, 2, 3, 5);
    gang_start(&late, 1);
    gang_join(&late, 1);
    assert_int_equal(late.result, RAIL_E_REMOTE);
    expect_descriptors(before);
}

struct skew { uint32_t late_rank; double late_s, deadline_s; size_t odd_bytes; atomic_int n_awaited; };

static void gather_skewed(struct member *m)
{
    struct skew *skew = m->argument;
    uint8_t table[64 * 16] = {0};
    if (m->config.rank == skew->late_rank) usleep((useconds_t)(skew->late_s * 1e6));
    size_t each = m->config.rank == skew->late_rank && skew->odd_bytes ? skew->odd_bytes : 16;
    m->result = bootstrap_allgather(m->bootstrap, table, each, rail_deadline_in_ns((uint64_t)(skew->deadline_s * 1e9)));
    /* Deadlines begin when their ranks do: who closes at once may be gone before another's has passed. */
    skew->n_awaited--;
    for (int k = 0; k < 10000 && skew->n_awaited > 0; k++) usleep(1000);
}

static void a_late_rank_is_named_when_the_collectives_deadline_passes(void **state)
{
    (void)state;
    struct skew skew = {.late_rank = 9, .late_s = 2.5, .deadline_s = 2.0, .n_awaited = 12};
    uint8_t id[BOOTSTRAP_ID_BYTES];
    struct member members[12];
    new_id(id);
    for (uint32_t r = 0; r < 12; r++) {
        member_set(&members[r], id, r, 12, 20);
        members[r].work = gather_skewed;
        members[r].argument = &skew;
    }
    gang_start(members, 12);
    gang_join(members, 12);
    for (uint32_t r = 0; r < 12; r++) { /* rank 9 hangs below rank 1: neither 0 nor 8 sees it themselves */
        assert_int_equal(members[r].result, RAIL_E_TIMEOUT);
        if (!strstr(members[r].text, "rank 9 did not take part in all-gather")) fail_msg("%s", members[r].text);
    }
}

static void ranks_that_disagree_on_the_size_are_named(void **state)
{
    (void)state;
    struct skew skew = {.late_rank = 3, .late_s = 0.1, .deadline_s = 10, .odd_bytes = 8};
    uint8_t id[BOOTSTRAP_ID_BYTES];
    struct member members[5];
    new_id(id);
    for (uint32_t r = 0; r < 5; r++) {
        member_set(&members[r], id, r, 5, 20);
        members[r].work = gather_skewed;
        members[r].argument = &skew;
    }
    gang_start(members, 5);
    gang_join(members, 5);
    for (uint32_t r = 0; r < 5; r++) {
        assert_int_not_equal(members[r].result, RAIL_OK);
        if (r != 3) assert_non_null(strstr(members[r].text, "rank 3 gives 8 bytes per rank, rank 0 gives 16"));
    }
}

static void a_collective_after_a_peer_has_closed_says_so(void **state)
{
    (void)state;
    uint8_t id[BOOTSTRAP_ID_BYTES];
    struct member members[2];
    new_id(id);
    for (uint32_t r = 0; r < 2; r++) {
        member_set(&members[r], id, r, 2, 20);
        members[r].keep = r == 0;
    }
    gang_start(members, 2);
    gang_join(members, 2);
    assert_int_equal(bootstrap_barrier(members[0].bootstrap, rail_deadline_in_ns(5 * RAIL_NS_PER_S)), RAIL_E_REMOTE);
    assert_non_null(strstr(rail_last_error(), "rank 1"));
    assert_non_null(strstr(rail_last_error(), "closed its communicator"));
    bootstrap_close(members[0].bootstrap);
}

static void an_absurd_size_is_an_argument_error(void **state)
{
    (void)state;
    uint8_t id[BOOTSTRAP_ID_BYTES], byte = 0;
    struct member m;
    new_id(id);
    member_set(&m, id, 0, 1, 20);
    m.keep = true;
    gang_start(&m, 1);
    gang_join(&m, 1);
    assert_int_equal(bootstrap_allgather(m.bootstrap, &byte, (size_t)1 << 40, rail_deadline_never()), RAIL_E_ARGUMENT);
    assert_int_equal(bootstrap_barrier(m.bootstrap, rail_deadline_never()), RAIL_OK);
    bootstrap_close(m.bootstrap);
}

struct heard { _Atomic uint32_t times; uint32_t culprit; char text[64]; };

static void hear(void *owner, uint32_t culprit, enum rail_result result, const char *text)
{
    struct heard *heard = owner;
    heard->culprit = culprit;
    snprintf(heard->text, sizeof heard->text, "%d %s", (int)result, text);
    atomic_fetch_add(&heard->times, 1);
}

static void watch_and_meet(struct member *m)
{
    m->result = bootstrap_watch(m->bootstrap, (struct bootstrap_watch){.lost = hear, .owner = m->argument});
    if (m->result == RAIL_OK) m->result = bootstrap_barrier(m->bootstrap, m->config.deadline);
}

/* Two ranks tell at nearly the same moment: every other hears one of the two, once. */
static void news_told_by_two_threads_at_once_is_heard_once(void **state)
{
    (void)state;
    enum { N = 20 };
    for (int round = 0; round < 10; round++) {
        uint8_t id[BOOTSTRAP_ID_BYTES];
        struct member members[N];
        struct heard heard[N] = {0};
        new_id(id);
        for (uint32_t r = 0; r < N; r++) {
            member_set(&members[r], id, r, N, 20);
            members[r].work = watch_and_meet;
            members[r].argument = &heard[r];
            members[r].keep = true;
        }
        gang_start(members, N);
        gang_join(members, N);
        for (uint32_t r = 0; r < N; r++) assert_int_equal(members[r].result, RAIL_OK);
        bootstrap_tell(members[3].bootstrap, 3, RAIL_E_ABORTED, "three");
        bootstrap_tell(members[17].bootstrap, 17, RAIL_E_ABORTED, "seventeen");
        for (uint32_t r = 0; r < N; r++) {
            bool teller = r == 3 || r == 17;
            for (int i = 0; i < 1000 && !teller && atomic_load(&heard[r].times) == 0; i++) usleep(5000);
        }
        for (uint32_t r = 0; r < N; r++) {
            uint32_t times = atomic_load(&heard[r].times);
            if (r == 3) assert_int_equal(times, 0); /* it was first with its own */
            else if (r == 17) assert_true(times == 0 || (times == 1 && heard[r].culprit == 3)); /* may have come late */
            else assert_int_equal(times, 1);
            char text[32];
            snprintf(text, sizeof text, "%d %s", RAIL_E_ABORTED, heard[r].culprit == 3 ? "three" : "seventeen");
            if (times) assert_string_equal(heard[r].text, text);
        }
        for (uint32_t r = 0; r < N; r++) bootstrap_close(members[r].bootstrap);
    }
}

/* A DataLoader's worker: it must not use, nor keep alive, its parent's connections. */
static void a_forked_child_disturbs_nobody(void **state)
{
    (void)state;
    uint8_t id[BOOTSTRAP_ID_BYTES];
    struct member members[3];
    new_id(id);
    for (uint32_t r = 0; r < 3; r++) {
        member_set(&members[r], id, r, 3, 20);
        members[r].keep = true;
    }
    gang_start(members, 3);
    gang_join(members, 3);
    for (uint32_t r = 0; r < 3; r++) assert_int_equal(members[r].result, RAIL_OK);
    pid_t child = fork();
    if (child == 0) {
        if (bootstrap_barrier(members[0].bootstrap, rail_deadline_in_ns(RAIL_NS_PER_S)) != RAIL_E_USAGE) _exit(1);
        for (uint32_t r = 0; r < 3; r++) bootstrap_close(members[r].bootstrap);
#ifdef __SANITIZE_THREAD__ /* which does not allow threads in a forked child */
        _exit(0);
#endif
        uint8_t own[BOOTSTRAP_ID_BYTES]; /* and it can make its own */
        if (bootstrap_root_create(own) != RAIL_OK) _exit(2);
        struct member alone;
        member_set(&alone, own, 0, 1, 10);
        member_main(&alone);
        _exit(alone.result == RAIL_OK ? 0 : 3);
    }
    int status = -1;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    for (uint32_t r = 0; r < 3; r++) {
        members[r].keep = false;
        members[r].work = gather_odd_sizes;
    }
    pthread_t threads[3];
    for (uint32_t r = 0; r < 3; r++)
        pthread_create(&threads[r], NULL, (void *(*)(void *))(void *)gather_odd_sizes, &members[r]);
    for (uint32_t r = 0; r < 3; r++) pthread_join(threads[r], NULL);
    for (uint32_t r = 0; r < 3; r++) {
        assert_int_equal(members[r].result, RAIL_OK);
        bootstrap_close(members[r].bootstrap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_ranks_gathers_any_number_of_bytes),
        cmocka_unit_test(all_ranks_have_one_secret_and_two_communicators_differ),
        cmocka_unit_test(it_works_over_each_address_family),
        cmocka_unit_test(a_wrong_interface_name_is_named_with_those_that_exist),
        cmocka_unit_test(ranks_may_come_long_before_a_fixed_root),
        cmocka_unit_test(malformed_fixed_addresses_are_named),
        cmocka_unit_test(ids_that_are_not_ours_or_damaged_are_refused),
        cmocka_unit_test(missing_ranks_are_named_before_the_deadline),
        cmocka_unit_test(a_rank_without_anybody_times_out_by_itself),
        cmocka_unit_test(a_root_that_is_gone_is_reported_within_seconds),
        cmocka_unit_test(two_processes_of_one_rank_are_both_told),
        cmocka_unit_test(different_numbers_of_ranks_are_named),
        cmocka_unit_test(a_wrong_secret_is_refused_and_disturbs_nobody),
        cmocka_unit_test(the_stop_flag_ends_waiting),
        cmocka_unit_test(a_late_rank_is_named_when_the_collectives_deadline_passes),
        cmocka_unit_test(ranks_that_disagree_on_the_size_are_named),
        cmocka_unit_test(a_collective_after_a_peer_has_closed_says_so),
        cmocka_unit_test(an_absurd_size_is_an_argument_error),
        cmocka_unit_test(news_told_by_two_threads_at_once_is_heard_once),
        cmocka_unit_test(a_forked_child_disturbs_nobody),
    };
    return cmocka_run_group_tests(tests, warm_up, NULL);
}
