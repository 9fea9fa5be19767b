/* config.c - reading an ncclConfig_t of any generation.
 *
 * The structure has grown since 2.14 and new fields have moved into old padding, so neither its size nor its version
 * alone says which fields a program meant: a field counts when it lies inside the caller's size AND the caller's
 * version is one that had it. Everything else in the caller's bytes is noise. A field that does not count, or has the
 * undefined value, is left to the default; then the environment has the last word. */
#include "api/config.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/params.h"

enum {
    SMALLEST_BYTES = 24,  /* 2.14: the first generation */
    LARGEST_BYTES = 4096, /* room for 40 times today's; more is not a size but noise */
    ANY_LOW = INT_MIN + 1,
};

struct int_field {
    const char *name;
    size_t offset; /* in ncclConfig_t */
    unsigned since;
    int low, high;
    size_t into; /* in struct comm_config */
};

#define FIELD(name, since, low, high, into)                                                                            \
    {#name, offsetof(ncclConfig_t, name), since, low, high, offsetof(struct comm_config, into)}

static const struct int_field int_fields[] = {
    FIELD(cgaClusterSize, 21700, 0, INT_MAX, cga_cluster_size),
    FIELD(minCTAs, 21700, 1, INT_MAX, min_channels),
    FIELD(maxCTAs, 21700, 1, INT_MAX, max_channels),
    FIELD(splitShare, 21800, 0, 1, split_share),
    FIELD(trafficClass, 22600, ANY_LOW, INT_MAX, traffic_class),
    FIELD(collnetEnable, 22700, 0, 1, collnet_enable),
    FIELD(CTAPolicy, 22700, 0, NCCL_CTA_POLICY_EFFICIENCY | NCCL_CTA_POLICY_ZERO, cta_policy),
    FIELD(shrinkShare, 22700, 0, 1, shrink_share),
    FIELD(nvlsCTAs, 22700, 1, INT_MAX, nvls_ctas),
    FIELD(nChannelsPerNetPeer, 22800, 1, CONFIG_MAX_CHANNELS, channels_per_net_peer),
    FIELD(nvlinkCentricSched, 22800, 0, 1, nvlink_centric),
    FIELD(graphUsageMode, 22900, 0, 2, graph_usage_mode),
    FIELD(numRmaCtx, 22900, 0, INT_MAX, n_rma_contexts),
    FIELD(maxP2pPeers, 23000, 1, INT_MAX, max_p2p_peers),
    FIELD(graphStreamOrdering, 23005, 0, 1, graph_stream_ordering), /* in the padding of 2.30.3 and 2.30.4 */
};

static const struct int_field blocking_field = {"blocking", offsetof(ncclConfig_t, blocking), 21400, 0, 1, 0};

/* The caller's structure, as much of it as we know, in ours; `bytes` is how much that is. */
struct caller {
    ncclConfig_t copy;
    size_t bytes;
};

static enum rail_result caller_copy(const char *call, const ncclConfig_t *config, struct caller *caller)
{
    size_t size;
    memcpy(&size, config, sizeof size); /* the first field of every generation */
    if (size < SMALLEST_BYTES || size > LARGEST_BYTES)
        return rail_fail(RAIL_E_ARGUMENT, "%s: config->size is %zu, which no ncclConfig_t has; initialise the structure"
                         " with NCCL_CONFIG_INITIALIZER", call, size);
    caller->bytes = size < sizeof caller->copy ? size : sizeof caller->copy;
    memset(&caller->copy, 0, sizeof caller->copy);
    memcpy(&caller->copy, config, caller->bytes);
    if (caller->copy.magic != NCCL_API_MAGIC)
        return rail_fail(RAIL_E_ARGUMENT, "%s: config->magic is %#x, not %#x; initialise the structure with "
                         "NCCL_CONFIG_INITIALIZER", call, caller->copy.magic, NCCL_API_MAGIC);
    return RAIL_OK;
}

/* Did the caller know this part of the structure? */
static bool caller_knows(const struct caller *caller, size_t offset, size_t bytes, unsigned since)
{
    return offset + bytes <= caller->bytes && caller->copy.version >= since;
}

static enum rail_result int_read(const char *call, const struct caller *caller, const struct int_field *field, int *out)
{
    if (!caller_knows(caller, field->offset, sizeof *out, field->since)) return RAIL_OK;
    int value;
    memcpy(&value, (const char *)&caller->copy + field->offset, sizeof value);
    if (value == NCCL_CONFIG_UNDEF_INT) return RAIL_OK;
    if (value < field->low || value > field->high)
        return rail_fail(RAIL_E_ARGUMENT, "%s: config->%s is %d, allowed are %d to %d; leave it undefined "
                         "(NCCL_CONFIG_UNDEF_INT) for the default", call, field->name, value, field->low, field->high);
    *out = value;
    return RAIL_OK;
}

static int *int_of(struct comm_config *config, const struct int_field *field)
{
    return (int *)(void *)((char *)config + field->into);
}

static enum rail_result caller_read(const char *call, const struct caller *caller, struct comm_config *out)
{
    int blocking = 1;
    RAIL_TRY(int_read(call, caller, &blocking_field, &blocking));
    out->blocking = blocking;
    for (size_t i = 0; i < sizeof int_fields / sizeof *int_fields; i++)
        RAIL_TRY(int_read(call, caller, &int_fields[i], int_of(out, &int_fields[i])));

    if (caller_knows(caller, offsetof(ncclConfig_t, netName), sizeof(char *), 21700) && caller->copy.netName != NULL)
        snprintf(out->net_name, sizeof out->net_name, "%s", caller->copy.netName);
    if (caller_knows(caller, offsetof(ncclConfig_t, commName), sizeof(char *), 22700) && caller->copy.commName != NULL)
        snprintf(out->comm_name, sizeof out->comm_name, "%s", caller->copy.commName);

    if (out->min_channels != CONFIG_UNSET && out->max_channels != CONFIG_UNSET && out->min_channels > out->max_channels)
        return rail_fail(RAIL_E_ARGUMENT, "%s: config->minCTAs %d is more than config->maxCTAs %d; lower the one or "
                         "raise the other", call, out->min_channels, out->max_channels);
    return RAIL_OK;
}

static void environment_int(enum rail_param param, int lowest, const char *field, int *value)
{
    if (!rail_param_is_set(param) || rail_param_int(param) < lowest) return;
    int wanted = (int)rail_param_int(param);
    if (*value != CONFIG_UNSET && *value != wanted)
        RAIL_INFO(RAIL_ENV, "%s=%d instead of the program's config->%s = %d", rail_param_name(param), wanted, field,
                  *value);
    *value = wanted;
}

static void environment_apply(struct comm_config *config)
{
    int blocking = config->blocking;
    environment_int(RAIL_PARAM_NCCL_COMM_BLOCKING, 0, "blocking", &blocking);
    config->blocking = blocking != 0;
    environment_int(RAIL_PARAM_NCCL_MIN_CTAS, 1, "minCTAs", &config->min_channels);
    environment_int(RAIL_PARAM_NCCL_MAX_CTAS, 1, "maxCTAs", &config->max_channels);
    const char *net = rail_param_str(RAIL_PARAM_NCCL_NET);
    if (net != NULL) snprintf(config->net_name, sizeof config->net_name, "%s", net);

    if (config->min_channels > CONFIG_MAX_CHANNELS) config->min_channels = CONFIG_MAX_CHANNELS;
    if (config->max_channels > CONFIG_MAX_CHANNELS) config->max_channels = CONFIG_MAX_CHANNELS;
    /* Each was sane alone; together, from two sources, the upper limit rules, as in NCCL. */
    if (config->max_channels != CONFIG_UNSET && config->min_channels > config->max_channels)
        config->min_channels = config->max_channels;
}

enum rail_result config_read(const char *call, const ncclConfig_t *config, const struct comm_config *parent,
                             struct comm_config *out)
{
    struct comm_config result;
    memset(&result, 0, sizeof result);
    result.blocking = true;
    for (size_t i = 0; i < sizeof int_fields / sizeof *int_fields; i++) *int_of(&result, &int_fields[i]) = CONFIG_UNSET;

    if (config == NULL && parent != NULL) {
        *out = *parent; /* the environment has had its say there */
        return RAIL_OK;
    }
    if (config != NULL) {
        struct caller caller;
        RAIL_TRY(caller_copy(call, config, &caller));
        RAIL_TRY(caller_read(call, &caller, &result));
    }
    environment_apply(&result);
    *out = result;
    return RAIL_OK;
}
