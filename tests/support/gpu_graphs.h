/* gpu_graphs.h - graphs of GPU work: the driver's calls that the library does not need, and tests do. */
#ifndef TESTS_SUPPORT_GPU_GRAPHS_H
#define TESTS_SUPPORT_GPU_GRAPHS_H

#include "foreign/cuda.h"

typedef struct CUgraphExec_st *graph_exec;
struct gpu_graphs {
    cu_result (*begin)(cu_stream, int mode);
    cu_result (*end)(cu_stream, cu_graph *);
    cu_result (*make)(graph_exec *, cu_graph, unsigned long long flags);
    cu_result (*launch)(graph_exec, cu_stream);
    cu_result (*exec_destroy)(graph_exec);
    cu_result (*destroy)(cu_graph);
};
extern struct gpu_graphs graphs;

/* Before the first of them; aborts the test where there is no driver. */
void graphs_find(void);

#endif
