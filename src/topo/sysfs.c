/* sysfs.c - reading the kernel's small files. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "topo/sysfs.h"

static bool join(const struct sysfs *s, char *out, const char *path, const char *name)
{
    return snprintf(out, SYSFS_PATH, "%s%s%s%s", s->root, path, name ? "/" : "", name ? name : "") < SYSFS_PATH;
}

bool sysfs_read(const struct sysfs *s, char *out, size_t bytes, const char *path, const char *name)
{
    char full[SYSFS_PATH];
    out[0] = '\0';
    if (!join(s, full, path, name)) return false;
    FILE *f = fopen(full, "re");
    if (!f) return false;
    bool read = fgets(out, (int)bytes, f) != NULL; /* some, such as `speed` of a port that is down, fail to be read */
    fclose(f);
    out[strcspn(out, "\n")] = '\0';
    return read;
}

long sysfs_number(const struct sysfs *s, long otherwise, const char *path, const char *name)
{
    char text[SYSFS_LINE], *end;
    if (!sysfs_read(s, text, sizeof text, path, name)) return otherwise;
    long value = strtol(text, &end, 0);
    return end == text ? otherwise : value;
}

bool sysfs_exists(const struct sysfs *s, const char *path, const char *name)
{
    char full[SYSFS_PATH];
    return join(s, full, path, name) && access(full, F_OK) == 0;
}

struct topo_origin sysfs_origin(const struct sysfs *s, const char *path, const char *name)
{
    char full[SYSFS_PATH];
    snprintf(full, sizeof full, "%s%s%s", path, name ? "/" : "", name ? name : "");
    return (struct topo_origin){TOPO_SYSFS, 0, topo_graph_text(s->graph, full)};
}

enum rail_result sysfs_each(struct sysfs *s, const char *folder, sysfs_visit visit, void *context)
{
    char full[SYSFS_PATH];
    struct dirent **entries;
    if (!join(s, full, folder, NULL)) return RAIL_OK;
    int n = scandir(full, &entries, NULL, versionsort);
    if (n < 0) return RAIL_OK; /* not there */
    enum rail_result result = RAIL_OK;
    for (int i = 0; i < n; i++) {
        if (result == RAIL_OK && entries[i]->d_name[0] != '.') result = visit(s, folder, entries[i]->d_name, context);
        free(entries[i]);
    }
    free(entries);
    return result;
}

int sysfs_pci_route(const struct sysfs *s, const char *path, uint64_t *out, char folders[][SYSFS_PATH], int max)
{
    char full[SYSFS_PATH], *resolved;
    size_t root = 0;
    int n = 0;
    if (!join(s, full, path, NULL) || !(resolved = realpath(full, NULL))) return 0;
    char *base = s->root[0] ? realpath(s->root, NULL) : NULL;
    if (base && strcmp(base, "/") != 0) root = strlen(base);
    free(base);
    for (char *at = resolved + root; *at == '/';) {
        char *end = at + 1 + strcspn(at + 1, "/"), kept = *end;
        uint64_t bus;
        *end = '\0';
        if (strncmp(at + 1, "pci", 3) == 0)
            n = 0; /* a host bridge; one behind another device begins a tree of its own */
        else if (n < max && strchr(at + 1, ':') && topo_bus_parse(at + 1, &bus)) {
            out[n] = bus;
            if (folders) snprintf(folders[n], SYSFS_PATH, "%s", resolved + root);
            n++;
        }
        *end = kept;
        at = end;
    }
    free(resolved);
    return n;
}
