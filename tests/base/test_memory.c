/* test_memory.c - sealed memfds, random bytes, and the quality of the table hash. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"

static void two_mappings_see_one_memory_that_begins_as_zeros(void **state)
{
    (void)state;
    enum { BYTES = 10000 }; /* not a multiple of the page */
    int fd;
    void *a, *b;
    assert_int_equal(rail_memfd_create("test", BYTES, &fd), RAIL_OK);
    assert_int_equal(rail_memfd_map(fd, BYTES, &a), RAIL_OK);
    assert_int_equal(rail_memfd_map(fd, BYTES, &b), RAIL_OK);
    for (int i = 0; i < BYTES; i++) assert_int_equal(((char *)b)[i], 0);
    ((char *)a)[BYTES - 1] = 7;
    assert_int_equal(((char *)b)[BYTES - 1], 7);
    rail_memory_unmap(a, BYTES);
    rail_memory_unmap(b, BYTES);
    close(fd);
}

static void the_descriptor_is_close_on_exec_and_its_size_fixed(void **state)
{
    (void)state;
    int fd;
    assert_int_equal(rail_memfd_create("test", 8192, &fd), RAIL_OK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, 16384), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_int_equal(errno, EPERM);
    close(fd);
}

static void a_large_memory_is_sparse(void **state)
{
    (void)state;
    int fd;
    void *p;
    size_t bytes = (size_t)1 << 40;
    assert_int_equal(rail_memfd_create("test", bytes, &fd), RAIL_OK);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_int_equal(rail_memfd_map(fd, bytes, &p), RAIL_OK);
    ((char *)p)[bytes - 1] = 1;
    rail_memory_unmap(p, bytes);
#else
    (void)p;
#endif
    close(fd);
}

static void what_is_unsealed_or_too_small_or_no_memfd_is_refused(void **state)
{
    (void)state;
    void *p = NULL;
    int fd = memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(rail_memfd_map(fd, 4096, &p), RAIL_E_REMOTE);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SEAL), 0); /* could still shrink */
    assert_int_equal(rail_memfd_map(fd, 4096, &p), RAIL_E_REMOTE);
    close(fd);
    assert_int_equal(rail_memfd_create("test", 4096, &fd), RAIL_OK);
    assert_int_equal(rail_memfd_map(fd, 4097, &p), RAIL_E_REMOTE);
    assert_non_null(strstr(rail_last_error(), "4097"));
    assert_int_equal(rail_memfd_map(fd, 0, &p), RAIL_E_ARGUMENT);
    close(fd);
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(rail_memfd_map(fd, 1, &p), RAIL_E_SYSTEM);
    close(fd);
    assert_int_equal(rail_memfd_map(-1, 1, &p), RAIL_E_SYSTEM);
    assert_null(p);
    rail_memory_unmap(NULL, 4096);
}

static void an_impossible_size_is_refused(void **state)
{
    (void)state;
    int fd = -7;
    assert_int_equal(rail_memfd_create("test", 0, &fd), RAIL_E_ARGUMENT);
    assert_int_equal(rail_memfd_create("test", SIZE_MAX, &fd), RAIL_E_ARGUMENT);
    assert_int_equal(fd, -7);
}

static void random_bytes_differ_and_fill_exactly_the_buffer(void **state)
{
    (void)state;
    unsigned char a[66] = {0}, b[64];
    rail_random(a + 1, 64);
    rail_random(b, 64);
    rail_random(NULL, 0);
    assert_memory_not_equal(a + 1, b, 64);
    assert_int_equal(a[0], 0);
    assert_int_equal(a[65], 0);
}

static void the_hash_depends_on_length_seed_and_content_but_not_on_alignment(void **state)
{
    (void)state;
    unsigned char zeros[64] = {0}, moved[72];
    for (size_t n = 0; n <= 64; n++)
        for (size_t m = 0; m < n; m++) assert_true(rail_hash64(zeros, n, 0) != rail_hash64(zeros, m, 0));
    assert_true(rail_hash64(zeros, 8, 0) != rail_hash64(zeros, 8, 1));
    assert_true(rail_hash64("ab", 2, 0) != rail_hash64("ba", 2, 0));
    for (int i = 0; i < 64; i++) zeros[i] = (unsigned char)i;
    for (int shift = 0; shift < 8; shift++) {
        memcpy(moved + shift, zeros, 64);
        assert_true(rail_hash64(moved + shift, 61, 5) == rail_hash64(zeros, 61, 5));
    }
}

static void the_hash_is_the_same_on_every_machine(void **state)
{
    (void)state;
    assert_true(rail_hash64("", 0, 0) == 0xc928e08b7166857fu);
    assert_true(rail_hash64("railccl", 7, 0) == 0xc5e07ac9d4ba82feu);
    assert_true(rail_hash64("railccl railccl!", 16, 42) == 0x387976126817d2e5u);
}

/* Flipping any one input bit flips each output bit about half of the time. */
static void one_input_bit_reaches_all_output_bits(void **state)
{
    (void)state;
    enum { BYTES = 24, TRIES = 400 };
    static int flips[BYTES * 8][64];
    unsigned char data[BYTES];
    for (int t = 0; t < TRIES; t++) {
        rail_random(data, BYTES);
        uint64_t base = rail_hash64(data, BYTES, 0);
        for (int bit = 0; bit < BYTES * 8; bit++) {
            data[bit / 8] ^= (unsigned char)(1 << bit % 8);
            uint64_t d = base ^ rail_hash64(data, BYTES, 0);
            data[bit / 8] ^= (unsigned char)(1 << bit % 8);
            for (int o = 0; o < 64; o++) flips[bit][o] += d >> o & 1;
        }
    }
    for (int bit = 0; bit < BYTES * 8; bit++)
        for (int o = 0; o < 64; o++) /* 200 expected, sigma 10: 7 sigma over 12288 cells */
            if (flips[bit][o] < 130 || flips[bit][o] > 270)
                fail_msg("input bit %d flips output bit %d %d times of %d", bit, o, flips[bit][o], TRIES);
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void small_integers_do_not_collide_even_in_32_bits_more_than_by_chance(void **state)
{
    (void)state;
    enum { N = 100000 };
    uint64_t *h = malloc(N * sizeof *h);
    assert_non_null(h);
    for (uint64_t i = 0; i < N; i++) {
        uint64_t pair[2] = {i % 317, i / 317}; /* like (rank, sequence) */
        h[i] = rail_hash64(pair, sizeof pair, 0) & UINT32_MAX;
    }
    qsort(h, N, sizeof *h, ascending);
    int same = 0;
    for (int i = 1; i < N; i++) same += h[i] == h[i - 1];
    assert_in_range(same, 0, 8); /* N^2 / 2^33 = 1.16 expected */
    free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_mappings_see_one_memory_that_begins_as_zeros),
        cmocka_unit_test(the_descriptor_is_close_on_exec_and_its_size_fixed),
        cmocka_unit_test(a_large_memory_is_sparse),
        cmocka_unit_test(what_is_unsealed_or_too_small_or_no_memfd_is_refused),
        cmocka_unit_test(an_impossible_size_is_refused),
        cmocka_unit_test(random_bytes_differ_and_fill_exactly_the_buffer),
        cmocka_unit_test(the_hash_depends_on_length_seed_and_content_but_not_on_alignment),
        cmocka_unit_test(the_hash_is_the_same_on_every_machine),
        cmocka_unit_test(one_input_bit_reaches_all_output_bits),
        cmocka_unit_test(small_integers_do_not_collide_even_in_32_bits_more_than_by_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
