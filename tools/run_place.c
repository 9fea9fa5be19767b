/* run_place.c - which rank goes to which host: filled host after host, or dealt out in turn. */
#include <stdlib.h>

#include "run.h"

/* Gives every host a number of places. Without slots: as even as can be, the first hosts one more. */
static bool places(struct run_options *o, int *place)
{
    int said = 0, unsaid = 0;
    for (int h = 0; h < o->n_hosts; h++) {
        place[h] = o->hosts[h].slots ? o->hosts[h].slots : o->per_host;
        said += place[h];
        unsaid += place[h] == 0;
    }
    if (o->n == 0 && unsaid)
        return fprintf(stderr, "railccl run: how many ranks? -n N, or slots for every host (HOST:4, --per-host 4)\n"), false;
    if (o->n == 0) o->n = said;
    int rest = o->n > said ? o->n - said : 0;
    if (rest && !unsaid)
        return fprintf(stderr, "railccl run: %d ranks do not fit: %d host%s with %d slot%s in all\n", o->n, o->n_hosts,
                       o->n_hosts == 1 ? "" : "s", said, said == 1 ? "" : "s"), false;
    for (int h = 0, i = 0; h < o->n_hosts; h++)
        if (place[h] == 0) place[h] = rest / unsaid + (i++ < rest % unsaid);
    return true;
}

struct run_rank *run_place(struct run_options *o)
{
    int *place = calloc((size_t)o->n_hosts, sizeof *place), *used = calloc((size_t)o->n_hosts, sizeof *used);
    struct run_rank *ranks = NULL;
    if (!place || !used || !places(o, place) || o->n < 1) goto out;
    ranks = calloc((size_t)o->n, sizeof *ranks);
    if (!ranks) goto out;
    for (int r = 0, h = 0; r < o->n; r++) {
        while (used[h] == place[h]) h = (h + 1) % o->n_hosts; /* ends: the places are enough */
        ranks[r] = (struct run_rank){.rank = r, .host = h, .local_rank = used[h]++};
        if (o->map == RUN_CYCLIC) h = (h + 1) % o->n_hosts;
    }
    for (int r = 0; r < o->n; r++) ranks[r].local_size = used[ranks[r].host];
out:
    free(place);
    free(used);
    return ranks;
}
