/* probe_datagram.c - a probe's 40 bytes.
 *
 *   0 "RLPB"   4 version   5 kind   6 NIC from   7 NIC to   8 node from   12 node to   16 number   20 hops   21 0 0 0
 *   24 MAC of these 24 bytes, 16 bytes of BLAKE2b      numbers are little-endian */
#include <string.h>

#include "bootstrap/auth.h"
#include "core/probe.h"

enum { MESSAGE_BYTES = PROBE_BYTES - PROBE_MAC_BYTES, VERSION = 1 };
static const uint8_t magic[4] = {'R', 'L', 'P', 'B'};

static void put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t value = 0;
    for (int i = 3; i >= 0; i--) value = value << 8 | at[i];
    return value;
}

void probe_write(const struct probe_datagram *d, const uint8_t key[32], uint8_t out[PROBE_BYTES])
{
    uint8_t mac[AUTH_MAC_BYTES];
    memset(out, 0, MESSAGE_BYTES);
    memcpy(out, magic, sizeof magic);
    out[4] = VERSION;
    out[5] = (uint8_t)d->kind;
    out[6] = d->nic_from;
    out[7] = d->nic_to;
    put32(out + 8, d->node_from);
    put32(out + 12, d->node_to);
    put32(out + 16, d->number);
    out[20] = d->hops;
    auth_mac(key, out, MESSAGE_BYTES, mac);
    memcpy(out + MESSAGE_BYTES, mac, PROBE_MAC_BYTES);
}

bool probe_read(const uint8_t *bytes, size_t n, const uint8_t key[32], struct probe_datagram *out)
{
    uint8_t mac[AUTH_MAC_BYTES], differs = 0;
    if (n != PROBE_BYTES || memcmp(bytes, magic, sizeof magic) != 0 || bytes[4] != VERSION) return false;
    auth_mac(key, bytes, MESSAGE_BYTES, mac);
    for (int i = 0; i < PROBE_MAC_BYTES; i++) differs |= mac[i] ^ bytes[MESSAGE_BYTES + i];
    if (differs || bytes[5] < PROBE_ASK || bytes[5] > PROBE_DONE) return false;
    *out = (struct probe_datagram){.kind = (enum probe_kind)bytes[5], .nic_from = bytes[6], .nic_to = bytes[7],
                                   .hops = bytes[20], .node_from = get32(bytes + 8), .node_to = get32(bytes + 12),
                                   .number = get32(bytes + 16)};
    return out->nic_from < RAILS_NICS_MAX && out->nic_to < RAILS_NICS_MAX;
}
