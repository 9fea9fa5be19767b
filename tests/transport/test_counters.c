/* test_counters.c - what RDMA devices count of their troubles, laid out as files: each vendor's names come to the same words. */
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "transport/link/counters.h"

/* ---- a machine as files ---- */

static char root[] = "/tmp/counters-XXXXXX";

static void lay(const char *device, const char *name, const char *text)
{
    static const char *const folders[] = {"", "/ports", "/ports/1", "/ports/1/counters", "/ports/1/hw_counters"};
    char path[400];
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s/sys/class/infiniband/%.32s%s", root, device, folders[i]);
        (void)mkdir(path, 0700); /* it may be there */
    }
    snprintf(path, sizeof path, "%s/sys/class/infiniband/%.32s/ports/1/%.64s", root, device, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int begin(void **state)
{
    static const char *const folders[] = {"/sys", "/sys/class", "/sys/class/infiniband"};
    char path[100];
    (void)state;
    if (!mkdtemp(root)) return -1;
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s%s", root, folders[i]);
        if (mkdir(path, 0700) != 0) return -1;
    }
    return 0;
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *walk)
{
    (void)s, (void)type, (void)walk;
    return remove(path);
}
static int end(void **state) { return (void)state, nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

static struct rdma_counters read_of(const char *device)
{
    struct rdma_counters c;
    rdma_counters_read(root, device, 1, &c);
    return c;
}

static void says(const struct rdma_counters *before, const struct rdma_counters *now, const char *wanted)
{
    char text[RDMA_COUNTERS_TEXT];
    rdma_counters_text(before, now, text);
    assert_string_equal(text, wanted);
}

/* ---- cases ---- */

static const struct { const char *what, *device, *files[8], *says; } vendors[] = {
    {"mlx5", "mlx5_0", {"hw_counters/packet_seq_err", "2\n", "hw_counters/local_ack_timeout_err", "1\n",
                        "hw_counters/out_of_sequence", "7\n", "hw_counters/np_cnp_sent", "40\n"},
     "3 packets sent again, 7 packets out of order, 40 notices of congestion"},
    {"mlx5, worse", "mlx5_1", {"hw_counters/roce_adp_retrans", "5\n", "hw_counters/rnr_nak_retry_err", "1\n",
                               "hw_counters/req_transport_retries_exceeded", "1\n", "counters/link_downed", "2\n"},
     "5 packets sent again, 1 message without a receive, 1 request given up, 2 link failures"},
    {"bnxt", "bnxt_re0", {"hw_counters/to_retransmits", "1\n", "hw_counters/oos_drop_count", "1\n"},
     "1 packet sent again, 1 packet out of order"},
    {"irdma", "irdma0", {"hw_counters/cnpHandled", "1\n", "hw_counters/RxECNMrkd", "2\n"}, "3 notices of congestion"},
    {"Soft-RoCE", "rxe0", {"hw_counters/completer_retry_err", "4\n", "hw_counters/link_downed", "1\n"},
     "4 packets sent again, 1 link failure"},
    {"InfiniBand", "hfi1_0", {"counters/symbol_error", "9\n", "counters/link_downed", "0\n"}, "9 symbol errors"},
};

static void every_vendors_names_come_to_the_same_words(void **state)
{
    static const struct rdma_counters nothing;
    (void)state;
    for (size_t i = 0; i < sizeof vendors / sizeof *vendors; i++) {
        for (int k = 0; k < 8 && vendors[i].files[k]; k += 2) lay(vendors[i].device, vendors[i].files[k], vendors[i].files[k + 1]);
        struct rdma_counters c = read_of(vendors[i].device);
        says(&nothing, &c, vendors[i].says);
    }
}

static void only_what_has_grown_is_said(void **state)
{
    (void)state;
    lay("rxe1", "hw_counters/completer_retry_err", "100\n");
    lay("rxe1", "hw_counters/out_of_seq_request", "7\n");
    struct rdma_counters before = read_of("rxe1");
    says(&before, &before, "");
    lay("rxe1", "hw_counters/completer_retry_err", "101\n");
    struct rdma_counters now = read_of("rxe1");
    says(&before, &now, "1 packet sent again");
    says(&now, &before, ""); /* the driver was loaded anew */
}

static void what_cannot_be_read_is_nothing(void **state)
{
    static const struct rdma_counters nothing;
    (void)state;
    struct rdma_counters absent = read_of("no_such_device");
    says(&nothing, &absent, "");
    lay("odd", "counters/symbol_error", "N/A (no PMA)\n");
    lay("odd", "hw_counters/np_cnp_sent", "");
    lay("odd", "hw_counters/out_of_sequence", "-1\n");
    struct rdma_counters odd = read_of("odd");
    says(&nothing, &odd, "");
}

static void all_of_it_at_its_largest_fits_into_the_text(void **state)
{
    static const struct rdma_counters nothing;
    struct rdma_counters most;
    char text[RDMA_COUNTERS_TEXT + 8];
    (void)state;
    for (int i = 0; i < RDMA_TROUBLES; i++) most.n[i] = UINT64_MAX;
    for (int i = 0; i < 8; i++) text[RDMA_COUNTERS_TEXT + i] = 'x';
    rdma_counters_text(&nothing, &most, text);
    for (int i = 0; i < 8; i++) assert_int_equal(text[RDMA_COUNTERS_TEXT + i], 'x');
    for (int i = 0; i < RDMA_TROUBLES; i++) most.n[i] = 999999999;
    rdma_counters_text(&nothing, &most, text);
    assert_non_null(strstr(text, "999999999 symbol errors"));
}

/* ---- firmware that hangs ---- */

/* A pipe's reader waits for a writer. */
static void a_device_that_does_not_answer_is_not_waited_for(void **state)
{
    (void)state;
    char path[200];
    struct rdma_reading *reading = NULL;
    struct rdma_counters c;
    lay("slow", "hw_counters/packet_seq_err", "7");
    snprintf(path, sizeof path, "%s/sys/class/infiniband/slow/ports/1/hw_counters/packet_seq_err", root);
    assert_true(rdma_counters_read_within(10 * RAIL_NS_PER_S, root, "slow", 1, &reading, &c));
    assert_int_equal(c.n[RDMA_SENT_AGAIN], 7);
    assert_int_equal(remove(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    uint64_t began_ns = rail_now_ns();
    assert_false(rdma_counters_read_within(20 * RAIL_NS_PER_MS, root, "slow", 1, &reading, &c));
    assert_true(rail_now_ns() - began_ns < 5 * RAIL_NS_PER_S); /* it would be for ever */
    assert_false(rdma_counters_read_within(10 * RAIL_NS_PER_S, root, "slow", 1, &reading, &c)); /* the first is at it */
    assert_true(rail_now_ns() - began_ns < 5 * RAIL_NS_PER_S);
    int answers = open(path, O_WRONLY);
    assert_true(answers >= 0);
    assert_int_equal(remove(path), 0);
    assert_int_equal(write(answers, "9", 1), 1);
    close(answers);
    lay("slow", "hw_counters/packet_seq_err", "12"); /* what it read then is old */
    bool read = false;
    for (int i = 0; i < 10000 && !read; i++, usleep(1000))
        read = rdma_counters_read_within(10 * RAIL_NS_PER_S, root, "slow", 1, &reading, &c);
    assert_true(read);
    assert_int_equal(c.n[RDMA_SENT_AGAIN], 12);
    rdma_reading_leave(reading);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vendors_names_come_to_the_same_words),
        cmocka_unit_test(only_what_has_grown_is_said),
        cmocka_unit_test(what_cannot_be_read_is_nothing),
        cmocka_unit_test(all_of_it_at_its_largest_fits_into_the_text),
        cmocka_unit_test(a_device_that_does_not_answer_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
