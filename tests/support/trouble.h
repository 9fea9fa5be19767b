/* trouble.h - what tests of things going wrong have in common: expecting an error in words, counting what a process
 * holds, and one communicator more for the same ranks. */
#ifndef TESTS_SUPPORT_TROUBLE_H
#define TESTS_SUPPORT_TROUBLE_H

#include "support/job.h"

/* False, and the rank has failed, unless `got` is `want` and the last error's text has every one of the words
 * ("one|two|three"). */
bool trouble_says(struct job_rank *rank, const char *what, ncclResult_t got, ncclResult_t want, const char *words);
/* The words of "one|two" that `text` lacks: the first of them, or NULL. */
const char *trouble_lacks(const char *text, const char *words);

/* Makes another communicator of the same ranks: its id travels through an AllReduce of rank->comm. */
ncclResult_t trouble_second_comm(struct job_rank *rank, ncclComm_t *out);

/* AllReduce of `count` floats, each 1, and a look at the result: ncclSuccess with a wrong sum is ncclNumResults. */
ncclResult_t trouble_allreduce(ncclComm_t comm, int n_ranks, size_t count);

/* What this process holds. */
int trouble_fds(void);
int trouble_threads(void);
long trouble_status_kib(const char *field); /* "VmRSS:" of /proc/self/status, "Pss:" of /proc/self/smaps_rollup */

double trouble_now_s(void);
double trouble_cpu_s(void); /* user and system time of the process */
void trouble_sleep_s(double seconds);

/* A word that all processes of a test see: made by trouble_shared before they are forked. */
void *trouble_shared(size_t bytes);

#endif
