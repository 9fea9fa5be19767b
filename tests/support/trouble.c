/* trouble.c - see trouble.h. */
#include "support/trouble.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

const char *trouble_lacks(const char *text, const char *words)
{
    static _Thread_local char word[128];
    while (*words) {
        size_t length = strcspn(words, "|");
        snprintf(word, sizeof word, "%.*s", (int)length, words);
        if (!strstr(text, word)) return word;
        words += length + (words[length] == '|');
    }
    return NULL;
}

bool trouble_says(struct job_rank *rank, const char *what, ncclResult_t got, ncclResult_t want, const char *words)
{
    const char *text = ncclGetLastError(NULL), *lacks = trouble_lacks(text, words);
    if (got == want && !lacks) return true;
    job_fail(rank, "%s: result %d, expected %d; lacks \"%s\": %s", what, (int)got, (int)want, lacks ? lacks : "", text);
    return false;
}

ncclResult_t trouble_second_comm(struct job_rank *rank, ncclComm_t *out)
{
    ncclUniqueId id = {{0}};
    ncclResult_t result = rank->rank == 0 ? ncclGetUniqueId(&id) : ncclSuccess;
    if (result != ncclSuccess) return result;
    result = ncclAllReduce(&id, &id, sizeof id, ncclUint8, ncclSum, rank->comm, NULL);
    return result != ncclSuccess ? result : ncclCommInitRank(out, rank->n_ranks, id, rank->rank);
}

ncclResult_t trouble_allreduce(ncclComm_t comm, int n_ranks, size_t count)
{
    float *data = calloc(count + 1, sizeof *data);
    for (size_t i = 0; i < count; i++) data[i] = 1;
    ncclResult_t result = ncclAllReduce(data, data, count, ncclFloat32, ncclSum, comm, NULL);
    for (size_t i = 0; result == ncclSuccess && i < count; i++)
        if (data[i] != (float)n_ranks) result = ncclNumResults;
    free(data);
    return result;
}

static int entries(const char *path)
{
    DIR *dir = opendir(path);
    int n = -3; /* ".", "..", and the descriptor that reads */
    while (dir && readdir(dir)) n++;
    if (dir) closedir(dir);
    return n;
}

int trouble_fds(void) { return entries("/proc/self/fd"); }
int trouble_threads(void) { return entries("/proc/self/task") + 1; }

long trouble_status_kib(const char *field)
{
    FILE *f = fopen(strcmp(field, "Pss:") == 0 ? "/proc/self/smaps_rollup" : "/proc/self/status", "r");
    char line[256];
    long kib = -1;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, field, strlen(field)) == 0) kib = atol(line + strlen(field));
    if (f) fclose(f);
    return kib;
}

double trouble_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double trouble_cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

void trouble_sleep_s(double seconds)
{
    struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
}

void *trouble_shared(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}
