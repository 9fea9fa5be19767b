/* test_net_move_rdma.c - the cases of test_net_move.c on RDMA devices in memory. */
#define FIXTURE_RDMA
#include "transport/test_net_move.c"
