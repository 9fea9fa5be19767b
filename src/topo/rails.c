/* rails.c - NICs paired by their rails, and the keys by which rails are known. */
#include "topo/rails.h"

#include <netinet/in.h>
#include <string.h>

#include "base/memory.h"

/* ---- pairs ---- */

struct matching {
    bool used_here[RAILS_NICS_MAX], used_there[RAILS_NICS_MAX];
    struct rail_pair *out;
    uint32_t n;
};

static void join(struct matching *m, uint32_t here, uint32_t there, bool crossing)
{
    m->used_here[here] = m->used_there[there] = true;
    m->out[m->n++] = (struct rail_pair){(uint8_t)here, (uint8_t)there, crossing};
}

uint32_t rails_match(const uint64_t *here, uint32_t n_here, const uint64_t *there, uint32_t n_there,
                     enum rails_crossing crossing, struct rail_pair out[RAILS_NICS_MAX])
{
    struct matching m = {.out = out};
    for (uint32_t h = 0; h < n_here; h++) m.used_here[h] = here[h] == RAILS_LEFT_OUT;
    for (uint32_t t = 0; t < n_there; t++) m.used_there[t] = there[t] == RAILS_LEFT_OUT;
    for (uint32_t h = 0; h < n_here; h++)
        for (uint32_t t = 0; t < n_there && !m.used_here[h]; t++)
            if (here[h] != 0 && here[h] == there[t] && !m.used_there[t]) join(&m, h, t, false);
    /* Of these nothing is known: the k-th is taken to be beside the k-th, as NCCL does. */
    for (uint32_t h = 0; h < n_here; h++)
        for (uint32_t t = 0; t < n_there && !m.used_here[h]; t++)
            if (here[h] == 0 && there[t] == 0 && !m.used_there[t]) join(&m, h, t, true);
    bool rest = crossing == RAILS_CROSS_ALLOWED || (crossing == RAILS_CROSS_AUTO && m.n == 0);
    for (uint32_t h = 0; rest && h < n_here; h++)
        for (uint32_t t = 0; t < n_there && !m.used_here[h]; t++)
            if (!m.used_there[t]) join(&m, h, t, true);
    return m.n;
}

/* ---- keys ---- */

const char *rails_source_name(enum rails_source source)
{
    static const char *const names[] = {"nobody", "the fabric file", "NCCL_IB_HCA", "LLDP", "its subnet", "a probe",
                                        "the order of interfaces"};
    return names[source <= RAILS_BY_ORDER ? source : 0];
}

uint64_t rails_label_key(const struct rail_label *label)
{
    if (!label->rail[0]) return 0;
    uint64_t key = rail_hash64(label, sizeof *label, 13); /* labels are padded with zeroes */
    return key && key != RAILS_LEFT_OUT ? key : 1;
}

uint64_t rails_subnet_key(const struct sockaddr_storage *address, uint32_t prefix_bits)
{
    struct { uint8_t family, bits, network[16]; } subnet = {.bits = (uint8_t)prefix_bits};
    uint32_t host_bits;
    if (address->ss_family == AF_INET) {
        subnet.family = 4;
        memcpy(subnet.network, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
        host_bits = prefix_bits <= 32 ? 32 - prefix_bits : 0;
    } else if (address->ss_family == AF_INET6) {
        const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
        if (IN6_IS_ADDR_LINKLOCAL(in6)) return 0;
        subnet.family = 6;
        memcpy(subnet.network, in6, 16);
        host_bits = prefix_bits <= 128 ? 128 - prefix_bits : 0;
    } else {
        return 0;
    }
    if (prefix_bits == 0 || host_bits < 3) return 0; /* /30, /31, /126, /127: the NIC and its switch; /32: alone */
    for (uint32_t byte = 0; byte < 16; byte++) {
        uint32_t kept = prefix_bits > 8 * byte ? prefix_bits - 8 * byte : 0;
        if (kept < 8) subnet.network[byte] &= (uint8_t)(0xff00 >> kept);
    }
    uint64_t key = rail_hash64(&subnet, sizeof subnet, 11);
    return key ? key : 1;
}
