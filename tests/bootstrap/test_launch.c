/* What launchers say in the environment, and the ids that ranks make of an address: every convention, every way of
 * contradicting oneself, two calls in a row, and strangers on the ports. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/params.h"
#include "bootstrap/id.h"
#include "bootstrap/launch.h"

/* Everything that decides here; cleared before each case, since the test itself may run under a launcher. */
static const char *const names[] = {
    "RAILCCL_RANK", "RAILCCL_WORLD_SIZE", "RAILCCL_LOCAL_RANK", "RAILCCL_LOCAL_SIZE", "RAILCCL_ROOT", "RAILCCL_SECRET",
    "RAILCCL_SECRET_FILE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE", "PMI_RANK", "PMI_SIZE", "PMI_FD", "PMI_PORT", "MPI_LOCALRANKID", "MPI_LOCALNRANKS",
    "PMIX_NAMESPACE", "PMIX_RANK", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_ID",
    "SLURM_STEPID", "SLURM_TASKS_PER_NODE", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "RANK", "WORLD_SIZE",
    "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "NCCL_COMM_ID",
};

/* "A=1 B=2" is the whole environment of launchers from now on. */
static void launched_with(const char *environment)
{
    char text[1024], *rest = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unsetenv(names[i]);
    snprintf(text, sizeof text, "%s", environment);
    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        bool known = false;
        *equals = '\0';
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) known = known || strcmp(names[i], word) == 0;
        if (!known) fail_msg("%s is missing in the list of names", word);
        setenv(word, equals + 1, 1);
    }
    rail_params_reload();
}

#define OMPI "OMPI_COMM_WORLD_RANK=5 OMPI_COMM_WORLD_SIZE=8 OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=4 "
#define TORCH "RANK=9 WORLD_SIZE=16 LOCAL_RANK=1 LOCAL_WORLD_SIZE=8 "
#define SLURM "SLURM_STEP_ID=0 SLURM_PROCID=4 SLURM_NTASKS=7 SLURM_LOCALID=0 SLURM_NODEID=2 "
#define RUN "RAILCCL_RANK=2 RAILCCL_WORLD_SIZE=3 RAILCCL_LOCAL_RANK=0 RAILCCL_LOCAL_SIZE=1 "

static const struct good { const char *environment; struct launch expected; } good[] = {
    {"", {0, 1, 0, 1, "none"}},
    {RUN, {2, 3, 0, 1, "railccl run"}},
    {"RAILCCL_RANK=1 RAILCCL_WORLD_SIZE=2", {1, 2, 0, 0, "railccl run"}},
    {OMPI, {5, 8, 1, 4, "Open MPI"}},
    {"PMI_RANK=1 PMI_SIZE=3 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=3 PMI_FD=6", {1, 3, 1, 3, "PMI"}},
    {"PMI_RANK=1 PMI_SIZE=3", {1, 3, 0, 0, "PMI"}},
    {SLURM "SLURM_TASKS_PER_NODE=2(x2),3", {4, 7, 0, 3, "Slurm"}},
    {"SLURM_STEP_ID=3 SLURM_PROCID=3 SLURM_NTASKS=4 SLURM_LOCALID=1 SLURM_NODEID=1 SLURM_TASKS_PER_NODE=2(x2)",
     {3, 4, 1, 2, "Slurm"}},
    {"SLURM_STEPID=3 SLURM_PROCID=0 SLURM_NTASKS=4", {0, 4, 0, 0, "Slurm"}},
    {SLURM, {4, 7, 0, 0, "Slurm"}},
    /* a step smaller than its allocation */
    {"SLURM_STEP_ID=0 SLURM_PROCID=1 SLURM_NTASKS=64 SLURM_STEP_NUM_TASKS=2 SLURM_LOCALID=1 SLURM_NODEID=0 "
     "SLURM_TASKS_PER_NODE=32(x2) SLURM_STEP_TASKS_PER_NODE=2", {1, 2, 1, 2, "Slurm"}},
    /* shells and scripts of an allocation are no tasks */
    {"SLURM_NTASKS=4 SLURM_TASKS_PER_NODE=4", {0, 1, 0, 1, "none"}},
    {"SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0", {0, 1, 0, 1, "none"}},
    {"SLURM_STEP_ID=4294967290 SLURM_NTASKS=4 SLURM_PROCID=0", {0, 1, 0, 1, "none"}},
    {"SLURM_STEP_ID=4294967291 SLURM_NTASKS=4 SLURM_PROCID=0", {0, 1, 0, 1, "none"}},
    {TORCH, {9, 16, 1, 8, "torchrun"}},
    {"RANK=0 WORLD_SIZE=1", {0, 1, 0, 0, "torchrun"}},
    {"RANK=3 WORLD_SIZE=4 LOCAL_RANK=3", {3, 4, 3, 0, "torchrun"}},
    {"LOCAL_RANK=3", {0, 1, 0, 1, "none"}}, /* anybody's name, and nothing to go by */
    {"RANK= WORLD_SIZE=", {0, 1, 0, 1, "none"}},
    /* who wins */
    {RUN OMPI TORCH, {2, 3, 0, 1, "railccl run"}},
    {RUN TORCH "TORCHELASTIC_RUN_ID=x", {2, 3, 0, 1, "railccl run"}},
    {OMPI TORCH, {5, 8, 1, 4, "Open MPI"}},
    {OMPI SLURM "PMI_RANK=0 PMI_SIZE=1", {5, 8, 1, 4, "Open MPI"}},
    {SLURM TORCH, {4, 7, 0, 0, "Slurm"}},
    {SLURM TORCH "TORCHELASTIC_RUN_ID=none", {9, 16, 1, 8, "torchrun"}}, /* srun torchrun */
    {"SLURM_NTASKS=4 SLURM_PROCID=0 " TORCH, {9, 16, 1, 8, "torchrun"}},
};

static void every_launcher_is_understood(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct launch got = {.rank = -1};
        const struct launch *want = &good[i].expected;
        launched_with(good[i].environment);
        enum rail_result result = launch_info(&got);
        if (result != RAIL_OK) fail_msg("\"%s\": %s", good[i].environment, rail_last_error());
        if (got.rank != want->rank || got.n_ranks != want->n_ranks || got.local_rank != want->local_rank ||
            got.n_local != want->n_local || strcmp(got.source, want->source) != 0)
            fail_msg("\"%s\": %d of %d, %d of %d, %s", good[i].environment, got.rank, got.n_ranks, got.local_rank, got.n_local,
                     got.source);
    }
}

static const struct bad { const char *environment; const char *says[3]; } bad[] = {
    {"RAILCCL_RANK=3 RAILCCL_WORLD_SIZE=3", {"RAILCCL_RANK=3", "RAILCCL_WORLD_SIZE=3", "contradict"}},
    {"RAILCCL_RANK=3", {"RAILCCL_RANK=\"3\"", "RAILCCL_WORLD_SIZE", "not"}},
    {"RAILCCL_WORLD_SIZE=3 " TORCH, {"RAILCCL_WORLD_SIZE=\"3\"", "RAILCCL_RANK", "not"}},
    {"RAILCCL_RANK=one RAILCCL_WORLD_SIZE=3", {"RAILCCL_RANK=\"one\"", "number", ""}},
    {"RAILCCL_RANK=-1 RAILCCL_WORLD_SIZE=3", {"RAILCCL_RANK=\"-1\"", "number", ""}},
    {"RAILCCL_RANK=0 RAILCCL_WORLD_SIZE=0", {"RAILCCL_WORLD_SIZE=\"0\"", "number", ""}},
    {"RAILCCL_RANK=0 RAILCCL_WORLD_SIZE=2x", {"RAILCCL_WORLD_SIZE=\"2x\"", "number", ""}},
    {"RAILCCL_RANK=0 RAILCCL_WORLD_SIZE=99999999999999999999", {"99999999999999999999", "number", ""}},
    {"RAILCCL_RANK=0 RAILCCL_WORLD_SIZE=2147483648", {"2147483648", "number", ""}},
    {"OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=2 OMPI_COMM_WORLD_LOCAL_SIZE=2",
     {"OMPI_COMM_WORLD_LOCAL_RANK=2", "OMPI_COMM_WORLD_LOCAL_SIZE=2", "contradict"}},
    {"PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=3", {"MPI_LOCALNRANKS=3", "PMI_SIZE=2", "contradict"}},
    {"PMI_RANK=1 PMI_SIZE=2 MPI_LOCALNRANKS=2", {"MPI_LOCALNRANKS=\"2\"", "MPI_LOCALRANKID", "not"}},
    {"SLURM_STEP_ID=0 SLURM_PROCID=2", {"SLURM_PROCID=\"2\"", "SLURM_NTASKS", "not"}},
    {"SLURM_STEP_ID=0 SLURM_PROCID=2 SLURM_STEP_NUM_TASKS=2", {"SLURM_PROCID=2", "SLURM_STEP_NUM_TASKS=2", "contradict"}},
    {SLURM "SLURM_TASKS_PER_NODE=2(x2", {"SLURM_TASKS_PER_NODE=\"2(x2\"", "", ""}},
    {SLURM "SLURM_TASKS_PER_NODE=2(x2)", {"SLURM_NODEID=2", "SLURM_TASKS_PER_NODE=\"2(x2)\"", "contradict"}},
    {SLURM "SLURM_TASKS_PER_NODE=8(x3)", {"SLURM_NTASKS=7", "SLURM_TASKS_PER_NODE=\"8(x3)\"", "contradict"}},
    {"RANK=4 WORLD_SIZE=4", {"RANK=4", "WORLD_SIZE=4", "contradict"}},
    {"WORLD_SIZE=4", {"WORLD_SIZE=\"4\"", "RANK", "not"}},
    {"RANK=1", {"RANK=\"1\"", "WORLD_SIZE", "not"}},
};

static void contradictions_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct launch got = {.rank = 77};
        launched_with(bad[i].environment);
        enum rail_result result = launch_info(&got);
        if (result != RAIL_E_ARGUMENT) fail_msg("\"%s\": %s", bad[i].environment, rail_result_name(result));
        for (int s = 0; s < 3; s++)
            if (!strstr(rail_last_error(), bad[i].says[s]))
                fail_msg("\"%s\": \"%s\" does not say \"%s\"", bad[i].environment, rail_last_error(), bad[i].says[s]);
        assert_int_equal(got.rank, 77);
    }
}

/* ---- ids ---- */

static const struct launch two = {.n_ranks = 2, .source = "torchrun"};

static enum rail_result next_id(uint8_t id[BOOTSTRAP_ID_BYTES]) { return launch_unique_id(&two, id); }

static void without_a_way_the_error_says_what_to_set(void **state)
{
    (void)state;
    static const char *const environments[] = {"", "MASTER_ADDR=127.0.0.1", "MASTER_PORT=4000", "MASTER_ADDR= MASTER_PORT="};
    uint8_t id[BOOTSTRAP_ID_BYTES];
    for (size_t i = 0; i < sizeof environments / sizeof environments[0]; i++) {
        launched_with(environments[i]);
        assert_int_equal(next_id(id), RAIL_E_USAGE);
        assert_non_null(strstr(rail_last_error(), "RAILCCL_ROOT"));
        assert_non_null(strstr(rail_last_error(), "MASTER_ADDR"));
    }
}

static void bad_addresses_are_named(void **state)
{
    (void)state;
    static const struct { const char *environment, *says; } cases[] = {
        {"RAILCCL_ROOT=127.0.0.1", "RAILCCL_ROOT=\"127.0.0.1\""},
        {"RAILCCL_ROOT=127.0.0.1:70000", "RAILCCL_ROOT=\"127.0.0.1:70000\""},
        {"MASTER_ADDR=127.0.0.1 MASTER_PORT=65535", "MASTER_PORT=\"65535\""},
        {"MASTER_ADDR=127.0.0.1 MASTER_PORT=http", "MASTER_PORT=\"http\""},
        {"MASTER_ADDR=127.0.0.1 MASTER_PORT=0", "MASTER_PORT=\"0\""},
    };
    uint8_t id[BOOTSTRAP_ID_BYTES];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        launched_with(cases[i].environment);
        assert_int_equal(next_id(id), RAIL_E_ARGUMENT);
        if (!strstr(rail_last_error(), cases[i].says)) fail_msg("%s", rail_last_error());
    }
}

static void an_address_becomes_the_ports_to_try(void **state)
{
    (void)state;
    static const struct { const char *environment; uint16_t port; uint8_t ports, family, any; } cases[] = {
        {"RAILCCL_ROOT=127.0.0.1:4000 RAILCCL_SECRET=s", 4000, 1, 4, 0},
        {"MASTER_ADDR=127.0.0.1 MASTER_PORT=4000 RAILCCL_SECRET=s", 4001, 8, 4, 0},
        {"MASTER_ADDR=::1 MASTER_PORT=4000 RAILCCL_SECRET=s", 4001, 8, 6, 0},
        {"MASTER_ADDR=[::1] MASTER_PORT=4000 RAILCCL_SECRET=s", 4001, 8, 6, 0},
        {"MASTER_ADDR=127.0.0.1 MASTER_PORT=65533 RAILCCL_SECRET=s", 65534, 2, 4, 0},
        {"RAILCCL_ROOT=127.0.0.1:4000 MASTER_ADDR=127.0.0.2 MASTER_PORT=5 RAILCCL_SECRET=s", 4000, 1, 4, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[BOOTSTRAP_ID_BYTES];
        struct unique_id id;
        launched_with(cases[i].environment);
        if (next_id(bytes) != RAIL_OK) fail_msg("%s: %s", cases[i].environment, rail_last_error());
        assert_int_equal(id_open(bytes, &id), RAIL_OK);
        assert_int_equal(id.kind, ID_LAUNCH);
        assert_int_equal(id.endpoints[0].port, cases[i].port);
        assert_int_equal(id.endpoints[0].ports, cases[i].ports);
        assert_int_equal(id.endpoints[0].family, cases[i].family);
        assert_int_equal(id.any_address, cases[i].any);
    }
}

/* ---- ranks in processes of their own ---- */

enum { RANKS = 3 };

/* A free port with `n` free ones behind it, most likely. */
static int free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&at, bytes) == 0 && getsockname(fd, (struct sockaddr *)&at, &bytes) == 0);
    close(fd);
    return ntohs(at.sin_port) < 65000 ? ntohs(at.sin_port) : ntohs(at.sin_port) - 1000;
}

static int stranger_at(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 64), 0);
    return fd;
}

/* One rank's whole life: `calls` ids in a row, a tree with each, and a word from everybody. Exit status 0 when well. */
static int rank_life(int rank, int calls)
{
    uint8_t id[2][BOOTSTRAP_ID_BYTES];
    struct launch me;
    char text[16];
    snprintf(text, sizeof text, "%d", rank);
    setenv("RANK", text, 1);
    if (launch_info(&me) != RAIL_OK || me.rank != rank || me.n_ranks != RANKS) return 2;
    for (int call = 0; call < calls; call++) {
        struct bootstrap *b;
        uint32_t table[RANKS] = {0};
        struct rail_deadline deadline = rail_deadline_in_ns(20 * RAIL_NS_PER_S);
        struct bootstrap_config config = {.id = id[call], .rank = (uint32_t)rank, .n_ranks = RANKS, .deadline = deadline};
        if (rank == 0) usleep(30000); /* the others knock first */
        if (launch_unique_id(&me, id[call]) != RAIL_OK) return 3;
        if (bootstrap_open(&config, &b) != RAIL_OK) return 4;
        table[rank] = (uint32_t)(100 * call + rank);
        if (bootstrap_allgather(b, table, sizeof table[0], deadline) != RAIL_OK) return 5;
        for (int r = 0; r < RANKS; r++)
            if (table[r] != (uint32_t)(100 * call + r)) return 6;
        bootstrap_close(b);
    }
    return calls == 2 && memcmp(id[0], id[1], sizeof id[0]) == 0 ? 7 : 0;
}

/* Never through cmocka in the child: it would report the case twice. */
static void run_ranks(int calls)
{
    pid_t pids[RANKS];
    fflush(NULL);
    for (int rank = 0; rank < RANKS; rank++) {
        pids[rank] = fork();
        assert_true(pids[rank] >= 0);
        if (pids[rank] == 0) _exit(rank_life(rank, calls));
    }
    int wrong = 0;
    for (int rank = 0; rank < RANKS; rank++) {
        int status;
        assert_int_equal(waitpid(pids[rank], &status, 0), pids[rank]);
        if (status) print_error("rank %d: wait status 0x%x\n", rank, (unsigned)status);
        wrong += status != 0;
    }
    assert_int_equal(wrong, 0);
}

static void ranks_meet_twice_at_a_root(void **state)
{
    char text[200];
    (void)state;
    snprintf(text, sizeof text, "WORLD_SIZE=%d RAILCCL_ROOT=127.0.0.1:%d RAILCCL_SECRET=tea", RANKS, free_port());
    launched_with(text);
    run_ranks(2);
}

static void ranks_meet_twice_beside_the_master_port(void **state)
{
    char text[200];
    (void)state;
    snprintf(text, sizeof text, "WORLD_SIZE=%d MASTER_ADDR=localhost MASTER_PORT=%d RAILCCL_SECRET=tea", RANKS, free_port());
    launched_with(text);
    run_ranks(2);
}

/* Like torchrun's store: listens, lets everybody in as far as the kernel does, and never says a word. */
static void strangers_on_the_ports_are_passed_by(void **state)
{
    char text[200];
    (void)state;
    int port = free_port(), store = stranger_at(port), silent = stranger_at(port + 1);
    snprintf(text, sizeof text, "WORLD_SIZE=%d MASTER_ADDR=127.0.0.1 MASTER_PORT=%d RAILCCL_SECRET=tea", RANKS, port);
    launched_with(text);
    run_ranks(2);
    close(store);
    close(silent);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_launcher_is_understood),
        cmocka_unit_test(contradictions_are_named),
        cmocka_unit_test(without_a_way_the_error_says_what_to_set),
        cmocka_unit_test(bad_addresses_are_named),
        cmocka_unit_test(an_address_becomes_the_ports_to_try),
        cmocka_unit_test(ranks_meet_twice_at_a_root),
        cmocka_unit_test(ranks_meet_twice_beside_the_master_port),
        cmocka_unit_test(strangers_on_the_ports_are_passed_by),
    };
    return cmocka_run_group_tests_name("launch", tests, NULL, NULL);
}
