/* wheel_swap.c - the exchange itself: only whole files get a name that programs look for, by rename or link, and what
 * must survive a power cut is synced before the step that relies on it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wheel.h"

static bool complain(const struct wheel *wheel, const char *name, const char *what)
{
    int error = errno;
    return fprintf(stderr, "railccl install: %s/%s: %s: %s\n", wheel->folder, name, what, strerror(error)), false;
}

static bool copy(int from, int to)
{
    enum { BLOCK = 1 << 20 };
    char *block = malloc(BLOCK);
    ssize_t n = -1;
    bool good = block != NULL;
    for (off_t at = 0; good && (n = pread(from, block, BLOCK, at)) > 0; at += n)
        for (ssize_t done = 0; good && done < n;) {
            ssize_t m = write(to, block + done, (size_t)(n - done));
            good = m > 0;
            done += m;
        }
    free(block);
    return good && n == 0;
}

/* A new file WHEEL_NEW with the bytes of `from` and owner, group and permissions of `like`, synced; none on failure. */
static bool write_new(const struct wheel *wheel, int from, const struct stat *like)
{
    unlinkat(wheel->folder_fd, WHEEL_NEW, 0);
    int fd = openat(wheel->folder_fd, WHEEL_NEW, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return complain(wheel, WHEEL_NEW, "cannot be made");
    struct stat mine;
    bool good = copy(from, fd) && fstat(fd, &mine) == 0;
    /* Only root may give files away: else they are the caller's, as everything that the caller installs. */
    if (good && (mine.st_uid != like->st_uid || mine.st_gid != like->st_gid))
        good = fchown(fd, like->st_uid, like->st_gid) == 0 || errno == EPERM;
    good = good && fchmod(fd, like->st_mode & 0777) == 0 && fsync(fd) == 0;
    if (!good) complain(wheel, WHEEL_NEW, "cannot be written");
    if (close(fd) != 0 && good) good = complain(wheel, WHEEL_NEW, "cannot be written");
    if (!good) unlinkat(wheel->folder_fd, WHEEL_NEW, 0);
    return good;
}

static bool sync_folder(const struct wheel *wheel)
{
    return fsync(wheel->folder_fd) == 0 || complain(wheel, ".", "cannot be synced");
}

/* A second name for NVIDIA's file; where there are no links, a copy. */
static bool back_up(const struct wheel *wheel)
{
    int folder = wheel->folder_fd;
    if (linkat(folder, WHEEL_FILE, folder, WHEEL_BACKUP, 0) == 0) return sync_folder(wheel);
    if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS && errno != EMLINK)
        return complain(wheel, WHEEL_BACKUP, "cannot be made");
    if (!write_new(wheel, wheel->now.fd, &wheel->now.st)) return false;
    if (renameat(folder, WHEEL_NEW, folder, WHEEL_BACKUP) != 0) return complain(wheel, WHEEL_BACKUP, "cannot be made");
    return sync_folder(wheel);
}

static bool move(const struct wheel *wheel, const char *from)
{
    if (renameat(wheel->folder_fd, from, wheel->folder_fd, WHEEL_FILE) != 0)
        return complain(wheel, WHEEL_FILE, "cannot be replaced");
    return sync_folder(wheel);
}

static bool swap(const struct wheel *wheel, bool backup, int own)
{
    if (backup && !back_up(wheel)) return false;
    if (write_new(wheel, own, &wheel->now.st) && move(wheel, WHEEL_NEW)) return true;
    unlinkat(wheel->folder_fd, WHEEL_NEW, 0);
    return false; /* the backup stays: the next run knows it */
}

bool wheel_do(struct wheel *wheel, enum wheel_step step, int own)
{
    if (wheel->left_over) unlinkat(wheel->folder_fd, WHEEL_NEW, 0);
    switch (step) {
    case WHEEL_SWAP: return swap(wheel, true, own);
    case WHEEL_REPLACE: return swap(wheel, false, own);
    case WHEEL_PUT_BACK: return move(wheel, WHEEL_BACKUP);
    case WHEEL_DROP_BACKUP:
        if (unlinkat(wheel->folder_fd, WHEEL_BACKUP, 0) != 0) return complain(wheel, WHEEL_BACKUP, "cannot be removed");
        return sync_folder(wheel);
    case WHEEL_NOTHING: case WHEEL_REFUSE: break;
    }
    return true;
}
