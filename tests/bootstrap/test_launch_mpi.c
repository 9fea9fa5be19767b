/* Real launchers: three processes under Open MPI's mpirun, MPICH's mpiexec and `railccl run` agree on two ids in a row
 * and build a tree with each; a rank that never asks is waited for until the deadline and no longer.
 *
 * This program starts itself under them; LIFE says what a rank does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "bootstrap/launch_ways.h"

#define LIFE "RAILCCL_TEST_LIFE"
#define KEPT "the deadline was kept"
enum { RANKS = 3, CALLS = 2 };
#define OPEN_MPI "mpirun.openmpi"
#define OPEN_MPI_3 OPEN_MPI " --allow-run-as-root --oversubscribe -np 3"
#define MPICH "mpiexec.hydra"
#define MPICH_3 MPICH " -np 3"

/* ---- what a rank does ---- */

static int say(const char *what)
{
    fprintf(stderr, "rank: %s: %s\n", what, rail_last_error());
    return 1;
}

static int meet(const struct launch *me, const uint8_t *id, uint32_t call)
{
    struct bootstrap *b;
    uint64_t table[RANKS] = {0}, mine = 1000 * call + (uint32_t)me->rank;
    struct rail_deadline deadline = rail_deadline_in_ns(20 * RAIL_NS_PER_S);
    struct bootstrap_config config = {.id = id, .rank = (uint32_t)me->rank, .n_ranks = RANKS, .deadline = deadline};
    table[me->rank] = mine;
    if (bootstrap_open(&config, &b) != RAIL_OK) return say("bootstrap_open");
    if (bootstrap_allgather(b, table, sizeof table[0], deadline) != RAIL_OK) return say("bootstrap_allgather");
    bootstrap_close(b);
    for (uint32_t r = 0; r < RANKS; r++)
        if (table[r] != 1000 * call + r) return say("wrong table");
    return 0;
}

static int live(const char *life)
{
    struct launch me;
    uint8_t id[CALLS][BOOTSTRAP_ID_BYTES];
    if (launch_info(&me) != RAIL_OK) return say("launch_info");
    if (me.n_ranks != RANKS || me.n_local != RANKS || me.local_rank != me.rank) return say("not 3 ranks of this host");
    bool lonely = strcmp(life, "lonely") == 0;
    if (lonely && me.rank == 2) {
        sleep(4); /* longer than the others wait */
        return 0;
    }
    for (uint32_t call = 0; call < CALLS; call++) {
        enum rail_result result = launch_unique_id(&me, id[call]);
        if (lonely) {
            if (result != RAIL_E_TIMEOUT || !strstr(rail_last_error(), "id number 1")) return say("no time-out");
            puts(KEPT);
            fflush(stdout);
            sleep(2); /* mpirun ends everybody as soon as one ends in the middle of things */
            return 0;
        }
        if (result != RAIL_OK) return say("launch_unique_id");
        if (meet(&me, id[call], call) != 0) return 1;
    }
    return memcmp(id[0], id[1], sizeof id[0]) == 0 ? say("twice the same id") : 0;
}

/* ---- starting it ---- */

static char self[4096];

static bool have(const char *program)
{
    char command[256];
    snprintf(command, sizeof command, "command -v %s >/dev/null", program);
    return system(command) == 0;
}

/* The variables of a launcher that started this test are not for the ranks; leaks of foreign libraries are not ours. */
static void command_line(char *out, size_t bytes, const char *launcher, const char *life, const char *more)
{
    snprintf(out, bytes, "unset RAILCCL_ROOT MASTER_ADDR MASTER_PORT RAILCCL_RANK RAILCCL_WORLD_SIZE; "
             "export %s ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 " LIFE "=%s; exec timeout -k 5 60 %s %s", more, life, launcher,
             self);
}

static void start(const char *launcher, const char *life, const char *more)
{
    char command[8192];
    command_line(command, sizeof command, launcher, life, more);
    int status = system(command);
    if (status) fail_msg("%s, %s: wait status 0x%x", launcher, life, (unsigned)status);
}

static void skip_without(const char *program)
{
    if (have(program)) return;
    print_message("skipped: no %s\n", program);
    skip();
}

static void open_mpi_carries_two_ids(void **state)
{
    (void)state;
    skip_without(OPEN_MPI);
    start(OPEN_MPI_3, "meet", "");
}

static void mpich_carries_two_ids(void **state)
{
    (void)state;
    skip_without(MPICH);
    start(MPICH_3, "meet", "");
}

static void railccl_run_carries_two_ids(void **state)
{
    char launcher[4200];
    (void)state;
    const char *build = getenv("BUILD");
    snprintf(launcher, sizeof launcher, "%s/bin/railccl", build ? build : "build");
    skip_without(launcher);
    strcat(launcher, " run -n 3 --");
    start(launcher, "meet", "");
}

/* MPICH's launcher serves PMI-2 too; that Slurm started the ranks is pretended. */
static void slurms_pmi2_library_carries_two_ids(void **state)
{
    (void)state;
    skip_without(MPICH);
    if (system("ldconfig -p | grep -q libpmi2.so.0") != 0 && !getenv("RAILCCL_TEST_PMI2")) {
        print_message("skipped: no libpmi2.so.0\n");
        skip();
    }
    start(MPICH_3, "meet", "SLURM_STEP_ID=0 ${RAILCCL_TEST_PMI2:+LD_LIBRARY_PATH=$RAILCCL_TEST_PMI2}");
}

/* What the launcher makes of the end does not matter. */
static void start_lonely(const char *launcher)
{
    char command[8192], line[512];
    int kept = 0;
    command_line(command, sizeof command, launcher, "lonely", "RAILCCL_INIT_TIMEOUT_S=1");
    strcat(command, " 2>/dev/null");
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    while (fgets(line, sizeof line, pipe)) kept += strstr(line, KEPT) != NULL;
    pclose(pipe);
    if (kept != RANKS - 1) fail_msg("%s: %d of %d ranks gave up in time", launcher, kept, RANKS - 1);
}

static void a_rank_that_never_asks_ends_at_the_deadline(void **state)
{
    (void)state;
    if (!have(OPEN_MPI)) skip_without(MPICH);
    if (have(OPEN_MPI)) start_lonely(OPEN_MPI_3);
    if (have(MPICH)) start_lonely(MPICH_3);
}

/* ---- types declared by hand ---- */

static void our_pmix_types_are_those_of_its_header(void **state)
{
    (void)state;
    char says[200] = "", expected[200];
    if (!have("cc") || system("pkg-config --exists pmix 2>/dev/null") != 0) {
        print_message("skipped: no cc or no libpmix-dev\n");
        skip();
    }
    FILE *pipe = popen(
        "set -e; d=$(mktemp -d); trap 'rm -r $d' EXIT; cat >$d/x.c <<'END'\n"
        "#include <pmix.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        "int main(void) { printf(\"%zu %zu %zu %zu %zu %zu %zu %d %d %d %s\", sizeof(pmix_proc_t), offsetof(pmix_proc_t, rank),\n"
        "sizeof(pmix_value_t), offsetof(pmix_value_t, data), sizeof(pmix_info_t), offsetof(pmix_info_t, flags),\n"
        "offsetof(pmix_info_t, value), PMIX_BOOL, PMIX_STRING, PMIX_GLOBAL, PMIX_COLLECT_DATA); return 0; }\n"
        "END\ncc -o $d/x $d/x.c $(pkg-config --cflags pmix); $d/x", "r");
    assert_non_null(pipe);
    assert_non_null(fgets(says, sizeof says, pipe));
    assert_int_equal(pclose(pipe), 0);
    snprintf(expected, sizeof expected, "%zu %zu %zu %zu %zu %zu %zu 1 3 3 pmix.collect", sizeof(struct launch_pmix_proc),
             offsetof(struct launch_pmix_proc, rank), sizeof(struct launch_pmix_value), offsetof(struct launch_pmix_value, data),
             sizeof(struct launch_pmix_info), offsetof(struct launch_pmix_info, flags), offsetof(struct launch_pmix_info, value));
    assert_string_equal(says, expected);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_mpi_carries_two_ids),
        cmocka_unit_test(mpich_carries_two_ids),
        cmocka_unit_test(railccl_run_carries_two_ids),
        cmocka_unit_test(slurms_pmi2_library_carries_two_ids),
        cmocka_unit_test(a_rank_that_never_asks_ends_at_the_deadline),
        cmocka_unit_test(our_pmix_types_are_those_of_its_header),
    };
    const char *life = getenv(LIFE);
    if (life) return live(life);
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return 1;
    return cmocka_run_group_tests_name("launch_mpi", tests, NULL, NULL);
}
