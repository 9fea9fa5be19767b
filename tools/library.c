/* library.c - which files are a libnccl.so.2, and which of them is ours: by its soname and by what it exports. */
#include "library.h"

#include <elf.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "elf_file.h"

#if defined(__x86_64__)
enum { MACHINE = EM_X86_64 };
#define MULTIARCH "lib/x86_64-linux-gnu"
#elif defined(__aarch64__)
enum { MACHINE = EM_AARCH64 };
#define MULTIARCH "lib/aarch64-linux-gnu"
#else
#error "say which ELF machine this is"
#endif

enum library_kind library_look(int fd, const char **why)
{
    struct elf elf;
    if ((*why = elf_open(&elf, fd))) return LIBRARY_STRANGE;
    if (elf.machine != MACHINE) return *why = "it is for another kind of processor", LIBRARY_STRANGE;
    if (strcmp(elf.soname, LIBRARY_NAME) != 0) return *why = "its soname is not " LIBRARY_NAME, LIBRARY_STRANGE;
    if (!elf_exports(&elf, "ncclGetVersion")) return *why = "it does not export ncclGetVersion", LIBRARY_STRANGE;
    return elf_exports(&elf, "railGetVersion") ? LIBRARY_RAILCCL : LIBRARY_NCCL;
}

static bool is_ours(const char *path)
{
    const char *why;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ours = library_look(fd, &why) == LIBRARY_RAILCCL;
    close(fd);
    return ours;
}

bool library_own(char out[PATH_MAX])
{
    static const char *const folders[] = {"lib", "lib64", MULTIARCH};
    char self[PATH_MAX], path[PATH_MAX + 64], resolved[PATH_MAX];
    const char *asked = getenv("RAILCCL_LIBRARY");
    if (asked && *asked) {
        if (realpath(asked, resolved) && is_ours(resolved)) return strcpy(out, resolved), true;
        return snprintf(out, PATH_MAX, "%s (RAILCCL_LIBRARY)", asked), false;
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    const char *above = dirname(dirname(self));
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s/%s/" LIBRARY_NAME, above, folders[i]);
        if (realpath(path, resolved) && is_ours(resolved)) return strcpy(out, resolved), true;
    }
    return snprintf(out, PATH_MAX, "%s/{lib,lib64," MULTIARCH "}/" LIBRARY_NAME, above), false;
}

const char *library_unpreloadable(const char *path)
{
    for (; *path; path++) {
        switch (*path) {
        case ':': return "a colon";
        case ';': return "a semicolon";
        case '$': return "a dollar sign";
        case ' ': case '\t': case '\n': return "a blank";
        default: break;
        }
    }
    return NULL;
}
