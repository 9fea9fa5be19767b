/* timeline.c - the pace of a call between changes, and what changes it. */
#include "simulate/timeline.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simulate/clocks.h"

enum { PACES_MAX = 64, STEPS_MAX = 20000000 };

/* The call on the network with these faults in force. */
struct pace {
    uint32_t faults; /* a bit each */
    double ns;       /* of the whole call; HUGE_VAL: never */
    double rail[NETWORK_RAILS_MAX]; /* bytes of the whole call */
};

struct running {
    const struct network *whole;
    struct network now;      /* as it is physically; rates are its own */
    const struct timeline_fault *faults;
    uint32_t n_faults;
    uint32_t began, ended;   /* physically; a bit a fault */
    uint32_t in_force;       /* for the pace */
    struct job job;
    struct repairs *repairs;
    struct pace paces[PACES_MAX];
    uint32_t n_paces;
    struct timeline *out;
    double ns, done;
    bool waits, noticed;
};

static enum rail_result tell(struct running *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static enum rail_result tell(struct running *t, const char *format, ...)
{
    struct timeline *out = t->out;
    if (out->n_events == TIMELINE_EVENTS_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "timeline: more than %d events; fewer faults", TIMELINE_EVENTS_MAX);
    struct timeline_event *e = &out->events[out->n_events++];
    va_list args;
    va_start(args, format);
    vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
    e->ns = t->ns;
    return RAIL_OK;
}

/* ---- networks ---- */

static enum rail_result copy(const struct network *from, struct network *out)
{
    *out = *from;
    out->rate = malloc((from->n_links + 1) * sizeof *out->rate);
    if (!out->rate) return rail_fail(RAIL_E_SYSTEM, "timeline: out of memory for %llu links",
                                     (unsigned long long)from->n_links);
    return RAIL_OK;
}

static enum rail_result apply(const struct running *t, uint32_t faults, struct network *out)
{
    memcpy(out->rate, t->whole->rate, out->n_links * sizeof *out->rate);
    out->faulty = t->whole->faulty;
    for (uint32_t k = 0; k < t->n_faults; k++)
        if (faults >> k & 1) RAIL_TRY(network_fault(out, t->faults[k].what, t->faults[k].factor));
    return RAIL_OK;
}

/* ---- the pace ---- */

static void rails_of(const struct running *t, const double *loads, struct pace *p)
{
    const struct network *n = t->whole;
    for (uint32_t h = 0; h < n->n_hosts; h++)
        for (uint32_t r = 0; r < n->n_rails && (!t->out->of_host || h == t->out->host); r++)
            for (uint32_t port = 0; port < n->n_ports; port++)
                p->rail[r] += loads[n->first[NETWORK_NIC_UP] + network_nic(n, h, r, port)];
}

static enum rail_result time_on(struct running *t, const struct network *n, struct pace *p)
{
    struct lay_report laid;
    struct lay_summary summary;
    struct clocks_report clocks;
    double *loads = calloc(n->n_links + 1, sizeof *loads);
    if (!loads) return rail_fail(RAIL_E_SYSTEM, "timeline: out of memory for loads");
    enum rail_result r = lay_job(&t->job, n, loads, &laid, NULL, NULL);
    if (r == RAIL_OK) r = lay_settle(&t->job, 1, n, loads, &laid);
    if (r == RAIL_OK) lay_summarize(n, loads, &summary);
    if (r == RAIL_OK) r = clocks_run(&t->job, n, loads, &laid, &summary, &clocks);
    if (r == RAIL_OK) rails_of(t, loads, p), p->ns = clocks.ns;
    free(loads);
    return r;
}

static enum rail_result pace_of(struct running *t, uint32_t faults, const struct pace **out)
{
    for (uint32_t k = 0; k < t->n_paces; k++)
        if (t->paces[k].faults == faults) return *out = &t->paces[k], RAIL_OK;
    if (t->n_paces == PACES_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "timeline: more than %d different states of the network", PACES_MAX);
    struct pace *p = &t->paces[t->n_paces];
    struct network n;
    *p = (struct pace){.faults = faults, .ns = HUGE_VAL};
    RAIL_TRY(copy(t->whole, &n));
    enum rail_result r = apply(t, faults, &n);
    if (r == RAIL_OK) r = time_on(t, &n, p);
    free(n.rate);
    if (r == RAIL_E_ARGUMENT && faults != 0) r = RAIL_OK; /* hosts are apart: nothing moves */
    if (r == RAIL_OK) *out = p, t->n_paces++;
    return r;
}

/* ---- time passes ---- */

static enum rail_result pass(struct running *t, const struct pace *p, double to_ns)
{
    struct timeline *out = t->out;
    double before = t->done;
    bool wait = t->waits || p->ns == HUGE_VAL;
    if (to_ns <= t->ns) return RAIL_OK;
    if (!wait) t->done += (to_ns - t->ns) / p->ns;
    struct timeline_stretch *last = out->n_stretches ? &out->stretches[out->n_stretches - 1] : NULL;
    struct timeline_stretch s = {.from_ns = t->ns, .to_ns = to_ns, .done_from = before, .done_to = t->done,
                                 .waits = wait};
    for (uint32_t r = 0; r < out->n_rails && !wait; r++) s.rail[r] = p->rail[r] / p->ns;
    t->ns = to_ns;
    if (last && last->waits == s.waits && memcmp(last->rail, s.rail, sizeof s.rail) == 0)
        return last->to_ns = to_ns, last->done_to = t->done, RAIL_OK;
    if (out->n_stretches == TIMELINE_STRETCHES_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "timeline: more than %d changes; fewer faults", TIMELINE_STRETCHES_MAX);
    out->stretches[out->n_stretches++] = s;
    return RAIL_OK;
}

/* The next beginning or end of a fault after what has been; HUGE_VAL: none. */
static double next_change(const struct running *t, uint32_t *fault)
{
    double next = HUGE_VAL;
    for (uint32_t k = 0; k < t->n_faults; k++) {
        double at = !(t->began >> k & 1) ? t->faults[k].at_ns : !(t->ended >> k & 1) ? t->faults[k].until_ns : HUGE_VAL;
        if (at < next) next = at, *fault = k;
    }
    return next;
}

static enum rail_result change(struct running *t, uint32_t k)
{
    const struct timeline_fault *f = &t->faults[k];
    bool begins = !(t->began >> k & 1);
    if (begins) t->began |= 1u << k;
    else t->ended |= 1u << k;
    if (!begins) RAIL_TRY(tell(t, "%s works again", f->what));
    else if (f->factor > 0) RAIL_TRY(tell(t, "%s is at %.3g of its rate", f->what, f->factor));
    else RAIL_TRY(tell(t, "%s dies%s", f->what, f->silent ? ", and its carrier stays" : ""));
    if (begins) t->in_force |= 1u << k, t->noticed = false;
    RAIL_TRY(apply(t, t->began & ~t->ended, &t->now));
    return repairs_network(t->repairs, &t->now, k, f->silent, t->ns);
}

/* What the machines did since. */
static enum rail_result notice(struct running *t)
{
    const struct repairs_counts *c = repairs_counts(t->repairs);
    char name[NETWORK_NAME_BYTES];
    if (!t->noticed && c->first_seen_ns >= 0) {
        t->noticed = true;
        RAIL_TRY(tell(t, "%s sees it%s, and ends the lanes there", network_host_name(t->whole, c->first_host, name),
                      c->by_silence ? " by their silence" : ": no carrier"));
    }
    bool waits = repairs_waiting(t->repairs) > 0;
    if (t->waits && !waits)
        RAIL_TRY(tell(t, "both ends know what is missing: it goes again, by lanes that are up; %llu lanes ended so far",
                      (unsigned long long)c->ended));
    t->waits = waits;
    for (uint32_t k = 0; k < t->n_faults; k++) {
        bool over = t->in_force >> k & 1 && t->ended >> k & 1 && repairs_down(t->repairs, k) == 0;
        if (!over) continue;
        t->in_force &= ~(1u << k);
        if (t->faults[k].factor == 0) RAIL_TRY(tell(t, "lanes through %s are up again", t->faults[k].what));
    }
    return RAIL_OK;
}

static enum rail_result step(struct running *t, bool *over)
{
    uint32_t fault = 0, hosts[2];
    const struct pace *p;
    char a[NETWORK_NAME_BYTES], b[NETWORK_NAME_BYTES];
    RAIL_TRY(pace_of(t, t->in_force, &p));
    double changes = next_change(t, &fault), repairs = repairs_next(t->repairs);
    double ends = t->waits || p->ns == HUGE_VAL ? HUGE_VAL : t->ns + (1 - t->done) * p->ns;
    if (changes == HUGE_VAL && ends == HUGE_VAL && repairs_apart(t->repairs, hosts))
        return rail_fail(RAIL_E_ARGUMENT,
                         "%s does not reach %s any more, and the call cannot end; say until when: --fail PART@FROM..TO",
                         network_host_name(t->whole, hosts[0], a), network_host_name(t->whole, hosts[1], b));
    if (changes == HUGE_VAL && repairs == HUGE_VAL && ends == HUGE_VAL)
        return rail_fail(RAIL_E_INTERNAL, "timeline: the call waits, and nothing is to come");
    if (ends <= changes && ends <= repairs) {
        RAIL_TRY(pass(t, p, ends));
        *over = true;
        return tell(t, "the call is through");
    }
    RAIL_TRY(pass(t, p, changes <= repairs ? changes : repairs));
    RAIL_TRY(changes <= repairs ? change(t, fault) : repairs_step(t->repairs));
    return notice(t);
}

/* ---- all of it ---- */

/* "nic:NAME.RAIL", "port:..." of a host of the network. */
static void show_host(struct running *t, const char *what)
{
    char name[NETWORK_NAME_BYTES];
    const char *host = strchr(what, ':');
    t->out->of_host = false;
    if (strncmp(what, "nic:", 4) != 0 && strncmp(what, "port:", 5) != 0) return;
    for (uint32_t h = 0; h < t->whole->n_hosts && !t->out->of_host; h++) {
        network_host_name(t->whole, h, name);
        size_t n = strlen(name);
        if (strncmp(host + 1, name, n) == 0 && host[1 + n] == '.') t->out->of_host = true, t->out->host = h;
    }
}

static enum rail_result begin(struct running *t, const struct job_request *request)
{
    const struct pace *p;
    for (uint32_t k = 0; k < t->n_faults; k++)
        if (!(t->faults[k].at_ns >= 0) || !(t->faults[k].until_ns > t->faults[k].at_ns))
            return rail_fail(RAIL_E_ARGUMENT, "%s fails from %g to %g ns: the end must come after the beginning",
                             t->faults[k].what, t->faults[k].at_ns, t->faults[k].until_ns);
    RAIL_TRY(apply(t, (1u << t->n_faults) - 1, &t->now)); /* are they all there? */
    RAIL_TRY(apply(t, 0, &t->now));
    show_host(t, t->faults[0].what);
    RAIL_TRY(job_make(&t->job, t->whole, request));
    RAIL_TRY(pace_of(t, 0, &p));
    t->out->whole_ns = p->ns;
    t->repairs = repairs_create(&t->job);
    return t->repairs ? RAIL_OK : rail_fail(RAIL_E_SYSTEM, "timeline: out of memory");
}

enum rail_result timeline_run(const struct network *network, const struct job_request *request,
                              const struct timeline_fault *faults, uint32_t n_faults, struct timeline *out)
{
    struct running t = {.whole = network, .faults = faults, .n_faults = n_faults, .out = out};
    bool over = false;
    memset(out, 0, sizeof *out);
    out->n_rails = network->n_rails;
    if (n_faults < 1 || n_faults > REPAIRS_FAULTS_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "timeline: %u faults; 1 to %d", n_faults, REPAIRS_FAULTS_MAX);
    RAIL_TRY(copy(network, &t.now));
    enum rail_result r = begin(&t, request);
    for (uint32_t k = 0; r == RAIL_OK && !over && k < STEPS_MAX; k++) r = step(&t, &over);
    if (r == RAIL_OK && !over) r = rail_fail(RAIL_E_ARGUMENT, "timeline: more than %d steps", STEPS_MAX);
    out->ns = t.ns;
    if (t.repairs) out->counts = *repairs_counts(t.repairs);
    repairs_destroy(t.repairs);
    job_clear(&t.job);
    free(t.now.rate);
    return r;
}
