/* plan_json.c - everything of all cases for programs: bytes, nanoseconds, GB/s. */
#include "plan.h"

void plan_json_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') fprintf(out, "\\%c", c);
        else if (c < ' ' || c == 0x7f) fprintf(out, "\\u%04x", c);
        else fputc(c, out);
    }
    fputc('"', out);
}

static void write_tiers(const struct plan_view *v, const struct plan_row *r, FILE *out)
{
    char name[NETWORK_NAME_BYTES];
    fputs(", \"tiers\": [", out);
    for (int t = 0, first = 1; t < NETWORK_TIERS; t++) {
        const struct lay_tier *tier = &r->loads.tiers[t];
        if (tier->links == 0) continue;
        fprintf(out,
                "%s\n      {\"tier\": \"%s\", \"links_up\": %llu, \"links_used\": %llu, \"bytes\": %.17g, "
                "\"mean_bytes\": %.10g, "
                "\"most_bytes\": %.10g, \"busiest_ns\": %.10g, \"busiest\": ",
                first ? "" : ",", network_tier_names[t], (unsigned long long)tier->links,
                (unsigned long long)tier->used, tier->bytes, tier->mean, tier->most, tier->busiest_ns);
        plan_json_text(out, tier->used ? network_link_name(&v->network, tier->busiest, name) : "");
        fputc('}', out);
        first = 0;
    }
    fputc(']', out);
}

static void write_row(const struct plan_view *v, const struct plan_row *r, FILE *out)
{
    fprintf(out, "    {\"algorithm\": \"%s\", \"order\": \"%s\", \"nics\": \"%s\", \"bytes\": %llu",
            plan_row_name(r),
            r->as_given ? "given" : "ours", r->unaware ? "unaware" : "aligned", (unsigned long long)r->bytes);
    if (r->why[0]) {
        fputs(", \"why_not\": ", out);
        plan_json_text(out, r->why);
        fputc('}', out);
        return;
    }
    double bus = plan_bus_factor(v->wish) * (double)r->bytes / r->ns;
    fprintf(
        out,
        ", \"ns\": %.10g, \"clock_ns\": %.10g, \"busiest_link_ns\": %.10g, \"local_ns\": %.10g, \"least_ns\": %.10g, "
        "\"bus_gbyte_s\": %.6g, \"hops\": %u, \"rounds\": %llu, \"channels\": %u",
        r->ns, r->clock_ns, r->link_ns, r->local_ns, r->least_ns, bus, r->chain, (unsigned long long)r->rounds,
        r->channels);
    fprintf(out,
            ", \"sent_bytes\": %.17g, \"cross_rail_bytes\": %.17g, \"bytes_by_switches\": {\"1\": %.17g, \"3\": %.17g, "
            "\"5\": %.17g}, \"switches_per_byte\": %.6g, \"host_most_bytes\": %.17g, \"plans\": %llu, \"by_classes\": "
            "%s, \"ranks_clocked\": %u, "
            "\"ranks_checked\": %u",
            r->sent, r->cross_rail, r->by_switches[1], r->by_switches[3], r->by_switches[5], plan_switches(r),
            r->host_most, (unsigned long long)r->plans, r->by_classes ? "true" : "false", r->clocks, r->checked);
    write_tiers(v, r, out);
    fputc('}', out);
}

void plan_write_json(const struct plan_view *v, FILE *out)
{
    const struct network *n = &v->network;
    const struct plan_wish *w = v->wish;
    fprintf(out,
            "{\n  \"network\": {\"kind\": \"%s\", \"hosts\": %u, \"rails\": %u, \"ports\": %u, \"tiers\": %u, "
            "\"units\": %u, "
            "\"pods\": %u, \"leaves\": %u, \"spines\": %u, \"cores\": %u, \"links\": %llu, \"nic_gbit\": %.10g},\n",
            network_kind_names[n->kind], n->n_hosts, n->n_rails, n->n_ports, n->n_tiers, n->n_units, n->n_pods,
            n->n_leaves, n->n_pods * n->n_planes * n->n_spines, n->n_planes * n->n_spines * n->n_cores,
            (unsigned long long)n->n_links, w->network.nic_gbit);
    fputs("  \"faults\": [", out);
    for (uint32_t k = 0; k < w->n_faults; k++) {
        fputs(k ? ", {\"part\": " : "{\"part\": ", out);
        plan_json_text(out, w->faults[k].what);
        fprintf(out, ", \"factor\": %.6g}", w->faults[k].factor);
    }
    fprintf(out,
            "],\n  \"jobs\": %u, \"job_hosts\": %u, \"gpus\": %u, \"collective\": \"%s\", \"machine\": \"%s\", "
            "\"memory_bound_bytes\": %llu,\n  \"cases\": [\n",
            w->jobs, w->job_hosts, w->gpus, plan_call_name(w), w->machine->name,
            (unsigned long long)v->memory);
    for (uint32_t k = 0; k < v->n_rows; k++) {
        write_row(v, &v->rows[k], out);
        fputs(k + 1 < v->n_rows ? ",\n" : "\n", out);
    }
    fputs("  ]\n}\n", out);
}
