/* test_net_rdma.c - what links deliver over TCP they deliver over RDMA: the cases of test_net.c on devices in memory. */
#define FIXTURE_RDMA
#include "transport/test_net.c"
