/* plan_print.c - cases as a table, the links of the last one by tier. */
#include <string.h>

#include "plan.h"

const char *plan_size_text(double bytes, char out[24])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int k = 0;
    while (bytes >= 1024 && k < 5) bytes /= 1024, k++;
    snprintf(out, 24, "%.4g %s", bytes, units[k]);
    return out;
}

const char *plan_time_text(double ns, char out[24])
{
    if (ns < 1e3) snprintf(out, 24, "%.3g ns", ns);
    else if (ns < 1e6) snprintf(out, 24, "%.4g us", ns / 1e3);
    else if (ns < 1e9) snprintf(out, 24, "%.4g ms", ns / 1e6);
    else snprintf(out, 24, "%.4g s", ns / 1e9);
    return out;
}

static const char *const placements[] = {"whole", "fragmented", "shuffled"};

void plan_print_head(const struct plan_view *v, FILE *out)
{
    const struct network *n = &v->network;
    const struct plan_wish *w = v->wish;
    char size[24];
    fprintf(out, "network: %s%s%u hosts of %u NICs of %.4g Gbit/s, %s: %u leaves", w->fabric_file ? w->fabric_file : "",
            w->fabric_file ? ": " : "", n->n_hosts, n->n_rails, w->network.nic_gbit, network_kind_names[n->kind],
            n->n_leaves);
    if (n->n_tiers > 1)
        fprintf(out, ", %u spine%s", n->n_pods * n->n_planes * n->n_spines,
                n->n_pods * n->n_planes * n->n_spines == 1 ? "" : "s");
    if (n->n_tiers > 2) fprintf(out, " in %u pods, %u cores", n->n_pods, n->n_planes * n->n_spines * n->n_cores);
    fprintf(out, "; %llu links\n", (unsigned long long)n->n_links);
    for (uint32_t k = 0; k < w->n_faults; k++) {
        if (w->faults[k].factor > 0)
            fprintf(out, "slow:    %s at %.3g of its rate\n", w->faults[k].what, w->faults[k].factor);
        else fprintf(out, "down:    %s\n", w->faults[k].what);
    }
    fprintf(out, "jobs:    %u of %u hosts of %u ranks, %s; %s\n", w->jobs, w->job_hosts, w->gpus,
            placements[w->placement], plan_call_name(w));
    fprintf(out, "costs:   %s (%s)\n", w->machine->name, w->machine->source);
    fprintf(out, "memory:  at most %s\n\n", plan_size_text((double)v->memory, size));
}

static void print_row(const struct plan_view *v, const struct plan_row *r, FILE *out)
{
    char size[24], time[24], least[24];
    double all = r->sent > 0 ? r->sent : 1;
    fprintf(out, "%-10s %-6s %-8s %10s ", plan_row_name(r), r->as_given ? "given" : "ours",
            r->unaware ? "unaware" : "aligned", plan_size_text((double)r->bytes, size));
    if (r->why[0]) {
        fprintf(out, "- %s\n", r->why);
        return;
    }
    double bus = plan_bus_factor(v->wish) * (double)r->bytes / r->ns;
    fprintf(out, "%11s %10.4g %6.1f %11s %9u %9.3f %7.1f %7.1f %9.3g\n", plan_time_text(r->ns, time), bus,
            100 * r->least_ns / r->ns, plan_time_text(r->link_ns, least), r->chain, plan_switches(r),
            100 * r->cross_rail / all, 100 * (r->by_switches[3] + r->by_switches[5]) / all,
            r->host_most / (double)r->bytes);
}

static void print_tiers(const struct plan_view *v, const struct plan_row *r, FILE *out)
{
    char most[24], mean[24], time[24], name[NETWORK_NAME_BYTES];
    fprintf(out, "\nlinks of the last case    up        used       mean         most   balance     busiest  which\n");
    for (int t = 0; t < NETWORK_TIERS; t++) {
        const struct lay_tier *tier = &r->loads.tiers[t];
        if (tier->links == 0) continue;
        fprintf(out, "  %-16s %9llu %11llu ", network_tier_names[t], (unsigned long long)tier->links,
                (unsigned long long)tier->used);
        if (tier->used == 0) {
            fprintf(out, " nothing\n");
            continue;
        }
        fprintf(out, "%10s %12s %7.1f %% %11s  %s\n", plan_size_text(tier->mean, mean),
                plan_size_text(tier->most, most), 100 * tier->mean / tier->most, plan_time_text(tier->busiest_ns, time),
                network_link_name(&v->network, tier->busiest, name));
    }
}

void plan_print_rows(const struct plan_view *v, FILE *out)
{
    const struct plan_row *last = &v->rows[v->drawn];
    char time[24], local[24];
    fprintf(out, "algorithm  order  nics           size        time   bus GB/s  NICs %%  busiest     hops  switches   "
                 "cross%%  spines%%  sent/host\n");
    for (uint32_t k = 0; k < v->n_rows; k++) print_row(v, &v->rows[k], out);
    fprintf(out, "\n  NICs %%: the time in which every host could send what it must, by the time; busiest: the busiest "
                 "link's time alone;\n"
                 "  hops: hand-overs one after another in a round; switches: mean on a byte's way; cross, spines: "
                 "share of bytes that\n"
                 "  change rail, that climb; sent/host: bytes of the host that sends most, by the size\n");
    if (v->n_rows == 0 || last->why[0]) return;
    print_tiers(v, last, out);
    fprintf(out, "\n%s, last case: %llu plans %s, %u channel%s, %llu rounds; clocks of %u ranks: %s",
            plan_row_name(last), (unsigned long long)last->plans,
            last->by_classes ? "by classes" : "built", last->channels, last->channels == 1 ? "" : "s",
            (unsigned long long)last->rounds, last->clocks, plan_time_text(last->clock_ns, time));
    if (last->checked) fprintf(out, "; %u ranks are as their class", last->checked);
    if (last->local_ns > 0) fprintf(out, "; inside hosts %s", plan_time_text(last->local_ns, local));
    fputc('\n', out);
}
