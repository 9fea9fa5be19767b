/* run.c - `railccl run`: starts the ranks of a job, here or on several hosts. run.h lists the parts. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "run.h"
#include "tool.h"

/* A random text in hexadecimal. */
static void draw(char *out, size_t digits)
{
    uint8_t bytes[32];
    rail_random(bytes, digits / 2);
    for (size_t i = 0; i < digits / 2; i++) sprintf(out + 2 * i, "%02x", bytes[i]);
}

static void describe(const struct run_options *o, const struct run_rank *rank, char *out, size_t bytes)
{
    if (o->where == RUN_HERE) snprintf(out, bytes, "rank %d", rank->rank);
    else if (o->where == RUN_EMULATED) snprintf(out, bytes, "rank %d (emulated host %d)", rank->rank, rank->host);
    else snprintf(out, bytes, "rank %d (host %s)", rank->rank, o->hosts[rank->host].name);
}

static int dry_run(const struct run_options *o, const struct run_common *common, const struct run_rank *ranks)
{
    for (int r = 0; r < o->n; r++) {
        char label[96];
        describe(o, &ranks[r], label, sizeof label);
        printf("%s:", label);
        run_environment_print(o, common, &ranks[r]);
        for (char **word = o->command; *word; word++) printf(" %s", *word);
        printf("\n");
    }
    return 0;
}

/* The ranks of this host; all, unless this is an agent. */
static int run_here(const struct run_options *o, const struct run_common *common, const struct run_rank *ranks)
{
    struct run_job *job = run_job_create(o, o->n);
    if (!job) return 1;
    bool good = true;
    for (int r = 0; r < o->n && good; r++) {
        if (o->agent_host >= 0 && ranks[r].host != o->agent_host) continue;
        char label[96], **environment = run_environment(o, common, &ranks[r]);
        describe(o, &ranks[r], label, sizeof label);
        bool only = o->n == 1 && o->prefix != RUN_PREFIX_ALWAYS && o->agent_host < 0;
        struct run_start start = {
            .label = label, .argv = o->command, .environment = environment, .rank = r, .inherit = only,
            .netns = o->where == RUN_NETNS ? o->hosts[ranks[r].host].name : NULL,
            .in = r == 0 && !only && o->agent_host < 0 ? 0 : -1,
        };
        good = environment && run_job_start(job, &start);
        free(environment);
    }
    if (!good) run_job_fail(job, 1);
    int status = run_job_wait(job);
    run_job_destroy(job);
    return status;
}

static int run(int argc, char **argv)
{
    struct run_options options;
    static struct run_common common; /* its path is long */
    bool agent = argc == 2 && strcmp(argv[1], "--agent") == 0;
    if (agent && !(argv = run_remote_receive(&argc))) return 2;
    enum run_parsed parsed = run_options_parse(argc, argv, &options);
    int status = parsed == RUN_HELPED ? 0 : 2;
    struct run_rank *ranks = NULL;
    if (parsed == RUN_GO && (ranks = run_place(&options)) && run_preload_find(&options, common.library) &&
        run_root_choose(&options, &common.root)) {
        draw(common.job, 16);
        if (options.secret) snprintf(common.secret, sizeof common.secret, "%s", options.secret);
        else draw(common.secret, 64);
        if (options.dry_run) status = dry_run(&options, &common, ranks);
        else if (options.where == RUN_SSH && options.agent_host < 0) status = run_remote(&options, &common);
        else status = run_here(&options, &common, ranks);
    }
    free(ranks);
    run_options_free(&options);
    if (agent) {
        for (int i = 0; i < argc; i++) free(argv[i]);
        free(argv);
    }
    return status;
}

const struct tool_command tool_run = {"run", "Starts N ranks of a program, here or on several hosts.", run};
