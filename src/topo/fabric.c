/* fabric.c - the fabric as it is built up by its readers, made complete, and asked. */
#include "topo/fabric.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/params.h"
#include "topo/fabric_state.h"

enum rail_result fabric_wrong(const struct fabric *f, uint32_t line, const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c; c++) /* the file's bytes are anything */
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~') *c = '?';
    return rail_fail(RAIL_E_ARGUMENT, "%s:%u: %s", f->source, line, text);
}

/* Room for one more; NULL when out of memory. *array stays valid either way. */
static void *grown(void **array, uint32_t n, uint32_t *room, size_t bytes)
{
    if (n == *room) {
        uint32_t more = *room ? 2 * *room : 64;
        void *bigger = realloc(*array, more * bytes);
        if (!bigger) return NULL;
        *array = bigger;
        *room = more;
    }
    return memset((char *)*array + n * bytes, 0, bytes);
}

static enum rail_result no_memory(const struct fabric *f)
{
    return rail_fail(RAIL_E_SYSTEM, "%s: out of memory", f->source);
}

/* ---- switches ---- */

static uint32_t bucket_of(const struct fabric *f, const char *name)
{
    uint32_t at = (uint32_t)rail_hash64(name, strlen(name), 21) & (f->n_buckets - 1);
    while (f->buckets[at] && strcmp(f->switches[f->buckets[at] - 1].name, name) != 0)
        at = (at + 1) & (f->n_buckets - 1);
    return at;
}

static enum rail_result more_buckets(struct fabric *f)
{
    if (f->n_buckets >= 2 * (f->n_switches + 1)) return RAIL_OK;
    uint32_t n = f->n_buckets ? 2 * f->n_buckets : 64;
    uint32_t *buckets = calloc(n, sizeof *buckets);
    if (!buckets) return no_memory(f);
    free(f->buckets);
    f->buckets = buckets;
    f->n_buckets = n;
    for (uint32_t i = 0; i < f->n_switches; i++) f->buckets[bucket_of(f, f->switches[i].name)] = i + 1;
    return RAIL_OK;
}

enum rail_result fabric_switch_named(struct fabric *f, const char *name, int32_t *out)
{
    if (!name[0] || strlen(name) >= FABRIC_NAME_BYTES)
        return fabric_wrong(f, f->line, "a switch's name has 1 to %d characters", FABRIC_NAME_BYTES - 1);
    RAIL_TRY(more_buckets(f));
    uint32_t at = bucket_of(f, name);
    if (!f->buckets[at]) {
        if (f->n_switches == FABRIC_SWITCHES_MAX)
            return fabric_wrong(f, f->line, "more than %d switches", FABRIC_SWITCHES_MAX);
        struct fabric_switch *s = grown((void **)&f->switches, f->n_switches, &f->switches_room, sizeof *s);
        if (!s) return no_memory(f);
        strcpy(s->name, name);
        s->above = FABRIC_NONE;
        s->mentioned = f->line;
        f->buckets[at] = ++f->n_switches;
    }
    *out = (int32_t)f->buckets[at] - 1;
    return RAIL_OK;
}

enum rail_result fabric_switch_declare(struct fabric *f, const char *name, int32_t *out)
{
    RAIL_TRY(fabric_switch_named(f, name, out));
    struct fabric_switch *s = &f->switches[*out];
    if (s->line) return fabric_wrong(f, f->line, "switch %s is there already, in line %u", name, s->line);
    s->line = f->line;
    return RAIL_OK;
}

enum rail_result fabric_switch_under(struct fabric *f, int32_t below, int32_t above)
{
    struct fabric_switch *s = &f->switches[below];
    if (s->above != FABRIC_NONE && s->above != above)
        return fabric_wrong(f, f->line, "switch %s is under %s here and under %s in line %u; one of them is wrong",
                            s->name, f->switches[above].name, f->switches[s->above].name, s->above_line);
    s->above = above;
    s->above_line = f->line;
    return RAIL_OK;
}

/* ---- hosts, NICs, subnets ---- */

struct adding { struct fabric *f; int32_t under; const char *interface; const struct rail_label *label; };

static enum rail_result host_add(void *owner, const char *name)
{
    const struct adding *a = owner;
    struct fabric *f = a->f;
    if (f->n_hosts == HOSTLIST_HOSTS_MAX) return fabric_wrong(f, f->line, "more than %d hosts", HOSTLIST_HOSTS_MAX);
    struct fabric_host *h = grown((void **)&f->hosts, f->n_hosts, &f->hosts_room, sizeof *h);
    if (!h) return no_memory(f);
    strcpy(h->name, name);
    h->under = a->under;
    h->line = f->line;
    f->n_hosts++;
    return RAIL_OK;
}

static enum rail_result nic_add(void *owner, const char *name)
{
    const struct adding *a = owner;
    struct fabric *f = a->f;
    if (f->n_nics == FABRIC_NICS_MAX) return fabric_wrong(f, f->line, "more than %d NICs", FABRIC_NICS_MAX);
    struct fabric_nic *n = grown((void **)&f->nics, f->n_nics, &f->nics_room, sizeof *n);
    if (!n) return no_memory(f);
    strcpy(n->host, name);
    strcpy(n->interface, a->interface);
    n->label = *a->label;
    n->line = f->line;
    f->n_nics++;
    return RAIL_OK;
}

static enum rail_result each_of(struct adding *a, const char *list, enum rail_result (*each)(void *, const char *))
{
    char why[HOSTLIST_WHY_BYTES];
    enum rail_result r = hostlist_each(list, each, a, why);
    return why[0] ? fabric_wrong(a->f, a->f->line, "list of hosts: %s", why) : r;
}

enum rail_result fabric_hosts_under(struct fabric *f, const char *list, int32_t under)
{
    return each_of(&(struct adding){.f = f, .under = under}, list, host_add);
}

enum rail_result fabric_nics_add(struct fabric *f, const char *list, const char *interface,
                                 const struct rail_label *label)
{
    if (strlen(interface) >= sizeof f->nics->interface)
        return fabric_wrong(f, f->line, "an interface's name has at most 15 characters, not \"%.40s\"", interface);
    return each_of(&(struct adding){.f = f, .interface = interface, .label = label}, list, nic_add);
}

/* True when the first `bits` bits are equal. */
static bool same_network(const uint8_t *a, const uint8_t *b, uint32_t bits)
{
    if (memcmp(a, b, bits / 8) != 0) return false;
    return bits % 8 == 0 || ((a[bits / 8] ^ b[bits / 8]) >> (8 - bits % 8)) == 0;
}

enum rail_result fabric_subnet_add(struct fabric *f, const char *cidr, const struct rail_label *label)
{
    char address[64];
    const char *slash = strchr(cidr, '/');
    struct fabric_subnet subnet = {.label = *label, .line = f->line};
    char *end = NULL;
    unsigned long bits = slash && slash[1] >= '0' && slash[1] <= '9' ? strtoul(slash + 1, &end, 10) : 1000;
    if (!slash || (size_t)(slash - cidr) >= sizeof address) goto malformed;
    memcpy(address, cidr, (size_t)(slash - cidr));
    address[slash - cidr] = '\0';
    if (inet_pton(AF_INET, address, subnet.network) == 1) subnet.family = 4;
    else if (inet_pton(AF_INET6, address, subnet.network) == 1) subnet.family = 6;
    if (!subnet.family || !end || *end || bits > (subnet.family == 4 ? 32 : 128)) goto malformed;
    subnet.bits = (uint8_t)bits;
    for (uint32_t byte = 0; byte < 16; byte++) { /* 10.0.0.7/24 is meant as 10.0.0.0/24 */
        uint32_t kept = bits > 8 * byte ? (uint32_t)bits - 8 * byte : 0;
        if (kept < 8) subnet.network[byte] &= (uint8_t)(0xff00 >> kept);
    }
    if (f->n_subnets == FABRIC_SWITCHES_MAX)
        return fabric_wrong(f, f->line, "more than %d subnets", FABRIC_SWITCHES_MAX);
    struct fabric_subnet *s = grown((void **)&f->subnets, f->n_subnets, &f->subnets_room, sizeof *s);
    if (!s) return no_memory(f);
    *s = subnet;
    f->n_subnets++;
    return RAIL_OK;
malformed:
    return fabric_wrong(f, f->line, "\"%.60s\" is no subnet; write 10.1.0.0/24 or fd00:1::/64", cidr);
}

/* ---- making it complete ---- */

static int by_host(const void *a, const void *b)
{
    const struct fabric_host *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static int by_nic(const void *a, const void *b)
{
    const struct fabric_nic *x = a, *y = b;
    int order = strcmp(x->host, y->host);
    if (order == 0) order = strcmp(x->interface, y->interface);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static int by_network(const void *a, const void *b)
{
    const struct fabric_subnet *x = a, *y = b;
    if (x->family != y->family) return x->family - y->family;
    int order = memcmp(x->network, y->network, 16);
    if (order == 0) order = x->bits - y->bits;
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static bool same_label(const struct rail_label *a, const struct rail_label *b)
{
    return strcmp(a->rail, b->rail) == 0 && strcmp(a->plane, b->plane) == 0;
}

static enum rail_result check_switch(const struct fabric *f, uint32_t index)
{
    const struct fabric_switch *s = &f->switches[index];
    if (!s->line)
        return fabric_wrong(f, s->mentioned, "switch %s is mentioned here and declared nowhere", s->name);
    uint32_t tiers = 1;
    for (int32_t at = s->above; at != FABRIC_NONE && tiers <= f->n_switches; at = f->switches[at].above, tiers++)
        if (at == (int32_t)index)
            return fabric_wrong(f, s->above_line, "switch %s is above itself, %u tiers up", s->name, tiers);
    if (tiers > PLACE_TIERS)
        return fabric_wrong(f, s->line, "switch %s has %s switches above it, at most %d are understood", s->name,
                            tiers > f->n_switches ? "a circle of" : "too many", PLACE_TIERS - 1);
    return RAIL_OK;
}

static enum rail_result complete(struct fabric *f)
{
    if (f->n_hosts) qsort(f->hosts, f->n_hosts, sizeof *f->hosts, by_host);
    if (f->n_nics) qsort(f->nics, f->n_nics, sizeof *f->nics, by_nic);
    if (f->n_subnets) qsort(f->subnets, f->n_subnets, sizeof *f->subnets, by_network);
    for (uint32_t i = 0; i < f->n_switches; i++) RAIL_TRY(check_switch(f, i));
    for (uint32_t i = 1; i < f->n_hosts; i++) {
        const struct fabric_host *a = &f->hosts[i - 1], *b = &f->hosts[i];
        if (strcmp(a->name, b->name) == 0 && a->under != b->under)
            return fabric_wrong(f, b->line, "host %s is under %s here and under %s in line %u; one of them is wrong",
                                b->name, f->switches[b->under].name, f->switches[a->under].name, a->line);
    }
    for (uint32_t i = 1; i < f->n_nics; i++) {
        const struct fabric_nic *a = &f->nics[i - 1], *b = &f->nics[i];
        bool same = strcmp(a->host, b->host) == 0 && strcmp(a->interface, b->interface) == 0;
        if (same && !same_label(&a->label, &b->label))
            return fabric_wrong(f, b->line, "%s:%s is on rail %s here and on rail %s in line %u; one of them is wrong",
                                b->host, b->interface, b->label.rail, a->label.rail, a->line);
    }
    const struct fabric_subnet *outer = NULL; /* the last that no other one holds */
    for (uint32_t i = 0; i < f->n_subnets; i++) {
        const struct fabric_subnet *s = &f->subnets[i];
        bool inside = outer && outer->family == s->family && same_network(outer->network, s->network, outer->bits);
        if (inside && !same_label(&outer->label, &s->label))
            return fabric_wrong(f, s->line, "this subnet lies inside that of line %u, on rail %s there and on rail %s "
                                "here; one of them is wrong", outer->line, outer->label.rail, s->label.rail);
        if (!inside) outer = s;
    }
    return RAIL_OK;
}

/* Slurm's first word is KEY=VALUE, ours has no equals sign. */
static bool is_slurm(const char *text)
{
    while (*text) {
        text += strspn(text, " \t\r\n\f\v");
        if (*text != '#') break;
        text += strcspn(text, "\n");
    }
    size_t word = strcspn(text, " \t\r\n\f\v#");
    return memchr(text, '=', word) != NULL;
}

enum rail_result fabric_parse(const char *text, size_t bytes, const char *source, struct fabric **out)
{
    struct fabric *f = calloc(1, sizeof *f);
    char *copy = bytes <= FABRIC_TEXT_MAX ? malloc(bytes + 1) : NULL;
    enum rail_result r = RAIL_OK;
    if (!f || (!copy && bytes <= FABRIC_TEXT_MAX)) {
        r = rail_fail(RAIL_E_SYSTEM, "%s: out of memory for %zu bytes", source, bytes);
        goto undo;
    }
    snprintf(f->source, sizeof f->source, "%s", source);
    f->line = 1;
    if (!copy) {
        r = fabric_wrong(f, 1, "%zu bytes are more than a fabric file may have (16 MiB)", bytes);
        goto undo;
    }
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    f->digest = rail_hash64(text, bytes, 31) | 1;
    if (strlen(copy) != bytes) r = fabric_wrong(f, 1, "a zero byte at offset %zu: this is no text", strlen(copy));
    if (r == RAIL_OK) r = is_slurm(copy) ? fabric_read_slurm(f, copy) : fabric_read_own(f, copy);
    if (r == RAIL_OK) r = complete(f);
    if (r != RAIL_OK) goto undo;
    free(copy);
    *out = f;
    return RAIL_OK;
undo:
    free(copy);
    fabric_free(f);
    return r;
}

enum rail_result fabric_load(const char *path, struct fabric **out)
{
    struct stat about;
    char *text = NULL;
    size_t have = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
        int error = fd < 0 ? errno : EINVAL;
        if (fd >= 0) close(fd);
        return rail_fail(RAIL_E_ARGUMENT,
                         "RAILCCL_FABRIC=%s: %s; name a readable file, the same on all hosts, or unset it", path,
                         fd < 0 ? strerror(error) : "not a regular file");
    }
    text = malloc(FABRIC_TEXT_MAX + 1);
    for (ssize_t n = text ? 1 : -1; n > 0 && have <= FABRIC_TEXT_MAX; have += n > 0 ? (size_t)n : 0)
        n = read(fd, text + have, FABRIC_TEXT_MAX + 1 - have);
    close(fd);
    enum rail_result r = text ? fabric_parse(text, have, path, out)
                              : rail_fail(RAIL_E_SYSTEM, "RAILCCL_FABRIC=%s: out of memory", path);
    free(text);
    return r;
}

void fabric_free(struct fabric *f)
{
    if (!f) return;
    free(f->switches);
    free(f->hosts);
    free(f->nics);
    free(f->subnets);
    free(f->buckets);
    free(f);
}

/* ---- asking ---- */

/* The whole name, or the part before its first dot. */
static const char *short_name(const char *name, char out[FABRIC_NAME_BYTES])
{
    snprintf(out, FABRIC_NAME_BYTES, "%.*s", (int)strcspn(name, "."), name);
    return out;
}

static const struct fabric_nic *nic_find(const struct fabric *f, const char *host, const char *interface)
{
    struct fabric_nic wanted = {.line = 0};
    snprintf(wanted.host, sizeof wanted.host, "%s", host);
    snprintf(wanted.interface, sizeof wanted.interface, "%s", interface);
    for (uint32_t low = 0, high = f->n_nics; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        const struct fabric_nic *n = &f->nics[middle];
        int order = strcmp(wanted.host, n->host);
        if (order == 0) order = strcmp(wanted.interface, n->interface);
        if (order == 0) return n;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

static const struct fabric_subnet *subnet_find(const struct fabric *f, const struct sockaddr_storage *address)
{
    const uint8_t *bytes;
    uint8_t family = address->ss_family == AF_INET ? 4 : 6;
    if (family == 4) bytes = (const void *)&((const struct sockaddr_in *)(const void *)address)->sin_addr;
    else bytes = (const void *)&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    for (uint32_t i = 0; i < f->n_subnets; i++)
        if (f->subnets[i].family == family && same_network(f->subnets[i].network, bytes, f->subnets[i].bits))
            return &f->subnets[i];
    return NULL;
}

enum rail_result fabric_label(const struct fabric *f, const char *host, const char *interface,
                              const struct sockaddr_storage *address, struct rail_label *out)
{
    char part[FABRIC_NAME_BYTES];
    const struct fabric_nic *nic = nic_find(f, host, interface);
    if (!nic) nic = nic_find(f, short_name(host, part), interface);
    const struct fabric_subnet *subnet = subnet_find(f, address);
    if (nic && subnet && !same_label(&nic->label, &subnet->label))
        return fabric_wrong(f, nic->line,
                            "%s:%s is on rail %s here, and its address is in the subnet of line %u, on rail "
                            "%s; one of them is wrong",
                            host, interface, nic->label.rail, subnet->line, subnet->label.rail);
    *out = nic ? nic->label : subnet ? subnet->label : (struct rail_label){{0}, {0}};
    return RAIL_OK;
}

enum rail_result fabric_rail(const struct fabric *f, const char *host, const char *interface,
                             const struct sockaddr_storage *address, uint64_t *key_out)
{
    struct rail_label label;
    RAIL_TRY(fabric_label(f, host, interface, address, &label));
    *key_out = rails_label_key(&label);
    return RAIL_OK;
}

static const struct fabric_host *host_find(const struct fabric *f, const char *name)
{
    for (uint32_t low = 0, high = f->n_hosts; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(name, f->hosts[middle].name);
        if (order == 0) return &f->hosts[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

struct place fabric_place(const struct fabric *f, const char *host)
{
    struct place place = {{0}};
    char part[FABRIC_NAME_BYTES];
    int32_t path[PLACE_TIERS];
    uint32_t n = 0;
    const struct fabric_host *h = host_find(f, host);
    if (!h) h = host_find(f, short_name(host, part));
    int32_t at = h ? h->under : FABRIC_NONE;
    for (; at != FABRIC_NONE && n < PLACE_TIERS; at = f->switches[at].above) path[n++] = at;
    for (uint32_t t = 0; t < n; t++) {
        const char *name = f->switches[path[n - 1 - t]].name;
        place.tier[t] = rail_hash64(name, strlen(name), 17) | 1;
    }
    return place;
}

uint64_t fabric_digest(const struct fabric *f) { return f->digest; }

enum rail_result fabric_of_process(const struct fabric **out)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct fabric *read_once; /* under lock; kept for the life of the process */
    const char *path = rail_param_str(RAIL_PARAM_FABRIC);
    enum rail_result r = RAIL_OK;
    *out = NULL;
    if (!path || !path[0]) return RAIL_OK;
    pthread_mutex_lock(&lock);
    if (!read_once) r = fabric_load(path, &read_once);
    *out = read_once;
    pthread_mutex_unlock(&lock);
    return r;
}
