/* config.h - reading an ncclConfig_t of any generation. */
#ifndef RAIL_API_CONFIG_H
#define RAIL_API_CONFIG_H

#include "base/result.h"
#include "core/config.h"
#include "nccl.h"

/* Reads `config` (NULL: what `parent` has, and without a parent all defaults), applies the environment, writes *out on
 * success. `call` is the public call whose argument this is, for the texts. RAIL_E_ARGUMENT: no magic number, a size that
 * no ncclConfig_t has, a value out of range; the text names the field, the value and what is allowed. Nothing of *config
 * is needed afterwards. */
enum rail_result config_read(const char *call, const ncclConfig_t *config, const struct comm_config *parent,
                             struct comm_config *out);

#endif
