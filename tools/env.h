/* env.h - the two halves of `railccl env`. Both return an exit status. */
#ifndef TOOLS_ENV_H
#define TOOLS_ENV_H

#include <stdbool.h>
#include <stdio.h>

/* env_lines.c: the lines for the shell; `client` NULL: for all, otherwise one of env_clients()'s. */
int env_lines(const char *client, bool json);
/* The names of clients, as a list in words. */
void env_clients(FILE *out);

/* env_table.c: the library's variables. 's': those that are set, 'a': all, 'm': all as docs/ENVIRONMENT.md. */
int env_table(int which);

#endif
