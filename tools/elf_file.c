/* elf_file.c - a shared library's file: program headers, dynamic section, symbols by either hash table. */
#include "elf_file.h"

#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* More than any real library has: NVIDIA's largest has 12 program headers, 40 dynamic entries, chains of 5. */
enum { HEADERS_MOST = 128, DYNAMIC_MOST = 512, CHAIN_MOST = 4096 };

static bool read_at(const struct elf *elf, uint64_t at, void *to, uint64_t bytes)
{
    if (at > elf->bytes || bytes > elf->bytes - at) return false;
    char *next = to;
    while (bytes > 0) {
        ssize_t n = pread(elf->fd, next, bytes, (off_t)at);
        if (n <= 0) return false; /* an error, or the file has become shorter */
        next += n, at += (uint64_t)n, bytes -= (uint64_t)n;
    }
    return true;
}

/* What the loader would map at `address`; false when not all of it comes from the file. */
static bool read_mapped(const struct elf *elf, uint64_t address, void *to, uint64_t bytes)
{
    for (int i = 0; i < elf->n_loads; i++) {
        const struct elf_load *load = &elf->load[i];
        if (address < load->address || address - load->address > load->bytes) continue;
        uint64_t in = address - load->address;
        if (bytes > load->bytes - in) continue;
        return read_at(elf, load->offset + in, to, bytes);
    }
    return false;
}

/* A table's entry; false when its address does not exist. */
static bool read_entry(const struct elf *elf, uint64_t table, uint64_t index, void *to, uint64_t bytes)
{
    uint64_t at;
    if (__builtin_mul_overflow(index, bytes, &at) || __builtin_add_overflow(table, at, &at)) return false;
    return read_mapped(elf, at, to, bytes);
}

static const char *read_headers(struct elf *elf, uint64_t *dynamic, uint64_t *dynamic_bytes)
{
    const unsigned char order = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;
    Elf64_Ehdr header;
    if (!read_at(elf, 0, &header, sizeof header)) return "it is no ELF file";
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return "it is no ELF file";
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != order)
        return "it is no 64-bit ELF file of this machine's byte order";
    if (header.e_type != ET_DYN) return "it is no shared library";
    if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > HEADERS_MOST)
        return "its program headers are damaged";
    elf->machine = header.e_machine;
    for (uint64_t i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr part;
        if (header.e_phoff > elf->bytes || !read_at(elf, header.e_phoff + i * sizeof part, &part, sizeof part))
            return "its program headers are cut off";
        if (part.p_type == PT_DYNAMIC) *dynamic = part.p_offset, *dynamic_bytes = part.p_filesz;
        if (part.p_type != PT_LOAD) continue;
        if (part.p_offset > elf->bytes || part.p_filesz > elf->bytes - part.p_offset) return "it is cut off";
        if (elf->n_loads == ELF_LOADS) return "it has more segments than any library";
        elf->load[elf->n_loads++] = (struct elf_load){part.p_vaddr, part.p_offset, part.p_filesz};
    }
    return NULL;
}

const char *elf_open(struct elf *elf, int fd)
{
    struct stat st;
    *elf = (struct elf){.fd = fd};
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return "it is no regular file";
    elf->bytes = (uint64_t)st.st_size;
    uint64_t dynamic = 0, bytes = 0, soname = UINT64_MAX;
    const char *why = read_headers(elf, &dynamic, &bytes);
    if (why) return why;
    if (bytes == 0) return "it has no dynamic section";
    for (uint64_t i = 0; i < bytes / sizeof(Elf64_Dyn) && i < DYNAMIC_MOST; i++) {
        Elf64_Dyn entry;
        if (dynamic > elf->bytes || !read_at(elf, dynamic + i * sizeof entry, &entry, sizeof entry))
            return "its dynamic section is cut off";
        if (entry.d_tag == DT_NULL) break;
        switch (entry.d_tag) {
        case DT_SONAME: soname = entry.d_un.d_val; break;
        case DT_STRTAB: elf->strings = entry.d_un.d_ptr; break;
        case DT_STRSZ: elf->strings_bytes = entry.d_un.d_val; break;
        case DT_SYMTAB: elf->symbols = entry.d_un.d_ptr; break;
        case DT_HASH: elf->hash = entry.d_un.d_ptr; break;
        case DT_GNU_HASH: elf->gnu_hash = entry.d_un.d_ptr; break;
        default: break;
        }
    }
    if (soname < elf->strings_bytes) {
        uint64_t left = elf->strings_bytes - soname, at;
        bool good = !__builtin_add_overflow(elf->strings, soname, &at) &&
                    read_mapped(elf, at, elf->soname, left < ELF_NAME ? left : ELF_NAME);
        if (!good || !memchr(elf->soname, 0, ELF_NAME)) elf->soname[0] = 0;
    }
    return NULL;
}

/* Whether symbol `index` is a function of that name that others can bind. */
static bool is_symbol(const struct elf *elf, uint32_t index, const char *name)
{
    Elf64_Sym symbol;
    char found[ELF_NAME];
    uint64_t bytes = strlen(name) + 1, at;
    if (bytes > sizeof found || !read_entry(elf, elf->symbols, index, &symbol, sizeof symbol)) return false;
    unsigned bind = ELF64_ST_BIND(symbol.st_info), type = ELF64_ST_TYPE(symbol.st_info);
    if (symbol.st_shndx == SHN_UNDEF || (bind != STB_GLOBAL && bind != STB_WEAK)) return false;
    if (type != STT_FUNC && type != STT_GNU_IFUNC) return false;
    if (symbol.st_name > elf->strings_bytes || bytes > elf->strings_bytes - symbol.st_name) return false;
    if (__builtin_add_overflow(elf->strings, (uint64_t)symbol.st_name, &at)) return false;
    return read_mapped(elf, at, found, bytes) && memcmp(found, name, bytes) == 0;
}

/* DT_GNU_HASH: 4 words, a Bloom filter, buckets, and per symbol a hash whose lowest bit ends the chain. */
static bool by_gnu_hash(const struct elf *elf, const char *name)
{
    struct { uint32_t buckets, first, bloom_words, shift; } head;
    uint32_t hash = 5381, index, other;
    for (const char *c = name; *c; c++) hash = hash * 33 + (unsigned char)*c;
    if (!read_mapped(elf, elf->gnu_hash, &head, sizeof head) || head.buckets == 0) return false;
    uint64_t buckets;
    if (__builtin_add_overflow(elf->gnu_hash, sizeof head + (uint64_t)head.bloom_words * 8, &buckets)) return false;
    uint64_t chain = buckets + (uint64_t)head.buckets * 4;
    if (!read_entry(elf, buckets, hash % head.buckets, &index, 4) || index < head.first) return false;
    for (int i = 0; i < CHAIN_MOST; i++, index++) {
        if (!read_entry(elf, chain, index - head.first, &other, 4)) return false;
        if ((other | 1) == (hash | 1) && is_symbol(elf, index, name)) return true;
        if (other & 1) return false;
    }
    return false;
}

/* DT_HASH: 2 words, buckets, and per symbol the next of its chain. */
static bool by_hash(const struct elf *elf, const char *name)
{
    struct { uint32_t buckets, symbols; } head;
    uint32_t hash = 0, index;
    for (const char *c = name; *c; c++) {
        hash = (hash << 4) + (unsigned char)*c;
        hash = (hash ^ (hash >> 24 & 0xf0)) & 0x0fffffff;
    }
    if (!read_mapped(elf, elf->hash, &head, sizeof head) || head.buckets == 0) return false;
    uint64_t buckets;
    if (__builtin_add_overflow(elf->hash, sizeof head, &buckets)) return false;
    uint64_t chain = buckets + (uint64_t)head.buckets * 4;
    if (!read_entry(elf, buckets, hash % head.buckets, &index, 4)) return false;
    for (int i = 0; i < CHAIN_MOST && index != STN_UNDEF && index < head.symbols; i++) {
        if (is_symbol(elf, index, name)) return true;
        if (!read_entry(elf, chain, index, &index, 4)) return false;
    }
    return false;
}

bool elf_exports(const struct elf *elf, const char *name)
{
    if (!elf->symbols || !elf->strings) return false;
    if (elf->gnu_hash) return by_gnu_hash(elf, name);
    return elf->hash && by_hash(elf, name);
}
