/* doctor_json.c - a host's facts and findings for programs, and for `railccl doctor --compare` on another host.
 *
 * One table says which fact has which name, for writing and reading alike. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"
#include "foreign/jansson.h"
#include "json.h"

enum kind { TEXT, WHOLE32, WHOLE64, REAL, TRUTH };
struct field { const char *name; enum kind kind; size_t at, bytes; };

#define FIELD(type, kind, member) {#member, kind, offsetof(struct type, member), sizeof(((struct type *)0)->member)}
#define HOST(kind, member) FIELD(doctor_facts, kind, member)
#define PORT(kind, member) FIELD(doctor_port, kind, member)

static const struct field host_fields[] = {
    HOST(TEXT, host),          HOST(TEXT, version),           HOST(TEXT, kernel),
    HOST(TEXT, root),          HOST(WHOLE32, ports_left_out), HOST(TEXT, idle_nic),
    HOST(TEXT, idle_driver),   HOST(TRUTH, uverbs),           HOST(TRUTH, ucm),
    HOST(TRUTH, cm_file),      HOST(WHOLE32, gpus),           HOST(TRUTH, nvidia),
    HOST(TRUTH, nvidia_open),  HOST(TRUTH, peermem),          HOST(TRUTH, dmabuf),
    HOST(WHOLE32, numa_nodes), HOST(WHOLE32, cpus_allowed),   HOST(WHOLE64, memlock),
    HOST(WHOLE64, files),      HOST(TRUTH, may_lock),         HOST(REAL, cpu_quota),
    HOST(WHOLE64, memory),     HOST(WHOLE64, memory_limit),   HOST(WHOLE64, shm),
    HOST(WHOLE64, huge_pages), HOST(TEXT, huge_mode),         HOST(TEXT, iommu_line),
    HOST(TEXT, firewall),      HOST(WHOLE32, ptrace_scope),   HOST(TRUTH, may_trace),
    HOST(TRUTH, seccomp),      HOST(WHOLE32, peer_read),
};
static const struct field port_fields[] = {
    PORT(TEXT, device),       PORT(WHOLE32, number),      PORT(TEXT, netdev),     PORT(TEXT, state),
    PORT(TEXT, physical),     PORT(TEXT, layer),          PORT(TRUTH, software),  PORT(REAL, mbit_per_s),
    PORT(WHOLE32, mtu),       PORT(WHOLE32, rdma_mtu),    PORT(WHOLE32, lid),     PORT(WHOLE32, sm_lid),
    PORT(WHOLE32, gids),      PORT(WHOLE32, gids_v2),     PORT(WHOLE32, gids_v4), PORT(WHOLE32, gids_v6),
    PORT(WHOLE32, gid_first), PORT(WHOLE32, gid_hole),    PORT(TEXT, gid),        PORT(TEXT, subnet),
    PORT(WHOLE32, numa),      PORT(TRUTH, numa_allowed),  PORT(TEXT, bus),        PORT(TEXT, iommu),
    PORT(TEXT, acs),          PORT(TRUTH, acs_seen),      PORT(TEXT, verbs),      PORT(TRUTH, verbs_there),
    PORT(TRUTH, verbs_open),  PORT(TRUTH, verbs_for_all), PORT(WHOLE64, downs),   PORT(WHOLE64, symbol_errors),
    PORT(WHOLE64, resent),    PORT(WHOLE64, out_of_order), PORT(WHOLE64, no_receive), PORT(WHOLE64, gave_up),
    PORT(WHOLE64, congestion),
};
enum { N_HOST = sizeof host_fields / sizeof *host_fields, N_PORT = sizeof port_fields / sizeof *port_fields };

/* What is not known is left out. */
static void write_fields(struct json *j, const void *base, const struct field *fields, int n)
{
    for (int i = 0; i < n; i++) {
        const struct field *f = &fields[i];
        const char *at = (const char *)base + f->at;
        int32_t small;
        int64_t large;
        double real;
        switch (f->kind) {
        case TEXT: if (at[0]) json_text(j, f->name, at); break;
        case WHOLE32:
            memcpy(&small, at, sizeof small);
            if (small != DOCTOR_UNKNOWN) json_whole(j, f->name, small);
            break;
        case WHOLE64:
            memcpy(&large, at, sizeof large);
            if (large == DOCTOR_UNLIMITED) json_text(j, f->name, "unlimited");
            else if (large != DOCTOR_UNKNOWN) json_whole(j, f->name, large);
            break;
        case REAL: memcpy(&real, at, sizeof real); json_number(j, f->name, real); break;
        case TRUTH: json_truth(j, f->name, *(const bool *)at); break;
        }
    }
}

/* Of a number outside what the type holds nothing is known. */
static int64_t whole(const struct json_t *value, double most)
{
    double number = jansson_number(value, DOCTOR_UNKNOWN);
    return number >= -most && number <= most ? (int64_t)number : DOCTOR_UNKNOWN;
}

static void read_fields(const struct json_t *object, void *base, const struct field *fields, int n)
{
    for (int i = 0; i < n; i++) {
        const struct field *f = &fields[i];
        const struct json_t *value = jansson_member(object, f->name);
        const char *text = jansson_text(value);
        char *at = (char *)base + f->at;
        int32_t small = (int32_t)whole(value, INT32_MAX);
        int64_t large = text && strcmp(text, "unlimited") == 0 ? DOCTOR_UNLIMITED : whole(value, 9e15);
        double real = jansson_number(value, 0);
        bool truth = jansson_is_true(value);
        switch (f->kind) {
        case TEXT: snprintf(at, f->bytes, "%s", text ? text : ""); break;
        case WHOLE32: memcpy(at, &small, sizeof small); break;
        case WHOLE64: memcpy(at, &large, sizeof large); break;
        case REAL: memcpy(at, &real, sizeof real); break;
        case TRUTH: memcpy(at, &truth, sizeof truth); break;
        }
    }
}

void doctor_write_json(const struct doctor_facts *facts, const struct doctor_findings *findings, FILE *out)
{
    struct json j = {out, false};
    json_open(&j, NULL, '{');
    json_whole(&j, "doctor", 1); /* the layout's version */
    json_open(&j, "facts", '{');
    write_fields(&j, facts, host_fields, N_HOST);
    json_open(&j, "ports", '[');
    for (int32_t i = 0; i < facts->n_ports; i++) {
        fputc('\n', out);
        json_open(&j, NULL, '{');
        write_fields(&j, &facts->ports[i], port_fields, N_PORT);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_close(&j, '}');
    json_open(&j, "findings", '[');
    for (int32_t i = 0; i < findings->n; i++) {
        const struct doctor_finding *f = &findings->at[i];
        fputc('\n', out);
        json_open(&j, NULL, '{');
        json_text(&j, "severity", doctor_severity_name(f->severity));
        json_text(&j, "id", f->id);
        json_text(&j, "where", f->where);
        json_text(&j, "text", f->text);
        json_text(&j, "remedy", f->remedy);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_whole(&j, "exit_status", doctor_status(facts, findings));
    json_close(&j, '}');
    fputc('\n', out);
}

static void read_port(void *context, const char *name, const struct json_t *value)
{
    struct doctor_facts *facts = context;
    (void)name;
    if (facts->n_ports == DOCTOR_PORTS_MOST) facts->ports_left_out++;
    else read_fields(value, &facts->ports[facts->n_ports++], port_fields, N_PORT);
}

/* The whole file, at most one byte more than is admitted; NULL with errno. */
static char *slurp(const char *path, size_t *bytes)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (!f) return NULL;
    char *text = malloc(JANSSON_MOST_BYTES + 1);
    if (text) *bytes = fread(text, 1, JANSSON_MOST_BYTES + 1, f);
    if (text && ferror(f)) free(text), text = NULL;
    if (f != stdin) fclose(f);
    return text;
}

enum rail_result doctor_read_json(const char *path, struct doctor_facts *out)
{
    struct json_t *root;
    size_t bytes = 0;
    errno = 0;
    char *text = slurp(path, &bytes);
    if (!text)
        return rail_fail(RAIL_E_ARGUMENT, "%s: %s; a file that `railccl doctor --json` wrote is wanted", path,
                         strerror(errno));
    enum rail_result result = jansson_read(text, bytes, path, &root);
    free(text);
    if (result != RAIL_OK) return result;
    memset(out, 0, sizeof *out);
    const struct json_t *facts = jansson_member(root, "facts");
    if (jansson_number(jansson_member(root, "doctor"), 0) != 1 || !facts)
        result = rail_fail(RAIL_E_ARGUMENT, "%s: not what this version's `railccl doctor --json` writes", path);
    else {
        read_fields(facts, out, host_fields, N_HOST);
        jansson_each(jansson_member(facts, "ports"), read_port, out);
    }
    jansson_free(root);
    return result;
}
