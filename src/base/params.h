/* params.h - the one table of every environment variable that the library reads (params.def), its type, default,
 * range, and what it does. docs/ENVIRONMENT.md is generated from it.
 *
 * Order of sources, first found wins: the environment, the file NCCL_CONF_FILE (else ~/.nccl.conf), /etc/nccl.conf,
 * the default. An empty value counts as "not set" and hides the sources after it. Values are read once, at the first
 * use; a value that does not parse is reported once with the variable's name, the text, and what is allowed, and the
 * default is used. A variable of NCCL's that is set and has no effect here is named once at INFO level. */
#ifndef RAIL_BASE_PARAMS_H
#define RAIL_BASE_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum rail_param {
#define RAIL_PARAM_INT(id, name, default_value, low, high, effect, text) RAIL_PARAM_##id,
#define RAIL_PARAM_BOOL(id, name, default_value, effect, text) RAIL_PARAM_##id,
#define RAIL_PARAM_STR(id, name, default_value, effect, text) RAIL_PARAM_##id,
#define RAIL_PARAM_CHOICE(id, name, default_value, choices, effect, text) RAIL_PARAM_##id,
#include "base/params.def"
#undef RAIL_PARAM_INT
#undef RAIL_PARAM_BOOL
#undef RAIL_PARAM_STR
#undef RAIL_PARAM_CHOICE
    RAIL_PARAM_COUNT
};

enum rail_param_effect {
    RAIL_LOCAL,   /* may differ between ranks */
    RAIL_AGREED,  /* must be the same on all ranks; checked at init */
    RAIL_IGNORED, /* a variable of NCCL's that has no effect here (yet) */
};

int64_t rail_param_int(enum rail_param id);
bool rail_param_bool(enum rail_param id);
/* Of a text or a choice; a choice comes in the table's spelling. NULL when unset and without a default. Valid for the
 * life of the process. */
const char *rail_param_str(enum rail_param id);
/* True when some source gave a value that parsed. */
bool rail_param_is_set(enum rail_param id);
const char *rail_param_name(enum rail_param id);
/* An INT or a BOOL: has a number, and no text. */
bool rail_param_is_number(enum rail_param id);
enum rail_param_effect rail_param_effect_of(enum rail_param id);
/* The value as text, for messages ("(unset)" when there is none; secrets are not shown). Returns `buffer`. */
const char *rail_param_text(enum rail_param id, char *buffer, size_t bytes);

/* Reads everything again: for tests and ncclResetDebugInit. Readers on other threads see the old or the new values. */
void rail_params_reload(void);

/* What the sources say for `id` at this moment, past everything that was read before, as a copy to free(); NULL when
 * they say nothing. For the log, which starts before and restarts apart from the rest. */
char *rail_param_read_now(enum rail_param id);

/* A hash of all values that must agree on every rank of a communicator (effect RAIL_AGREED), and, for telling people
 * which one differs, the same per variable. */
uint64_t rail_params_agreed_hash(void);
uint64_t rail_param_hash(enum rail_param id);

/* INFO lines (subsystem ENV), once per reading: every variable that a source set, and every one that was set but has no
 * effect here, those of NCCL's included that are not in the table. */
void rail_params_report_set(void);
void rail_params_report_ignored(void);
/* Whether a name (`bytes` of it, no zero needed behind) is in the table, or one that others read: the launchers' RAILCCL_RANK ...,
 * the tools', python's, the measuring programs'. */
bool rail_param_is_known(const char *name, size_t bytes);

/* Writes docs/ENVIRONMENT.md. */
void rail_params_markdown(FILE *out);

/* For tests: read this instead of /etc/nccl.conf (NULL: that again). Takes effect with the next reading. */
void rail_params_system_file(const char *path);

#endif
