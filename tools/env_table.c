/* env_table.c - the variables that the library reads: which are set now, what they do, and the whole table. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/params.h"
#include "env.h"

extern char **environ;

static const struct {
    const char *name, *text;
} table[] = {
#define RAIL_PARAM_INT(id, name, default_value, low, high, effect, text) {name, text},
#define RAIL_PARAM_BOOL(id, name, default_value, effect, text) {name, text},
#define RAIL_PARAM_STR(id, name, default_value, effect, text) {name, text},
#define RAIL_PARAM_CHOICE(id, name, default_value, choices, effect, text) {name, text},
#include "base/params.def"
#undef RAIL_PARAM_INT
#undef RAIL_PARAM_BOOL
#undef RAIL_PARAM_STR
#undef RAIL_PARAM_CHOICE
};

static const char *effect_text(enum rail_param_effect effect)
{
    switch (effect) {
    case RAIL_LOCAL: return "may differ between ranks";
    case RAIL_AGREED: return "must be the same on all ranks";
    case RAIL_IGNORED: return "has NO EFFECT here";
    }
    return "";
}

static void print_variable(enum rail_param id)
{
    char value[512];
    printf("%s=%s\n    %s (%s)\n", rail_param_name(id), rail_param_text(id, value, sizeof value), table[id].text,
           effect_text(rail_param_effect_of(id)));
}

/* Variables with our prefix or NCCL's that no table knows: most often misspelt. */
static int print_unknown(void)
{
    int count = 0;
    for (char **e = environ; *e; e++) {
        size_t length = strcspn(*e, "=");
        if (strncmp(*e, "RAILCCL_", 8) && strncmp(*e, "NCCL_", 5)) continue;
        if (rail_param_is_known(*e, length)) continue;
        printf("%.*s\n    is not known to this version and has NO EFFECT here\n", (int)length, *e);
        count++;
    }
    return count;
}

int env_table(int which)
{
    int shown = 0;
    if (which == 'm') return rail_params_markdown(stdout), ferror(stdout) ? 1 : 0;
    for (int i = 0; i < RAIL_PARAM_COUNT; i++)
        if (which == 'a' || rail_param_is_set((enum rail_param)i)) print_variable((enum rail_param)i), shown++;
    shown += print_unknown();
    if (!shown) puts("No variable of the library is set; `railccl env --all` prints every one.");
    return 0;
}
