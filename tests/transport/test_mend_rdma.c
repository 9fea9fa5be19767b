/* test_mend_rdma.c - the cases of test_mend.c on RDMA devices in memory. */
#define FIXTURE_RDMA
#include "transport/test_mend.c"
