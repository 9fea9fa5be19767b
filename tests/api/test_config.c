/* Every generation of ncclConfig_t is read as its program meant it; what the program could not know is not looked at. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/config.h"
#include "base/params.h"

/* The generations as NVIDIA's headers laid them out, by hand: not derived from our own structure. */
struct generation {
    const char *name;
    unsigned version;
    size_t bytes;
    int fields; /* how many of layout[] it has */
};

struct known { const char *name; size_t offset; int value; size_t into; };

#define INTO(member) offsetof(struct comm_config, member)

static const struct known layout[] = {
    {"blocking", 16, 0, SIZE_MAX}, /* 2.14 */
    {"cgaClusterSize", 20, 4, INTO(cga_cluster_size)}, {"minCTAs", 24, 2, INTO(min_channels)},
    {"maxCTAs", 28, 17, INTO(max_channels)}, /* 2.17, with netName at 32 */
    {"splitShare", 40, 1, INTO(split_share)}, /* 2.18 */
    {"trafficClass", 44, 106, INTO(traffic_class)}, /* 2.26 */
    {"collnetEnable", 56, 1, INTO(collnet_enable)}, {"CTAPolicy", 60, 2, INTO(cta_policy)},
    {"shrinkShare", 64, 1, INTO(shrink_share)}, {"nvlsCTAs", 68, 16, INTO(nvls_ctas)}, /* 2.27, with commName at 48 */
    {"nChannelsPerNetPeer", 72, 3, INTO(channels_per_net_peer)},
    {"nvlinkCentricSched", 76, 1, INTO(nvlink_centric)}, /* 2.28 */
    {"graphUsageMode", 80, 2, INTO(graph_usage_mode)}, {"numRmaCtx", 84, 5, INTO(n_rma_contexts)}, /* 2.29 */
    {"maxP2pPeers", 88, 9, INTO(max_p2p_peers)}, /* 2.30.3 */
    {"graphStreamOrdering", 92, 1, INTO(graph_stream_ordering)}, /* 2.30.7 */
};
enum { N_LAYOUT = sizeof layout / sizeof *layout };

static const struct generation generations[] = {
    {"2.14.3", 21403, 24, 1}, {"2.16.5", 21605, 24, 1}, {"2.17.1", 21701, 40, 4}, {"2.18.1", 21801, 48, 5},
    {"2.21.5", 22105, 48, 5}, {"2.25.1", 22501, 48, 5}, {"2.26.2", 22602, 48, 6}, {"2.27.3", 22703, 72, 10},
    {"2.28.9", 22809, 80, 12}, {"2.29.7", 22907, 88, 14}, {"2.30.3", 23003, 96, 15}, {"2.30.4", 23004, 96, 15},
    {"2.30.7", 23007, 96, 16}, {"newer and larger", 23501, 136, 16},
};

/* A caller's bytes: noise everywhere, then the fields that the generation has. On the heap and exactly as long as the
 * caller says, so that a sanitizer sees a read beyond. */
static ncclConfig_t *caller_bytes(const struct generation *g, int noise)
{
    char *bytes = malloc(g->bytes);
    assert_non_null(bytes);
    memset(bytes, noise, g->bytes);
    memcpy(bytes, &(size_t){g->bytes}, 8);
    memcpy(bytes + 8, &(unsigned){0xcafebeef}, 4);
    memcpy(bytes + 12, &(unsigned){g->version}, 4);
    if (g->version >= 21700) memset(bytes + 32, 0, 8);
    if (g->version >= 22700) memset(bytes + 48, 0, 8);
    return (ncclConfig_t *)(void *)bytes;
}

static void set_int(ncclConfig_t *config, size_t offset, int value)
{
    memcpy((char *)config + offset, &value, sizeof value);
}

static int get_int(const struct comm_config *config, size_t into)
{
    int value;
    memcpy(&value, (const char *)config + into, sizeof value);
    return value;
}

static const int noises[] = {0x00, 0xab, 0xff, 0x01};

static void each_generation_gives_its_own_fields_and_defaults_for_the_rest(void **state)
{
    (void)state;
    for (size_t g = 0; g < sizeof generations / sizeof *generations; g++)
        for (size_t n = 0; n < sizeof noises / sizeof *noises; n++) {
            const struct generation *gen = &generations[g];
            ncclConfig_t *config = caller_bytes(gen, noises[n]);
            for (int f = 0; f < gen->fields; f++) set_int(config, layout[f].offset, layout[f].value);
            struct comm_config out;
            assert_int_equal(config_read("test", config, NULL, &out), RAIL_OK);
            assert_false(out.blocking);
            for (int f = 1; f < N_LAYOUT; f++) {
                int expected = f < gen->fields ? layout[f].value : CONFIG_UNSET;
                if (get_int(&out, layout[f].into) != expected)
                    fail_msg("%s, noise %#x: %s is %d, expected %d", gen->name, noises[n], layout[f].name,
                             get_int(&out, layout[f].into), expected);
            }
            assert_string_equal(out.net_name, "");
            assert_string_equal(out.comm_name, "");
            free(config);
        }
}

static void undefined_fields_are_left_to_the_default(void **state)
{
    (void)state;
    for (size_t g = 0; g < sizeof generations / sizeof *generations; g++) {
        ncclConfig_t *config = caller_bytes(&generations[g], 0xab);
        for (int f = 0; f < generations[g].fields; f++) set_int(config, layout[f].offset, INT_MIN);
        struct comm_config out;
        assert_int_equal(config_read("test", config, NULL, &out), RAIL_OK);
        assert_true(out.blocking);
        for (int f = 1; f < N_LAYOUT; f++) assert_int_equal(get_int(&out, layout[f].into), CONFIG_UNSET);
        free(config);
    }
}

static void null_and_the_initializer_mean_defaults(void **state)
{
    (void)state;
    struct comm_config from_null, from_initializer;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    assert_int_equal(config_read("test", NULL, NULL, &from_null), RAIL_OK);
    assert_int_equal(config_read("test", &config, NULL, &from_initializer), RAIL_OK);
    assert_memory_equal(&from_null, &from_initializer, sizeof from_null);
    assert_true(from_null.blocking);
    assert_int_equal(from_null.min_channels, CONFIG_UNSET);
}

static void names_are_copied_and_long_ones_cut(void **state)
{
    (void)state;
    char long_name[300];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    struct comm_config out;
    config.netName = "Socket";
    config.commName = long_name;
    assert_int_equal(config_read("test", &config, NULL, &out), RAIL_OK);
    assert_string_equal(out.net_name, "Socket");
    assert_int_equal(strlen(out.comm_name), sizeof out.comm_name - 1);
}

static void names_of_generations_that_had_none_are_not_followed(void **state)
{
    (void)state;
    struct generation old = {"2.16 in a large structure", 21605, 96, 1};
    ncclConfig_t *config = caller_bytes(&old, 0xab); /* pointers 0xabab...: following one would crash */
    struct comm_config out;
    set_int(config, 16, 1);
    assert_int_equal(config_read("test", config, NULL, &out), RAIL_OK);
    assert_string_equal(out.net_name, "");
    free(config);
}

static void refused(ncclConfig_t *config, const char *word)
{
    struct comm_config out, untouched;
    memset(&out, 0x5a, sizeof out);
    memset(&untouched, 0x5a, sizeof untouched);
    assert_int_equal(config_read("ncclCommInitRankConfig", config, NULL, &out), RAIL_E_ARGUMENT);
    assert_memory_equal(&out, &untouched, sizeof out);
    if (strstr(rail_last_error(), word) == NULL || strstr(rail_last_error(), "ncclCommInitRankConfig") == NULL)
        fail_msg("\"%s\" does not name %s and the call", rail_last_error(), word);
}

static void a_structure_without_its_magic_number_is_refused(void **state)
{
    (void)state;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.magic = 0;
    refused(&config, "magic");
    config.magic = 0xcafebeee;
    refused(&config, "magic");
}

static void absurd_sizes_are_refused_before_anything_else_is_read(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 8, 16, 23, 4097, (size_t)1 << 40, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t *only_a_size = malloc(sizeof *only_a_size); /* a sanitizer sees any read beyond */
        *only_a_size = sizes[i];
        refused((ncclConfig_t *)(void *)only_a_size, "size");
        free(only_a_size);
    }
}

static void values_out_of_range_are_refused_by_name(void **state)
{
    (void)state;
    static const struct { const char *name; size_t offset; int value; } bad[] = {
        {"blocking", 16, 2}, {"blocking", 16, -1}, {"cgaClusterSize", 20, -1}, {"minCTAs", 24, 0}, {"minCTAs", 24, -5},
        {"maxCTAs", 28, 0}, {"splitShare", 40, 2}, {"splitShare", 40, -1}, {"collnetEnable", 56, 7}, {"CTAPolicy", 60, 4},
        {"CTAPolicy", 60, -1}, {"shrinkShare", 64, 2}, {"nvlsCTAs", 68, 0}, {"nChannelsPerNetPeer", 72, 0},
        {"nChannelsPerNetPeer", 72, 65}, {"nvlinkCentricSched", 76, 2}, {"graphUsageMode", 80, 3}, {"numRmaCtx", 84, -1},
        {"maxP2pPeers", 88, 0}, {"graphStreamOrdering", 92, 2},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        set_int(&config, bad[i].offset, bad[i].value);
        refused(&config, bad[i].name);
    }
}

static void fewest_above_most_is_refused(void **state)
{
    (void)state;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.minCTAs = 8;
    config.maxCTAs = 4;
    refused(&config, "maxCTAs");
    config.maxCTAs = 8;
    struct comm_config out;
    assert_int_equal(config_read("test", &config, NULL, &out), RAIL_OK);
    config.maxCTAs = NCCL_CONFIG_UNDEF_INT;
    assert_int_equal(config_read("test", &config, NULL, &out), RAIL_OK);
    assert_int_equal(out.min_channels, 8);
}

static void the_environment_has_the_last_word(void **state)
{
    (void)state;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    struct comm_config out;
    config.blocking = 1;
    config.minCTAs = 4;
    config.maxCTAs = 8;
    config.netName = "IB";
    setenv("NCCL_COMM_BLOCKING", "0", 1);
    setenv("NCCL_MIN_CTAS", "6", 1);
    setenv("NCCL_MAX_CTAS", "1000", 1);
    setenv("NCCL_NET", "Socket", 1);
    rail_params_reload();
    assert_int_equal(config_read("test", &config, NULL, &out), RAIL_OK);
    assert_false(out.blocking);
    assert_int_equal(out.min_channels, 6);
    assert_int_equal(out.max_channels, CONFIG_MAX_CHANNELS);
    assert_string_equal(out.net_name, "Socket");

    setenv("NCCL_MIN_CTAS", "0", 1); /* makes no sense: the program's value stays */
    setenv("NCCL_MAX_CTAS", "2", 1); /* below it: the upper limit rules */
    rail_params_reload();
    assert_int_equal(config_read("test", &config, NULL, &out), RAIL_OK);
    assert_int_equal(out.max_channels, 2);
    assert_int_equal(out.min_channels, 2);

    config.minCTAs = 0; /* a bad value is refused even where the environment would replace it */
    refused(&config, "minCTAs");
}

static int forget_environment(void **state)
{
    (void)state;
    static const char *const names[] = {"NCCL_COMM_BLOCKING", "NCCL_MIN_CTAS", "NCCL_MAX_CTAS", "NCCL_NET"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unsetenv(names[i]);
    rail_params_reload();
    return 0;
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(each_generation_gives_its_own_fields_and_defaults_for_the_rest),
        cmocka_unit_test(undefined_fields_are_left_to_the_default),
        cmocka_unit_test(null_and_the_initializer_mean_defaults),
        cmocka_unit_test(names_are_copied_and_long_ones_cut),
        cmocka_unit_test(names_of_generations_that_had_none_are_not_followed),
        cmocka_unit_test(a_structure_without_its_magic_number_is_refused),
        cmocka_unit_test(absurd_sizes_are_refused_before_anything_else_is_read),
        cmocka_unit_test(values_out_of_range_are_refused_by_name),
        cmocka_unit_test(fewest_above_most_is_refused),
        cmocka_unit_test_setup_teardown(the_environment_has_the_last_word, forget_environment, forget_environment),
    };
    return cmocka_run_group_tests(cases, forget_environment, NULL);
}
