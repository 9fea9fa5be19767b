/* fuzz_elf.c - any bytes as a libnccl.so.2 that `railccl install` looks at. Whatever they are, the answer is the same
 * when asked again, and nothing is read that is not there, also when the file becomes shorter meanwhile. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../tools/elf_file.h"
#include "../../tools/library.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static int fd = -1;
    const char *why = NULL, *again = NULL;
    struct elf elf;
    if (fd < 0) fd = memfd_create("elf", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, bytes, 0) != (ssize_t)bytes) abort();
    enum library_kind kind = library_look(fd, &why);
    if (kind != library_look(fd, &again) || why != again || (kind == LIBRARY_STRANGE) != (why != NULL)) abort();
    if (elf_open(&elf, fd) != NULL) return 0;
    if (!memchr(elf.soname, 0, sizeof elf.soname) || elf.n_loads > ELF_LOADS) abort();
    bool has = elf_exports(&elf, "ncclGetVersion");
    if (kind != LIBRARY_STRANGE && !has) abort();
    (void)elf_exports(&elf, "");
    /* The file becomes shorter while it is read. */
    if (ftruncate(fd, (off_t)(bytes / 2)) != 0) abort();
    (void)elf_exports(&elf, "ncclGetVersion");
    return 0;
}
