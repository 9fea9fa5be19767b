/* opens.c - a program that opens libraries and makes communicators, in the order of its arguments:
 *   open PATH, global PATH   dlopen(), local or for all that follow; "/" in front of a name or not
 *   comm                     a communicator of one rank, by the library that was opened last; without one by the program's own
 *   sleep MS, do COMMAND     time passes; something happens */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int comm(void *library)
{
    void *handle = NULL;
    int (*make)(void **, int, const int *), (*destroy)(void *);
    *(void **)&make = dlsym(library, "ncclCommInitAll");
    *(void **)&destroy = dlsym(library, "ncclCommDestroy");
    return !make || !destroy || make(&handle, 1, NULL) != 0 || destroy(handle) != 0;
}

int main(int argc, char **argv)
{
    void *library = RTLD_DEFAULT;
    for (int i = 1; i < argc; i++) {
        int failed = 0;
        if (strcmp(argv[i], "open") == 0) failed = !(library = dlopen(argv[++i], RTLD_NOW | RTLD_LOCAL));
        else if (strcmp(argv[i], "global") == 0) failed = !(library = dlopen(argv[++i], RTLD_NOW | RTLD_GLOBAL));
        else if (strcmp(argv[i], "comm") == 0) failed = comm(library);
        else if (strcmp(argv[i], "sleep") == 0) failed = usleep(1000 * (useconds_t)atoi(argv[++i]));
        else if (strcmp(argv[i], "do") == 0) failed = system(argv[++i]);
        else failed = 1;
        if (failed) return fprintf(stderr, "%s: failed %s\n", argv[i], dlerror()), i;
    }
    return 0;
}
