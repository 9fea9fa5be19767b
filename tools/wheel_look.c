/* wheel_look.c - what is in a wheel's folder: the file, its backup, and nothing that we do not know. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "wheel.h"

/* Where else NCCL may lie in an environment that has no such wheel. */
static void say_elsewhere(const char *site)
{
    char pattern[PATH_MAX + 64];
    glob_t found = {0};
    snprintf(pattern, sizeof pattern, "%s/nvidia/*/lib/" LIBRARY_NAME "*", site);
    if (glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc > 0)
        fprintf(stderr, "  (%s is there, but that is no layout that this version knows: use `railccl env` instead)\n",
                found.gl_pathv[0]);
    globfree(&found);
    fputs("  SITE_PACKAGES is the folder that this prints, with the environment's own python3:\n"
          "      python3 -c 'import sysconfig; print(sysconfig.get_paths()[\"purelib\"])'\n"
          "  Conda's and the system's NCCL are no wheels: `railccl env` says how to come before them.\n", stderr);
}

/* The wheel has one file of that name and no symbolic links beside it: with another one, programs may load that. */
static bool alone(const struct wheel *wheel)
{
    bool good = true;
    DIR *folder = opendir(wheel->folder);
    for (struct dirent *e; folder && good && (e = readdir(folder));) {
        if (strncmp(e->d_name, "libnccl.so", 10) != 0 || strcmp(e->d_name, WHEEL_FILE) == 0) continue;
        fprintf(stderr, "railccl install: %s/%s lies beside " WHEEL_FILE ", and programs may load either: a wheel "
                "has one file. If nothing needs it, remove it and run again; else use `railccl env`\n", wheel->folder,
                e->d_name);
        good = false;
    }
    if (folder) closedir(folder);
    return good;
}

bool wheel_open(struct wheel *wheel, const char *site)
{
    char folder[PATH_MAX + 64];
    *wheel = (struct wheel){.folder_fd = -1, .now.fd = -1, .backup.fd = -1};
    if (!realpath(site, wheel->site))
        return fprintf(stderr, "railccl install: %s: %s\n", site, strerror(errno)), say_elsewhere(site), false;
    snprintf(folder, sizeof folder, "%s/" WHEEL_FOLDER, wheel->site);
    if (!realpath(folder, wheel->folder))
        return fprintf(stderr, "railccl install: %s: %s: no wheel nvidia-nccl-cu* is installed there\n", folder,
                       strerror(errno)), say_elsewhere(wheel->site), false;
    wheel->folder_fd = open(wheel->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (wheel->folder_fd < 0)
        return fprintf(stderr, "railccl install: %s: %s\n", wheel->folder, strerror(errno)), false;
    /* Some network file systems have no such locks: then there is none. */
    if (flock(wheel->folder_fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return fprintf(stderr, "railccl install: %s: another `railccl install` is at work there; wait for it\n",
                       wheel->folder), false;
    if (!alone(wheel)) return false;
    wheel_look(wheel);
    const struct wheel_file *theirs = wheel->backup.there ? &wheel->backup : &wheel->now;
    wheel->n_packages = wheel_packages(wheel->site, theirs->there ? theirs->fd : -1, wheel->package, WHEEL_PACKAGES);
    return true;
}

static void look(int folder, const char *name, struct wheel_file *file)
{
    if (file->fd >= 0) close(file->fd);
    *file = (struct wheel_file){.fd = -1};
    if (fstatat(folder, name, &file->link, AT_SYMLINK_NOFOLLOW) != 0) return;
    file->there = true;
    file->kind = LIBRARY_STRANGE;
    file->fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not stop us */
    file->why = S_ISLNK(file->link.st_mode) ? "it is a symbolic link that leads nowhere" : "it cannot be read";
    if (file->fd >= 0 && fstat(file->fd, &file->st) == 0) file->kind = library_look(file->fd, &file->why);
}

void wheel_look(struct wheel *wheel)
{
    struct stat st;
    look(wheel->folder_fd, WHEEL_FILE, &wheel->now);
    look(wheel->folder_fd, WHEEL_BACKUP, &wheel->backup);
    wheel->left_over = fstatat(wheel->folder_fd, WHEEL_NEW, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

void wheel_close(struct wheel *wheel)
{
    if (wheel->now.fd >= 0) close(wheel->now.fd);
    if (wheel->backup.fd >= 0) close(wheel->backup.fd);
    if (wheel->folder_fd >= 0) close(wheel->folder_fd); /* and with it the lock */
}
