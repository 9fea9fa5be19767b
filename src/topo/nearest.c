/* nearest.c - mutual nearest pairs. */
#include "topo/nearest.h"

#include <string.h>

const char *near_how_name(enum near_how how)
{
    static const char *const names[] = {"nobody answered", "several are equally near", "others are not reached",
                                        "others are behind more routers", "others take clearly longer"};
    return names[how <= NEAR_BY_TIME ? how : 0];
}

static uint8_t fewest(const struct near_matrix *m)
{
    uint8_t hops = 255;
    for (uint32_t i = 0; i < m->n; i++)
        for (uint32_t j = 0; j < m->m; j++)
            if (m->at[i][j].heard && m->at[i][j].hops < hops) hops = m->at[i][j].hops;
    return hops;
}

static bool candidate(const struct near_matrix *m, uint32_t i, uint32_t j, uint8_t hops)
{
    return m->at[i][j].heard && m->at[i][j].hops == hops;
}

/* a is nearer than b beyond doubt. */
static bool clearly(const struct near_cell *a, const struct near_cell *b)
{
    if (a->best_ns == 0 || b->best_ns == 0) return false;
    return a->second_ns != 0 && a->second_ns < b->best_ns && a->best_ns + a->best_ns / 2 <= b->best_ns;
}

/* The rivals of (i, j) in its row and column: none, or all clearly farther. Of one that cannot be measured nobody knows. */
static bool wins(const struct near_matrix *m, uint32_t i, uint32_t j, uint8_t hops, bool *rivals)
{
    *rivals = false;
    for (uint32_t k = 0; k < m->m; k++)
        if (m->at[i][k].blind) return false;
    for (uint32_t k = 0; k < m->n; k++)
        if (m->at[k][j].blind) return false;
    for (uint32_t k = 0; k < m->m; k++)
        if (k != j && candidate(m, i, k, hops)) {
            *rivals = true;
            if (!clearly(&m->at[i][j], &m->at[i][k])) return false;
        }
    for (uint32_t k = 0; k < m->n; k++)
        if (k != i && candidate(m, k, j, hops)) {
            *rivals = true;
            if (!clearly(&m->at[i][j], &m->at[k][j])) return false;
        }
    return true;
}

bool near_tie(const struct near_matrix *m, uint32_t i, uint32_t j)
{
    bool rivals;
    uint8_t hops = fewest(m);
    return candidate(m, i, j, hops) && !wins(m, i, j, hops, &rivals);
}

enum near_how near_assign(const struct near_matrix *m, uint8_t out[RAILS_NICS_MAX])
{
    uint8_t hops = fewest(m);
    enum near_how how = NEAR_UNHEARD;
    bool others = false;
    memset(out, NEAR_NONE, RAILS_NICS_MAX);
    for (uint32_t i = 0; i < m->n; i++)
        for (uint32_t j = 0; j < m->m; j++) {
            bool rivals;
            others |= m->at[i][j].heard && m->at[i][j].hops > hops;
            if (!candidate(m, i, j, hops)) continue;
            if (how == NEAR_UNHEARD) how = NEAR_UNDECIDED;
            if (!wins(m, i, j, hops, &rivals)) continue;
            out[i] = (uint8_t)j;
            how = rivals ? NEAR_BY_TIME : NEAR_BY_REACH;
        }
    return how == NEAR_BY_REACH && others ? NEAR_BY_HOPS : how;
}
