/* capture.c */
#include "emulated_cuda/state.h"
CUresult capture_forbids(const char *call) { (void)call; return CUDA_SUCCESS; }
CUresult capture_work(struct stream *stream, struct work *work) { (void)stream; work_clear(work); return CUDA_ERROR_UNKNOWN; }
CUresult capture_record(struct stream *stream, struct event *event) { (void)stream, (void)event; return CUDA_ERROR_UNKNOWN; }
CUresult capture_join(struct stream *stream, struct event *event) { (void)stream, (void)event; return CUDA_ERROR_UNKNOWN; }
bool capture_runs(const struct event *event) { (void)event; return false; }
CUresult capture_breaks(struct stream *stream) { (void)stream; return CUDA_ERROR_UNKNOWN; }
bool capture_blocks_legacy(struct context *context) { (void)context; return false; }
void capture_forget(struct stream *stream) { (void)stream; }
