/* elf_file.h - what a shared library's file says of itself, read as the loader would read it, and believed no further
 * than the file reaches: every offset is checked, every loop is bounded, nothing is mapped. Any bytes may be in it. */
#ifndef TOOLS_ELF_FILE_H
#define TOOLS_ELF_FILE_H

#include <stdbool.h>
#include <stdint.h>

enum { ELF_LOADS = 32, ELF_NAME = 256 };

struct elf {
    int fd;         /* the caller's; must stay open for elf_exports() */
    uint64_t bytes; /* of the file */
    int machine;    /* EM_X86_64 and the like, <elf.h> */
    char soname[ELF_NAME]; /* "" when it has none */
    struct elf_load { uint64_t address, offset, bytes; } load[ELF_LOADS]; /* which addresses lie where in the file */
    int n_loads;
    uint64_t strings, strings_bytes, symbols, hash, gnu_hash; /* addresses; 0: the file has none */
};

/* Reads the headers of the file at `fd`. NULL: it is a 64-bit shared library of this byte order, and all that is to be
 * loaded of it is there. Otherwise why it is not, a fixed text. */
const char *elf_open(struct elf *elf, int fd);

/* Whether others can bind the function `name` of it: defined, global or weak. */
bool elf_exports(const struct elf *elf, const char *name);

#endif
