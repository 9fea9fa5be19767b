/* Stands in for CUDA's header: nccl.h uses nothing of it. */
