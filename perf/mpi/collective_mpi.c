/* collective_mpi.c - the same measurement as all_reduce_perf and its sisters, for an MPI library: the peer in compare_mpi.py.
 *
 * Floats, sum, out of place, root 0: a barrier, iterations back to back until they take 50 ms, the time of the slowest rank;
 * then one operation with known inputs into a poisoned output, of which every element is checked.
 *   mpicc -O2 -o collective_mpi collective_mpi.c; mpirun -np 2 ./collective_mpi all_reduce FIRST_BYTES LAST_BYTES FACTOR
 * Bytes are those of a rank's larger buffer, as in nccl-tests. One line per size: bytes, microseconds, iterations, wrong
 * elements over all ranks. Exit status 1 when any is wrong. */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, n_ranks;
static float *in, *out;

/* A small whole number, so that sums are exact in any order. */
static float input_of(int r, size_t i) { return (float)((i * 2654435761u + (unsigned)r * 40503u) >> 7 & 1023); }

static float sum_of(size_t i)
{
    float sum = 0;
    for (int r = 0; r < n_ranks; r++) sum += input_of(r, i);
    return sum;
}

/* `count`: elements of the larger buffer, `block` those of one rank's part. */
static void all_reduce(int count, int block) { (void)block, MPI_Allreduce(in, out, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); }
static void reduce(int count, int block) { (void)block, MPI_Reduce(in, out, count, MPI_FLOAT, MPI_SUM, 0, MPI_COMM_WORLD); }
static void reduce_scatter(int count, int block)
{
    (void)count, MPI_Reduce_scatter_block(in, out, block, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}
static void all_gather(int count, int block)
{
    (void)count, MPI_Allgather(in, block, MPI_FLOAT, out, block, MPI_FLOAT, MPI_COMM_WORLD);
}
static void alltoall(int count, int block)
{
    (void)count, MPI_Alltoall(in, block, MPI_FLOAT, out, block, MPI_FLOAT, MPI_COMM_WORLD);
}
/* MPI has it in place only. */
static void broadcast(int count, int block) { (void)block, MPI_Bcast(rank == 0 ? in : out, count, MPI_FLOAT, 0, MPI_COMM_WORLD); }
static void gather(int count, int block) { (void)count, MPI_Gather(in, block, MPI_FLOAT, out, block, MPI_FLOAT, 0, MPI_COMM_WORLD); }
static void scatter(int count, int block) { (void)count, MPI_Scatter(in, block, MPI_FLOAT, out, block, MPI_FLOAT, 0, MPI_COMM_WORLD); }
static void sendrecv(int count, int block)
{
    (void)block, MPI_Sendrecv(in, count, MPI_FLOAT, (rank + 1) % n_ranks, 0, out, count, MPI_FLOAT, (rank + n_ranks - 1) % n_ranks,
                              0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

static float want_sum(size_t i, int block) { return (void)block, sum_of(i); }
static float want_own_sum(size_t i, int block) { return sum_of((size_t)rank * (size_t)block + i); }
static float want_blocks(size_t i, int block) { return input_of((int)(i / (size_t)block), i % (size_t)block); }
static float want_exchanged(size_t i, int block)
{
    return input_of((int)(i / (size_t)block), (size_t)rank * (size_t)block + i % (size_t)block);
}
static float want_part(size_t i, int block) { return input_of(0, (size_t)rank * (size_t)block + i); }
static float want_root(size_t i, int block) { return (void)block, input_of(0, i); }
static float want_previous(size_t i, int block) { return (void)block, input_of((rank + n_ranks - 1) % n_ranks, i); }

static const struct collective {
    const char *name;
    void (*call)(int count, int block);
    float (*want)(size_t i, int block);
    enum { WHOLE, BLOCK, ROOT, OTHERS } output; /* whose output, and how much of it, is defined */
} collectives[] = {
    {"all_reduce", all_reduce, want_sum, WHOLE},         {"reduce_scatter", reduce_scatter, want_own_sum, BLOCK},
    {"all_gather", all_gather, want_blocks, WHOLE},      {"broadcast", broadcast, want_root, OTHERS},
    {"reduce", reduce, want_sum, ROOT},                  {"alltoall", alltoall, want_exchanged, WHOLE},
    {"sendrecv", sendrecv, want_previous, WHOLE},         {"gather", gather, want_blocks, ROOT},
    {"scatter", scatter, want_part, BLOCK},
};
static const struct collective *what;

static double loop(int count, long iterations)
{
    double nothing = 0, sum;
    int block = count / n_ranks;
    MPI_Allreduce(&nothing, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD); /* as a barrier, which all leave together */
    double start = MPI_Wtime();
    for (long i = 0; i < iterations; i++) what->call(count, block);
    return MPI_Wtime() - start;
}

static double measure(int count, size_t bytes, long *iterations)
{
    loop(count, bytes < 1 << 20 ? 20 : 1);
    for (long n = 1;;) {
        double own = loop(count, n), most;
        MPI_Allreduce(&own, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
        if (most >= 0.05 || n >= 1L << 30) {
            *iterations = n;
            return most / (double)n;
        }
        double grow = most > 0 ? 1.2 * 0.05 / most : 100;
        n = (long)((double)n * (grow > 100 ? 100 : grow < 1.2 ? 1.2 : grow)) + 1;
    }
}

static long check(int count)
{
    long wrong = 0, total = 0;
    int block = count / n_ranks;
    memset(out, 0xa5, (size_t)count * sizeof *out);
    what->call(count, block);
    size_t defined = (size_t)(what->output == BLOCK ? block : count);
    if ((what->output == ROOT && rank != 0) || (what->output == OTHERS && rank == 0)) defined = 0;
    for (size_t i = 0; i < defined; i++) wrong += out[i] != what->want(i, block);
    MPI_Allreduce(&wrong, &total, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    return total;
}

static const struct collective *named(const char *name)
{
    for (size_t i = 0; i < sizeof collectives / sizeof *collectives; i++)
        if (strcmp(collectives[i].name, name) == 0) return &collectives[i];
    return NULL;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
    if (argc != 5 || !(what = named(argv[1]))) {
        if (rank == 0) fprintf(stderr, "usage: %s COLLECTIVE FIRST_BYTES LAST_BYTES FACTOR\n", argv[0]);
        MPI_Finalize();
        return 2;
    }
    size_t first = strtoul(argv[2], NULL, 10), last = strtoul(argv[3], NULL, 10), factor = strtoul(argv[4], NULL, 10);
    in = aligned_alloc(4096, (last + 4095) / 4096 * 4096);
    out = aligned_alloc(4096, (last + 4095) / 4096 * 4096);
    if (!in || !out || first < sizeof *in * (size_t)n_ranks || factor < 2) {
        fprintf(stderr, "%s: out of memory, or less than an element for each of %d ranks\n", argv[0], n_ranks);
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    for (size_t i = 0; i < last / sizeof *in; i++) in[i] = input_of(rank, i);
    memset(out, 0, last);

    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(version, &length);
    if (rank == 0) printf("# %.*s, %d ranks\n", (int)strcspn(version, "\n"), version, n_ranks);
    long wrong = 0;
    for (size_t bytes = first; bytes <= last; bytes *= factor) {
        size_t unit = (size_t)n_ranks * sizeof *in;
        int count = (int)(bytes / unit * (unit / sizeof *in));
        long iterations, bad;
        double seconds = measure(count, bytes, &iterations);
        wrong += bad = check(count);
        if (rank == 0) printf("%zu %.4f %ld %ld\n", bytes, seconds * 1e6, iterations, bad), fflush(stdout);
    }
    free(in);
    free(out);
    MPI_Finalize();
    return wrong != 0;
}
