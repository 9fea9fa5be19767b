/* print.c - a plan as text: what a person reads to see what a rank does.
 *
 *     strand 0
 *        0  MOVE    input[1] -> slot-out(1 -> rank 2)[1]
 *        1  LOOP    2 times, i = 0 .. 1
 *        2    MOVE    slot-in(0 <- rank 0)[(0-i) mod 4] + input[(0-i) mod 4] -> ... */
#include "plan/print.h"

#include "plan/collective.h"

static const char *const algorithm_words[PLAN_ALGORITHMS] = {"one-shot", "two-shot", "ring",
                                                              "tree",     "doubling", "rank tree", "hierarchy", "rails"};
static const char *const counter_words[PLAN_COUNTERS] = {"STAGED", "DELIVERED", "DONE", "REDUCED"};

static void index_print(struct plan_index x, FILE *out)
{
    if (x.a == 0 || x.m == 1) fprintf(out, "%u", x.m ? x.b % x.m : x.b);
    else if (x.a == 1) fprintf(out, "(%u+i) mod %u", x.b, x.m);
    else if (x.a == -1) fprintf(out, "(%u-i) mod %u", x.b, x.m);
    else fprintf(out, "(%u%+d*i) mod %u", x.b, x.a, x.m);
}

/* "2", "(1+i) mod 4", "0..3", "2..0 mod 4" */
static void peers_print(const struct plan_operand *o, FILE *out)
{
    fprintf(out, "(");
    index_print(o->which, out);
    if (o->span > 1 && o->which.a == 0 && o->which.m > 0) {
        uint64_t last = (uint64_t)o->which.b + o->span - 1;
        fprintf(out, "..%u", (uint32_t)(last % o->which.m));
        if (last >= o->which.m) fprintf(out, " mod %u", o->which.m);
    } else if (o->span > 1) {
        fprintf(out, " and the next %u", o->span - 1u);
    }
    fprintf(out, ")");
}

static void link_print(const struct plan *plan, const struct plan_operand *o, FILE *out)
{
    fprintf(out, "(");
    index_print(o->which, out);
    if (o->which.a == 0 && o->which.b < plan->n_links) {
        const struct plan_link *link = &plan->links[o->which.b];
        fprintf(out, " %s rank %u%s", link->direction == PLAN_LINK_IN ? "<-" : "->", link->peer,
                link->way ? ", back" : "");
    }
    fprintf(out, ")");
}

static void operand_print(const struct plan *plan, const struct plan_operand *o, FILE *out)
{
    static const char *const words[] = {"input",    "output",     "scratch",    "slot-in",
                                        "slot-out", "peer-input", "peer-output"};
    fprintf(out, "%s", o->place <= PLAN_PEER_OUTPUT ? words[o->place] : "?");
    if (o->place == PLAN_SLOT_IN || o->place == PLAN_SLOT_OUT) link_print(plan, o, out);
    if (o->place == PLAN_PEER_INPUT || o->place == PLAN_PEER_OUTPUT) peers_print(o, out);
    fprintf(out, "[");
    index_print(o->piece, out);
    fprintf(out, "]");
}

static void step_print(const struct plan *plan, const struct plan_step *s, FILE *out)
{
    const struct plan_operand *o = &plan->operands[s->first];
    const char *counter = s->counter < PLAN_COUNTERS ? counter_words[s->counter] : "?";
    switch (s->verb) {
    case PLAN_MOVE:
        fprintf(out, "MOVE    ");
        for (int k = 0; k < s->n_src + s->n_dst; k++) {
            if (k > 0) fprintf(out, "%s", k < s->n_src ? " + " : k == s->n_src ? " -> " : ", ");
            operand_print(plan, &o[k], out);
        }
        break;
    case PLAN_SIGNAL:
        fprintf(out, "SIGNAL  %s", counter);
        break;
    case PLAN_WAIT:
        fprintf(out, "WAIT    %s of peers", counter);
        peers_print(o, out);
        if (s->lag > 0) fprintf(out, ", %u rounds ago", s->lag);
        break;
    case PLAN_LOOP:
        if (s->times == 0) fprintf(out, "LOOP    no times");
        else fprintf(out, "LOOP    %u times, i = 0 .. %u", s->times, s->times - 1);
        if (s->times && s->period) fprintf(out, ", without i mod %u = %u", s->period, s->skip);
        break;
    default:
        fprintf(out, "verb %u?", s->verb);
    }
    if (s->flags & PLAN_FINAL) fprintf(out, "   FINAL");
    if (s->flags & PLAN_BALANCED) fprintf(out, "   balanced");
    if (s->flags & PLAN_IF_DIRECT) fprintf(out, "   if direct");
    if (s->flags & PLAN_IF_STAGED) fprintf(out, "   if staged");
    fprintf(out, "\n");
}

void plan_print(const struct plan *plan, FILE *out)
{
    if (plan->collective != PLAN_ALLREDUCE) {
        const char *name = collective_name(plan->collective);
        fprintf(out, "%s", name ? name : "?");
        if (collective_kind(plan->collective).rooted) fprintf(out, ", root %u", plan->root);
        fprintf(out, ", ");
    }
    fprintf(out, "%s, rank %u of %u, node peer %u of %u, channel %u: %u piece%s a round",
            plan->algorithm < PLAN_ALGORITHMS ? algorithm_words[plan->algorithm] : "?", plan->rank, plan->n_ranks,
            plan->peer, plan->n_peers, plan->channel, plan->n_pieces, plan->n_pieces == 1 ? "" : "s");
    if (plan->n_scratch > 0) fprintf(out, ", %u of scratch", plan->n_scratch);
    if (plan->n_links > 0) fprintf(out, ", %u slot%s a link", plan->slots_min, plan->slots_min == 1 ? "" : "s");
    if (plan->flags & PLAN_IN_RANK_ORDER) fprintf(out, ", in rank order");
    fprintf(out, "%s\n", plan->flags & PLAN_DIRECT_IN_PLACE ? "" : ", not for direct in place");
    for (uint32_t k = 0; k < plan->n_strands; k++) {
        const struct plan_strand *strand = &plan->strands[k];
        uint32_t end = (uint32_t)strand->first + strand->n_steps, inside = 0;
        fprintf(out, "strand %u\n", k);
        for (uint32_t at = strand->first; at < end && at < PLAN_MAX_STEPS; at++) {
            fprintf(out, "  %2u  %s", at, inside > 0 ? "  " : "");
            step_print(plan, &plan->steps[at], out);
            inside = plan->steps[at].verb == PLAN_LOOP ? plan->steps[at].body : inside > 0 ? inside - 1 : 0;
        }
    }
}
