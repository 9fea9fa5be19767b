/* nccl.h - the NCCL interface, version 2.30.7, as railccl provides it.
 *
 * Same names, values, sizes and offsets as NVIDIA's header of that version, so programs compiled against either run
 * with either library. No CUDA header is needed; CUDA's may be included before or after this one.
 *
 * Words used below. n is the number of ranks of the communicator. `count` is in elements of `datatype`, sizes are in
 * bytes. A buffer lies in the memory of the rank's device: GPU memory on a GPU rank, ordinary memory on a host rank
 * (RAILCCL_DEVICE). It belongs to the caller, who leaves it alone until the operation is complete.
 *
 * Completion. Operations are queued on `stream` and complete in its order. On a host rank the streams NULL, legacy
 * and per-thread all mean that the operation is complete when the call returns.
 *
 * Results. Every call returns one of ncclResult_t; ncclGetLastError() says what went wrong and what to do about it.
 * A call that this release does not provide yet returns ncclInvalidUsage and its text says so; nothing answers
 * ncclSuccess without having done its work. Calls marked "not provided yet" below are of that kind.
 *
 * Threads. One thread at a time inside the calls of one communicator, except ncclCommGetAsyncError, ncclCommAbort and
 * ncclCommRevoke, which any thread may call at any time. Different communicators are independent. A group belongs to
 * its thread.
 *
 * fork(). Communicators stay the parent's, who works on with them. In the child their calls are refused
 * (ncclInvalidUsage), ncclCommDestroy and ncclCommAbort forget the handle, and new communicators may be made.
 *
 * Profiling. Each ncclName is a weak name for pncclName: a tool may define ncclName itself and call pncclName. */
#ifndef NCCL_H_
#define NCCL_H_

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

/* Programs that nvcc compiles expect CUDA's types to come with this header, as they do with NVIDIA's. */
#ifdef __CUDACC__
#include <cuda_runtime.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#if defined(__cplusplus) && CUDART_VERSION >= 11080
#include <cuda_fp8.h>
#endif
#endif

/* With RAILCCL_NCCL_2_27 defined this is NCCL 2.27.7's interface: what came later is hidden. For programs that are
 * written for any version and, from 2.28 on, use what railccl does not have: nccl-tests and others then write kernels on
 * the device half of nccl_device.h. The library is the same, and takes both kinds of programs. */
#define NCCL_MAJOR 2
#ifdef RAILCCL_NCCL_2_27
#  define NCCL_MINOR 27
#  define NCCL_PATCH 7
#  define NCCL_VERSION_CODE 22707
#else
#define NCCL_MINOR 30
#define NCCL_PATCH 7
#define NCCL_VERSION_CODE 23007
#endif
#define NCCL_SUFFIX ""

/* One integer per version, rising with it: 2.8 and older had one digit for the minor number, 2.9 and newer have two. */
#define NCCL_VERSION(X, Y, Z) \
    (((X) <= 2 && (Y) <= 8) ? (X) * 1000 + (Y) * 100 + (Z) : (X) * 10000 + (Y) * 100 + (Z))

#ifdef __cplusplus
extern "C" {
#endif

/* CUDA's own declaration is the same; repeating it is an error only in C99. */
#if !defined(__DRIVER_TYPES_H__) && !defined(__CUDA_RUNTIME_API_H__)
typedef struct CUstream_st *cudaStream_t;
#endif

typedef struct ncclComm *ncclComm_t;            /* a communicator; made by the init calls, freed by Destroy or Abort */
typedef struct ncclWindow_vidmem *ncclWindow_t; /* a buffer registered with all ranks of a communicator */
#define NCCL_COMM_NULL NULL

/* Carries what the ranks need to find one another. Opaque; copy it byte by byte by any means you have. */
#define NCCL_UNIQUE_ID_BYTES 128
typedef struct { char internal[NCCL_UNIQUE_ID_BYTES]; } ncclUniqueId;

typedef enum {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1, /* the GPU driver refused */
    ncclSystemError = 2,        /* the operating system or the network refused */
    ncclInternalError = 3,      /* a bug in the library */
    ncclInvalidArgument = 4,    /* a bad value was passed; communicator and group stay usable */
    ncclInvalidUsage = 5,       /* good values at the wrong moment, or a call that is not provided */
    ncclRemoteError = 6,        /* another rank died, failed, disagreed, or did not come in time */
    ncclInProgress = 7,         /* non-blocking communicators: ask ncclCommGetAsyncError again */
#if NCCL_VERSION_CODE >= 22800
    ncclTimeout = 8,            /* never returned by railccl: programs built before 2.30 take 8 for ncclNumResults */
    ncclNumResults = 9
#else
    ncclNumResults = 8
#endif
} ncclResult_t;

typedef enum {
    ncclInt8 = 0, ncclChar = 0,
    ncclUint8 = 1,
    ncclInt32 = 2, ncclInt = 2,
    ncclUint32 = 3,
    ncclInt64 = 4,
    ncclUint64 = 5,
    ncclFloat16 = 6, ncclHalf = 6,
    ncclFloat32 = 7, ncclFloat = 7,
    ncclFloat64 = 8, ncclDouble = 8,
    ncclBfloat16 = 9,
    ncclFloat8e4m3 = 10,
    ncclFloat8e5m2 = 11,
    ncclNumTypes = 12
} ncclDataType_t;

/* Values from ncclNumOps to ncclMaxRedOp are operators made at run time by ncclRedOpCreatePreMulSum. */
typedef enum {
    ncclSum = 0,
    ncclProd = 1,
    ncclMax = 2,
    ncclMin = 3,
    ncclAvg = 4, /* floating point: inputs times 1/n are summed; integers: the sum is divided by n at the end */
    ncclNumOps = 5,
    ncclMaxRedOp = 0x7fffffff
} ncclRedOp_t;

/* ---- Configuration of a communicator ---------------------------------------------------------------------------- */

#define NCCL_API_MAGIC 0xcafebeef
#define NCCL_CONFIG_UNDEF_INT INT_MIN /* "I do not say": the default, or the environment, decides */
#define NCCL_CONFIG_UNDEF_PTR NULL
#define NCCL_UNDEF_FLOAT -1.0f

#define NCCL_CTA_POLICY_DEFAULT 0x00
#define NCCL_CTA_POLICY_EFFICIENCY 0x01
#if NCCL_VERSION_CODE >= 22800
#define NCCL_CTA_POLICY_ZERO 0x02
#endif

/* Initialise with NCCL_CONFIG_INITIALIZER, then set what you mean. `size` and `version` tell the library which
 * generation of this structure the program was compiled with; all since 2.14 are understood, and of a newer one the
 * part known here. Where an environment variable exists for a field, the variable wins. */
typedef struct ncclConfig_v23000 {
    size_t size;            /* by the initialiser */
    unsigned int magic;     /* by the initialiser */
    unsigned int version;   /* by the initialiser */
    int blocking;           /* 1 (default): calls return when done; 0: see ncclCommInitRankConfig */
    int cgaClusterSize;     /* blocks per cluster, >= 0; no effect on a host rank */
    int minCTAs;            /* fewest channels, >= 1 */
    int maxCTAs;            /* most channels, >= minCTAs */
    const char *netName;    /* which network transport, e.g. "Socket"; copied */
    int splitShare;         /* 1: communicators made by ncclCommSplit share the parent's resources */
    int trafficClass;       /* class of network packets (InfiniBand, RoCE) */
    const char *commName;   /* a name for messages; copied */
    int collnetEnable;      /* 1: reductions in switches; no effect here */
    int CTAPolicy;          /* NCCL_CTA_POLICY_* */
    int shrinkShare;        /* 1: communicators made by ncclCommShrink share the parent's resources */
    int nvlsCTAs;           /* blocks for multicast memory, >= 1; no effect on a host rank */
#if NCCL_VERSION_CODE >= 22800
    int nChannelsPerNetPeer; /* channels per network peer, >= 1 */
    int nvlinkCentricSched; /* 1: prefer NVLink in point-to-point schedules */
    int graphUsageMode;     /* 0: no CUDA graphs, 1: one graph at a time, 2: graphs mixed with plain launches */
    int numRmaCtx;          /* contexts for one-sided operations, >= 0 */
    int maxP2pPeers;        /* point-to-point peers to make room for, >= 1 */
    int graphStreamOrdering; /* 1: captured operations keep the order of the stream */
#endif
} ncclConfig_t;

#if NCCL_VERSION_CODE >= 22800
#define NCCL_CONFIG_INITIALIZER_AFTER_2_27                                                                             \
    , NCCL_CONFIG_UNDEF_INT /* nChannelsPerNetPeer */, NCCL_CONFIG_UNDEF_INT /* nvlinkCentricSched */,                 \
        NCCL_CONFIG_UNDEF_INT /* graphUsageMode */, NCCL_CONFIG_UNDEF_INT /* numRmaCtx */,                             \
        NCCL_CONFIG_UNDEF_INT /* maxP2pPeers */, NCCL_CONFIG_UNDEF_INT /* graphStreamOrdering */
#else
#define NCCL_CONFIG_INITIALIZER_AFTER_2_27
#endif
#define NCCL_CONFIG_INITIALIZER                                                                                        \
    {                                                                                                                  \
        sizeof(ncclConfig_t), NCCL_API_MAGIC, NCCL_VERSION_CODE, NCCL_CONFIG_UNDEF_INT /* blocking */,                 \
            NCCL_CONFIG_UNDEF_INT /* cgaClusterSize */, NCCL_CONFIG_UNDEF_INT /* minCTAs */,                           \
            NCCL_CONFIG_UNDEF_INT /* maxCTAs */, NCCL_CONFIG_UNDEF_PTR /* netName */,                                  \
            NCCL_CONFIG_UNDEF_INT /* splitShare */, NCCL_CONFIG_UNDEF_INT /* trafficClass */,                          \
            NCCL_CONFIG_UNDEF_PTR /* commName */, NCCL_CONFIG_UNDEF_INT /* collnetEnable */,                           \
            NCCL_CONFIG_UNDEF_INT /* CTAPolicy */, NCCL_CONFIG_UNDEF_INT /* shrinkShare */,                            \
            NCCL_CONFIG_UNDEF_INT /* nvlsCTAs */ NCCL_CONFIG_INITIALIZER_AFTER_2_27                                    \
    }

/* ---- Version, errors, log --------------------------------------------------------------------------------------- */

/* Writes NCCL_VERSION_CODE of the library that is running. ncclInvalidArgument: version is NULL. Any thread. */
ncclResult_t ncclGetVersion(int *version);

/* A fixed text for a result; never NULL, never to be freed; "unknown result code" for other values. Any thread. */
const char *ncclGetErrorString(ncclResult_t result);

/* The text of the last failure in this process, "" when there was none; never NULL. `comm` may be NULL: it is not
 * looked at. The text is the calling thread's copy: valid until its next call of this function. Any thread. */
const char *ncclGetLastError(ncclComm_t comm);

/* Reads NCCL_DEBUG and its sisters from the environment again. Any thread. */
void ncclResetDebugInit(void) __attribute__((deprecated("set NCCL_DEBUG before the first call instead")));

/* ---- Making communicators --------------------------------------------------------------------------------------- */

/* Opens this process's meeting point and writes an id that leads there. Call it on one rank and pass the 128 bytes to
 * the others by any means; the process must live until all ranks have joined. One id makes one communicator.
 * With NCCL_COMM_ID=address:port nothing is opened here: rank 0 listens at that address in ncclCommInitRank.
 * ncclInvalidArgument: NULL. ncclSystemError: no usable network interface, or no socket to be had. Any thread. */
ncclResult_t ncclGetUniqueId(ncclUniqueId *uniqueId);

/* Joins rank `rank` of `nranks` (0 <= rank < nranks) to the communicator of `commId`; returns when all ranks have
 * joined. *comm is written on success only and belongs to the caller. On a GPU rank the current device is taken.
 * ncclInvalidArgument: NULL, or rank out of range. ncclRemoteError: the root is not reachable, ranks are missing at the
 * deadline (the text names them), or two ranks gave the same number. Not inside a group with other kinds of calls. */
ncclResult_t ncclCommInitRank(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank);

/* The same with a configuration; NULL means defaults. ncclInvalidArgument also for a configuration without its magic
 * number or with a value out of range: the text names the field.
 *
 * config->blocking = 0: this call, and ncclCommSplit, ncclCommShrink, ncclCommGrow and ncclCommFinalize of such a
 * communicator, return ncclInProgress at once, and a thread of the library's goes on. The new handle is written at once
 * (NULL where NCCL_SPLIT_NOCOLOR gets none). Until ncclCommGetAsyncError says something else than ncclInProgress, a
 * handle answers only that, ncclCommAbort and ncclCommDestroy, be it the new one or that of which it is made; if it
 * then is a failure, the handle is good for those three only. Operations complete as with blocking = 1. */
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t *config);

/* The same with a list of `nId` >= 1 ids, the same list on every rank. NCCL spreads a large start over them; here the
 * ranks join in a tree below the first, and the others are not used. */
ncclResult_t ncclCommInitRankScalable(ncclComm_t *newcomm, int nranks, int myrank, int nId, ncclUniqueId *commIds,
                                      ncclConfig_t *config);

/* Makes a communicator of `ndev` ranks, all in this process, and writes rank i's handle to comm[i]. devlist[i] is rank
 * i's device, NULL means 0 .. ndev-1; host ranks have no device and take any list. */
ncclResult_t ncclCommInitAll(ncclComm_t *comm, int ndev, const int *devlist);

#if NCCL_VERSION_CODE >= 22800
/* An id for ncclCommGrow of `comm`, made by one member, which passes it to that call and to the new ranks. Its process
 * must live until all have joined. Errors as of ncclGetUniqueId, and of `comm`. */
ncclResult_t ncclCommGetUniqueId(ncclComm_t comm, ncclUniqueId *uniqueId);

/* Makes a communicator of `nRanks` ranks out of one of fewer. Its members keep their numbers: they pass it with rank
 * -1; the one that made the id passes that, the others may pass NULL or the same. New ranks pass comm NULL, the id, and
 * their numbers, from the old count on. Collective over all of them. The old communicator works on.
 * config NULL: members the old one's, new ranks defaults. ncclInvalidArgument: newcomm NULL, nRanks not more than there
 * are, a rank that does not fit. ncclInvalidUsage: members disagree about nRanks or the id, or none has one.
 * ncclRemoteError: as of ncclCommInitRank. */
ncclResult_t ncclCommGrow(ncclComm_t comm, int nRanks, const ncclUniqueId *uniqueId, int rank, ncclComm_t *newcomm,
                          ncclConfig_t *config);
#endif

/* Members that pass the same color >= 0 make a communicator of their own, ordered by key, then by old rank;
 * NCCL_SPLIT_NOCOLOR takes part and gets NULL. config NULL: the parent's. Collective over all ranks of `comm`, which
 * works on; the new one lives independently of it. No unique id and no meeting point are needed. In a group the splits
 * of one communicator run in call order, and *newcomm is written by its end.
 * ncclInvalidArgument: newcomm NULL, another negative color, a bad configuration. ncclRemoteError: a rank is gone, or
 * did not call within RAILCCL_INIT_TIMEOUT_S; then `comm` has failed as well. */
#define NCCL_SPLIT_NOCOLOR -1
ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *newcomm, ncclConfig_t *config);

/* Makes a communicator of all ranks but the `excludeRanksCount` listed ones, who do not call; old order, numbered anew.
 * The others all call with the same list, in any order. Meant for a communicator that lost ranks: nothing of it is
 * needed but its members, so it may have failed in any way; afterwards it waits for ncclCommAbort or ncclCommDestroy. A
 * healthy one works on. NCCL_SHRINK_ABORT first stops the operations that other threads of this process have running
 * in it, which return with an error; after that it is good for shrinking and ending only.
 * ncclInvalidArgument: newcomm NULL, a rank in the list that is out of range, stands twice, or is this one; no rank
 * left. ncclRemoteError: one more has died, which is then named within a second or two (shrink again without that one,
 * too); or the others did not come within RAILCCL_INIT_TIMEOUT_S, or gave another list. */
#define NCCL_SHRINK_DEFAULT 0x00
#define NCCL_SHRINK_ABORT 0x01
ncclResult_t ncclCommShrink(ncclComm_t comm, int *excludeRanksList, int excludeRanksCount, ncclComm_t *newcomm,
                            ncclConfig_t *config, int shrinkFlags);

/* ---- Ending communicators and hearing of failures --------------------------------------------------------------- */

/* Completes what was queued: waits until the peers have taken everything that this rank sent (at most
 * RAILCCL_FINALIZE_TIMEOUT_S; then ncclRemoteError). Collective. Afterwards only ncclCommDestroy, ncclCommAbort,
 * ncclCommGetAsyncError and questions may be called, and ncclCommDestroy is local. With blocking = 0:
 * ncclInProgress. */
ncclResult_t ncclCommFinalize(ncclComm_t comm);

/* Frees the communicator; finalizes first if that was not done. In progress: waits for that to end, well or not. NULL
 * is allowed and does nothing. */
ncclResult_t ncclCommDestroy(ncclComm_t comm);

/* Stops whatever the communicator is doing, in bounded time, and frees it. Calls of other threads that are inside this
 * communicator return with an error; what is in progress ends by itself. NULL is allowed and does nothing. Any
 * thread. */
ncclResult_t ncclCommAbort(ncclComm_t comm);

#if NCCL_VERSION_CODE >= 22800
/* Stops the operations of a communicator on all its ranks and keeps it: calls that are inside it, here and elsewhere,
 * return with ncclInvalidUsage and a text that says who revoked it, as do all later operations and ncclCommFinalize; so
 * does a split or a grow that is under way, while a shrink goes on. One rank's call is enough; several may call, and call
 * again. The others hear of it within some milliseconds, also when they are in no call: their ncclCommGetAsyncError says
 * ncclInvalidUsage, that of a rank which called this itself ncclSuccess, since it is quiet there. (NCCL itself does not
 * tell other ranks.) Afterwards the communicator can be asked, split, grown, shrunk, destroyed and aborted. Where a rank
 * has died before, that stays the news: the communicator can be shrunk without it. Returns when no operation of this rank
 * is running any more. Not for one that is still being made (blocking = 0): ncclInvalidUsage; ncclCommAbort ends that.
 * revokeFlags must be NCCL_REVOKE_DEFAULT. Any thread. */
#define NCCL_REVOKE_DEFAULT 0x00
ncclResult_t ncclCommRevoke(ncclComm_t comm, int revokeFlags);
#endif

/* Writes the state of the communicator: ncclSuccess, ncclInProgress, or the first failure, whose text is then
 * ncclGetLastError's. Any thread, at any time before ncclCommDestroy or ncclCommAbort returned; after that
 * ncclInvalidArgument. */
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *asyncError);

/* ---- Asking a communicator -------------------------------------------------------------------------------------- */

/* Write n, the device number (-1 on a host rank), and the rank 0 .. n-1. ncclInvalidArgument: NULL, or no
 * communicator. */
ncclResult_t ncclCommCount(const ncclComm_t comm, int *count);
ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device);
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank);

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

/* `size` bytes of memory on the current device (page-aligned zeroed host memory on a machine without one, which other
 * processes of the host can map when it is registered as a window; a forked child shares it); freed with
 * ncclMemFree by any thread. ncclMemFree(NULL) does nothing. ncclSystemError, ncclUnhandledCudaError: no memory. */
ncclResult_t ncclMemAlloc(void **ptr, size_t size);
ncclResult_t ncclMemFree(void *ptr);

/* Registers [buff, buff + size) so that operations may use it without staging; the handle ends with Deregister, which
 * must come before the memory is freed, or with the communicator. Local. Ranges may overlap; each call gives a handle
 * of its own. Host memory needs no registration; RDMA devices send from what is registered (or ncclMemAlloc's) without a copy,
 * and calls that use it so return when their receivers have taken what is sent.
 * ncclInvalidArgument: NULL, size 0, or a handle that is not alive in this communicator. */
ncclResult_t ncclCommRegister(const ncclComm_t comm, void *buff, size_t size, void **handle);
ncclResult_t ncclCommDeregister(const ncclComm_t comm, void *handle);

/* Registers a buffer of every rank with all of them, as the target of ncclPutSignal (between ranks on GPUs: within a
 * host), and for collectives: in host memory of ncclMemAlloc the ranks of a host read and write one another's registered
 * buffers where they are. Collective, as is Deregister: all ranks call them in the same order. Sizes may differ; a rank
 * without a part passes NULL and 0 and gets a handle, too.
 * No alignment is asked for. winFlags are alike on all ranks; with NCCL_WIN_COLL_SYMMETRIC sizes are, too. Deregister
 * returns when everything that ranks had put into the window before their own call of it is there; the memory must live
 * until then. After a call that failed, a peer that was stopped for more than 50 ms in the middle of a copy may still
 * write into a registered output: put other memory to use, or free this (which is safe). In a group windows are registered before its operations run and end after them. Windows that are left end
 * with the communicator. win NULL is allowed in Deregister and does nothing.
 * ncclInvalidArgument: bad flags, NULL with a size, a window of another communicator or none. ncclInvalidUsage: ranks
 * passed different flags or sizes (the text says which); that leaves the communicator usable. */
#define NCCL_WIN_DEFAULT 0x00
#define NCCL_WIN_COLL_SYMMETRIC 0x01  /* every rank passes the same size, at the same offset in its symmetric memory */
#if NCCL_VERSION_CODE >= 22800
#define NCCL_WIN_STRICT_ORDERING 0x02 /* writes into the window appear in order: they always do here */
#endif
#define NCCL_WIN_REQUIRED_ALIGNMENT 4096
ncclResult_t ncclCommWindowRegister(ncclComm_t comm, void *buff, size_t size, ncclWindow_t *win, int winFlags);
ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t win);
#if NCCL_VERSION_CODE >= 22800
/* Writes the address that was given to ncclCommWindowRegister. */
ncclResult_t ncclWinGetUserPtr(ncclComm_t comm, ncclWindow_t win, void **outUserPtr);

/* Suspend gives memory back that an idle communicator holds for its operations (staging windows, slots); collective, it
 * returns when all ranks have given back. `flags` must be NCCL_SUSPEND_MEM. Until Resume only questions,
 * ncclCommMemStats, ncclCommDestroy and ncclCommAbort are admitted; other calls return ncclInvalidUsage. On host memory
 * Resume is local, and the memory is taken again when operations touch it. Where a rank is on a GPU, Resume is collective
 * and takes it at once: if a device has none left, ncclUnhandledCudaError there and ncclRemoteError on the others, which
 * may all try again later; captured graphs must not be launched in between. Both block also with blocking = 0.
 * ncclRemoteError: a rank is gone, or did not call within RAILCCL_INIT_TIMEOUT_S. */
#define NCCL_SUSPEND_MEM 0x01
ncclResult_t ncclCommSuspend(ncclComm_t comm, int flags);
ncclResult_t ncclCommResume(ncclComm_t comm);

typedef enum {
    ncclStatGpuMemSuspend = 0,   /* bytes that ncclCommSuspend would give back now */
    ncclStatGpuMemSuspended = 1, /* 1 while suspended, else 0 */
    ncclStatGpuMemPersist = 2,   /* bytes that stay */
    ncclStatGpuMemTotal = 3      /* bytes altogether */
} ncclCommMemStat_t;
/* Writes one figure about the memory behind this rank of the communicator: on a host rank of host memory, and only what
 * is really there, since windows and slots take memory when they are first touched. ncclInvalidArgument: NULL, or
 * another `stat`. */
ncclResult_t ncclCommMemStats(ncclComm_t comm, ncclCommMemStat_t stat, uint64_t *value);
#endif

/* ---- Operators made at run time --------------------------------------------------------------------------------- */

typedef enum {
    ncclScalarDevice = 0,       /* read when the operation runs */
    ncclScalarHostImmediate = 1 /* read before the call returns */
} ncclScalarResidence_t;

/* Makes the operator sum over ranks of scalar * input. `scalar` points to one element of `datatype`; ranks may pass
 * different ones. The operator is valid on this rank of this communicator, for this type, until ncclRedOpDestroy, which
 * may come before operations that use it are complete. */
ncclResult_t ncclRedOpCreatePreMulSum(ncclRedOp_t *op, void *scalar, ncclDataType_t datatype,
                                      ncclScalarResidence_t residence, ncclComm_t comm);
ncclResult_t ncclRedOpDestroy(ncclRedOp_t op, ncclComm_t comm);

/* ---- Collectives ------------------------------------------------------------------------------------------------ */

/* All ranks call the same collectives in the same order with the same count, type, operator and root. With count 0 a
 * collective does nothing and succeeds. Errors of all of them: ncclInvalidArgument (bad communicator, type, operator,
 * root, stream, or NULL buffer), ncclInvalidUsage, ncclRemoteError (a rank is gone; see ncclCommGetAsyncError). */

/* recvbuff[i] = op over all ranks of sendbuff[i], 0 <= i < count, with identical bits on all ranks.
 * In place: sendbuff == recvbuff; otherwise the buffers must not overlap. */
ncclResult_t ncclAllReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream);

/* The same, at `root` only; recvbuff is not looked at on other ranks. */
ncclResult_t ncclReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op,
                        int root, ncclComm_t comm, cudaStream_t stream);

/* recvbuff[i] = root's sendbuff[i]; sendbuff is looked at on the root only. In place: equal on the root. */
ncclResult_t ncclBroadcast(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                           ncclComm_t comm, cudaStream_t stream);

/* ncclBroadcast in place. */
ncclResult_t ncclBcast(void *buff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
                       cudaStream_t stream);

/* Rank r gets recvbuff[i] = op over all ranks of sendbuff[r * recvcount + i]; sendbuff has n * recvcount elements.
 * In place: recvbuff == sendbuff + rank * recvcount. */
ncclResult_t ncclReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount, ncclDataType_t datatype,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream);

/* recvbuff[r * sendcount + i] = rank r's sendbuff[i]; recvbuff has n * sendcount elements.
 * In place: sendbuff == recvbuff + rank * sendcount. */
ncclResult_t ncclAllGather(const void *sendbuff, void *recvbuff, size_t sendcount, ncclDataType_t datatype,
                           ncclComm_t comm, cudaStream_t stream);

#if NCCL_VERSION_CODE >= 22800
/* recvbuff[r * count + i] = rank r's sendbuff[rank * count + i]; both have n * count elements. Not in place. */
ncclResult_t ncclAlltoAll(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclComm_t comm,
                          cudaStream_t stream);

/* The root gets recvbuff[r * count + i] = rank r's sendbuff[i]; elsewhere recvbuff is not looked at.
 * In place: the root's sendbuff == recvbuff + root * count. */
ncclResult_t ncclGather(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                        ncclComm_t comm, cudaStream_t stream);

/* Rank r gets recvbuff[i] = root's sendbuff[r * count + i]; elsewhere sendbuff is not looked at.
 * In place: the root's recvbuff == sendbuff + root * count. */
ncclResult_t ncclScatter(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                         ncclComm_t comm, cudaStream_t stream);
#endif

/* ---- Point to point and one-sided ------------------------------------------------------------------------------- */

/* Sends `count` elements to `peer`, who must post the matching receive: same count, same datatype, else both are told.
 * Zero elements are a real message. Operations between two ranks match in posting order per direction; put those that
 * depend on one another into one group, where they progress together, in whatever order they are posted. To oneself: in
 * a group, together with the matching receive. A send has returned when the buffer may be used again, which may be
 * before the receiver has asked for it. */
ncclResult_t ncclSend(const void *sendbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm,
                      cudaStream_t stream);
ncclResult_t ncclRecv(void *recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm,
                      cudaStream_t stream);

#if NCCL_VERSION_CODE >= 22800
/* Writes `count` elements to byte offset `peerWinOffset` of `peer`'s part of the window `peerWin` (this rank's handle
 * of it), then raises signal (sigIdx, ctx) there. When it returns localbuff may be used again. The data is in the
 * window before the signal counts, and what one rank puts to one other arrives in the order of its calls. The target
 * need not call anything, and ranks may put to one another at once. `peer` may be the rank itself. In a group puts run
 * in call order, and waits beside them: a wait does not hold back a put that was called after it.
 * 0 <= sigIdx < 16; 0 <= ctx < numRmaCtx of the configuration (1 when not set, at most 16). flags must be 0.
 * ncclInvalidArgument: those limits, a window that is not this communicator's, or a place that is not within the peer's
 * part; nothing was done and the communicator stays usable. */
ncclResult_t ncclPutSignal(const void *localbuff, size_t count, ncclDataType_t datatype, int peer, ncclWindow_t peerWin,
                           size_t peerWinOffset, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm,
                           cudaStream_t stream);
/* The signal alone. It needs no window. */
ncclResult_t ncclSignal(int peer, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm, cudaStream_t stream);

/* Wait until opCnt more signals (sigIdx, ctx) have come from peer: signals count for the life of the communicator, and
 * each is waited for once. */
typedef struct {
    int opCnt;
    int peer;
    int sigIdx;
    int ctx;
} ncclWaitSignalDesc_t;
/* Waits for all nDesc descriptions; nDesc 0 does nothing. ncclRemoteError: a rank that is waited for is gone. */
ncclResult_t ncclWaitSignal(int nDesc, ncclWaitSignalDesc_t *signalDescs, ncclComm_t comm, cudaStream_t stream);
#endif

/* ---- Groups ----------------------------------------------------------------------------------------------------- */

/* Between Start and End the calls of this thread are collected; the outermost End starts them all together. Groups
 * nest. Errors of collected calls come back from End. Init calls are grouped only with init calls. */
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);

typedef struct ncclSimInfo_v22200 {
    size_t size;          /* by the initialiser */
    unsigned int magic;   /* by the initialiser */
    unsigned int version; /* by the initialiser */
    float estimatedTime;  /* microseconds */
} ncclSimInfo_t;
#define NCCL_SIM_INFO_INITIALIZER { sizeof(ncclSimInfo_t), 0x74685283, NCCL_VERSION_CODE, NCCL_UNDEF_FLOAT }

/* Ends the group without running it; the outermost end writes how long its collectives, sends and receives would take.
 * An estimate from the plans that would run, the shape of the job, and fixed figures for hops, memory and wires: good for
 * comparing, not a promise. Local: other ranks need not call. ncclInvalidArgument: simInfo is NULL or was not set to
 * NCCL_SIM_INFO_INITIALIZER; the group is still open. ncclInvalidUsage: no open group, or calls in it that are not
 * predicted (one-sided ones, making communicators, registering windows); the group is ended, nothing was run. */
ncclResult_t ncclGroupSimulateEnd(ncclSimInfo_t *simInfo);

#if NCCL_VERSION_CODE >= 22800
/* ---- Parameters ------------------------------------------------------------------------------------------------- */

/* Reading the library's parameters: environment variables and what configuration files say, with their defaults
 * (docs/ENVIRONMENT.md). Values are those the library works with; they are read once. Any thread. */
typedef struct ncclParamHandle *ncclParamHandle_t;

/* Writes the handle of the parameter named `key`, e.g. "NCCL_SOCKET_IFNAME"; it lives as long as the library and is not
 * freed. ncclInvalidArgument: NULL, or no such name; *out is left alone. */
ncclResult_t ncclParamBind(ncclParamHandle_t *out, const char *key);

/* Write the value as a number of the type of out; a switch is 0 or 1, -1 means "chosen by the library" where the page
 * says so. ncclInvalidArgument: NULL, no handle, a parameter that is a text, or a value that the type cannot hold;
 * *out is left alone. */
ncclResult_t ncclParamGetI8(ncclParamHandle_t h, int8_t *out);
ncclResult_t ncclParamGetI16(ncclParamHandle_t h, int16_t *out);
ncclResult_t ncclParamGetI32(ncclParamHandle_t h, int32_t *out);
ncclResult_t ncclParamGetI64(ncclParamHandle_t h, int64_t *out);
ncclResult_t ncclParamGetU8(ncclParamHandle_t h, uint8_t *out);
ncclResult_t ncclParamGetU16(ncclParamHandle_t h, uint16_t *out);
ncclResult_t ncclParamGetU32(ncclParamHandle_t h, uint32_t *out);
ncclResult_t ncclParamGetU64(ncclParamHandle_t h, uint64_t *out);

/* Any parameter as text, numbers in decimal, "" for a text that is not set; secrets are not shown. Valid until the
 * thread's next call of this function. */
ncclResult_t ncclParamGetStr(ncclParamHandle_t h, const char **out);

/* Copies the value's bytes into `out`, which has room for maxLen, and writes their number: an int64_t, or a text with
 * its end. ncclInvalidArgument also when the room is too small: the text says what is needed. */
ncclResult_t ncclParamGet(ncclParamHandle_t h, void *out, int maxLen, int *len);

/* ncclParamGetStr by name. valueLen, which may be NULL, gets the number of characters. Valid until the thread's next
 * call of this function. */
ncclResult_t ncclParamGetParameter(const char *key, const char **value, int *valueLen);

/* A table of the names of all parameters that have an effect here; with NCCL_PARAM_DUMP_ALL=1 of all that are known.
 * Valid until the thread's next call of this function. */
ncclResult_t ncclParamGetAllParameterKeys(const char ***table, int *tableLen);

/* Prints the same parameters with their values, a line each, where the log goes (standard output when there is
 * none). */
void ncclParamDumpAll(void);
#endif

/* ---- The same calls under the names that a profiling tool calls -------------------------------------------------- */

ncclResult_t pncclGetVersion(int *version);
const char *pncclGetErrorString(ncclResult_t result);
const char *pncclGetLastError(ncclComm_t comm);
void pncclResetDebugInit(void) __attribute__((deprecated("set NCCL_DEBUG before the first call instead")));
ncclResult_t pncclGetUniqueId(ncclUniqueId *uniqueId);
ncclResult_t pncclCommInitRank(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank);
ncclResult_t pncclCommInitRankConfig(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t *config);
ncclResult_t pncclCommInitRankScalable(ncclComm_t *newcomm, int nranks, int myrank, int nId, ncclUniqueId *commIds,
                                       ncclConfig_t *config);
ncclResult_t pncclCommInitAll(ncclComm_t *comm, int ndev, const int *devlist);
#if NCCL_VERSION_CODE >= 22800
ncclResult_t pncclCommGetUniqueId(ncclComm_t comm, ncclUniqueId *uniqueId);
ncclResult_t pncclCommGrow(ncclComm_t comm, int nRanks, const ncclUniqueId *uniqueId, int rank, ncclComm_t *newcomm,
                           ncclConfig_t *config);
#endif
ncclResult_t pncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *newcomm, ncclConfig_t *config);
ncclResult_t pncclCommShrink(ncclComm_t comm, int *excludeRanksList, int excludeRanksCount, ncclComm_t *newcomm,
                             ncclConfig_t *config, int shrinkFlags);
ncclResult_t pncclCommFinalize(ncclComm_t comm);
ncclResult_t pncclCommDestroy(ncclComm_t comm);
ncclResult_t pncclCommAbort(ncclComm_t comm);
#if NCCL_VERSION_CODE >= 22800
ncclResult_t pncclCommRevoke(ncclComm_t comm, int revokeFlags);
#endif
ncclResult_t pncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *asyncError);
ncclResult_t pncclCommCount(const ncclComm_t comm, int *count);
ncclResult_t pncclCommCuDevice(const ncclComm_t comm, int *device);
ncclResult_t pncclCommUserRank(const ncclComm_t comm, int *rank);
ncclResult_t pncclMemAlloc(void **ptr, size_t size);
ncclResult_t pncclMemFree(void *ptr);
ncclResult_t pncclCommRegister(const ncclComm_t comm, void *buff, size_t size, void **handle);
ncclResult_t pncclCommDeregister(const ncclComm_t comm, void *handle);
ncclResult_t pncclCommWindowRegister(ncclComm_t comm, void *buff, size_t size, ncclWindow_t *win, int winFlags);
ncclResult_t pncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t win);
#if NCCL_VERSION_CODE >= 22800
ncclResult_t pncclWinGetUserPtr(ncclComm_t comm, ncclWindow_t win, void **outUserPtr);
ncclResult_t pncclCommSuspend(ncclComm_t comm, int flags);
ncclResult_t pncclCommResume(ncclComm_t comm);
ncclResult_t pncclCommMemStats(ncclComm_t comm, ncclCommMemStat_t stat, uint64_t *value);
#endif
ncclResult_t pncclRedOpCreatePreMulSum(ncclRedOp_t *op, void *scalar, ncclDataType_t datatype, ncclScalarResidence_t
                                       residence, ncclComm_t comm);
ncclResult_t pncclRedOpDestroy(ncclRedOp_t op, ncclComm_t comm);
ncclResult_t pncclAllReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op,
                            ncclComm_t comm, cudaStream_t stream);
ncclResult_t pncclReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op,
                         int root, ncclComm_t comm, cudaStream_t stream);
ncclResult_t pncclBroadcast(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                            ncclComm_t comm, cudaStream_t stream);
ncclResult_t pncclBcast(void *buff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t
                        stream);
ncclResult_t pncclReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount, ncclDataType_t datatype,
                                ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream);
ncclResult_t pncclAllGather(const void *sendbuff, void *recvbuff, size_t sendcount, ncclDataType_t datatype, ncclComm_t
                            comm, cudaStream_t stream);
#if NCCL_VERSION_CODE >= 22800
ncclResult_t pncclAlltoAll(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclComm_t comm,
                           cudaStream_t stream);
ncclResult_t pncclGather(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                         ncclComm_t comm, cudaStream_t stream);
ncclResult_t pncclScatter(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                          ncclComm_t comm, cudaStream_t stream);
#endif
ncclResult_t pncclSend(const void *sendbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm,
                       cudaStream_t stream);
ncclResult_t pncclRecv(void *recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t
                       stream);
#if NCCL_VERSION_CODE >= 22800
ncclResult_t pncclPutSignal(const void *localbuff, size_t count, ncclDataType_t datatype, int peer, ncclWindow_t
                            peerWin, size_t peerWinOffset, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm,
                            cudaStream_t stream);
ncclResult_t pncclSignal(int peer, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm, cudaStream_t stream);
ncclResult_t pncclWaitSignal(int nDesc, ncclWaitSignalDesc_t *signalDescs, ncclComm_t comm, cudaStream_t stream);
#endif
ncclResult_t pncclGroupStart(void);
ncclResult_t pncclGroupEnd(void);
ncclResult_t pncclGroupSimulateEnd(ncclSimInfo_t *simInfo);
#if NCCL_VERSION_CODE >= 22800
ncclResult_t pncclParamBind(ncclParamHandle_t *out, const char *key);
ncclResult_t pncclParamGetI8(ncclParamHandle_t h, int8_t *out);
ncclResult_t pncclParamGetI16(ncclParamHandle_t h, int16_t *out);
ncclResult_t pncclParamGetI32(ncclParamHandle_t h, int32_t *out);
ncclResult_t pncclParamGetI64(ncclParamHandle_t h, int64_t *out);
ncclResult_t pncclParamGetU8(ncclParamHandle_t h, uint8_t *out);
ncclResult_t pncclParamGetU16(ncclParamHandle_t h, uint16_t *out);
ncclResult_t pncclParamGetU32(ncclParamHandle_t h, uint32_t *out);
ncclResult_t pncclParamGetU64(ncclParamHandle_t h, uint64_t *out);
ncclResult_t pncclParamGetStr(ncclParamHandle_t h, const char **out);
ncclResult_t pncclParamGet(ncclParamHandle_t h, void *out, int maxLen, int *len);
ncclResult_t pncclParamGetParameter(const char *key, const char **value, int *valueLen);
ncclResult_t pncclParamGetAllParameterKeys(const char ***table, int *tableLen);
void pncclParamDumpAll(void);
#endif

#ifdef __cplusplus
}
#endif

#endif
