/* run_job.c - the children of a run: started, listened to, stopped, and none left behind.
 *
 * One thread, one epoll: the pipes of the children, a signalfd, and standard input when a terminal must be passed on.
 *  - Every child has a process group of its own; a signal goes to the group. When a child has ended, what is left of its
 *    group is killed before the child is reaped, so that the group's number cannot belong to anybody else by then.
 *  - PR_SET_PDEATHSIG ends the children when this process is killed outright.
 *  - The first failure is named and decides the exit status; then SIGTERM for the others, SIGKILL after the grace.
 *  - A signal to us is passed on; the second one kills. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "run.h"

struct run_job {
    const struct run_options *options;
    struct run_child *child;
    int n, room, running;
    int epoll_fd, signal_fd;
    sigset_t caught, before; /* signals that we read; the mask to give to children */
    struct rlimit files;     /* as it was: for children */
    struct run_output output;
    int status;              /* of the first failure; 0 none */
    bool failed, stopping, killed;
    int passed_on;           /* signals from outside, so far */
    struct rail_deadline kill_at, timeout_at;
    int terminal_to;         /* write end of rank 0's stdin when ours is a terminal; -1 */
};

enum { TAG_SIGNAL = 1, TAG_TERMINAL = 2, TAG_CONTROL = 3, TAG_STREAM = 16 }; /* in epoll's data; streams: 16 + 2 i + is_err */

static bool is_agent(const struct run_job *job) { return job->options->agent_host >= 0; }

static void watch(struct run_job *job, int fd, uint64_t tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};
    epoll_ctl(job->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

/* --- stopping --- */

/* An agent gets a letter and passes the signal on to its ranks. */
static char letter_of(int number)
{
    switch (number) {
    case SIGKILL: return 'K';
    case SIGINT: return 'I';
    case SIGHUP: return 'H';
    case SIGUSR1: return '1';
    case SIGUSR2: return '2';
    default: return 'T';
    }
}

static void signal_child(const struct run_child *child, int number)
{
    char letter = letter_of(number);
    if (!child->pid || (child->control >= 0 && write(child->control, &letter, 1) == 1)) return;
    kill(child->own_group ? -child->pid : child->pid, number);
}

static void signal_all(struct run_job *job, int number)
{
    for (int i = 0; i < job->n; i++) signal_child(&job->child[i], number);
}

static void kill_all(struct run_job *job)
{
    for (int i = 0; i < job->n; i++) {
        struct run_child *child = &job->child[i];
        if (job->killed && child->control >= 0 && child->pid) kill(-child->pid, SIGKILL); /* the connection does not react */
        else signal_child(child, SIGKILL);
    }
    job->killed = true;
    job->kill_at = rail_deadline_in_ns(2 * RAIL_NS_PER_S); /* a second round, for those connections */
}

/* Asks the others to end, and sets the time after which they are not asked. */
static void stop(struct run_job *job)
{
    if (job->stopping) return;
    job->stopping = true;
    signal_all(job, SIGTERM);
    job->kill_at = rail_deadline_in_ns((uint64_t)job->options->grace_s * RAIL_NS_PER_S);
}

static void say_failure(struct run_job *job, const struct run_child *child, int status)
{
    char what[64];
    if (WIFSIGNALED(status))
        snprintf(what, sizeof what, "was killed by SIG%s%s", sigabbrev_np(WTERMSIG(status)) ? sigabbrev_np(WTERMSIG(status)) : "?",
                 WCOREDUMP(status) ? " (core dumped)" : "");
    else
        snprintf(what, sizeof what, "exited with status %d", WEXITSTATUS(status));
    char rest[64] = "";
    if (job->running && job->options->keep_going) snprintf(rest, sizeof rest, "; the other %d go on", job->running);
    else if (job->running) snprintf(rest, sizeof rest, "; stopping the other %d", job->running);
    fprintf(stderr, "railccl run: %s (pid %d) %s%s\n", child->label, (int)child->pid, what, rest);
}

static void child_ended(struct run_job *job, struct run_child *child, int status)
{
    job->running--;
    if (status != 0 && !job->failed) {
        job->failed = true;
        job->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        if (!job->passed_on && !job->stopping) say_failure(job, child, status);
        if (!job->options->keep_going && job->running) stop(job);
    }
    /* After a signal from outside the ranks may take their time, but not once one of them has gone. */
    if (job->passed_on && job->kill_at.at_ns == UINT64_MAX && !job->options->keep_going)
        job->kill_at = rail_deadline_in_ns((uint64_t)job->options->grace_s * RAIL_NS_PER_S);
    child->pid = 0;
    if (child->control >= 0) close(child->control);
    child->control = -1;
}

static void reap(struct run_job *job)
{
    for (;;) {
        siginfo_t info = {.si_pid = 0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == 0) return;
        struct run_child *child = NULL;
        for (int i = 0; i < job->n && !child; i++)
            if (job->child[i].pid == info.si_pid) child = &job->child[i];
        if (child && child->own_group) kill(-child->pid, SIGKILL); /* its own children, if any */
        int status;
        if (waitpid(info.si_pid, &status, 0) != info.si_pid) return;
        if (child) child_ended(job, child, status);
    }
}

/* --- signals to us --- */

static void pass_on(struct run_job *job, int number, bool from_terminal)
{
    if (number == SIGUSR1 || number == SIGUSR2) {
        signal_all(job, number);
        return;
    }
    if (job->passed_on++) {
        if (!is_agent(job)) fprintf(stderr, "railccl run: second signal: killing %d\n", job->running);
        kill_all(job);
        return;
    }
    if (!is_agent(job)) fprintf(stderr, "railccl run: passing SIG%s on\n", sigabbrev_np(number));
    job->stopping = true;
    for (int i = 0; i < job->n; i++)
        if (job->child[i].own_group || !from_terminal) signal_child(&job->child[i], number);
}

static void take_signals(struct run_job *job)
{
    struct signalfd_siginfo info;
    while (read(job->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD) reap(job);
        else pass_on(job, (int)info.ssi_signo, info.ssi_code == SI_KERNEL);
    }
}

static void look_at_deadlines(struct run_job *job)
{
    if (rail_deadline_passed(job->timeout_at)) {
        job->timeout_at = rail_deadline_never();
        fprintf(stderr, "railccl run: %d still running after %d s (--timeout): stopping\n", job->running, job->options->timeout_s);
        if (!job->failed) job->failed = true, job->status = 124;
        stop(job);
    }
    if (rail_deadline_passed(job->kill_at)) {
        if (!job->killed && !is_agent(job) && job->running)
            fprintf(stderr, "railccl run: %d did not end within %d s: killing\n", job->running, job->options->grace_s);
        kill_all(job);
    }
    if (job->output.broken && !job->stopping) { /* as a shell pipeline would: whoever writes to nobody ends */
        if (!job->failed) job->failed = true, job->status = 128 + SIGPIPE;
        stop(job);
    }
}

/* Called while our own output is blocked: true when everything has been killed, so that nobody waits for a reader. */
static bool interrupted(void *owner)
{
    struct run_job *job = owner;
    take_signals(job);
    look_at_deadlines(job);
    return job->killed;
}

/* An agent's launcher speaks through our standard input: a letter per signal; its end is the launcher's end. */
static void take_control(struct run_job *job)
{
    char letter;
    ssize_t n = read(0, &letter, 1);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        epoll_ctl(job->epoll_fd, EPOLL_CTL_DEL, 0, NULL);
        stop(job);
        return;
    }
    if (letter == 'K') kill_all(job);
    else if (letter == 'T') stop(job);
    else pass_on(job, letter == 'I' ? SIGINT : letter == 'H' ? SIGHUP : letter == '1' ? SIGUSR1 : SIGUSR2, false);
}

static void take_terminal(struct run_job *job)
{
    char buffer[4096];
    if (tcgetpgrp(0) != getpgrp()) { /* in the background: reading would stop us */
        poll(NULL, 0, 20);
        return;
    }
    ssize_t n = read(0, buffer, sizeof buffer);
    if (n > 0 && write(job->terminal_to, buffer, (size_t)n) == n) return;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    epoll_ctl(job->epoll_fd, EPOLL_CTL_DEL, 0, NULL);
    close(job->terminal_to);
    job->terminal_to = -1;
}

/* --- starting --- */

struct run_job *run_job_create(const struct run_options *options, int n)
{
    struct run_job *job = calloc(1, sizeof *job);
    if (!job || !(job->child = calloc((size_t)n, sizeof *job->child))) return free(job), NULL;
    job->options = options;
    job->room = n;
    job->terminal_to = -1;
    job->kill_at = job->timeout_at = rail_deadline_never();
    if (options->timeout_s && !is_agent(job))
        job->timeout_at = rail_deadline_in_ns((uint64_t)options->timeout_s * RAIL_NS_PER_S);
    sigemptyset(&job->caught);
    const int signals[] = {SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaddset(&job->caught, signals[i]);
    sigprocmask(SIG_BLOCK, &job->caught, &job->before);
    signal(SIGPIPE, SIG_IGN);
    /* Two pipes a child: the usual soft limit of 1024 descriptors is too low for 512 of them. */
    getrlimit(RLIMIT_NOFILE, &job->files);
    struct rlimit most = {job->files.rlim_max, job->files.rlim_max};
    setrlimit(RLIMIT_NOFILE, &most);
    job->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    job->signal_fd = signalfd(-1, &job->caught, SFD_CLOEXEC | SFD_NONBLOCK);
    job->output = (struct run_output){.prefix = options->prefix, .only_writer = -1, .interrupted = interrupted, .owner = job,
                                      .interrupt_fd = job->signal_fd};
    watch(job, job->signal_fd, TAG_SIGNAL);
    if (is_agent(job)) watch(job, 0, TAG_CONTROL);
    return job;
}

/* In the child. `status_to` carries exec's errno. */
static _Noreturn void become(const struct run_job *job, const struct run_start *start, const int *end, int status_to, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1); /* died before the line above */
    setrlimit(RLIMIT_NOFILE, &job->files);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &job->before, NULL);
    for (int i = 0; i < 3; i++)
        if (end[i] >= 0 && dup2(end[i], i) == i) fcntl(i, F_SETFD, 0);
    const char *directory = job->options->directory;
    if (directory && chdir(directory)) {
        fprintf(stderr, "railccl run: cannot enter %s: %s\n", directory, strerror(errno));
        _exit(126);
    }
    if (start->netns) {
        size_t n = 0;
        while (start->argv[n]) n++;
        const char **argv = calloc(n + 5, sizeof *argv);
        if (!argv) _exit(126);
        argv[0] = "ip", argv[1] = "netns", argv[2] = "exec", argv[3] = start->netns;
        memcpy(argv + 4, start->argv, n * sizeof *argv);
        execvpe("ip", (char *const *)(uintptr_t)argv, start->environment);
    } else if (start->environment) {
        execvpe(start->argv[0], start->argv, start->environment);
    } else {
        execvp(start->argv[0], start->argv);
    }
    int error = errno;
    if (write(status_to, &error, sizeof error) != (ssize_t)sizeof error) _exit(126);
    _exit(error == ENOENT ? 127 : 126);
}

/* end[0..2] become the child's standard descriptors, -1 stays ours; ours[1..2] are our ends. */
static bool pipes_open(const struct run_start *start, int end[3], int ours[3])
{
    end[0] = start->in >= 0 || start->inherit ? start->in : open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (int i = 1; i < 3 && !start->inherit; i++) {
        int pair[2];
        if (pipe2(pair, O_CLOEXEC)) return false;
        ours[i] = pair[0], end[i] = pair[1];
        fcntl(ours[i], F_SETFL, O_NONBLOCK);
    }
    if (!start->is_agent) return true;
    int pair[2];
    if (pipe2(pair, O_CLOEXEC)) return false;
    if (end[0] > 0) close(end[0]);
    end[0] = pair[0], ours[0] = pair[1];
    return true;
}

static void child_add(struct run_job *job, const struct run_start *start, pid_t pid, const int ours[3])
{
    struct run_child *child = &job->child[job->n];
    *child = (struct run_child){.pid = pid, .own_group = !start->inherit, .control = start->is_agent ? ours[0] : -1};
    snprintf(child->label, sizeof child->label, "%s", start->label);
    child->out = (struct run_stream){.fd = ours[1], .to = 1, .rank = start->rank};
    child->err = (struct run_stream){.fd = ours[2], .to = 2, .rank = start->rank};
    if (ours[1] >= 0) watch(job, ours[1], TAG_STREAM + 2 * (uint64_t)job->n);
    if (ours[2] >= 0) watch(job, ours[2], TAG_STREAM + 2 * (uint64_t)job->n + 1);
    job->n++;
    job->running++;
}

/* A terminal cannot be shared with a process group in the background: its input goes through us. */
static int terminal_pipe(struct run_job *job, const struct run_start *start)
{
    int pair[2];
    if (start->in != 0 || start->inherit || !isatty(0) || pipe2(pair, O_CLOEXEC)) return -1;
    job->terminal_to = pair[1];
    watch(job, 0, TAG_TERMINAL);
    return pair[0];
}

bool run_job_start(struct run_job *job, const struct run_start *given)
{
    struct run_start start = *given;
    int end[3] = {-1, -1, -1}, ours[3] = {-1, -1, -1}, status[2] = {-1, -1};
    int terminal = terminal_pipe(job, &start);
    if (terminal >= 0) start.in = terminal;
    if (job->n == job->room || !pipes_open(&start, end, ours) || pipe2(status, O_CLOEXEC)) {
        fprintf(stderr, "railccl run: pipes for %s: %s; raise `ulimit -n`\n", start.label, strerror(errno));
        return false;
    }
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) {
        fprintf(stderr, "railccl run: fork for %s: %s\n", start.label, strerror(errno));
        return false;
    }
    if (pid == 0) {
        if (!start.inherit) setpgid(0, 0);
        become(job, &start, end, status[1], parent);
    }
    if (!start.inherit) setpgid(pid, pid); /* in both: whoever comes first */
    child_add(job, &start, pid, ours);
    close(status[1]);
    for (int i = 0; i < 3; i++)
        if (end[i] > 2) close(end[i]);
    /* All run the same program: asking once is enough, and spares a wait per child. */
    int error = 0;
    if (job->n == 1 && read(status[0], &error, sizeof error) == (ssize_t)sizeof error)
        fprintf(stderr, "railccl run: cannot run %s: %s\n", start.netns ? "ip" : start.argv[0], strerror(error));
    close(status[0]);
    if (error) job->failed = true, job->status = error == ENOENT ? 127 : 126;
    return error == 0;
}

void run_job_fail(struct run_job *job, int status)
{
    if (!job->failed) job->failed = true, job->status = status;
}

int run_job_control(struct run_job *job) { return job->child[job->n - 1].control; }

/* --- waiting --- */

static void take_stream(struct run_job *job, uint64_t index)
{
    struct run_child *child = &job->child[index / 2];
    struct run_stream *stream = index % 2 ? &child->err : &child->out;
    if (stream->fd >= 0 && !run_stream_read(&job->output, stream)) run_stream_close(&job->output, stream);
}

static int wait_ms(const struct run_job *job)
{
    int a = rail_deadline_left_ms(job->kill_at), b = rail_deadline_left_ms(job->timeout_at);
    return a < 0 ? b : b < 0 ? a : a < b ? a : b;
}

int run_job_wait(struct run_job *job)
{
    struct epoll_event events[64];
    if (job->failed) stop(job);
    while (job->running) {
        int n = epoll_wait(job->epoll_fd, events, 64, wait_ms(job));
        for (int i = 0; i < n; i++) {
            uint64_t tag = events[i].data.u64;
            if (tag == TAG_SIGNAL) take_signals(job);
            else if (tag == TAG_TERMINAL) take_terminal(job);
            else if (tag == TAG_CONTROL) take_control(job);
            else take_stream(job, tag - TAG_STREAM);
        }
        look_at_deadlines(job);
    }
    /* What is still in the pipes; a process that escaped from its group may hold an end open: take what is there. */
    for (int i = 0; i < job->n; i++) {
        struct run_stream *both[2] = {&job->child[i].out, &job->child[i].err};
        for (int s = 0; s < 2; s++) {
            struct pollfd ready = {both[s]->fd, POLLIN, 0};
            while (both[s]->fd >= 0 && !job->output.broken && poll(&ready, 1, 0) == 1 && run_stream_read(&job->output, both[s])) {}
            run_stream_close(&job->output, both[s]);
        }
    }
    return job->status;
}

void run_job_destroy(struct run_job *job)
{
    if (!job) return;
    if (job->terminal_to >= 0) close(job->terminal_to);
    close(job->signal_fd);
    close(job->epoll_fd);
    setrlimit(RLIMIT_NOFILE, &job->files);
    sigprocmask(SIG_SETMASK, &job->before, NULL);
    free(job->child);
    free(job);
}
