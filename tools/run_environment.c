/* run_environment.c - the variables of a rank: ours, and those by which programs for torchrun find out who they are. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

extern char **environ;

enum { SET_MOST = 20 };

struct set { /* K=V texts that replace what is there */
    char *text[SET_MOST];
    int n;
};

__attribute__((format(printf, 2, 3))) static void put(struct set *set, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (set->n < SET_MOST && vasprintf(&set->text[set->n], format, arguments) >= 0) set->n++;
    va_end(arguments);
}

static void clear(struct set *set)
{
    while (set->n) free(set->text[--set->n]);
}

/* What is loaded first is what everything else in the process finds: a program that is linked with libnccl.so.2,
 * whatever its RPATH says, and one that opens it by that name. Only who opens another file by its path gets that; vLLM
 * can be told. */
static void preload(struct set *set, const char *library)
{
    const char *before = getenv("LD_PRELOAD"), *vllm = getenv("VLLM_NCCL_SO_PATH");
    put(set, "LD_PRELOAD=%s%s%s", library, before && *before ? ":" : "", before ? before : "");
    if (!vllm || !*vllm) put(set, "VLLM_NCCL_SO_PATH=%s", library);
}

static void collect(const struct run_options *o, const struct run_common *common, const struct run_rank *r, struct set *set)
{
    bool v6 = strchr(common->root.address, ':') != NULL;
    put(set, "RAILCCL_RANK=%d", r->rank);
    put(set, "RAILCCL_WORLD_SIZE=%d", o->n);
    put(set, "RAILCCL_LOCAL_RANK=%d", r->local_rank);
    put(set, "RAILCCL_LOCAL_SIZE=%d", r->local_size);
    put(set, v6 ? "RAILCCL_ROOT=[%s]:%d" : "RAILCCL_ROOT=%s:%d", common->root.address, common->root.port);
    put(set, "RAILCCL_SECRET=%s", common->secret);
    if (o->where != RUN_HERE) {
        const char *name = o->hosts[r->host].name;
        if (name) put(set, "RAILCCL_HOST=%s", name);
        else put(set, "RAILCCL_HOST=emulated-%d", r->host);
    }
    put(set, "RANK=%d", r->rank);
    put(set, "WORLD_SIZE=%d", o->n);
    put(set, "LOCAL_RANK=%d", r->local_rank);
    put(set, "LOCAL_WORLD_SIZE=%d", r->local_size);
    put(set, "GROUP_RANK=%d", r->host);
    put(set, "MASTER_ADDR=%s", common->root.address);
    put(set, "MASTER_PORT=%d", common->root.master_port);
    if (o->where == RUN_EMULATED) {
        put(set, "NCCL_HOSTID=railccl-%s-%d", common->job, r->host);
        if (!getenv("NCCL_SOCKET_IFNAME")) put(set, "NCCL_SOCKET_IFNAME=lo");
    }
    if (common->library[0]) preload(set, common->library);
}

static bool same_name(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");
    return strncmp(a, b, n) == 0 && b[n] == '=';
}

/* Whether a later text sets the same variable. */
static bool overridden(const struct run_options *o, const struct set *set, int from, const char *text)
{
    for (int i = from; i < set->n; i++)
        if (same_name(set->text[i], text)) return true;
    for (int i = 0; i < o->n_env; i++)
        if (same_name(o->env[i], text)) return true;
    return false;
}

char **run_environment(const struct run_options *o, const struct run_common *common, const struct run_rank *rank)
{
    struct set set = {.n = 0};
    collect(o, common, rank, &set);
    size_t count = 0, bytes = 0;
    for (char **e = environ; *e; e++) count++;
    for (int i = 0; i < set.n; i++) bytes += strlen(set.text[i]) + 1;
    char **out = malloc((count + (size_t)set.n + (size_t)o->n_env + 1) * sizeof *out + bytes);
    if (!out) return clear(&set), NULL;
    char **next = out, *text = (char *)(out + count + (size_t)set.n + (size_t)o->n_env + 1);
    for (char **e = environ; *e; e++)
        if (!overridden(o, &set, 0, *e)) *next++ = *e;
    for (int i = 0; i < set.n; i++) {
        if (overridden(o, &set, i + 1, set.text[i])) continue;
        *next++ = text;
        text = stpcpy(text, set.text[i]) + 1;
    }
    for (int i = 0; i < o->n_env; i++) {
        bool last = true;
        for (int j = i + 1; j < o->n_env; j++) last = last && !same_name(o->env[i], o->env[j]);
        if (last) *next++ = (char *)(uintptr_t)o->env[i];
    }
    *next = NULL;
    clear(&set);
    return out;
}

void run_environment_print(const struct run_options *o, const struct run_common *common, const struct run_rank *rank)
{
    struct set set = {.n = 0};
    collect(o, common, rank, &set);
    for (int i = 0; i < set.n; i++) {
        if (overridden(o, &set, i + 1, set.text[i])) continue;
        bool secret = strncmp(set.text[i], "RAILCCL_SECRET=", 15) == 0;
        printf(" %s", secret ? "RAILCCL_SECRET=(random)" : set.text[i]);
    }
    for (int i = 0; i < o->n_env; i++) printf(" %s", o->env[i]);
    clear(&set);
}
