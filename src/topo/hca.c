/* hca.c - NCCL_IB_HCA read, and devices found for interfaces. */
#include "topo/hca.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "topo/sysfs.h"

enum { FIELDS = 4 };
static const char *const fields[FIELDS] = {"device", "port", "rail", "plane"};

static enum rail_result wrong(const char *text, const char *at, const char *what)
{
    size_t n = strcspn(at, ",:");
    char seen[40];
    snprintf(seen, sizeof seen, "%.*s", (int)(n < sizeof seen ? n : sizeof seen - 1), at);
    for (char *c = seen; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~') *c = '?';
    return rail_fail(RAIL_E_ARGUMENT,
                     "NCCL_IB_HCA, character %zu, \"%s\": %s; write [^][=]hca[:port[:rail[:plane]]],...",
                     (size_t)(at - text) + 1, seen, what);
}

/* A number of up to 6 digits; "" and "-1" say nothing. */
static bool read_number(const char *at, size_t bytes, int *out)
{
    *out = -1;
    if (bytes == 0 || (bytes == 2 && strncmp(at, "-1", 2) == 0)) return true;
    if (bytes > 6) return false;
    int n = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (!isdigit((unsigned char)at[i])) return false;
        n = 10 * n + (at[i] - '0');
    }
    *out = n;
    return true;
}

static enum rail_result read_item(struct hca_list *list, const char *text, const char *at, const char *end)
{
    struct hca_item item = {.port = -1};
    int numbers[FIELDS] = {0, -1, -1, -1};
    if (list->n == HCA_ITEMS_MAX) return wrong(text, at, "more than 32 devices, NCCL's limit");
    for (int f = 0; at <= end; f++) {
        size_t bytes = (size_t)(end - at);
        const char *colon = memchr(at, ':', bytes);
        if (colon) bytes = (size_t)(colon - at);
        if (f == FIELDS) return wrong(text, at, "a fifth field");
        if (f == 0 && (bytes == 0 || bytes >= sizeof item.name))
            return wrong(text, at, "a device's name has 1 to 63 characters");
        if (f == 0) memcpy(item.name, at, bytes);
        else if (!read_number(at, bytes, &numbers[f])) {
            char what[60];
            snprintf(what, sizeof what, "a %s is a number from 0 to 999999", fields[f]);
            return wrong(text, at, what);
        }
        if (f == 2 && list->exclude && numbers[2] >= 0) return wrong(text, at, "a rail for what ^ excludes");
        at += bytes + 1;
    }
    if (numbers[3] >= 0 && numbers[2] < 0) return wrong(text, text + (end - text), "a plane without a rail");
    item.port = numbers[1];
    if (numbers[2] >= 0) snprintf(item.label.rail, sizeof item.label.rail, "%d", numbers[2]);
    if (numbers[3] >= 0) snprintf(item.label.plane, sizeof item.label.plane, "%d", numbers[3]);
    list->at[list->n++] = item;
    return RAIL_OK;
}

enum rail_result hca_parse(const char *text, struct hca_list *out)
{
    struct hca_list list = {.n = 0};
    const char *at = text;
    if (*at == '^') list.exclude = true, at++;
    if (*at == '=') list.exact = true, at++;
    while (*at) {
        const char *end = at + strcspn(at, ",");
        if (end > at) RAIL_TRY(read_item(&list, text, at, end)); /* NCCL skips empty ones, too */
        at = *end ? end + 1 : end;
    }
    *out = list;
    return RAIL_OK;
}

struct rail_label hca_label(const struct hca_list *list, const char *hca, int port)
{
    for (int i = 0; i < list->n && !list->exclude; i++) {
        const struct hca_item *item = &list->at[i];
        bool named = list->exact ? strcmp(item->name, hca) == 0 : strncmp(item->name, hca, strlen(item->name)) == 0;
        if (named && (item->port < 0 || item->port == port)) return item->label;
    }
    return (struct rail_label){{0}, {0}};
}

bool hca_admits(const struct hca_list *list, const char *hca, int port)
{
    bool named = list->n == 0;
    for (int i = 0; i < list->n && !named; i++) {
        const struct hca_item *item = &list->at[i];
        bool same = list->exact ? strcmp(item->name, hca) == 0 : strncmp(item->name, hca, strlen(item->name)) == 0;
        named = same && (item->port < 0 || item->port == port);
    }
    return list->n == 0 || named != list->exclude;
}

/* ---- from an interface to its device ---- */

struct search {
    const struct hca_list *list;
    const char *interface;
    char device[SYSFS_PATH], name[HCA_NAME_BYTES];
    int port;
    bool here; /* a port's file names the interface */
    char *hca_out;
    struct rail_label found, other;
};

static enum rail_result see_ndev(struct sysfs *s, const char *folder, const char *name, void *context)
{
    struct search *q = context;
    char line[SYSFS_LINE];
    if (sysfs_read(s, line, sizeof line, folder, name) && strcmp(line, q->interface) == 0) q->here = true;
    return RAIL_OK;
}

/* The kernel names a port's interfaces (those of a bond, too) beside its GIDs; older ones only those of the device. A table
 * of GIDs has 256 to 1024 entries, each a file: of ports that the list puts on no rail it is not read. */
static enum rail_result see_port(struct sysfs *s, const char *folder, const char *name, void *context)
{
    struct search *q = context;
    char path[SYSFS_PATH + 64];
    q->here = false;
    q->port = atoi(name);
    struct rail_label label = hca_label(q->list, q->name, q->port);
    if (!label.rail[0]) return RAIL_OK;
    snprintf(path, sizeof path, "%s/%s/gid_attrs/ndevs", folder, name);
    RAIL_TRY(sysfs_each(s, path, see_ndev, q));
    if (!q->here && snprintf(path, sizeof path, "%s/device/net/%s", q->device, q->interface) < SYSFS_PATH &&
        sysfs_exists(s, path, NULL))
        q->here = sysfs_number(s, q->port - 1, path, "dev_port") == q->port - 1;
    if (!q->here) return RAIL_OK;
    if (!q->found.rail[0]) {
        snprintf(q->hca_out, HCA_NAME_BYTES + 8, "%s:%d", q->name, q->port);
        q->found = label;
    } else if (memcmp(&label, &q->found, sizeof label) != 0) {
        q->other = label;
    }
    return RAIL_OK;
}

static enum rail_result see_device(struct sysfs *s, const char *folder, const char *name, void *context)
{
    struct search *q = context;
    char ports[SYSFS_PATH + 16];
    if (strlen(name) >= sizeof q->name || snprintf(q->device, sizeof q->device, "%s/%s", folder, name) >= SYSFS_PATH)
        return RAIL_OK;
    strcpy(q->name, name);
    snprintf(ports, sizeof ports, "%s/ports", q->device);
    return sysfs_each(s, ports, see_port, q);
}

struct rail_label hca_label_of_interface(const struct hca_list *list, const char *root, const char *interface,
                                         char *hca_out, struct rail_label *other_out)
{
    struct sysfs s = {NULL, root};
    struct search q = {.list = list, .interface = interface, .hca_out = hca_out};
    hca_out[0] = '\0';
    (void)sysfs_each(&s, "/sys/class/infiniband", see_device, &q); /* fails only where a visitor does */
    *other_out = q.other;
    return q.found;
}

/* ---- a device to use ---- */

struct use {
    const struct hca_list *list;
    const char *interface;
    char device[SYSFS_PATH];
    char *name_out;
    int *port_out;
    bool refused;
};

/* Quick signs before slow ones: Soft-RoCE names its interface, a NIC's device lists them; the table of GIDs has hundreds
 * of files. */
static bool is_port_of(struct sysfs *s, const struct use *u, const char *ports, int port, bool quick)
{
    char path[SYSFS_PATH + 64], line[SYSFS_LINE];
    if (sysfs_read(s, line, sizeof line, u->device, "parent")) return strcmp(line, u->interface) == 0;
    if (snprintf(path, sizeof path, "%s/device/net/%s", u->device, u->interface) < SYSFS_PATH &&
        sysfs_exists(s, path, NULL) && sysfs_number(s, port - 1, path, "dev_port") == port - 1)
        return true;
    if (quick) return false;
    struct search q = {.interface = u->interface};
    snprintf(path, sizeof path, "%.*s/%d/gid_attrs/ndevs", SYSFS_PATH, ports, port);
    (void)sysfs_each(s, path, see_ndev, &q);
    return q.here;
}

static enum rail_result use_port(struct sysfs *s, const char *folder, const char *name, void *context)
{
    struct use *u = context;
    const char *device = strrchr(u->device, '/') + 1;
    int port = atoi(name);
    if (u->name_out[0]) return RAIL_OK;
    bool admitted = hca_admits(u->list, device, port);
    if (!is_port_of(s, u, folder, port, !admitted)) return RAIL_OK;
    if (!admitted) {
        u->refused = true;
        return RAIL_OK;
    }
    strcpy(u->name_out, device);
    *u->port_out = port;
    return RAIL_OK;
}

static enum rail_result use_device(struct sysfs *s, const char *folder, const char *name, void *context)
{
    struct use *u = context;
    char ports[SYSFS_PATH + 16];
    if (u->name_out[0] || strlen(name) >= HCA_NAME_BYTES ||
        snprintf(u->device, sizeof u->device, "%s/%s", folder, name) >= SYSFS_PATH)
        return RAIL_OK;
    snprintf(ports, sizeof ports, "%s/ports", u->device);
    return sysfs_each(s, ports, use_port, u);
}

bool hca_of_interface(const struct hca_list *list, const char *root, const char *interface, char name_out[HCA_NAME_BYTES],
                      int *port_out, bool *refused_out)
{
    struct sysfs s = {NULL, root};
    struct use u = {.list = list, .interface = interface, .name_out = name_out, .port_out = port_out};
    name_out[0] = '\0';
    (void)sysfs_each(&s, "/sys/class/infiniband", use_device, &u); /* fails only where a visitor does */
    *refused_out = u.refused && !name_out[0];
    return name_out[0] != '\0';
}
