/* fuzz_lldp.c - any bytes as what lldpctl says (first byte even) or as systemd-networkd's file of frames (odd): refused with
 * a text, or read; texts end, are printable, and the table answers questions. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "topo/lldp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void printable(const char *text, size_t room)
{
    size_t n = strnlen(text, room);
    if (n == room) abort();
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < ' ' || (unsigned char)text[i] > '~') abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct lldp_table table;
    bool several;
    table.n = 0;
    if (bytes == 0) return 0;
    enum rail_result r = data[0] % 2 == 0 ? lldp_read_json((const char *)data + 1, bytes - 1, "fuzz", &table)
                                          : lldp_read_frames(data + 1, bytes - 1, "fuzz", "eth0", &table);
    if (r != RAIL_OK && strncmp(rail_own_error(), "fuzz:", 5) != 0) abort();
    for (uint32_t i = 0; i < table.n; i++) {
        const struct lldp_neighbour *n = &table.at[i];
        printable(n->chassis, sizeof n->chassis);
        printable(n->name, sizeof n->name);
        printable(n->port, sizeof n->port);
        if (lldp_key(n) == 0 || strnlen(n->interface, sizeof n->interface) == sizeof n->interface) abort();
        (void)lldp_switch_of(&table, n->interface, &several);
    }
    return 0;
}
