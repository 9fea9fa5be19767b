/* allreduce_mpi.c - the same measurement as all_reduce_perf, for an MPI library: the peer in compare_mpi.py.
 *
 * MPI_Allreduce of floats, sum, out of place: a barrier, iterations back to back until they take 50 ms, the mean over the
 * ranks; then one operation with known inputs into a poisoned output, of which every element is checked.
 *   mpicc -O2 -o allreduce_mpi allreduce_mpi.c; mpirun -np 2 ./allreduce_mpi FIRST_BYTES LAST_BYTES FACTOR
 * One line per size: bytes, microseconds, iterations, wrong elements over all ranks. Exit status 1 when any is wrong. */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, n_ranks;
static float *in, *out;

/* A small whole number, so that sums are exact in any order. */
static float input_of(int r, size_t i) { return (float)((i * 2654435761u + (unsigned)r * 40503u) >> 7 & 1023); }

static double loop(int count, long iterations)
{
    double nothing = 0, sum;
    MPI_Allreduce(&nothing, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD); /* as a barrier, which all leave together */
    double start = MPI_Wtime();
    for (long i = 0; i < iterations; i++) MPI_Allreduce(in, out, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    return MPI_Wtime() - start;
}

static double measure(int count, size_t bytes, long *iterations)
{
    loop(count, bytes < 1 << 20 ? 20 : 1);
    for (long n = 1;;) {
        double own = loop(count, n), most, sum;
        MPI_Allreduce(&own, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
        if (most >= 0.05 || n >= 1L << 30) {
            MPI_Allreduce(&own, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
            *iterations = n;
            return sum / n_ranks / (double)n;
        }
        double grow = most > 0 ? 1.2 * 0.05 / most : 100;
        n = (long)((double)n * (grow > 100 ? 100 : grow < 1.2 ? 1.2 : grow)) + 1;
    }
}

static long check(int count)
{
    long wrong = 0, total = 0;
    memset(out, 0xa5, (size_t)count * sizeof *out);
    MPI_Allreduce(in, out, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    for (size_t i = 0; i < (size_t)count; i++) {
        float want = 0;
        for (int r = 0; r < n_ranks; r++) want += input_of(r, i);
        wrong += out[i] != want;
    }
    MPI_Allreduce(&wrong, &total, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    return total;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
    if (argc != 4) {
        if (rank == 0) fprintf(stderr, "usage: %s FIRST_BYTES LAST_BYTES FACTOR\n", argv[0]);
        MPI_Finalize();
        return 2;
    }
    size_t first = strtoul(argv[1], NULL, 10), last = strtoul(argv[2], NULL, 10), factor = strtoul(argv[3], NULL, 10);
    in = aligned_alloc(4096, (last + 4095) / 4096 * 4096);
    out = aligned_alloc(4096, (last + 4095) / 4096 * 4096);
    if (!in || !out || first < 4 || factor < 2) MPI_Abort(MPI_COMM_WORLD, 2);
    for (size_t i = 0; i < last / sizeof *in; i++) in[i] = input_of(rank, i);
    memset(out, 0, last);

    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(version, &length);
    if (rank == 0) printf("# %.*s, %d ranks\n", (int)strcspn(version, "\n"), version, n_ranks);
    long wrong = 0;
    for (size_t bytes = first; bytes <= last; bytes *= factor) {
        long iterations, bad;
        double seconds = measure((int)(bytes / sizeof *in), bytes, &iterations);
        wrong += bad = check((int)(bytes / sizeof *in));
        if (rank == 0) printf("%zu %.4f %ld %ld\n", bytes, seconds * 1e6, iterations, bad), fflush(stdout);
    }
    free(in);
    free(out);
    MPI_Finalize();
    return wrong != 0;
}
