/* A probe's datagram: read back as it was written, and nothing else is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/probe.h"

static const struct probe_datagram sample = {.kind = PROBE_ANSWER, .nic_from = 3, .nic_to = 15, .hops = 2,
                                             .node_from = 0x01020304, .node_to = 0xfffffffe, .number = 77};

static void it_is_read_back(void **state)
{
    (void)state;
    uint8_t key[32] = {1}, bytes[PROBE_BYTES];
    struct probe_datagram d;
    memset(&d, 0, sizeof d);
    probe_write(&sample, key, bytes);
    assert_true(probe_read(bytes, sizeof bytes, key, &d));
    assert_true(d.kind == sample.kind && d.nic_from == 3 && d.nic_to == 15 && d.hops == 2 && d.number == 77);
    assert_true(d.node_from == sample.node_from && d.node_to == sample.node_to);
}

static void any_flipped_bit_is_refused(void **state)
{
    (void)state;
    uint8_t key[32] = {1}, other[32] = {2}, bytes[PROBE_BYTES];
    struct probe_datagram d;
    probe_write(&sample, key, bytes);
    for (size_t bit = 0; bit < 8 * PROBE_BYTES; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(probe_read(bytes, sizeof bytes, key, &d));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_false(probe_read(bytes, sizeof bytes, other, &d)); /* another communicator's */
    for (size_t n = 0; n < PROBE_BYTES; n++) assert_false(probe_read(bytes, n, key, &d));
    assert_false(probe_read(bytes, PROBE_BYTES + 1, key, &d));
}

/* Under the right key, too: a member may be of another build, or broken. */
static void nonsense_is_refused(void **state)
{
    (void)state;
    uint8_t key[32] = {1}, bytes[PROBE_BYTES];
    struct probe_datagram d, bad = sample;
    bad.nic_to = RAILS_NICS_MAX;
    probe_write(&bad, key, bytes);
    assert_false(probe_read(bytes, sizeof bytes, key, &d));
    bad = sample;
    bad.kind = (enum probe_kind)4;
    probe_write(&bad, key, bytes);
    assert_false(probe_read(bytes, sizeof bytes, key, &d));
    bad.kind = (enum probe_kind)0;
    probe_write(&bad, key, bytes);
    assert_false(probe_read(bytes, sizeof bytes, key, &d));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_read_back),
        cmocka_unit_test(any_flipped_bit_is_refused),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
