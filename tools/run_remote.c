/* run_remote.c - other hosts: one connection per host, at its end an agent, `railccl run` again, for that host's ranks.
 *
 *      launcher ── ssh ──> agent on host a ──> rank 0, rank 1
 *           └───── ssh ──> agent on host b ──> rank 2, rank 3
 *
 * The agent gets its command line through its standard input, so that no secret stands in a process list; afterwards
 * every letter there is a signal, and the end means that the launcher is gone. Its output lines carry "[rank] ". */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"

extern char **environ;

enum { WORDS_MOST = 65536, WORD_MOST = 1 << 20 };

/* One word as "LENGTH:TEXT". */
static void put(FILE *to, const char *word) { fprintf(to, "%zu:%s", strlen(word), word); }

static void put_option(FILE *to, const char *name, const char *value)
{
    put(to, name);
    put(to, value);
}

static void put_number(FILE *to, const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    put_option(to, name, text);
}

static void put_environment(FILE *to, const struct run_options *o)
{
    /* Before --env, which beats it. What names this host or process stays here. */
    for (char **e = environ; *e; e++) {
        bool wanted = strncmp(*e, "NCCL_", 5) == 0 || strncmp(*e, "RAILCCL_", 8) == 0;
        if (wanted && strncmp(*e, "NCCL_HOSTID=", 12) && strncmp(*e, "RAILCCL_RSH=", 12)) put_option(to, "--env", *e);
    }
    for (int i = 0; i < o->n_env; i++) put_option(to, "--env", o->env[i]);
}

/* The agent's command line, as a text of counted words. */
static char *agent_words(const struct run_options *o, const struct run_common *common, int host, size_t *bytes)
{
    char *text = NULL, root[300], directory[PATH_MAX];
    FILE *to = open_memstream(&text, bytes);
    if (!to) return NULL;
    put(to, "run");
    put_number(to, "--ranks", o->n);
    char *list = NULL;
    size_t list_bytes;
    FILE *hosts = open_memstream(&list, &list_bytes);
    if (!hosts) return fclose(to), free(text), NULL;
    for (int h = 0; h < o->n_hosts; h++) {
        int slots = o->hosts[h].slots ? o->hosts[h].slots : o->per_host;
        fprintf(hosts, slots ? "%s%s:%d" : "%s%s", h ? "," : "", o->hosts[h].name, slots);
    }
    fclose(hosts);
    put_option(to, "--hosts", list);
    free(list);
    put_option(to, "--map", o->map == RUN_CYCLIC ? "cyclic" : "block");
    snprintf(root, sizeof root, strchr(common->root.address, ':') ? "[%s]:%d" : "%s:%d", common->root.address, common->root.port);
    put_option(to, "--root", root);
    put_option(to, "--agent-secret", common->secret);
    put_number(to, "--agent-host", host);
    if (getcwd(directory, sizeof directory)) put_option(to, "--agent-directory", directory);
    put_number(to, "--grace", o->grace_s);
    if (o->preload != RUN_PRELOAD_IF_THERE) put(to, o->preload == RUN_PRELOAD ? "--preload" : "--no-preload");
    if (o->keep_going) put(to, "--keep-going");
    put(to, "--tag");
    char master[32];
    snprintf(master, sizeof master, "MASTER_PORT=%d", common->root.master_port);
    put_option(to, "--env", master);
    put_environment(to, o);
    put(to, "--");
    for (char **word = o->command; *word; word++) put(to, *word);
    fputc('\n', to);
    fclose(to);
    return text;
}

/* The program's own path for the other side, quoted for its shell. */
static void agent_command(char *out, size_t bytes)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *to = out, *end = out + bytes - 16;
    *to++ = '\'';
    for (const char *p = self; *p && to < end - 4; p++) {
        if (*p == '\'') to = stpcpy(to, "'\\''");
        else *to++ = *p;
    }
    strcpy(to, "' run --agent");
}

static bool start_agent(struct run_job *job, const struct run_options *o, const struct run_common *common, int host)
{
    char command[2 * PATH_MAX], label[96], word[300], *argv[8];
    int n = 0;
    agent_command(command, sizeof command);
    snprintf(label, sizeof label, "the agent on host %s", o->hosts[host].name);
    snprintf(word, sizeof word, "%s", o->hosts[host].name);
    argv[n++] = (char *)(uintptr_t)o->rsh;
    if (strcmp(o->rsh, "ssh") == 0) {
        /* No questions: nobody could answer them. */
        argv[n++] = (char *)(uintptr_t)"-oBatchMode=yes";
        argv[n++] = (char *)(uintptr_t)"-T";
    }
    argv[n++] = word;
    argv[n++] = command;
    argv[n] = NULL;
    struct run_start start = {.label = label, .argv = argv, .rank = -1, .is_agent = true, .in = -1};
    if (!run_job_start(job, &start)) return false;
    size_t bytes;
    char *words = agent_words(o, common, host, &bytes);
    bool sent = words && write(run_job_control(job), words, bytes) == (ssize_t)bytes;
    free(words);
    if (!sent) fprintf(stderr, "railccl run: host %s: the connection closed before it had its orders\n", o->hosts[host].name);
    return sent;
}

int run_remote(const struct run_options *o, const struct run_common *common)
{
    struct run_options launcher = *o;
    launcher.directory = NULL;
    struct run_job *job = run_job_create(&launcher, o->n_hosts);
    if (!job) return 1;
    bool good = true;
    for (int h = 0; h < o->n_hosts && good; h++) good = start_agent(job, o, common, h);
    if (!good) run_job_fail(job, 1);
    int status = run_job_wait(job);
    run_job_destroy(job);
    return status;
}

char **run_remote_receive(int *argc)
{
    char **argv = calloc(WORDS_MOST + 1, sizeof *argv), c;
    size_t length;
    *argc = 0;
    if (!argv) return NULL;
    setvbuf(stdin, NULL, _IONBF, 0); /* what follows the words are signals, read by descriptor */
    while (*argc < WORDS_MOST && scanf("%zu%c", &length, &c) == 2 && c == ':' && length <= WORD_MOST) {
        char *word = malloc(length + 1);
        if (!word || fread(word, 1, length, stdin) != length) break;
        word[length] = 0;
        argv[(*argc)++] = word;
        int next = getc(stdin);
        if (next == '\n') return argv;
        ungetc(next, stdin);
    }
    fputs("railccl run --agent: this is for `railccl run --hosts`, which did not send a command line\n", stderr);
    return NULL;
}
