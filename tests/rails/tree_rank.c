/* One rank of a bootstrap tree, for check_bootstrap.sh: the tree alone, without lanes.
 *
 *   tree_rank DIR RANK N idle|busy
 *   tree_rank                          prints the monotonic clock in ms, no more
 *
 * Joins by DIR/id (rank 0 makes it), lets the others know who is who, touches DIR/joined.RANK. Then all-gathers
 * without a pause (busy), each table checked, or sleeps (idle), until DIR/stop exists; then one all-gather more.
 * While it sleeps it accuses whom DIR/accuse.RANK names: "3", it cannot reach rank 3; "link 3", a link to it failed.
 * Its last line:
 *   ok GATHERS gathers, longest MS ms, RESUMED resumed, SUSPECTED suspected
 *   lost at MS culprit C: TEXT          MS on the monotonic clock
 *   failed: TEXT */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "bootstrap/bootstrap.h"
#include "topo/machine.h"

enum { RANKS_MAX = 64 };

struct person {
    struct bootstrap_place place;
    uint64_t host_key;
    uint32_t pid;
    char host[32];
};

struct entry { uint32_t rank, round, stop; };

static struct person people[RANKS_MAX];
static const char *dir;
static uint32_t rank, n_ranks;
static _Atomic int lost;

static bool who(void *owner, uint32_t r, struct bootstrap_who *out)
{
    (void)owner;
    *out = (struct bootstrap_who){&people[r].place, people[r].host_key, people[r].pid, people[r].host};
    return true;
}

static void on_lost(void *owner, uint32_t culprit, enum rail_result result, const char *text)
{
    (void)owner, (void)result;
    printf("lost at %llu culprit %u: %s\n", rail_now_ns() / RAIL_NS_PER_MS, culprit, text);
    fflush(stdout);
    atomic_store(&lost, 1);
}

static const char *path(const char *name)
{
    static char text[512];
    snprintf(text, sizeof text, "%s/%s", dir, name);
    return text;
}

static int fail(void)
{
    if (!atomic_load(&lost)) usleep(3500000); /* the verdict says more than the call that met it */
    if (!atomic_load(&lost)) printf("failed: %s\n", rail_last_error());
    fflush(stdout);
    _exit(1);
}

static void get_id(uint8_t id[BOOTSTRAP_ID_BYTES])
{
    FILE *f = NULL;
    if (rank == 0) {
        char made[512];
        if (bootstrap_root_create(id) != RAIL_OK) fail();
        snprintf(made, sizeof made, "%s", path("id.new"));
        f = fopen(made, "w");
        if (!f || fwrite(id, BOOTSTRAP_ID_BYTES, 1, f) != 1 || fclose(f) != 0 || rename(made, path("id")) != 0) abort();
        return;
    }
    for (int i = 0; i < 3000 && !(f = fopen(path("id"), "r")); i++) usleep(10000);
    if (!f || fread(id, BOOTSTRAP_ID_BYTES, 1, f) != 1) abort();
    fclose(f);
}

static void meet(struct bootstrap *b)
{
    struct person *me = &people[rank];
    const char *name = getenv("TREE_HOST");
    char joined[32];
    me->host_key = machine_host_key();
    me->pid = (uint32_t)getpid();
    snprintf(me->host, sizeof me->host, "%s", name ? name : machine_host_name());
    if (bootstrap_place_here(&me->place) != RAIL_OK ||
        bootstrap_allgather(b, people, sizeof *me, rail_deadline_never()) != RAIL_OK)
        fail();
    bootstrap_know(b, who, NULL);
    snprintf(joined, sizeof joined, "joined.%u", rank);
    fclose(fopen(path(joined), "w"));
}

/* True: somebody has seen DIR/stop. */
static bool gather(struct bootstrap *b, uint32_t round, bool stop)
{
    struct entry table[RANKS_MAX] = {0};
    bool seen = false;
    table[rank] = (struct entry){rank, round, stop};
    if (bootstrap_allgather(b, table, sizeof *table, rail_deadline_never()) != RAIL_OK) fail();
    for (uint32_t r = 0; r < n_ranks; r++) {
        if (table[r].rank != r || table[r].round != round) {
            printf("failed: round %u: entry %u is rank %u's of round %u\n", round, r, table[r].rank, table[r].round);
            exit(1);
        }
        seen |= table[r].stop;
    }
    return seen;
}

static void accuse(struct bootstrap *b)
{
    static bool done;
    char name[32], line[32] = "";
    snprintf(name, sizeof name, "accuse.%u", rank);
    FILE *f = done ? NULL : fopen(path(name), "r");
    if (!f) return;
    done = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    bool link = strncmp(line, "link ", 5) == 0;
    enum bootstrap_finding kind = link ? BOOTSTRAP_LINK_FAILED : BOOTSTRAP_UNREACHABLE;
    if (done) bootstrap_accuse(b, (uint32_t)atoi(line + (link ? 5 : 0)), kind, "a link failed");
}

int main(int argc, char **argv)
{
    uint8_t id[BOOTSTRAP_ID_BYTES];
    struct bootstrap *b;
    uint32_t round = 0;
    uint64_t longest_ns = 0;
    bool over = false, idle = argc == 5 && strcmp(argv[4], "idle") == 0;
    if (argc == 1) return printf("%llu\n", rail_now_ns() / RAIL_NS_PER_MS) < 0;
    if (argc != 5 || (n_ranks = (uint32_t)atoi(argv[3])) > RANKS_MAX) return 2;
    dir = argv[1];
    rank = (uint32_t)atoi(argv[2]);
    get_id(id);
    const struct bootstrap_config config = {.id = id, .rank = rank, .n_ranks = n_ranks,
                                            .deadline = rail_deadline_in_ns(30 * RAIL_NS_PER_S)};
    if (bootstrap_open(&config, &b) != RAIL_OK) return fail();
    if (bootstrap_watch(b, (struct bootstrap_watch){.lost = on_lost}) != RAIL_OK) return fail();
    meet(b);
    while (idle && access(path("stop"), F_OK) != 0 && !atomic_load(&lost)) {
        accuse(b);
        usleep(5000);
    }
    while (!over && !atomic_load(&lost)) {
        uint64_t began_ns = rail_now_ns();
        over = gather(b, ++round, access(path("stop"), F_OK) == 0);
        uint64_t took_ns = rail_now_ns() - began_ns;
        if (took_ns > longest_ns) longest_ns = took_ns;
    }
    if (atomic_load(&lost)) _exit(1);
    printf("ok %u gathers, longest %llu ms, %llu resumed, %llu suspected\n", round, longest_ns / RAIL_NS_PER_MS,
           (unsigned long long)bootstrap_resumed(), (unsigned long long)bootstrap_suspected());
    fflush(stdout);
    bootstrap_close(b);
    return 0;
}
