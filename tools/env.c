/* env.c - `railccl env`: what to set so that programs take this library in NCCL's place; its own variables. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "env.h"
#include "tool.h"

static int usage(FILE *out)
{
    fputs("Usage: railccl env [--client NAME] [--json]\n"
          "       railccl env --set | --all | --markdown\n"
          "Prints the shell lines that put this installation's libnccl.so.2 in NCCL's place, each with what needs it,\n"
          "for a shell or a job script: eval \"$(railccl env)\". `railccl run` sets the same for its ranks.\n\n"
          "  --client NAME  only what that needs: ", out);
    env_clients(out);
    fputs("\n"
          "  --json         the same for programs\n\n"
          "The library's own variables (docs/ENVIRONMENT.md):\n"
          "  --set          those that are set now (environment, NCCL_CONF_FILE or ~/.nccl.conf, /etc/nccl.conf), and\n"
          "                 what each does\n"
          "  --all          every one with its present value\n"
          "  --markdown     the whole table as docs/ENVIRONMENT.md\n\n"
          "`railccl run --dry-run -n N ... CMD` prints what is set for each rank of a run.\n", out);
    return out == stdout ? 0 : 2;
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"client", required_argument, NULL, 'c'}, {"json", no_argument, NULL, 'j'}, {"set", no_argument, NULL, 's'},
        {"all", no_argument, NULL, 'a'}, {"markdown", no_argument, NULL, 'm'}, {"help", no_argument, NULL, 'h'}, {0}};
    const char *client = NULL;
    bool json = false;
    int table = 0, tables = 0; /* which of --set, --all, --markdown; how many */
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt_long(argc, argv, "+:h", options, NULL)) != -1;) {
        switch (c) {
        case 'c': client = optarg; break;
        case 'j': json = true; break;
        case 's': case 'a': case 'm': table = c, tables++; break;
        case 'h': return usage(stdout);
        default:
            return fprintf(stderr, "railccl env: %s: %s; --help lists the options\n", argv[optind - 1],
                           c == ':' ? "needs a value" : "no such option"), 2;
        }
    }
    if (optind < argc) return fprintf(stderr, "railccl env: %s: takes no arguments\n", argv[optind]), 2;
    if (tables > 1 || (table && (client || json)))
        return fputs("railccl env: --set, --all and --markdown each go alone\n", stderr), 2;
    return table ? env_table(table) : env_lines(client, json);
}

const struct tool_command tool_env = {"env", "Prints what to set for NCCL's programs, and its own variables.", run};
