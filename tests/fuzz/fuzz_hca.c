/* fuzz_hca.c - any text as NCCL_IB_HCA: refused with the place and a remedy, or read; then it answers for every device. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "topo/hca.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *text = malloc(bytes + 1);
    struct hca_list list;
    if (!text) return 0;
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    if (hca_parse(text, &list) != RAIL_OK) {
        if (!strstr(rail_own_error(), "NCCL_IB_HCA, character ") || !strstr(rail_own_error(), "; write ")) abort();
    } else {
        static const char *const devices[] = {"mlx5_0", "m", "", "a:1"};
        for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
            for (int port = 0; port < 3; port++) {
                struct rail_label label = hca_label(&list, devices[i], port);
                if (label.plane[0] && !label.rail[0]) abort();
                if ((rails_label_key(&label) != 0) != (label.rail[0] != 0)) abort();
            }
    }
    free(text);
    return 0;
}
