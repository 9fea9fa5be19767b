/* run_preload.c - which library the ranks are given, whatever they would have loaded by themselves. */
#include <string.h>

#include "library.h"
#include "run.h"

/* A sanitizer's library can be loaded into programs of that sanitizer only. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

bool run_preload_find(const struct run_options *o, char library[PATH_MAX])
{
    bool asked = o->preload == RUN_PRELOAD;
    const char *letter = NULL;
    if (o->preload == RUN_PRELOAD_NOT || (SANITIZED && !asked)) return library[0] = 0, true;
    bool found = library_own(library);
    if (found && !(letter = library_unpreloadable(library))) return true;
    /* Other hosts have an installation of their own, and their agents look. */
    if (o->where == RUN_SSH && o->agent_host < 0) return library[0] = 0, true;
    if (found) fprintf(stderr, "railccl run: %s: LD_PRELOAD cannot name it: there is %s in its path", library, letter);
    else fprintf(stderr, "railccl run: %s: no " LIBRARY_NAME " of railccl's", library);
    fputs(asked ? "; --preload needs one\n" : "; ranks take the one that they find (meant so: --no-preload)\n", stderr);
    library[0] = 0;
    return !asked;
}
