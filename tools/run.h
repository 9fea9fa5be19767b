/* run.h - the parts of `railccl run`: options, who goes where, the environment of a rank, its output, and the job.
 *
 *   run.c              command line, and the order of things
 *   run_options.c      the command line as data
 *   run_place.c        which rank goes to which host
 *   run_root.c         where the ranks meet: an address and two free ports
 *   run_environment.c  the variables of a rank
 *   run_preload.c      which of them make it take this installation's library
 *   run_output.c       lines from many ranks into one stream
 *   run_job.c          starting, watching, stopping: the children of this process
 *   run_remote.c       other hosts: an agent there does all of the above for its own ranks */
#ifndef TOOLS_RUN_H
#define TOOLS_RUN_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum run_where { RUN_HERE, RUN_EMULATED, RUN_NETNS, RUN_SSH };
enum run_map { RUN_BLOCK, RUN_CYCLIC };
enum run_preload { RUN_PRELOAD_IF_THERE, RUN_PRELOAD, RUN_PRELOAD_NOT };
enum run_prefix { RUN_PREFIX_SEVERAL, RUN_PREFIX_ALWAYS, RUN_PREFIX_NEVER };

struct run_host {
    const char *name; /* points into the command line's copy; NULL for an emulated host */
    int slots;        /* 0: not said */
};

struct run_options {
    int n; /* ranks; 0: not said */
    enum run_where where;
    struct run_host *hosts; /* n_hosts; one nameless host for RUN_HERE */
    int n_hosts;
    int per_host; /* 0: not said */
    enum run_map map;
    enum run_prefix prefix;
    const char **env; /* K=V, n_env */
    int n_env;
    enum run_preload preload; /* whether ranks get this installation's library whatever they bring */
    bool keep_going, dry_run;
    int timeout_s, grace_s;
    const char *root;   /* ADDR[:PORT], or NULL */
    const char *secret; /* agents get it from their launcher */
    const char *rsh;    /* how to reach another host */
    int agent_host;     /* -1, or: this is the agent for that host */
    const char *directory; /* agents: where to go first */
    char **command;     /* NULL-terminated */
};

enum run_parsed { RUN_GO, RUN_HELPED, RUN_BAD_USAGE };
enum run_parsed run_options_parse(int argc, char **argv, struct run_options *options);
void run_options_free(struct run_options *options);

struct run_rank { int rank, host, local_rank, local_size; };
/* Ranks 0 .. n-1 over the hosts; complains and returns NULL when they do not fit. Sets options->n when it follows from
 * the hosts. malloc'ed. */
struct run_rank *run_place(struct run_options *options);

/* Where rank 0 listens: for the library, and for programs that use MASTER_ADDR and MASTER_PORT. */
struct run_root { char address[256]; int port, master_port; };
bool run_root_choose(const struct run_options *options, struct run_root *out);

/* What the ranks of one run have in common besides the options. */
struct run_common {
    struct run_root root;
    char secret[65], job[17];
    char library[PATH_MAX]; /* this installation's, which ranks are given; "" none */
};
/* Finds the library that --preload, or its absence, asks for; false with the reason said. */
bool run_preload_find(const struct run_options *options, char library[PATH_MAX]);
/* The environment of a rank, for execvpe: a NULL-terminated vector that points into one malloc'ed block. */
char **run_environment(const struct run_options *options, const struct run_common *common, const struct run_rank *rank);
/* Prints the variables that are set for the rank, without the secret. */
void run_environment_print(const struct run_options *options, const struct run_common *common, const struct run_rank *rank);

/* --- output --- */
struct run_stream { /* one pipe from a child */
    int fd;         /* -1: closed */
    int to;         /* 1 or 2 */
    int rank;       /* whose lines; -1: an agent's, whose lines say so themselves */
    char *line;     /* the line so far */
    size_t bytes, room;
};
struct run_output {
    enum run_prefix prefix;
    int only_writer; /* the one rank that has written so far; -1 none */
    bool several;    /* more than one has */
    bool broken;     /* nobody reads our output any more: it is dropped */
    /* Called while waiting for a slow reader, so that signals and deadlines still count; true: wait no longer. */
    bool (*interrupted)(void *owner);
    void *owner;
    int interrupt_fd;
};
/* Takes what the pipe has, passes on complete lines. False at its end. */
bool run_stream_read(struct run_output *output, struct run_stream *stream);
/* Passes on what is left of a line without an end, and closes. */
void run_stream_close(struct run_output *output, struct run_stream *stream);

/* --- job --- */
struct run_child {
    char label[96];    /* "rank 3 (host a)", "host a" */
    pid_t pid;         /* 0: not running */
    bool own_group;    /* its process group is its own: signals go to all of it */
    int control;       /* agents: write end of its standard input; -1 none */
    struct run_stream out, err;
};
struct run_start { /* how to start one */
    const char *label;
    char *const *argv;
    char *const *environment; /* NULL: ours */
    const char *netns;        /* or NULL; through `ip netns exec` */
    int rank;                 /* for the prefix; -1 for an agent */
    bool inherit;             /* a single rank: our own stdin, stdout, stderr */
    bool is_agent;
    int in;                   /* descriptor for its standard input; -1: /dev/null */
};
struct run_job;
/* `n` children at most. */
struct run_job *run_job_create(const struct run_options *options, int n);
/* False with the reason said, also when the program cannot be executed (asked for the first child only). */
bool run_job_start(struct run_job *job, const struct run_start *start);
/* The start did not succeed: stop what runs; `status` unless something has failed before. */
void run_job_fail(struct run_job *job, int status);
/* Waits until all are gone, whatever it takes; the exit status for the whole. */
int run_job_wait(struct run_job *job);
void run_job_destroy(struct run_job *job);
/* The write end of the standard input of the last started child (an agent). */
int run_job_control(struct run_job *job);

/* --- other hosts --- */
int run_remote(const struct run_options *options, const struct run_common *common);
/* The agent's side: reads the command line that the launcher sends. malloc'ed vector; NULL with the reason said. */
char **run_remote_receive(int *argc);

#endif
