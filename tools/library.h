/* library.h - files that may be a libnccl.so.2: whose is it, and where is ours. */
#ifndef TOOLS_LIBRARY_H
#define TOOLS_LIBRARY_H

#include <limits.h>
#include <stdbool.h>

#define LIBRARY_NAME "libnccl.so.2"

enum library_kind { LIBRARY_STRANGE, LIBRARY_NCCL, LIBRARY_RAILCCL };

/* What the file at `fd` is. LIBRARY_STRANGE: neither NCCL nor ours, or of another machine than this program; *why then
 * says it, a fixed text. */
enum library_kind library_look(int fd, const char **why);

/* The library of the installation that this program belongs to: $RAILCCL_LIBRARY, else ../lib, ../lib64 or the
 * multi-architecture folder beside the program's. False, with what was tried in `out`, when there is none of ours. */
bool library_own(char out[PATH_MAX]);

/* Whether the loader can be told that path: LD_PRELOAD and LD_LIBRARY_PATH split at some letters and expand $. NULL, or
 * the letter that stands in the way, as a word. */
const char *library_unpreloadable(const char *path);

#endif
