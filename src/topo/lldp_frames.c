/* lldp_frames.c - LLDP frames as systemd-networkd keeps them.
 *
 *   | length, 8 bytes, little-endian | frame | length | frame | ...
 *   frame: destination 6, source 6, 0x88cc | TLV | TLV | ...       TLV: type 7 bits, length 9 bits, that many bytes
 *          1 chassis id (kind, id)   2 port id (kind, id)   5 system name   7 capabilities (which, which are on)   0 end */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "topo/lldp_state.h"

enum {
    ETHERNET_BYTES = 14,
    ETHERTYPE_LLDP = 0x88cc,
    FRAME_BYTES_MAX = 16384, /* jumbo frames end at 9216 */
    TLV_END = 0, TLV_CHASSIS = 1, TLV_PORT = 2, TLV_NAME = 5, TLV_CAPABILITIES = 7,
    KIND_MAC_CHASSIS = 4, KIND_MAC_PORT = 3, KIND_ADDRESS_CHASSIS = 5, KIND_ADDRESS_PORT = 4,
    CAN_BRIDGE = 1 << 2, CAN_ROUTE = 1 << 4,
};

/* lldpctl's words for the kinds, so that hosts with either daemon know a switch by the same text. */
static const char *const chassis_kinds[] = {"unhandled", "unhandled", "ifalias", "unhandled",
                                            "mac",       "ip",        "ifname",  "local"};

static void copy_text(char *out, size_t room, const uint8_t *from, size_t bytes)
{
    size_t n = bytes < room - 1 ? bytes : room - 1;
    memcpy(out, from, n);
    out[n] = '\0';
    for (size_t i = 0; i < n; i++)
        if (out[i] == '\0') out[i] = '?';
}

/* "00:1c:73:aa:bb:01", "10.0.0.1", or the text itself. */
static void id_text(char *out, size_t room, uint8_t kind, uint8_t mac, uint8_t address, const uint8_t *id, size_t bytes)
{
    size_t n = 0;
    out[0] = '\0';
    if (kind == mac) {
        for (size_t i = 0; i < bytes && n + 4 < room; i++)
            n += (size_t)snprintf(out + n, room - n, "%s%02x", i ? ":" : "", id[i]);
    } else if (kind == address && bytes == 5 && id[0] == 1) {
        inet_ntop(AF_INET, id + 1, out, (socklen_t)room);
    } else if (kind == address && bytes == 17 && id[0] == 2) {
        inet_ntop(AF_INET6, id + 1, out, (socklen_t)room);
    } else {
        copy_text(out, room, id, bytes);
    }
}

static void read_tlv(struct lldp_neighbour *n, uint32_t type, const uint8_t *value, size_t bytes)
{
    char id[64];
    if (type == TLV_CHASSIS && bytes > 1) {
        id_text(id, sizeof id, value[0], KIND_MAC_CHASSIS, KIND_ADDRESS_CHASSIS, value + 1, bytes - 1);
        bool known = value[0] < sizeof chassis_kinds / sizeof *chassis_kinds;
        const char *kind = known ? chassis_kinds[value[0]] : "unhandled";
        snprintf(n->chassis, sizeof n->chassis, "%s %.60s", kind, id);
    } else if (type == TLV_PORT && bytes > 1) {
        id_text(n->port, sizeof n->port, value[0], KIND_MAC_PORT, KIND_ADDRESS_PORT, value + 1, bytes - 1);
    } else if (type == TLV_NAME) {
        copy_text(n->name, sizeof n->name, value, bytes);
    } else if (type == TLV_CAPABILITIES && bytes >= 4) {
        n->station = ((value[2] << 8 | value[3]) & (CAN_BRIDGE | CAN_ROUTE)) == 0;
    }
}

/* False when it ends in the middle of a TLV. */
static bool read_frame(struct lldp_neighbour *n, const uint8_t *frame, size_t bytes)
{
    size_t at = ETHERNET_BYTES;
    if (bytes < ETHERNET_BYTES || (frame[12] << 8 | frame[13]) != ETHERTYPE_LLDP) return false;
    while (at + 2 <= bytes) {
        uint32_t type = frame[at] >> 1;
        size_t length = (size_t)(frame[at] & 1) << 8 | frame[at + 1];
        at += 2;
        if (length > bytes - at) return false;
        if (type == TLV_END) return true;
        read_tlv(n, type, frame + at, length);
        at += length;
    }
    return true; /* without an end TLV: some switches leave it out */
}

enum rail_result lldp_read_frames(const void *frames, size_t bytes, const char *source, const char *interface,
                                  struct lldp_table *table)
{
    const uint8_t *at = frames;
    for (size_t left = bytes; left > 0;) {
        uint64_t length = 0;
        size_t offset = bytes - left;
        for (int i = 7; i >= 0 && left >= 8; i--) length = length << 8 | at[i];
        if (left < 8 || length > FRAME_BYTES_MAX || length > left - 8)
            return rail_fail(RAIL_E_ARGUMENT, "%s: byte %zu: a frame that is cut off or longer than %d bytes; is this a "
                             "file of systemd-networkd's?", source, offset, FRAME_BYTES_MAX);
        struct lldp_neighbour n = {.station = false};
        snprintf(n.interface, sizeof n.interface, "%.15s", interface);
        if (!read_frame(&n, at + 8, length))
            return rail_fail(RAIL_E_ARGUMENT, "%s: byte %zu: no whole LLDP frame", source, offset + 8);
        if (n.chassis[0]) lldp_add(table, &n);
        at += 8 + length;
        left -= 8 + length;
    }
    return RAIL_OK;
}
