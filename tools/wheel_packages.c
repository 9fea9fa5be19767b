/* wheel_packages.c - which installed packages claim the file: nvidia_nccl_cu12-2.27.5.dist-info/RECORD lists it with
 * size and SHA-256. Wheels for several CUDA versions install to the same path, and the last one has won silently. */
#include <dirent.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wheel.h"

enum { DIGEST_TEXT = 44 }; /* 32 bytes in base64 without its padding, and the end */

static bool digest(int fd, char out[DIGEST_TEXT])
{
    enum { BLOCK = 1 << 20 };
    crypto_hash_sha256_state state;
    unsigned char sum[crypto_hash_sha256_BYTES], *block = malloc(BLOCK);
    if (!block) return false;
    crypto_hash_sha256_init(&state);
    ssize_t n;
    for (off_t at = 0; (n = pread(fd, block, BLOCK, at)) > 0; at += n)
        crypto_hash_sha256_update(&state, block, (size_t)n);
    free(block);
    crypto_hash_sha256_final(&state, sum);
    return n == 0 && sodium_bin2base64(out, DIGEST_TEXT, sum, sizeof sum, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* "PATH,sha256=DIGEST,SIZE" of RECORD: whether `fd` is that file. The digest of so large a file is made once, and only
 * when a size fits. */
static bool matches(const char *rest, int fd, char known[DIGEST_TEXT])
{
    char listed[DIGEST_TEXT];
    unsigned long long bytes;
    struct stat st;
    if (fd < 0 || sscanf(rest, "sha256=%43[A-Za-z0-9_-],%llu", listed, &bytes) != 2) return false;
    if (fstat(fd, &st) != 0 || (unsigned long long)st.st_size != bytes) return false;
    if (!known[0] && !digest(fd, known)) return false;
    return strcmp(listed, known) == 0;
}

/* Whether the package's RECORD lists our file. */
static bool claims(int site, const char *info, int fd, char known[DIGEST_TEXT], bool *match)
{
    static const char listed[] = WHEEL_FOLDER "/" WHEEL_FILE ",";
    char path[PATH_MAX], line[4096];
    bool found = false;
    snprintf(path, sizeof path, "%s/RECORD", info);
    int record_fd = openat(site, path, O_RDONLY | O_CLOEXEC);
    FILE *record = record_fd < 0 ? NULL : fdopen(record_fd, "r");
    if (!record && record_fd >= 0) close(record_fd);
    if (!record) return false;
    while (!found && fgets(line, sizeof line, record)) {
        if (strncmp(line, listed, sizeof listed - 1) != 0) continue;
        found = true;
        *match = matches(line + sizeof listed - 1, fd, known);
    }
    fclose(record);
    return found;
}

/* "nvidia_nccl_cu12-2.27.5.dist-info" as name and version; false for all others. */
static bool parse_name(const char *entry, struct wheel_package *out)
{
    static const char family[] = "nvidia_nccl", tail[] = ".dist-info";
    size_t name = strcspn(entry, "-"), bytes = strlen(entry), end = sizeof tail - 1;
    if (strncasecmp(entry, family, sizeof family - 1) != 0 || bytes < name + 1 + end) return false;
    size_t version = bytes - name - 1 - end;
    if (strcmp(entry + bytes - end, tail) != 0) return false;
    if (name >= sizeof out->name || version >= sizeof out->version) return false;
    memcpy(out->name, entry, name);
    memcpy(out->version, entry + name + 1, version);
    for (char *c = out->name; *c; c++) *c = *c == '_' ? '-' : *c;
    return true;
}

int wheel_packages(const char *site, int fd, struct wheel_package *out, int most)
{
    char known[DIGEST_TEXT] = "";
    int n = 0;
    DIR *folder = opendir(site);
    if (!folder) return 0;
    for (struct dirent *e; n < most && (e = readdir(folder));) {
        struct wheel_package found = {.matches = false};
        if (!parse_name(e->d_name, &found)) continue;
        if (claims(dirfd(folder), e->d_name, fd, known, &found.matches)) out[n++] = found;
    }
    closedir(folder);
    return n;
}
