/* lldp_json.c - what lldpctl says with -f json0, and with -f json.
 *
 *   json0  {"lldp": [{"interface": [{"name": "eth0", "chassis": [{"id": [{"type": "mac", "value": "00:.."}],
 *                    "name": [{"value": "leaf0"}], "capability": [{"type": "Bridge", "enabled": true}]}],
 *                    "port": [{"id": [{"type": "ifname", "value": "Ethernet7"}]}]}]}]}
 *   json   {"lldp": {"interface": [{"eth0": {"chassis": {"leaf0": {"id": {"type": "mac", "value": "00:.."}}}, ...}}]}},
 *          where a list of one is its only item, and a chassis stands under its name if it has one */
#include <stdio.h>
#include <string.h>

#include "foreign/jansson.h"
#include "topo/lldp_state.h"

struct reading { struct lldp_table *table; bool interfaces; };

/* A text that stands as such, as {"value": text}, or as [{"value": text}]. */
static const char *value_of(const struct json_t *from)
{
    const char *text = jansson_text(from);
    return text ? text : jansson_text(jansson_member(from, "value"));
}

struct abilities { bool any, switches; };

static void see_ability(void *context, const char *name, const struct json_t *value)
{
    struct abilities *seen = context;
    const char *type = jansson_text(jansson_member(value, "type"));
    (void)name;
    if (!type) return;
    seen->any = true;
    bool switches = strcmp(type, "Bridge") == 0 || strcmp(type, "Router") == 0;
    seen->switches |= switches && jansson_is_true(jansson_member(value, "enabled"));
}

/* A chassis that stands under its name is the only member of an object. */
static void see_named(void *context, const char *name, const struct json_t *value)
{
    struct { const char *name; const struct json_t *chassis; } *found = context;
    if (found->chassis || !name || !jansson_member(value, "id")) return;
    found->name = name;
    found->chassis = value;
}

static void read_neighbour(struct lldp_table *table, const char *interface, const struct json_t *from)
{
    struct lldp_neighbour n = {.station = false};
    const struct json_t *chassis = jansson_member(from, "chassis"), *id = jansson_member(chassis, "id");
    const struct json_t *port = jansson_member(jansson_member(from, "port"), "id");
    const char *name = value_of(jansson_member(chassis, "name"));
    if (!id) {
        struct { const char *name; const struct json_t *chassis; } found = {NULL, NULL};
        jansson_each(chassis, see_named, &found);
        chassis = found.chassis;
        id = jansson_member(chassis, "id");
        if (!name) name = found.name;
    }
    const char *kind = jansson_text(jansson_member(id, "type")), *value = value_of(id);
    if (!interface || !kind || !value || strlen(interface) >= sizeof n.interface) return;
    struct abilities seen = {false, false};
    const struct json_t *abilities = jansson_member(chassis, "capability");
    see_ability(&seen, NULL, abilities); /* a list of one is its only item */
    jansson_each(abilities, see_ability, &seen);
    n.station = seen.any && !seen.switches;
    strcpy(n.interface, interface);
    snprintf(n.chassis, sizeof n.chassis, "%.11s %.60s", kind, value);
    snprintf(n.name, sizeof n.name, "%s", name ? name : "");
    snprintf(n.port, sizeof n.port, "%s", value_of(port) ? value_of(port) : "");
    lldp_add(table, &n);
}

/* json0's have their name inside, json's stand under it. Lists in lists are as deep as jansson lets them be. */
static void see_interface(void *context, const char *name, const struct json_t *value)
{
    struct reading *r = context;
    const char *inside = jansson_text(jansson_member(value, "name"));
    r->interfaces = true;
    if (inside) read_neighbour(r->table, inside, value);
    else if (name) read_neighbour(r->table, name, value);
    else jansson_each(value, see_interface, r);
}

enum rail_result lldp_read_json(const char *text, size_t bytes, const char *source, struct lldp_table *table)
{
    struct json_t *root;
    struct reading r = {table, false};
    RAIL_TRY(jansson_read(text, bytes, source, &root));
    const struct json_t *lldp = jansson_member(root, "lldp");
    jansson_each(jansson_member(lldp, "interface"), see_interface, &r);
    bool ours = lldp != NULL;
    jansson_free(root);
    if (ours) return RAIL_OK; /* without an interface: nobody was heard yet */
    return rail_fail(RAIL_E_ARGUMENT, "%s: no \"lldp\" in it; write it with: lldpctl -f json0", source);
}
