/* doctor.c - `railccl doctor`: is this host fit for collectives over RDMA, and are two hosts fit for one another? */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"
#include "tool.h"

static void print_port(const struct doctor_port *p)
{
    char name[DOCTOR_NAME + 16];
    snprintf(name, sizeof name, "%s:%d", p->device, p->number);
    printf("  %-14s %-7s %-10s %4g Gbit/s", name, p->state, strcmp(p->layer, "InfiniBand") == 0 ? "InfiniBand" : "RoCE",
           p->mbit_per_s / 1000);
    if (p->netdev[0]) printf("  %s MTU %d", p->netdev, p->mtu);
    if (p->rdma_mtu > 0) printf(" (RDMA %d)", p->rdma_mtu);
    if (p->gid[0]) printf("  GID %d %s", p->gid_first, p->gid);
    if (p->subnet[0]) printf(" in %s", p->subnet);
    if (p->numa >= 0) printf("  NUMA %d", p->numa);
    printf("%s\n", p->software ? "  software" : "");
}

static void print_host(const struct doctor_facts *f)
{
    int32_t up = 0;
    for (int32_t i = 0; i < f->n_ports; i++) up += strcmp(f->ports[i].state, "ACTIVE") == 0;
    printf("%s: ", f->host[0] ? f->host : "host");
    if (f->n_ports) printf("%d RDMA port%s, %d active", f->n_ports, f->n_ports == 1 ? "" : "s", up);
    else printf("no RDMA device");
    printf("; %d GPU%s; kernel %s; railccl %s\n", f->gpus, f->gpus == 1 ? "" : "s",
           f->kernel[0] ? f->kernel : "unknown", f->version);
    for (int32_t i = 0; i < f->n_ports; i++) print_port(&f->ports[i]);
    if (f->peer_read == 0) printf("  ranks of this host read one another's buffers: one copy, not two\n");
}

static void print_findings(const struct doctor_findings *list, int status)
{
    int count[3] = {0};
    for (int32_t i = 0; i < list->n; i++) {
        const struct doctor_finding *f = &list->at[i];
        count[f->severity]++;
        printf("%-8s %s%s%s [%s]\n         remedy: %s\n", doctor_severity_name(f->severity), f->where,
               f->where[0] ? ": " : "", f->text, f->id, f->remedy);
    }
    if (list->left_out) printf("... and %d findings more\n", list->left_out);
    printf("%d error%s, %d warning%s, %d note%s: exit status %d\n", count[0], count[0] == 1 ? "" : "s", count[1],
           count[1] == 1 ? "" : "s", count[2], count[2] == 1 ? "" : "s", status);
}

static int fail(void) { return fprintf(stderr, "railccl doctor: %s\n", rail_last_error()), 2; }

static int examine(const char *root, bool json)
{
    static struct doctor_facts facts; /* some 30 KiB and 500: too much for a stack */
    static struct doctor_findings findings;
    if (doctor_look(root, &facts) != RAIL_OK) return fail();
    doctor_judge_ports(&facts, &findings);
    doctor_judge_host(&facts, &findings);
    doctor_judge_reads(&facts, &findings);
    doctor_sort(&findings);
    int status = doctor_status(&facts, &findings);
    if (json) {
        doctor_write_json(&facts, &findings, stdout);
        return status;
    }
    print_host(&facts);
    print_findings(&findings, status);
    return status;
}

static int compare(const char *a, const char *b)
{
    static struct doctor_facts first, second;
    static struct doctor_findings findings;
    if (doctor_read_json(a, &first) != RAIL_OK || doctor_read_json(b, &second) != RAIL_OK) return fail();
    doctor_compare(&first, &second, &findings);
    doctor_sort(&findings);
    int status = doctor_status(NULL, &findings);
    if (first.n_ports == 0 && second.n_ports == 0) status = DOCTOR_NO_DEVICE;
    printf("%s (%s) and %s (%s)\n", first.host, a, second.host, b);
    print_findings(&findings, status);
    return status;
}

static int usage(FILE *out)
{
    fputs("Usage: railccl doctor [--root DIR] [--json]\n"
          "       railccl doctor --json >a; on another host: railccl doctor --json >b; railccl doctor --compare a b\n"
          "Checks this host for collectives over RDMA: devices, ports, GIDs, MTU, device files, modules, GPUDirect, "
          "IOMMU and ACS,\n"
          "NUMA placement, limits, container, reading between ranks. Each finding comes with a remedy. Files are "
          "read,\n"
          "and a child's memory by another child; nothing is changed.\n\n"
          "  --root DIR       the files of a machine (sys, proc, dev, etc), copied below DIR, instead of this one's\n"
          "  --json           facts and findings, for programs and for --compare\n"
          "  --compare A B    what two hosts do not agree on, from files that --json wrote\n\n"
          "Exit status: 0 nothing to mend (notes at most), 1 warnings: it works, slower or more fragile than it could "
          "be,\n"
          "3 errors: RDMA does not work here or not on every port, or ranks do not start,\n"
          "4 no RDMA device (of --compare: on neither host), 2 bad usage, or a file that cannot be read.\n",
          out);
    return out == stdout ? 0 : 2;
}

static const struct option options[] = {
    {"root", required_argument, NULL, 'r'}, {"json", no_argument, NULL, 'j'}, {"compare", no_argument, NULL, 'c'},
    {"help", no_argument, NULL, 'h'},       {0},
};

static int run(int argc, char **argv)
{
    const char *root = "";
    bool json = false, pair = false;
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case 'r': root = optarg; break;
        case 'j': json = true; break;
        case 'c': pair = true; break;
        case 'h': return usage(stdout);
        default:
            fprintf(stderr, "railccl doctor: %s: no such option, or without its value\n", argv[optind - 1]);
            return usage(stderr);
        }
    }
    if (pair && argc - optind == 2 && !json && !root[0]) return compare(argv[optind], argv[optind + 1]);
    if (pair)
        return fprintf(stderr, "railccl doctor: --compare takes two files that --json wrote, and nothing else\n"), 2;
    if (optind < argc)
        return fprintf(stderr, "railccl doctor: %s: two hosts are compared by --compare A B\n", argv[optind]), 2;
    return examine(root, json);
}

const struct tool_command tool_doctor = {"doctor", "Checks this host, or two, for RDMA; each finding with a remedy.",
                                         run};
