/* config.h - what a program asks of a communicator, whatever generation of ncclConfig_t it was compiled with. */
#ifndef RAIL_CORE_CONFIG_H
#define RAIL_CORE_CONFIG_H

#include <limits.h>
#include <stdbool.h>

enum { CONFIG_UNSET = INT_MIN }; /* neither the program nor the environment says: the default decides */

struct comm_config {
    bool blocking;
    int min_channels, max_channels; /* minCTAs, maxCTAs; within 1 .. CONFIG_MAX_CHANNELS when set */
    int split_share, shrink_share;
    int traffic_class;
    int channels_per_net_peer;
    int n_rma_contexts;
    int max_p2p_peers;
    int cga_cluster_size, cta_policy, nvls_ctas, collnet_enable, nvlink_centric; /* without effect on a host rank */
    int graph_usage_mode, graph_stream_ordering;
    char net_name[64];  /* "" when unset; longer names are cut */
    char comm_name[128];
};

enum { CONFIG_MAX_CHANNELS = 64 };

#endif
