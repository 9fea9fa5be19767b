/* table.c - environment over measured over built-in values. All variables read here must agree on all ranks, which init checks. */
#include "core/table.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "base/params.h"
#include "core/tuning.h"
#include "engine/host.h"

/* Two slots are what plans need; two more keep a link busy while credit travels. GPUs have every slot pinned. */
#define SLOTS 4

const struct table_limit table_limits[TABLE_LIMITS] = {
    {RAIL_PARAM_ONESHOT_MAX_BYTES, offsetof(struct choice_table, one_shot_max_bytes), false},
    {RAIL_PARAM_ONESHOT_REDUCE_MAX_BYTES, offsetof(struct choice_table, one_shot_reduce_max_bytes), false},
    {RAIL_PARAM_TWOSHOT_MAX_BYTES, offsetof(struct choice_table, two_shot_max_bytes), false},
    {RAIL_PARAM_HIERARCHY_MAX_BYTES, offsetof(struct choice_table, hierarchy_max_bytes), false},
    {RAIL_PARAM_RAILS_MIN_BYTES, offsetof(struct choice_table, rails_min_bytes), true},
    {RAIL_PARAM_DOUBLING_MAX_BYTES, offsetof(struct choice_table, doubling_max_bytes), false},
    {RAIL_PARAM_TREE_MAX_BYTES, offsetof(struct choice_table, tree_max_bytes), false},
    {RAIL_PARAM_BLOCKS_DOUBLING_MAX_BYTES, offsetof(struct choice_table, blocks_doubling_max_bytes), false},
};

uint64_t table_limit(const struct choice_table *table, int limit)
{
    uint64_t bytes;
    memcpy(&bytes, (const char *)table + table_limits[limit].at, sizeof bytes);
    return bytes;
}

void table_limit_set(struct choice_table *table, int limit, uint64_t bytes)
{
    memcpy((char *)table + table_limits[limit].at, &bytes, sizeof bytes);
}

static void override64(uint64_t *value, enum rail_param param)
{
    if (rail_param_is_set(param) && rail_param_int(param) >= 0) *value = (uint64_t)rail_param_int(param);
}

/* Sizes are cut in cache lines. */
static void override_bytes(uint32_t *value, enum rail_param param)
{
    if (rail_param_is_set(param) && rail_param_int(param) >= SHM_LINE)
        *value = (uint32_t)(rail_param_int(param) / SHM_LINE * SHM_LINE);
}

uint32_t table_slots(bool network, bool gpus)
{
    int64_t asked = rail_param_int(RAIL_PARAM_NET_SLOTS);
    if (!network) return gpus ? SLOTS : HOST_LINK_SLOTS;
    if (asked < 0) return SLOTS;
    return asked < PLAN_SLOTS_GUARANTEED ? PLAN_SLOTS_GUARANTEED : asked > SHM_MAX_SLOTS ? SHM_MAX_SLOTS : (uint32_t)asked;
}

/* One name, or the first name in NCCL_ALGO's list that we have. */
static int algorithm_named(const char *text)
{
    for (int a = 0; a < PLAN_ALGORITHMS; a++) {
        const char *name = plan_algorithm_names[a];
        size_t length = strlen(name);
        for (const char *at = text; *at; at++) {
            bool starts = at == text || at[-1] == ',' || at[-1] == ':';
            if (starts && strncasecmp(at, name, length) == 0 && (!at[length] || strchr(",;", at[length]))) return a;
        }
    }
    return -1;
}

static enum rail_result force_algorithm(struct choice_table *t)
{
    const char *ours = rail_param_str(RAIL_PARAM_ALGO), *theirs = rail_param_str(RAIL_PARAM_NCCL_ALGO);
    if (ours) {
        t->forced_algorithm = algorithm_named(ours);
        if (t->forced_algorithm < 0)
            return rail_fail(RAIL_E_ARGUMENT, "RAILCCL_ALGO=%s: valid are oneshot, twoshot, ring, tree, doubling, ranktree, hierarchy, rails", ours);
    } else if (theirs && theirs[0] != '^' && !strstr(theirs, ";")) {
        t->forced_algorithm = algorithm_named(theirs);
    }
    return RAIL_OK;
}

static void force_channels(struct choice_table *t, const struct shape *shape, const struct comm_config *config)
{
    int64_t low = rail_param_int(RAIL_PARAM_NCCL_MIN_NCHANNELS), high = rail_param_int(RAIL_PARAM_NCCL_MAX_NCHANNELS);
    if (low < 0 && config->min_channels != CONFIG_UNSET) low = config->min_channels;
    if (high < 0 && config->max_channels != CONFIG_UNSET) high = config->max_channels;
    int64_t natural = shape->n_nodes > 1 ? t->net_channels : 1;
    if (low > natural) t->forced_channels = (uint32_t)low;
    if (high > 0 && high < natural) t->forced_channels = (uint32_t)high;
    if (t->forced_channels > HOST_MAX_CHANNELS) t->forced_channels = HOST_MAX_CHANNELS;
}

void table_built_in(struct choice_table *out, const struct shape *shape, int cores)
{
    choice_table_default(out, shape);
    if (cores > 0 && shape->n_nodes == 1) choice_table_staged(out, shape, shape->n_ranks > (uint32_t)cores);
}

enum rail_result table_make(struct choice_table *out, const struct shape *shape, int cores, const struct comm_config *config,
                            const struct tuning *tuning)
{
    table_built_in(out, shape, cores);
    for (int k = 0; tuning && k < TABLE_LIMITS; k++)
        if (tuning->set >> k & 1) table_limit_set(out, k, tuning->bytes[k]);
    override64(&out->one_shot_reduce_max_bytes, RAIL_PARAM_ONESHOT_MAX_BYTES);
    for (int k = 0; k < TABLE_LIMITS; k++) {
        uint64_t bytes = table_limit(out, k);
        override64(&bytes, table_limits[k].param);
        table_limit_set(out, k, bytes);
    }
    override_bytes(&out->window_bytes, RAIL_PARAM_WINDOW_BYTES);
    override_bytes(&out->shm_slot_bytes, RAIL_PARAM_SHM_SLOT_BYTES);
    override_bytes(&out->net_slot_bytes, RAIL_PARAM_NET_SLOT_BYTES);
    if (rail_param_int(RAIL_PARAM_NET_CHANNELS) > 0)
        out->net_channels = (uint32_t)rail_param_int(RAIL_PARAM_NET_CHANNELS);
    if (out->net_channels > HOST_MAX_CHANNELS) out->net_channels = HOST_MAX_CHANNELS;
    uint32_t least_window = SHM_LINE * (shape->n_ranks < 64 ? shape->n_ranks : 64); /* a line per piece */
    if (out->window_bytes < least_window) out->window_bytes = least_window;
    out->deterministic = rail_param_bool(RAIL_PARAM_DETERMINISTIC);
    force_channels(out, shape, config);
    return force_algorithm(out);
}

void table_direct(struct choice_table *table, const struct shape *shape)
{
    if (rail_param_int(RAIL_PARAM_ONESHOT_MAX_BYTES) < 0) choice_table_direct(table);
    table_shared(table, shape);
}

void table_shared(struct choice_table *table, const struct shape *shape)
{
    bool set = rail_param_int(RAIL_PARAM_ONESHOT_MAX_BYTES) >= 0 || rail_param_int(RAIL_PARAM_ONESHOT_REDUCE_MAX_BYTES) >= 0;
    if (!set) choice_table_shared(table, shape);
}
