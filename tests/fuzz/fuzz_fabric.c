/* fuzz_fabric.c - any bytes as a fabric file or a topology.conf: refused with a text that names file and line, or read; then
 * it answers questions. `make fuzz-fabric` runs it under libFuzzer; tests/topo/test_fabric.c runs it on mutated examples. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "topo/fabric.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fabric *f = NULL;
    enum rail_result r = fabric_parse((const char *)data, bytes, "fuzz", &f);
    if (r != RAIL_OK) {
        if (f || (r == RAIL_E_ARGUMENT && strncmp(rail_own_error(), "fuzz:", 5) != 0)) abort();
        return 0;
    }
    struct sockaddr_storage address = {.ss_family = AF_INET};
    ((struct sockaddr_in *)(void *)&address)->sin_addr.s_addr = htonl(0x0a4d0001);
    static const char *const hosts[] = {"a", "n01", "n1.example.org", ""};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        uint64_t key;
        struct place place = fabric_place(f, hosts[i]);
        for (int t = 1; t < PLACE_TIERS; t++)
            if (place.tier[t] && !place.tier[t - 1]) abort(); /* a path has no gap */
        (void)fabric_rail(f, hosts[i], "eth0", &address, &key);
    }
    fabric_free(f);
    return 0;
}
