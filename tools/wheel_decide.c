/* wheel_decide.c - what follows from what is there. One table, whatever run came before and wherever it was stopped:
 *
 *                 the file:  NVIDIA's                      ours                        absent
 *   install  no backup       swap                          same: nothing; else refuse  refuse
 *            NVIDIA's        same bytes: replace; else no  same: nothing; else replace refuse: restore first
 *   restore  no backup       nothing                       refuse                      refuse
 *            NVIDIA's        same bytes: drop; else refuse put back                    put back
 *
 * Anything else there, as the file or as the backup, is refused. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wheel.h"

bool wheel_same(int a, int b)
{
    enum { BLOCK = 1 << 20 };
    struct stat one, two;
    if (a < 0 || b < 0 || fstat(a, &one) != 0 || fstat(b, &two) != 0) return false;
    if (one.st_dev == two.st_dev && one.st_ino == two.st_ino) return true;
    if (one.st_size != two.st_size) return false;
    char *block = malloc(2 * BLOCK);
    bool same = block != NULL;
    for (off_t at = 0; same && at < one.st_size;) {
        ssize_t n = pread(a, block, BLOCK, at);
        same = n > 0 && pread(b, block + BLOCK, (size_t)n, at) == n && memcmp(block, block + BLOCK, (size_t)n) == 0;
        at += n;
    }
    free(block);
    return same;
}

struct answer { char *text; size_t bytes; };

__attribute__((format(printf, 3, 4)))
static enum wheel_step answer(struct answer to, enum wheel_step step, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(to.text, to.bytes, format, arguments);
    va_end(arguments);
    return step;
}

enum { COMMAND = 256 };
/* The command that brings NVIDIA's file back whatever has happened. */
static void reinstall(const struct wheel *wheel, char out[COMMAND])
{
    static const char pip[] = "pip install --force-reinstall --no-deps";
    const struct wheel_package *package = NULL;
    for (int i = 0; i < wheel->n_packages; i++)
        if (!package || wheel->package[i].matches) package = &wheel->package[i];
    if (package) snprintf(out, COMMAND, "%s %s==%s", pip, package->name, package->version);
    else snprintf(out, COMMAND, "%s nvidia-nccl-cu13 (or cu12)", pip);
}

/* What is refused whatever was asked for. */
static enum wheel_step decide_strange(const struct wheel *wheel, struct answer to)
{
    const struct wheel_file *now = &wheel->now, *backup = &wheel->backup;
    const char *folder = wheel->folder;
    char pip[COMMAND];
    reinstall(wheel, pip);
    if (now->there && now->kind == LIBRARY_STRANGE)
        return answer(to, WHEEL_REFUSE, "%s/" WHEEL_FILE ": no libnccl.so.2 that this program knows: %s. It was left "
                      "alone; %s puts NVIDIA's there", folder, now->why, pip);
    if (backup->there && backup->kind != LIBRARY_NCCL)
        return answer(to, WHEEL_REFUSE, "%s/" WHEEL_BACKUP ": should be NVIDIA's file, and is not: %s. Remove it, then "
                      "%s", folder, backup->kind == LIBRARY_RAILCCL ? "it is railccl's" : backup->why, pip);
    if (!now->there && !backup->there)
        return answer(to, WHEEL_REFUSE, "%s/" WHEEL_FILE ": it is not there. %s brings it", folder, pip);
    return WHEEL_NOTHING;
}

static enum wheel_step decide_install(const struct wheel *wheel, int own, struct answer to)
{
    const struct wheel_file *now = &wheel->now, *backup = &wheel->backup;
    const char *folder = wheel->folder;
    char pip[COMMAND];
    reinstall(wheel, pip);
    if (!now->there)
        return answer(to, WHEEL_REFUSE, "%s/" WHEEL_FILE ": it is not there, but its backup is. Put that back first: "
                      "railccl install --restore --wheel %s", folder, wheel->site);
    if (now->kind == LIBRARY_RAILCCL && wheel_same(now->fd, own))
        return answer(to, WHEEL_NOTHING, "it is railccl's already, of this very build%s",
                      backup->there ? "" : "; there is no backup of NVIDIA's, so --restore will not do");
    if (now->kind == LIBRARY_RAILCCL && backup->there)
        return answer(to, WHEEL_REPLACE, "another build of railccl's is replaced");
    if (now->kind == LIBRARY_RAILCCL)
        return answer(to, WHEEL_REFUSE, "%s/" WHEEL_FILE ": it is railccl's already, of another build, and without a "
                      "backup of NVIDIA's --restore could never put that back. First %s, then run this again",
                      folder, pip);
    if (!backup->there) return answer(to, WHEEL_SWAP, "NVIDIA's is kept as " WHEEL_BACKUP);
    if (wheel_same(now->fd, backup->fd))
        return answer(to, WHEEL_REPLACE, "NVIDIA's was kept as " WHEEL_BACKUP " by a run that did not finish");
    return answer(to, WHEEL_REFUSE, "%s/" WHEEL_BACKUP ": a backup is there already, and differs from the file: "
                  "another version was installed since. If the file of now is the one to keep: rm '%s/" WHEEL_BACKUP
                  "', then run this again", folder, folder);
}

static enum wheel_step decide_restore(const struct wheel *wheel, struct answer to)
{
    const struct wheel_file *now = &wheel->now, *backup = &wheel->backup;
    const char *folder = wheel->folder;
    char pip[COMMAND];
    reinstall(wheel, pip);
    if (!now->there) return answer(to, WHEEL_PUT_BACK, "the file was gone; its backup takes its place");
    if (now->kind == LIBRARY_RAILCCL && backup->there) return answer(to, WHEEL_PUT_BACK, "NVIDIA's is put back");
    if (now->kind == LIBRARY_RAILCCL)
        return answer(to, WHEEL_REFUSE, "%s/" WHEEL_BACKUP ": there is no backup. %s brings NVIDIA's back",
                      folder, pip);
    if (!backup->there) return answer(to, WHEEL_NOTHING, "it is NVIDIA's");
    if (wheel_same(now->fd, backup->fd))
        return answer(to, WHEEL_DROP_BACKUP, "it is NVIDIA's; the backup of a run that did not finish is removed");
    return answer(to, WHEEL_REFUSE, "%s/" WHEEL_FILE ": it is NVIDIA's, of another version than the backup: one was "
                  "installed since. Nothing is to be restored; rm '%s/" WHEEL_BACKUP "' removes the old one",
                  folder, folder);
}

enum wheel_step wheel_decide(const struct wheel *wheel, bool restore, int own, char *text, size_t bytes)
{
    struct answer to = {text, bytes};
    if (decide_strange(wheel, to) == WHEEL_REFUSE) return WHEEL_REFUSE;
    enum wheel_step step = restore ? decide_restore(wheel, to) : decide_install(wheel, own, to);
    if (step == WHEEL_REFUSE || (step == WHEEL_NOTHING && !wheel->left_over)) return step;
    if (faccessat(wheel->folder_fd, ".", W_OK | X_OK, AT_EACCESS) == 0) return step;
    struct stat st = {0};
    int error = errno;
    fstat(wheel->folder_fd, &st);
    return answer(to, WHEEL_REFUSE, "%s: cannot be changed: %s. Run this as its owner (user %u), or leave the wheel "
                  "alone and use `railccl env`", wheel->folder, strerror(error), st.st_uid);
}
