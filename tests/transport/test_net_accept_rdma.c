/* test_net_accept_rdma.c - the cases of test_net_accept.c on RDMA devices in memory. */
#define FIXTURE_RDMA
#include "transport/test_net_accept.c"
