/* rail_facts.c - what this host knows of its own NICs' rails: the fabric file, NCCL_IB_HCA, LLDP. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/params.h"
#include "topo/fabric.h"
#include "topo/hca.h"
#include "topo/lldp.h"
#include "topo/machine.h"
#include "topo/rails.h"

_Static_assert((int)RAILS_DEVICE_BYTES == (int)HCA_NAME_BYTES, "a device's name");

static void label_text(const struct rail_label *label, char out[RAILS_TEXT_BYTES])
{
    snprintf(out, RAILS_TEXT_BYTES, "%.10s%s%.6s", label->rail, label->plane[0] ? " plane " : "", label->plane);
}

static enum rail_result hca_says(const char *interface, char *hca, struct rail_label *out)
{
    const char *text = rail_param_str(RAIL_PARAM_NCCL_IB_HCA);
    struct hca_list list;
    struct rail_label other;
    memset(out, 0, sizeof *out);
    hca[0] = '\0';
    if (!text || !text[0]) return RAIL_OK;
    RAIL_TRY(hca_parse(text, &list));
    *out = hca_label_of_interface(&list, machine_root(), interface, hca, &other);
    if (other.rail[0])
        RAIL_WARN("rails: NCCL_IB_HCA puts %s (%s) on rail %s%s%s and, by another device of it, on rail %s%s%s; the first "
                  "is taken", interface, hca, out->rail, out->plane[0] ? " plane " : "", out->plane, other.rail,
                  other.plane[0] ? " plane " : "", other.plane);
    return RAIL_OK;
}

static enum rail_result labels(const struct machine_interface *nic, struct rail_facts *facts)
{
    const struct fabric *fabric;
    struct rail_label by_file = {{0}, {0}}, by_hca;
    char hca[HCA_NAME_BYTES + 8], one[RAILS_TEXT_BYTES], other[RAILS_TEXT_BYTES];
    RAIL_TRY(fabric_of_process(&fabric));
    if (fabric) RAIL_TRY(fabric_label(fabric, machine_host_name(), nic->name, &nic->address, &by_file));
    RAIL_TRY(hca_says(nic->name, hca, &by_hca));
    const struct rail_label *label = by_file.rail[0] ? &by_file : &by_hca;
    facts->label = rails_label_key(label);
    facts->label_from = !label->rail[0] ? RAILS_BY_NOBODY : label == &by_file ? RAILS_BY_FABRIC : RAILS_BY_HCA;
    label_text(label, facts->label_text);
    if (by_file.rail[0] && by_hca.rail[0] && memcmp(&by_file, &by_hca, sizeof by_file) != 0) {
        label_text(&by_file, one);
        label_text(&by_hca, other);
        RAIL_WARN("rails: host %s %s is on rail %s by the fabric file and on rail %s by NCCL_IB_HCA (%s); the fabric file "
                  "is believed, correct one of them", machine_host_name(), nic->name, one, other, hca);
    }
    return RAIL_OK;
}

static enum rail_result hear_leaf(const struct machine_interface *nic, struct rail_facts *facts)
{
    const struct lldp_table *table;
    struct lldp_leaf leaf;
    RAIL_TRY(lldp_of_process(&table));
    lldp_leaf_of(table, machine_root(), nic->name, &leaf);
    if (leaf.several)
        RAIL_INFO(RAIL_INIT, "rails: %s hears several switches on one port by LLDP, so it says nothing of its rail",
                  nic->name);
    if (!leaf.key) return RAIL_OK;
    facts->leaf = leaf.key;
    snprintf(facts->leaf_text, sizeof facts->leaf_text, "%.23s", leaf.name);
    RAIL_INFO(RAIL_INIT, "rails: %s hangs on switch %s, port %s, by LLDP", nic->name, leaf.name, leaf.port);
    return RAIL_OK;
}

enum rail_result rails_facts(const struct machine_interface *nic, struct rail_facts *out)
{
    struct rail_facts facts = {0};
    RAIL_TRY(labels(nic, &facts));
    RAIL_TRY(hear_leaf(nic, &facts));
    *out = facts;
    return RAIL_OK;
}

bool rails_device(const struct machine_interface *nic, char name_out[RAILS_DEVICE_BYTES], int *port_out,
                  const char **why_out)
{
    const char *text = rail_param_str(RAIL_PARAM_NCCL_IB_HCA);
    struct hca_list list = {.n = 0};
    bool refused = false;
    *why_out = "";
    if (text && text[0] && hca_parse(text, &list) != RAIL_OK) return false;
    if (hca_of_interface(&list, machine_root(), nic->name, name_out, port_out, &refused)) return true;
    if (refused) *why_out = "NCCL_IB_HCA does not admit its device";
    return false;
}

/* By the whole set of leaves: one alone might be the management network's, which all hosts share. */
enum rail_result rails_place(struct place *out)
{
    struct machine_interface nics[4 * RAILS_NICS_MAX];
    uint64_t keys[4 * RAILS_NICS_MAX], set = 0;
    const struct lldp_table *table;
    *out = (struct place){{0}};
    RAIL_TRY(lldp_of_process(&table));
    int n = table->n ? machine_interfaces(nics, 4 * RAILS_NICS_MAX) : 0;
    for (int i = 0; i < n && i < 4 * RAILS_NICS_MAX; i++) {
        struct lldp_leaf leaf;
        bool again = false;
        lldp_leaf_of(table, machine_root(), nics[i].name, &leaf);
        keys[i] = leaf.key;
        for (int k = 0; k < i; k++) again |= keys[k] == leaf.key;
        if (!again) set += leaf.key; /* in whatever order */
    }
    if (set) out->tier[0] = set | 1;
    return RAIL_OK;
}
