/* gone.h - members that cannot come any more, because their process is no more. */
#ifndef RAIL_CORE_GONE_H
#define RAIL_CORE_GONE_H

#include "base/result.h"

/* For bootstrap_config.in_vain; `kin` is a struct comm_kin. RAIL_E_REMOTE with a text that names, by their numbers in the
 * old communicator, those of the next 64 members that are gone. */
enum rail_result gone_ask(void *kin);

#endif
