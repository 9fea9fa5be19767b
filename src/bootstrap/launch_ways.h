/* launch_ways.h - the ways in which a launch's id travels, one per file. `call` counts the ids of this process from 0;
 * whatever a way uses to name things (keys, secrets) it numbers by it. */
#ifndef RAIL_BOOTSTRAP_LAUNCH_WAYS_H
#define RAIL_BOOTSTRAP_LAUNCH_WAYS_H

#include <stdbool.h>

#include "base/clock.h"
#include "bootstrap/launch.h"

struct launch_exchange {
    int rank, n_ranks;
    uint32_t call;
    struct rail_deadline deadline;
    uint8_t id[BOOTSTRAP_ID_BYTES]; /* rank 0's, filled in before; the others get it here */
};

enum { LAUNCH_KEY_BYTES = 32, LAUNCH_HEX_BYTES = 2 * BOOTSTRAP_ID_BYTES + 1 };

/* Every process manager stores text under a name: "railccl-id-3", and the id in hexadecimal. */
void launch_key(const struct launch_exchange *exchange, char out[LAUNCH_KEY_BYTES]);
void launch_hex(const struct launch_exchange *exchange, char out[LAUNCH_HEX_BYTES]);
/* `by` names the process manager for the message. */
enum rail_result launch_unhex(struct launch_exchange *exchange, const char *text, const char *by);

/* A way hands rank 0's id to everybody. It is there when its variables are set and its library is found. */
typedef enum rail_result launch_way(struct launch_exchange *exchange);
bool launch_pmix_is_here(void);
launch_way launch_pmix;
bool launch_pmi1_is_here(void);
launch_way launch_pmi1;
bool launch_pmi2_is_here(void);
launch_way launch_pmi2;
/* The first that is there, or NULL. */
launch_way *launch_find_way(void);

/* Rank 0 makes an id, and `way` takes it to the others. */
enum rail_result launch_hand_over(const struct launch *launch, uint32_t call, launch_way *way,
                                  uint8_t out[BOOTSTRAP_ID_BYTES]);

/* Runs `work` on a thread of its own and gives up at the deadline: for libraries that block without a deadline. A thread
 * that was given up keeps its copy of the exchange, and ends with the process or when the library lets it go. */
enum rail_result launch_with_deadline(struct launch_exchange *exchange, const char *by, launch_way *work);
/* Says that the deadline has passed. */
enum rail_result launch_late(const struct launch_exchange *exchange, const char *by);
/* When the process manager's idea of who we are is not the launcher's. */
enum rail_result launch_other_ranks(const struct launch_exchange *exchange, const char *by, int rank, int n_ranks);

/* The little of PMIx's types that the exchange needs, for the test that compares them with pmix.h. */
enum { LAUNCH_PMIX_NAMESPACE_BYTES = 256, LAUNCH_PMIX_KEY_BYTES = 512 };
struct launch_pmix_proc { char namespace[LAUNCH_PMIX_NAMESPACE_BYTES]; uint32_t rank; };
struct launch_pmix_value {
    uint16_t type;
    union {
        bool flag;
        char *string;
        uint64_t room[3]; /* the largest member is two pointers and a character */
    } data;
};
struct launch_pmix_info { char key[LAUNCH_PMIX_KEY_BYTES]; uint32_t flags; struct launch_pmix_value value; };

#endif
