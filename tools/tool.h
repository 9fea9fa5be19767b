/* tool.h - a subcommand of `railccl`: one file each, one line in railccl.c. */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

struct tool_command {
    const char *name;
    const char *summary;
    /* argv[0] is the subcommand's name. Returns the exit status: 0 good, 2 bad usage. */
    int (*run)(int argc, char **argv);
};

extern const struct tool_command tool_run, tool_digest, tool_doctor, tool_env, tool_install, tool_topo, tool_plan,
    tool_tune, tool_version;

#endif
