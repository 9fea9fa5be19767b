/* fault_meter.c - collectives in a loop, every byte checked, and when bytes came: what faults are measured with.
 *
 *     railccl run -n 4 --netns "$(rig_hosts $rig 1)" fault_meter --bytes 256M --calls 4
 *
 * A rank per process. Values depend on rank, call and offset (perf/values.h), so that bytes of another call, rank or place
 * are wrong bytes. Before each call there is a barrier, so that a rank which is still checking is not taken for a gap; what
 * the longest barrier took is told apart. delivery.h says how delivery is seen and what a gap is.
 *
 * Each rank prints one line of JSON: also when a call fails, then with "error", and status 1; 3 for wrong bytes. */
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "delivery.h"
#include "perf/buffers.h"
#include "perf/types.h"
#include "perf/values.h"
#include "railccl.h"

enum kind { ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, BROADCAST, ALLTOALL, SENDRECV, KINDS, MIX = KINDS };
static const char *const kind_names[] = {"all_reduce", "all_gather", "reduce_scatter", "broadcast", "alltoall", "sendrecv", "mix"};
#define TYPE ncclUint32
enum { MOST_RANKS = 256, MOST_SECONDS = 1200, GO_LIMIT_S = 60 };

struct options {
    size_t bytes;
    int calls, check, pause_ms, wait, stop_by_board;
    double seconds;
    enum kind kind;
    const char *board, *json;
};

struct meter {
    struct options o;
    railLaunch_t launch;
    int rank, n;
    ncclComm_t comm;
    struct board_head *head;
    struct board_rank *board; /* this rank's line */
    struct delivery *delivery;
    struct perf_buffer send, receive;
    union values_table reduced, *input; /* of every rank */
    size_t count; /* elements, a multiple of n */
    int calls;
    uint64_t wrong;
    double init_ms, barrier_ms, barrier_at_s;
    double *call_s; /* begin and end of each call, as pairs */
};

static const char usage[] =
    "fault_meter: collectives in a loop, every byte checked, and how evenly bytes came; one line of JSON per rank\n"
    "  --bytes SIZE      of the larger buffer, K M G allowed (64M)\n"
    "  --calls N         how many (4); 0: until --seconds or the board ends it\n"
    "  --seconds S       ends after the call in which rank 0 has had S seconds\n"
    "  --check 0|1       whether bytes are checked (1)\n"
    "  --collective C    all_reduce all_gather reduce_scatter broadcast alltoall sendrecv, or mix: in turn (all_reduce)\n"
    "  --pause MS        between two calls (0)\n"
    "  --board FILE      shows what it is doing there, for whoever injects faults (delivery.h); made by them, (1 + ranks) x 64 bytes\n"
    "  --wait            after the communicator is made, waits until the board says go\n"
    "  --json FILE       lines go there instead of standard output; %r is the rank\n";

static void quote(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\') fprintf(out, "\\%c", *p);
        else if (*p < 0x20 || *p > 0x7e) fprintf(out, "\\u%04x", *p);
        else fputc(*p, out);
    }
    fputc('"', out);
}

static FILE *open_json(const struct meter *m)
{
    char path[PATH_MAX];
    const char *at = m->o.json ? strstr(m->o.json, "%r") : NULL;
    if (!m->o.json) return stdout;
    if (at) snprintf(path, sizeof path, "%.*s%d%s", (int)(at - m->o.json), m->o.json, m->rank, at + 2);
    else snprintf(path, sizeof path, "%s", m->o.json);
    FILE *f = fopen(path, "ae");
    return f ? f : stdout;
}

static void print(struct meter *m, const char *error)
{
    FILE *out = open_json(m);
    fprintf(out, "{\"rank\": %d, \"host\": ", m->rank);
    quote(out, getenv("RAILCCL_HOST") ? getenv("RAILCCL_HOST") : "");
    fprintf(out, ", \"ranks\": %d, \"calls\": %d, \"bytes\": %zu, \"wrong\": %llu, \"init_ms\": %.1f, \"barrier_ms\": %.1f, \"barrier_at_s\": %.3f, ",
            m->n, m->calls, m->o.bytes, (unsigned long long)m->wrong, m->init_ms, m->barrier_ms, m->barrier_at_s);
    if (error) {
        fputs("\"error\": ", out);
        quote(out, error);
        fputs(", ", out);
    }
    fputs("\"call_s\": [", out);
    for (int i = 0; m->call_s && i < m->calls; i++)
        fprintf(out, "%s[%.4f,%.4f]", i ? "," : "", m->call_s[2 * i], m->call_s[2 * i + 1]);
    fputs("], ", out);
    if (m->delivery) delivery_print(m->delivery, out);
    else fputs("\"nics\": {}", out);
    fputs("}\n", out);
    fflush(out);
}

/* Other threads may be inside the library: no destructors. */
__attribute__((noreturn, format(printf, 2, 3))) static void fail(struct meter *m, const char *format, ...)
{
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    print(m, text);
    fprintf(stderr, "fault_meter: rank %d: %s\n", m->rank, text);
    _exit(1);
}

static void must(struct meter *m, const char *call, ncclResult_t result)
{
    if (result != ncclSuccess) fail(m, "%s: %s: %s", call, ncclGetErrorString(result), ncclGetLastError(NULL));
}

static enum kind kind_find(const char *name)
{
    int i = 0;
    while (i <= MIX && strcmp(name, kind_names[i]) != 0) i++;
    return (enum kind)i;
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option names[] = {
        {"bytes", 1, NULL, 'b'}, {"calls", 1, NULL, 'n'}, {"seconds", 1, NULL, 's'}, {"check", 1, NULL, 'c'}, {"collective", 1, NULL, 'C'},
        {"pause", 1, NULL, 'p'}, {"board", 1, NULL, 'B'}, {"wait", 0, NULL, 'w'}, {"json", 1, NULL, 'j'}, {"help", 0, NULL, 'h'}, {0},
    };
    *o = (struct options){.bytes = 64 << 20, .calls = 4, .check = 1};
    for (int letter; (letter = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        bool good = true;
        switch (letter) {
        case 'b': good = perf_size_parse(optarg, &o->bytes) && o->bytes > 0; break;
        case 'n': good = (o->calls = atoi(optarg)) >= 0; break;
        case 's': good = (o->seconds = atof(optarg)) > 0 && o->seconds <= MOST_SECONDS; break;
        case 'c': o->check = atoi(optarg) != 0; break;
        case 'C': good = (o->kind = kind_find(optarg)) <= MIX; break;
        case 'p': good = (o->pause_ms = atoi(optarg)) >= 0; break;
        case 'B': o->board = optarg; break;
        case 'w': o->wait = 1; break;
        case 'j': o->json = optarg; break;
        case 'h': fputs(usage, stdout); exit(0);
        default: good = false;
        }
        if (!good) return fputs(usage, stderr), false;
    }
    if (optind < argc || (o->calls == 0 && o->seconds == 0 && !o->board)) return fputs(usage, stderr), false;
    return true;
}

/* The board, or one that nobody sees. */
static void open_board(struct meter *m)
{
    size_t bytes = sizeof(struct board_head) + (size_t)m->n * sizeof(struct board_rank);
    int fd = m->o.board ? open(m->o.board, O_RDWR | O_CLOEXEC) : -1;
    if (m->o.board && (fd < 0 || lseek(fd, 0, SEEK_END) < (off_t)bytes))
        fail(m, "--board %s: %m, or shorter than %zu bytes", m->o.board, bytes);
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) fail(m, "mmap of %zu bytes: %m", bytes);
    if (fd >= 0) close(fd);
    m->head = at;
    m->board = (struct board_rank *)((char *)at + sizeof(struct board_head)) + m->rank;
}

static void prepare(struct meter *m)
{
    m->count = m->o.bytes / sizeof(uint32_t) / (size_t)m->n * (size_t)m->n;
    m->o.bytes = m->count * sizeof(uint32_t);
    if (!m->count || m->n > MOST_RANKS) fail(m, "%zu bytes for %d ranks: at least 4 bytes each, at most %d ranks", m->o.bytes, m->n, MOST_RANKS);
    m->input = calloc((size_t)m->n, sizeof *m->input);
    /* Begin and end of a call each; calls that take less than a millisecond are not what this measures. */
    m->call_s = calloc(2 * (m->o.calls ? (size_t)m->o.calls : 1000u * MOST_SECONDS), sizeof *m->call_s);
    bool good = m->input && m->call_s && perf_buffer_create(NULL, m->o.bytes, 0, false, &m->send) &&
                perf_buffer_create(NULL, m->o.bytes, 0, false, &m->receive);
    for (int r = 0; good && r < m->n; r++) good = values_tables(TYPE, PERF_SUM, m->n, r, &m->input[r], r ? NULL : &m->reduced) == 0;
    m->delivery = good ? delivery_start(m->board, m->launch.localRank == 0) : NULL;
    if (!m->delivery) fail(m, "out of memory or threads for buffers of %zu bytes", m->o.bytes);
    perf_buffer_poison(&m->send, m->o.bytes);
    perf_buffer_poison(&m->receive, m->o.bytes);
}

/* What a call of a kind takes from a rank, in elements; all give `got` of them. */
static size_t sent(const struct meter *m, enum kind kind) { return kind == ALL_GATHER ? m->count / (size_t)m->n : m->count; }
static size_t got(const struct meter *m, enum kind kind) { return kind == REDUCE_SCATTER ? m->count / (size_t)m->n : m->count; }

static ncclResult_t exchange(struct meter *m, const void *in, void *out)
{
    ncclResult_t result = ncclGroupStart();
    if (result == ncclSuccess) result = ncclSend(in, m->count, TYPE, (m->rank + 1) % m->n, m->comm, NULL);
    if (result == ncclSuccess) result = ncclRecv(out, m->count, TYPE, (m->rank + m->n - 1) % m->n, m->comm, NULL);
    ncclResult_t end = ncclGroupEnd();
    return result == ncclSuccess ? end : result;
}

static ncclResult_t issue(struct meter *m, enum kind kind, int root)
{
    const void *in = m->send.data;
    void *out = m->receive.data;
    size_t part = m->count / (size_t)m->n;
    switch (kind) {
    case ALL_REDUCE: return ncclAllReduce(in, out, m->count, TYPE, ncclSum, m->comm, NULL);
    case ALL_GATHER: return ncclAllGather(in, out, part, TYPE, m->comm, NULL);
    case REDUCE_SCATTER: return ncclReduceScatter(in, out, part, TYPE, ncclSum, m->comm, NULL);
    case BROADCAST: return ncclBroadcast(in, out, m->count, TYPE, root, m->comm, NULL);
    case ALLTOALL: return ncclAlltoAll(in, out, part, TYPE, m->comm, NULL);
    default: return exchange(m, in, out);
    }
}

/* Bytes that are wrong in `count` elements at `at`, which should be elements `first` on of the table's owner. A wrong
 * element counts as 4 bytes. */
static uint64_t compare(struct meter *m, const union values_table *table, size_t at, size_t count, size_t first, int call)
{
    size_t where = 0;
    struct values_range range = {first, count, (uint64_t)call};
    const uint32_t *have = (const uint32_t *)(void *)m->receive.data + at;
    uint64_t wrong = values_check(TYPE, table, range, have, &where);
    if (wrong && m->wrong == 0)
        fprintf(stderr, "fault_meter: rank %d: call %d: byte %zu: 0x%08x, expected 0x%08x (%llu elements wrong)\n", m->rank, call,
                4 * (at + where), have[where], (uint32_t)values_at(TYPE, table, range, where), (unsigned long long)wrong);
    return wrong * sizeof(uint32_t);
}

static void check(struct meter *m, enum kind kind, int root, int call)
{
    size_t part = m->count / (size_t)m->n, own = part * (size_t)m->rank;
    int before = (m->rank + m->n - 1) % m->n;
    uint64_t wrong = 0;
    switch (kind) {
    case ALL_REDUCE: wrong = compare(m, &m->reduced, 0, m->count, 0, call); break;
    case REDUCE_SCATTER: wrong = compare(m, &m->reduced, 0, part, own, call); break;
    case BROADCAST: wrong = compare(m, &m->input[root], 0, m->count, 0, call); break;
    case SENDRECV: wrong = compare(m, &m->input[before], 0, m->count, 0, call); break;
    default:
        for (size_t r = 0; r < (size_t)m->n; r++)
            wrong += compare(m, &m->input[r], r * part, part, kind == ALLTOALL ? own : 0, call);
    }
    wrong += perf_buffer_guard_wrong(&m->receive, m->o.bytes) + perf_buffer_guard_wrong(&m->send, m->o.bytes);
    m->wrong += wrong;
    atomic_store(&m->board->wrong, m->wrong);
}

/* True when rank 0 wants another call. */
static bool barrier(struct meter *m, bool more)
{
    uint32_t word = m->rank == 0 && more ? 1000 : 1, sum = 0, low = (uint32_t)m->n;
    atomic_store(&m->board->phase, BOARD_BARRIER);
    uint64_t start = delivery_now_ns();
    must(m, "ncclAllReduce (barrier)", ncclAllReduce(&word, &sum, 1, ncclUint32, ncclSum, m->comm, NULL));
    double ms = (double)(delivery_now_ns() - start) / 1e6;
    if (ms > m->barrier_ms) m->barrier_ms = ms, m->barrier_at_s = (double)start / 1e9;
    if (sum != low && sum != low + 999) fail(m, "a barrier's sum is %u, expected %u or %u", sum, low, low + 999);
    return sum > low;
}

static bool wants_more(const struct meter *m, uint64_t start)
{
    if (m->o.calls && m->calls >= m->o.calls) return false;
    if (m->o.seconds > 0 && (double)(delivery_now_ns() - start) / 1e9 >= m->o.seconds) return false;
    return !atomic_load(&m->head->stop) && (double)(delivery_now_ns() - start) / 1e9 < MOST_SECONDS;
}

static void one_call(struct meter *m)
{
    int call = m->calls + 1, root = call % m->n;
    enum kind kind = m->o.kind == MIX ? (enum kind)(call % KINDS) : m->o.kind;
    m->call_s[2 * m->calls] = (double)delivery_now_ns() / 1e9;
    delivery_begin(m->delivery, m->receive.data, got(m, kind) * sizeof(uint32_t), (uint32_t)call);
    must(m, kind_names[kind], issue(m, kind, root));
    delivery_end(m->delivery);
    m->call_s[2 * m->calls + 1] = (double)delivery_now_ns() / 1e9;
    m->calls++;
    atomic_store(&m->board->phase, BOARD_BETWEEN);
    if (m->o.check) check(m, kind, root, call);
}

static void fill(struct meter *m)
{
    enum kind kind = m->o.kind == MIX ? (enum kind)((m->calls + 1) % KINDS) : m->o.kind;
    values_fill(TYPE, &m->input[m->rank], (struct values_range){0, sent(m, kind), (uint64_t)(m->calls + 1)}, m->send.data);
}

static void nap_ms(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

static void run(struct meter *m)
{
    uint64_t start = delivery_now_ns();
    for (;;) {
        fill(m);
        if (!barrier(m, wants_more(m, start))) break;
        one_call(m);
        if (m->o.pause_ms) nap_ms(m->o.pause_ms);
    }
}

static void join(struct meter *m)
{
    ncclUniqueId id;
    atomic_store(&m->board->phase, BOARD_INIT);
    uint64_t start = delivery_now_ns();
    must(m, "railLaunchUniqueId", railLaunchUniqueId(&m->launch, &id));
    must(m, "ncclCommInitRank", ncclCommInitRank(&m->comm, m->n, id, m->rank));
    m->init_ms = (double)(delivery_now_ns() - start) / 1e6;
    atomic_store(&m->board->phase, BOARD_READY);
    for (int waited = 0; m->o.wait && !atomic_load(&m->head->go); waited++) {
        if (waited > 1000 * GO_LIMIT_S) fail(m, "--wait: the board did not say go within %d s", GO_LIMIT_S);
        nap_ms(1);
    }
}

int main(int argc, char **argv)
{
    static struct meter meter;
    struct meter *m = &meter;
    if (!parse(argc, argv, &m->o)) return 2;
    must(m, "railLaunchInfo", railLaunchInfo(&m->launch));
    m->rank = m->launch.rank;
    m->n = m->launch.nRanks;
    open_board(m);
    prepare(m);
    join(m);
    run(m);
    atomic_store(&m->board->phase, BOARD_DONE);
    must(m, "ncclCommDestroy", ncclCommDestroy(m->comm));
    print(m, NULL);
    return m->wrong ? 3 : 0;
}
