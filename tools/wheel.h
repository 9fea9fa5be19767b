/* wheel.h - the one file of a wheel nvidia-nccl-cu* that programs load, and its exchange for ours.
 *
 *   SITE_PACKAGES/nvidia/nccl/lib/libnccl.so.2                  what programs load: NVIDIA's, or ours
 *                                 before-railccl-libnccl.so.2   NVIDIA's, while ours is in its place
 *                                 .railccl-new-libnccl.so.2     ours, half written; the next run removes it
 *
 * No other name there begins with "libnccl": programs look for that (torch takes the first match of libnccl.so.*[0-9]).
 *
 *   install   backup = a second link to NVIDIA's -> new = copy of ours, synced -> rename new over the file
 *   restore   rename backup over the file
 *
 * Each arrow leaves a state from which either command goes on, and the file is whole at every moment. Nothing is
 * written into an existing file: package managers share files between environments by hard links, and running programs
 * have them mapped. Wheels for CUDA 12 and 13 install to the same path; whose the file is, wheel_packages.c tells.
 *
 *   wheel_look.c       what is there
 *   wheel_packages.c   which installed packages say that the file is theirs
 *   wheel_decide.c     what follows from it
 *   wheel_swap.c       doing it */
#ifndef TOOLS_WHEEL_H
#define TOOLS_WHEEL_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "library.h"

#define WHEEL_FOLDER "nvidia/nccl/lib"
#define WHEEL_FILE LIBRARY_NAME
#define WHEEL_BACKUP "before-railccl-" LIBRARY_NAME
#define WHEEL_NEW ".railccl-new-" LIBRARY_NAME

struct wheel_file {
    bool there;
    int fd;                 /* -1 when it cannot be read */
    enum library_kind kind; /* when there */
    const char *why;        /* LIBRARY_STRANGE: what is wrong, as of library_look() */
    struct stat link, st;   /* of the name itself, and of what it leads to */
};

enum { WHEEL_PACKAGES = 8 };
struct wheel_package { /* an installed package that lists the file as its own */
    char name[64], version[64];
    bool matches; /* the file, or its backup, has the size and the SHA-256 of the list */
};

struct wheel {
    char site[PATH_MAX], folder[PATH_MAX]; /* resolved */
    int folder_fd;
    struct wheel_file now, backup;
    bool left_over; /* a half-written WHEEL_NEW */
    struct wheel_package package[WHEEL_PACKAGES];
    int n_packages;
};

/* Opens what is below SITE_PACKAGES, and locks it against another run. False with the reason said. Close it in either
 * case. */
bool wheel_open(struct wheel *wheel, const char *site);
void wheel_close(struct wheel *wheel);
/* Looks at the file and its backup again. */
void wheel_look(struct wheel *wheel);

/* Fills in the packages that claim WHEEL_FOLDER/WHEEL_FILE in `site`, and returns their number. `fd`: NVIDIA's file, or
 * -1. */
int wheel_packages(const char *site, int fd, struct wheel_package *out, int most);

/* Whether two files have the same bytes; false also when they cannot be read. */
bool wheel_same(int a, int b);

enum wheel_step {
    WHEEL_REFUSE,  /* *text: why, and what to do */
    WHEEL_NOTHING, /* it is so already; *text says how */
    WHEEL_SWAP,    /* backup and exchange */
    WHEEL_REPLACE, /* exchange; the backup is there */
    WHEEL_PUT_BACK, /* the backup becomes the file */
    WHEEL_DROP_BACKUP, /* the backup is a second name of the file */
};
/* What `railccl install`, or with `restore` its opposite, has to do; `own`: our library, open. Looks only. */
enum wheel_step wheel_decide(const struct wheel *wheel, bool restore, int own, char *text, size_t bytes);
/* Does it. False with the reason said: the file is as it was, or already exchanged. */
bool wheel_do(struct wheel *wheel, enum wheel_step step, int own);

#endif
