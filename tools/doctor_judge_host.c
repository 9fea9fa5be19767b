/* doctor_judge_host.c - what is wrong with the host around its RDMA ports: modules, limits, memory, container. */
#include <string.h>

#include "doctor.h"

#define SAY(severity, id, remedy, ...) doctor_say(out, severity, id, "", remedy, __VA_ARGS__)
#define MIB(bytes) ((double)(bytes) / 1048576)

static void no_device(const struct doctor_facts *f, struct doctor_findings *out)
{
    char remedy[300];
    if (f->n_ports) return;
    snprintf(remedy, sizeof remedy,
             "`modprobe %s`; in a container: start it with --device=/dev/infiniband and the host's network",
             f->idle_driver);
    if (f->idle_nic[0])
        SAY(DOCTOR_ERROR, "no-device", remedy,
            "no RDMA device: %s/sys/class/infiniband has none, though the NIC %s could be one with driver %s; "
            "ib_uverbs is %sloaded",
            f->root, f->idle_nic, f->idle_driver, f->uverbs ? "" : "not ");
    else
        SAY(DOCTOR_NOTE, "no-device",
            "none: railccl uses TCP. For tests: `rdma link add rx0 type rxe netdev INTERFACE` makes a software device",
            "no RDMA device: %s/sys/class/infiniband has none, on the PCI bus is no NIC that could be one, and "
            "ib_uverbs is %sloaded",
            f->root, f->uverbs ? "" : "not ");
}

static void modules(const struct doctor_facts *f, struct doctor_findings *out)
{
    if (!f->n_ports) return;
    if (!f->uverbs)
        SAY(DOCTOR_ERROR, "module-uverbs", "`modprobe ib_uverbs`; for good: a line in /etc/modules-load.d/rdma.conf",
            "ib_uverbs is not loaded: no program reaches the devices");
    if (f->idle_nic[0] && f->uverbs)
        SAY(DOCTOR_WARNING, "nic-idle", "load its driver, if it is meant to be a rail",
            "the NIC %s could be an RDMA device with driver %s and is none", f->idle_nic, f->idle_driver);
    if (!f->ucm || !f->cm_file)
        SAY(DOCTOR_NOTE, "module-ucm", "`modprobe rdma_ucm`, if connections are to be made by librdmacm",
            f->ucm ? "/dev/infiniband/rdma_cm is not there: librdmacm cannot be used"
                   : "rdma_ucm is not loaded: librdmacm cannot be used");
}

static void gpudirect(const struct doctor_facts *f, struct doctor_findings *out)
{
    if (!f->gpus || !f->n_ports) return;
    if (!f->nvidia)
        SAY(DOCTOR_NOTE, "gpu-driver", "install the GPU's driver, if GPUs are to be used",
            "%d GPUs and no NVIDIA driver", f->gpus);
    else if (!f->peermem && f->dmabuf && f->nvidia_open)
        SAY(DOCTOR_NOTE, "gpudirect-dmabuf", "none",
            "GPU memory is registered by dma-buf (kernel and open driver offer it; nvidia_peermem is not loaded)");
    else if (!f->peermem)
        SAY(DOCTOR_WARNING, "gpudirect-none",
            f->dmabuf ? "`modprobe nvidia_peermem`, or NVIDIA's open kernel modules, which offer dma-buf"
                      : "`modprobe nvidia_peermem`, or a kernel from 5.12 on with NVIDIA's open kernel modules "
                        "(dma-buf)",
            "neither nvidia_peermem nor dma-buf: what GPUs send goes through host memory");
}

/* A queue pair and the slots of a link take a few megabytes, an application's registered buffers gigabytes; kernels
 * give 64 KiB or 8 MiB where nobody says otherwise. */
static void limits(const struct doctor_facts *f, struct doctor_findings *out)
{
    static const char remedy[] = "`ulimit -l unlimited`; for good: memlock lines in /etc/security/limits.conf, "
                                 "LimitMEMLOCK=infinity in the "
                                 "service (slurmd, docker), --ulimit memlock=-1 for a container";
    if (f->n_ports && f->memlock >= 0 && f->memlock != DOCTOR_UNLIMITED)
        SAY(f->may_lock ? DOCTOR_NOTE : f->memlock < 64 << 20 ? DOCTOR_ERROR : DOCTOR_WARNING, "memlock", remedy,
            "%.4g MiB may be locked in memory%s: registering more will fail", MIB(f->memlock),
            f->may_lock ? " by others than root (this process may lock all)" : "");
    if (f->files >= 0 && f->files < 4096)
        SAY(DOCTOR_WARNING, "files", "`ulimit -n 65536`; for good: nofile lines in /etc/security/limits.conf",
            "a process may have %lld descriptors open: each lane and event channel needs one", (long long)f->files);
}

static void container(const struct doctor_facts *f, struct doctor_findings *out)
{
    if (f->cpu_quota > 0 && f->cpus_allowed > 0 && f->cpu_quota < f->cpus_allowed)
        SAY(DOCTOR_WARNING, "cpu-quota", "raise the quota to the CPUs that it may use, or limit by cpuset instead",
            "the control group may use %.4g CPUs' time and %d CPUs: threads that wait by polling use it up, and all "
            "are stopped then",
            f->cpu_quota, f->cpus_allowed);
    /* NCCL's and our buffers beside a program and its data: less than 2 GiB is a leftover of somebody's default. */
    if (f->memory_limit >= 0 && f->memory_limit < INT64_C(2) << 30)
        SAY(DOCTOR_WARNING, "memory-limit", "raise memory.max (docker: --memory)",
            "the control group may use %.4g MiB of memory; registered memory counts", MIB(f->memory_limit));
    if (f->shm >= 0 && f->shm <= 64 << 20)
        SAY(DOCTOR_WARNING, "shm", "docker: --shm-size=8g or --ipc=host; else `mount -o remount,size=50% /dev/shm`",
            "/dev/shm has %.4g MiB: railccl does not use it, but NCCL and torch's data loaders do", MIB(f->shm));
}

static void memory(const struct doctor_facts *f, struct doctor_findings *out)
{
    if (f->n_ports && strcmp(f->huge_mode, "never") == 0 && f->huge_pages == 0)
        SAY(DOCTOR_NOTE, "hugepages", "`echo madvise >/sys/kernel/mm/transparent_hugepage/enabled`",
            "no huge pages: a NIC keeps 512 times as many translations for large buffers");
    if (f->n_ports && f->firewall[0])
        SAY(DOCTOR_NOTE, "firewall", "let TCP and, for RoCE, UDP port 4791 through between the hosts of a job",
            "%s filters packets on this host", f->firewall);
}

void doctor_judge_host(const struct doctor_facts *facts, struct doctor_findings *out)
{
    no_device(facts, out);
    modules(facts, out);
    gpudirect(facts, out);
    limits(facts, out);
    container(facts, out);
    memory(facts, out);
}
