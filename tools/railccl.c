/* railccl.c - the tool's front door: finds the subcommand and hands over. */
#include <stdio.h>
#include <string.h>

#include "tool.h"

static const struct tool_command *const commands[] = {&tool_run,  &tool_digest, &tool_doctor, &tool_env, &tool_install,
                                                      &tool_topo, &tool_plan, &tool_tune, &tool_version};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static int help(FILE *out)
{
    fprintf(out, "Usage: railccl COMMAND [options]\n\n");
    for (int i = 0; i < N_COMMANDS; i++) fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(out, "  %-10s %s\n\n`railccl COMMAND --help` says more.\n", "help",
            "This text; `railccl help COMMAND` is that command's.");
    return out == stdout ? 0 : 2;
}

static const struct tool_command *find(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    fprintf(stderr, "railccl: no command \"%s\"; `railccl help` lists them\n", name);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 2) return help(stderr);
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0) name = "version";
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        if (argc < 3) return help(stdout);
        const struct tool_command *command = find(argv[2]);
        char dashes[] = "--help", *arguments[] = {argv[2], dashes, NULL};
        return command ? command->run(2, arguments) : 2;
    }
    const struct tool_command *command = find(name);
    return command ? command->run(argc - 1, argv + 1) : 2;
}
