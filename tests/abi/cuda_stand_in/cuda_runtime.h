/* Stands in for CUDA's header where there is no CUDA: what NVIDIA's nccl.h needs of it, and no more. */
#ifndef __CUDA_RUNTIME_API_H__
#define __CUDA_RUNTIME_API_H__
#define CUDART_VERSION 12000
typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t; /* NCCL 2.31 and later */
#endif
