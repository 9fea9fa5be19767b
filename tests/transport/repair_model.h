/* repair_model.h - two ends that repair lanes between them, their driver and the network, small enough to be explored.
 *
 * The ends' `struct repair` and repair_step() are the real ones. Around them, as plain as possible: sockets that carry
 * frames in order, one reliable stream of control frames per direction, links whose senders know which lane carried a
 * grain and whose receivers have a bit for each. Everything that may happen next, in the network, at an end, or as a
 * fault, is a `struct step`; who includes this chooses among those that are possible and looks at `wrong`.
 *
 * Include it with MODEL_LANES, MODEL_FRAMES (in flight on a socket), MODEL_CONTROL (kept), MODEL_WINDOW (slots) and
 * MODEL_GRAINS (per slot) defined, and the types model_count (of frames, turns and slots) and model_bits (of a window).
 * Time stands still but for REPAIR_TICK, which finds every hold-down over. A rule that is broken is a text in `wrong`,
 * and nothing happens afterwards. */
#ifndef TEST_REPAIR_MODEL_H
#define TEST_REPAIR_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "transport/link/repair.h"

enum { CONNECTER, ACCEPTER, ENDS };
enum { BERTHS = 2 };            /* a lane's places for sockets; place = BERTHS x lane + berth */
enum { KNOCKS = 3 };            /* HELLOs on their way for one lane: of the last try, and of abandoned ones */
#define FAR_NS (UINT64_MAX / 2) /* every hold-down is over */

struct model_setup {
    bool link_from[ENDS];       /* there is a link that this end sends on */
    uint32_t n_lanes, n_grains; /* in use; grains of each link altogether */
    uint32_t slot_grains, window;
    bool moves;                 /* the connecter may replace sockets of lanes that are up */
    bool reader_waits;          /* releasing a slot is a step of its own */
    bool thorough;              /* steps that change nothing that matters are left out, so that all others can be had:
                                   control frames are not acknowledged, a socket's reset is the fault of a cut */
    uint32_t turns_max;         /* more than so many sockets of a lane: it does not come to rest */
};

enum model_kind { M_HELLO, M_DATA, M_CREDIT, M_BITMAPS, M_LANE_DOWN, M_LEAVE, M_END };
struct model_frame {
    uint8_t kind, lane;
    model_count turn, number; /* LANE_DOWN; of the control stream */
    model_count ack, credit;  /* riding on all but DATA */
    model_count slot, grain;  /* DATA; BITMAPS: slot is `arrived` */
    model_bits bits;        /* BITMAPS: of slots `arrived` to `arrived` + window */
};

enum model_socket_state { CLOSED, TRIED, OPEN };
struct model_socket {
    uint8_t state;
    uint8_t deaf;          /* nothing arrives any more */
    uint8_t said_leave, heard_leave;
    model_count turn, n;
    struct model_frame in[MODEL_FRAMES]; /* on their way here */
};

struct model_control {
    model_count acked, next, sent; /* what we say: numbers; `sent` on the present lane */
    model_count taken;             /* of what they say */
    int8_t place;               /* -1: none */
    struct model_frame kept[MODEL_CONTROL];
};

/* A sender's grain; and where it went. */
enum { UNSENT, AGAIN, LANDED, CARRIED = 0x40 /* + place */, DOUBTED = 0x80 /* + lane */, LANE_MASK = 0x3f };
struct model_sender {
    model_count credited;
    uint8_t grain[MODEL_WINDOW * MODEL_GRAINS];
};

struct model_receiver {
    model_count arrived, released;
    bool owes;
    model_bits bits;
};

struct model_end {
    struct repair repair;
    struct repair_lane lanes[MODEL_LANES];
    struct model_socket sockets[MODEL_LANES * BERTHS];
    model_count heard_of[MODEL_LANES]; /* connecter: the last turn that a HELLO may have named */
    struct model_control control;
    struct model_sender sender;
    struct model_receiver receiver;
    bool crashed;
};

struct model {
    const struct model_setup *setup;
    struct model_end ends[ENDS];
    model_count knocks[MODEL_LANES][KNOCKS]; /* 2 x turn + 2, + 1: for a place beside; 0: none */
    const char *wrong;
};

enum step_kind {
    /* What goes on by itself, at a place or, for all of a lane, at its first. */
    S_SEND, S_CREDIT, S_DELIVER, S_RESET, S_ADMIT, S_TICK, S_NOTICE, S_RELEASE, S_LEAVE, S_FREE,
    /* Faults. */
    S_SUSPECT = S_FREE, S_CUT_ONE_WAY, S_CUT, S_CUT_ALL, S_TRY_FAILS, S_TRY_FAILS_UNHEARD, S_KNOCK_LOST, S_CRASH,
    S_MOVE, /* no fault; as rare */
    S_KINDS
};
struct step { uint8_t kind, end, place, which; };

static inline void model_wrong(struct model *m, const char *text)
{
    if (!m->wrong) m->wrong = text;
}

/* ---- what travels ---- */

/* The other end's half of a socket; NULL: it has none, or has it no longer. */
static inline struct model_socket *model_half(struct model *m, uint32_t from, uint32_t place)
{
    uint32_t first = place / BERTHS * BERTHS, turn = m->ends[from].sockets[place].turn;
    for (uint32_t p = first; p < first + BERTHS && !m->ends[!from].crashed; p++) {
        struct model_socket *s = &m->ends[!from].sockets[p];
        if (s->state != CLOSED && s->turn == turn) return s;
    }
    return NULL;
}

static inline void model_push(struct model *m, uint32_t from, uint32_t place, struct model_frame f)
{
    struct model_socket *at = model_half(m, from, place);
    if (!at || at->deaf) return;
    if (at->n == MODEL_FRAMES)
        model_wrong(m, "the model's sockets are too small");
    else
        at->in[at->n++] = f;
}

static inline struct model_frame model_pop(struct model_socket *s)
{
    struct model_frame f = s->in[0];
    s->n--;
    memmove(s->in, s->in + 1, s->n * sizeof *s->in);
    memset(&s->in[s->n], 0, sizeof *s->in);
    return f;
}

static inline void model_ride(const struct model *m, uint32_t e, struct model_frame *f)
{
    if (!m->setup->thorough) f->ack = m->ends[e].control.taken;
    f->credit = m->ends[e].receiver.released;
}

/* Sends what the control stream holds, on its lane or on another one from the first that is not acknowledged. */
static inline void model_pump(struct model *m, uint32_t e)
{
    struct model_end *end = &m->ends[e];
    struct model_control *c = &end->control;
    for (uint32_t i = 0; i < m->setup->n_lanes * BERTHS && c->place < 0; i++) {
        if (end->sockets[i].state != OPEN || end->sockets[i].said_leave) continue;
        c->place = (int8_t)i;
        c->sent = c->acked;
    }
    bool waits = c->place < 0 || end->sockets[c->place].said_leave; /* for its end, as frames must not overtake */
    for (; !waits && c->sent < c->next; c->sent++) {
        struct model_frame f = c->kept[c->sent - c->acked];
        f.number = c->sent;
        model_ride(m, e, &f);
        end->receiver.owes = false;
        model_push(m, e, (uint32_t)c->place, f);
    }
}

static inline void model_say(struct model *m, uint32_t e, struct model_frame f)
{
    struct model_control *c = &m->ends[e].control;
    if (c->next - c->acked == MODEL_CONTROL)
        model_wrong(m, "the model keeps too few control frames");
    else
        c->kept[c->next++ - c->acked] = f;
}

/* ---- what the driver does ---- */

/* `left`: both ends have said LEAVE, and the socket beside it goes on. What the connecter sent has then been read, as
 * the answer comes after it. The accepter cannot know that: the connecter may have closed it because the lane dies. So
 * what it carried stays the lane's, and is in doubt when that dies. */
static inline void model_close(struct model *m, uint32_t e, uint32_t place, bool left)
{
    uint8_t then = (uint8_t)(DOUBTED | place / BERTHS);
    if (left) then = e == CONNECTER ? LANDED : (uint8_t)(CARRIED | (place ^ 1));
    struct model_end *end = &m->ends[e];
    struct model_socket *s = &end->sockets[place];
    if (s->state == CLOSED) return;
    model_push(m, e, place, (struct model_frame){.kind = M_END});
    memset(s, 0, sizeof *s);
    if (end->control.place == (int)place) end->control.place = -1;
    uint32_t n = m->setup->window * m->setup->slot_grains;
    for (uint32_t i = 0; i < n; i++)
        if (end->sender.grain[i] == (CARRIED | place)) end->sender.grain[i] = then;
    if (m->setup->link_from[!e]) end->receiver.owes = true;
}

/* A lane that dies does so with all it has; one that lives on loses the sockets up to `turn`. The HELLO of a try that
 * ends so may have been said. */
static inline void model_close_lane(struct model *m, uint32_t e, uint32_t lane, bool dies, uint32_t turn)
{
    for (uint32_t p = lane * BERTHS; p < (lane + 1) * BERTHS; p++) {
        const struct model_socket *s = &m->ends[e].sockets[p];
        if (!dies && s->turn > turn) continue;
        if (s->state == TRIED && m->ends[e].heard_of[lane] < s->turn) m->ends[e].heard_of[lane] = s->turn;
        model_close(m, e, p, false);
    }
}

static inline uint64_t model_slot_mask(const struct model *m, uint32_t slot)
{
    uint32_t first = slot * m->setup->slot_grains, n = m->setup->slot_grains;
    if (first >= m->setup->n_grains) return 0;
    if (n > m->setup->n_grains - first) n = m->setup->n_grains - first;
    return (((uint64_t)1 << n) - 1) << slot % m->setup->window * m->setup->slot_grains;
}

static inline void model_say_down(struct model *m, uint32_t e, uint32_t lane, model_count turn)
{
    const struct model_end *end = &m->ends[e];
    for (uint32_t p = lane * BERTHS; p < (lane + 1) * BERTHS; p++)
        if (end->sockets[p].state != CLOSED && end->sockets[p].turn <= turn)
            model_wrong(m, "DOWN is said of a turn whose socket is open");
    if (m->setup->link_from[!e])
        model_say(m, e, (struct model_frame){.kind = M_BITMAPS, .slot = end->receiver.arrived,
                                             .bits = end->receiver.bits});
    model_say(m, e, (struct model_frame){.kind = M_LANE_DOWN, .lane = (uint8_t)lane, .turn = turn});
}

static inline void model_send_again(struct model *m, uint32_t e, uint32_t lane)
{
    uint32_t n = m->setup->window * m->setup->slot_grains;
    for (uint32_t i = 0; i < n; i++)
        if (m->ends[e].sender.grain[i] == (DOUBTED | lane)) m->ends[e].sender.grain[i] = AGAIN;
}

static inline void model_try(struct model *m, uint32_t lane, model_count turn, bool beside)
{
    struct model_end *end = &m->ends[CONNECTER];
    uint32_t place = lane * BERTHS;
    if (beside && end->sockets[place].state != CLOSED) place++;
    if (end->sockets[place].state != CLOSED) model_wrong(m, "a try while the lane has a socket");
    if (turn <= end->heard_of[lane]) model_wrong(m, "a turn that they may have heard of is used again");
    if (turn > m->setup->turns_max) model_wrong(m, "it does not come to rest");
    end->sockets[place] = (struct model_socket){.state = TRIED, .turn = turn};
    for (uint32_t k = 0; k < KNOCKS && !m->ends[ACCEPTER].crashed; k++) {
        if (m->knocks[lane][k] != 0) continue;
        m->knocks[lane][k] = (model_count)(2 * turn + 2 + beside);
        return;
    }
}

static inline uint32_t model_count_of(const struct model_end *end, uint32_t lane, enum model_socket_state state)
{
    return (end->sockets[lane * BERTHS].state == state) + (uint32_t)(end->sockets[lane * BERTHS + 1].state == state);
}

/* What repair and driver must agree on after each event. */
static inline void model_check_end(struct model *m, uint32_t e)
{
    const struct model_end *end = &m->ends[e];
    uint32_t n_up = 0, n = m->setup->window * m->setup->slot_grains;
    for (uint32_t i = 0; i < m->setup->n_lanes; i++) {
        const struct repair_lane *l = &end->lanes[i];
        uint32_t n_open = model_count_of(end, i, OPEN), n_tried = model_count_of(end, i, TRIED);
        n_up += l->state == REPAIR_UP;
        if ((n_open > 0) != (l->state == REPAIR_UP) || (n_open == 0 && (n_tried > 0) != (l->state == REPAIR_TRYING)))
            model_wrong(m, "repair's state of a lane is not its sockets'");
        for (uint32_t p = i * BERTHS; p < (i + 1) * BERTHS; p++) {
            const struct model_socket *s = &end->sockets[p];
            if (s->state == OPEN && s->turn > l->turn) model_wrong(m, "repair does not know the turn of a socket");
            if (s->state == TRIED && s->turn > l->tried_turn) model_wrong(m, "repair does not know the turn of a try");
        }
    }
    if (n_up != end->repair.n_up) model_wrong(m, "n_up is not the number of lanes that are up");
    for (uint32_t i = 0; i < n; i++) {
        uint8_t g = end->sender.grain[i];
        if (g & DOUBTED && !end->lanes[g & LANE_MASK].in_doubt)
            model_wrong(m, "what a closed socket carried is neither landed, nor in doubt, nor sent again");
    }
}

static inline void model_event(struct model *m, uint32_t e, enum repair_event_kind kind, uint32_t lane,
                               model_count turn)
{
    struct model_end *end = &m->ends[e];
    struct repair_event event = {.kind = kind, .lane = lane, .turn = turn,
                                 .now_ns = kind == REPAIR_TICK ? FAR_NS : 1};
    enum repair_state before = end->lanes[lane].state;
    end->repair.lanes = end->lanes;
    struct repair_actions a = repair_step(&end->repair, &event);
    end->repair.lanes = NULL; /* ends are copied */
    bool dies = before == REPAIR_UP && end->lanes[lane].state != REPAIR_UP;
    if (a.what & REPAIR_WRONG) model_wrong(m, "REPAIR_WRONG between honest ends");
    if (a.what & REPAIR_CLOSE) model_close_lane(m, e, lane, dies, a.say_turn);
    if (a.what & REPAIR_SAY_DOWN) model_say_down(m, e, lane, a.say_turn);
    if (a.what & REPAIR_SEND_AGAIN) model_send_again(m, e, lane);
    if (a.what & REPAIR_CONNECT) model_try(m, lane, a.try_turn, false);
    model_check_end(m, e);
    model_pump(m, e);
}

/* ---- frames that arrive ---- */

static inline void model_take_data(struct model *m, uint32_t e, struct model_frame f)
{
    struct model_receiver *r = &m->ends[e].receiver;
    uint32_t g = m->setup->slot_grains, w = m->setup->window;
    uint64_t bit = (uint64_t)1 << (f.slot % w * g + f.grain);
    if (f.slot < r->released) model_wrong(m, "a late grain is written into a slot that was given back");
    else if (f.slot >= r->released + w) model_wrong(m, "a grain is beyond the credit");
    else if (f.slot < r->arrived || r->bits & bit) model_wrong(m, "a grain lands twice");
    if (m->wrong) return;
    r->bits |= bit;
    for (uint64_t all; (all = model_slot_mask(m, r->arrived)) != 0 && (r->bits & all) == all; r->arrived++) {
        if (r->arrived >= r->released + w) break; /* what is there is the slot before it in this place */
        r->bits &= ~all;
    }
    if (m->setup->reader_waits || r->released == r->arrived) return;
    r->released = r->arrived;
    r->owes = true;
}

static inline void model_take_credit(struct model *m, uint32_t e, model_count credit)
{
    struct model_sender *s = &m->ends[e].sender;
    uint32_t g = m->setup->slot_grains, w = m->setup->window;
    for (; s->credited < credit; s->credited++) {
        if (s->credited * g >= m->setup->n_grains) model_wrong(m, "credit for slots that never were");
        for (uint32_t i = 0; i < g && s->credited * g + i < m->setup->n_grains; i++)
            if (s->grain[s->credited % w * g + i] == UNSENT || s->grain[s->credited % w * g + i] == AGAIN)
                model_wrong(m, "credit for a grain that nobody sent");
        memset(s->grain + s->credited % w * g, UNSENT, g);
    }
}

static inline void model_take_bitmaps(struct model *m, uint32_t e, struct model_frame f)
{
    struct model_sender *s = &m->ends[e].sender;
    uint32_t g = m->setup->slot_grains, w = m->setup->window;
    for (uint32_t slot = s->credited; slot < s->credited + w && slot < f.slot + w; slot++)
        for (uint32_t i = 0; i < g && slot * g + i < m->setup->n_grains; i++) {
            uint8_t *grain = &s->grain[slot % w * g + i];
            if (slot >= f.slot && !(f.bits >> (slot % w * g + i) & 1)) continue;
            if (*grain == UNSENT || *grain == AGAIN) model_wrong(m, "a grain that nobody sent is said to have landed");
            *grain = LANDED;
        }
}

static inline void model_take_ack(struct model *m, uint32_t e, model_count ack)
{
    struct model_control *c = &m->ends[e].control;
    if (ack > c->next) model_wrong(m, "control frames are acknowledged that were never said");
    if (ack <= c->acked || m->wrong) return;
    uint32_t gone = ack - c->acked;
    memmove(c->kept, c->kept + gone, (size_t)(c->next - ack) * sizeof *c->kept);
    memset(c->kept + (c->next - ack), 0, gone * sizeof *c->kept);
    c->acked = ack;
    if (c->sent < ack) c->sent = ack;
}

/* A socket is up beside the lane's own. */
static inline void model_moved(struct model *m, uint32_t e, uint32_t lane, model_count turn)
{
    struct model_end *end = &m->ends[e];
    end->repair.lanes = end->lanes;
    repair_moves(&end->repair, lane, turn);
    end->repair.lanes = NULL;
    model_check_end(m, e);
    model_pump(m, e);
}

static inline void model_leave(struct model *m, uint32_t e, uint32_t place)
{
    model_push(m, e, place, (struct model_frame){.kind = M_LEAVE});
    m->ends[e].sockets[place].said_leave = true;
}

static inline void model_try_fails(struct model *m, uint32_t place, bool heard);

static inline void model_take_end(struct model *m, uint32_t e, uint32_t place)
{
    struct model_socket *s = &m->ends[e].sockets[place];
    if (s->state == TRIED) {
        model_try_fails(m, place, true);
    } else if (s->said_leave && s->heard_leave) {
        model_close(m, e, place, true);
        model_check_end(m, e);
        model_pump(m, e);
    } else {
        model_event(m, e, REPAIR_ENDED, place / BERTHS, s->turn);
    }
}

static inline void model_take_leave(struct model *m, uint32_t e, uint32_t place)
{
    struct model_socket *s = &m->ends[e].sockets[place], *beside = &m->ends[e].sockets[place ^ 1];
    s->heard_leave = true;
    if (e == CONNECTER) {
        model_take_end(m, e, place);
        return;
    }
    if (beside->state != OPEN || beside->said_leave) model_wrong(m, "LEAVE of a lane's only socket");
    model_leave(m, e, place);
}

static inline void model_take(struct model *m, uint32_t e, uint32_t place, struct model_frame f)
{
    struct model_end *end = &m->ends[e];
    struct model_socket *s = &end->sockets[place];
    if (f.kind == M_HELLO) {
        s->state = OPEN;
        if (end->lanes[place / BERTHS].state == REPAIR_UP)
            model_moved(m, e, place / BERTHS, s->turn);
        else
            model_event(m, e, REPAIR_CONNECTED, place / BERTHS, s->turn);
        return;
    }
    if (f.kind == M_END) {
        model_take_end(m, e, place);
        return;
    }
    if (s->state != OPEN) model_wrong(m, "a frame before HELLO");
    if (f.kind == M_DATA) {
        model_take_data(m, e, f);
        return;
    }
    if (f.kind == M_LEAVE) {
        model_take_leave(m, e, place);
        return;
    }
    model_take_ack(m, e, f.ack);
    model_take_credit(m, e, f.credit);
    if (f.kind == M_CREDIT || f.number < end->control.taken) return; /* a control frame that was here already */
    if (f.number > end->control.taken) model_wrong(m, "a gap in the control stream");
    end->control.taken++;
    if (f.kind == M_BITMAPS)
        model_take_bitmaps(m, e, f);
    else
        model_event(m, e, REPAIR_HEARD_DOWN, f.lane, f.turn);
}

/* Whether a HELLO is admitted: one that is older than what there was is of a try that was given up; one for a place
 * beside wants a lane that has one socket. */
static inline bool model_admits(const struct model *m, uint32_t lane, model_count turn, bool beside)
{
    const struct model_end *end = &m->ends[ACCEPTER];
    const struct model_socket *s = &end->sockets[lane * BERTHS];
    if (end->lanes[lane].was_up && turn <= end->lanes[lane].turn) return false;
    if (!beside) return true;
    return model_count_of(end, lane, OPEN) == 1 && !s[0].said_leave && !s[1].said_leave;
}

static inline void model_admit(struct model *m, uint32_t lane, uint32_t knock)
{
    struct model_end *end = &m->ends[ACCEPTER];
    uint32_t said = m->knocks[lane][knock];
    bool beside = said & 1;
    model_count turn = (model_count)(said / 2 - 1);
    struct model_socket *theirs = NULL;
    m->knocks[lane][knock] = 0;
    if (m->ends[CONNECTER].heard_of[lane] < turn) m->ends[CONNECTER].heard_of[lane] = turn;
    for (uint32_t p = lane * BERTHS; p < (lane + 1) * BERTHS && !m->ends[CONNECTER].crashed; p++) {
        struct model_socket *s = &m->ends[CONNECTER].sockets[p];
        if (s->state == TRIED && s->turn == turn) theirs = s;
    }
    if (!model_admits(m, lane, turn, beside)) {
        if (theirs && !theirs->deaf) theirs->in[theirs->n++] = (struct model_frame){.kind = M_END};
        return;
    }
    if (!beside && end->lanes[lane].state == REPAIR_UP) model_event(m, ACCEPTER, REPAIR_ENDED, lane, turn);
    uint32_t place = lane * BERTHS + (end->sockets[lane * BERTHS].state != CLOSED);
    struct model_socket *s = &end->sockets[place];
    *s = (struct model_socket){.state = OPEN, .turn = turn};
    model_push(m, ACCEPTER, place, (struct model_frame){.kind = M_HELLO});
    if (!theirs) s->in[s->n++] = (struct model_frame){.kind = M_END};
    if (beside)
        model_moved(m, ACCEPTER, lane, turn);
    else
        model_event(m, ACCEPTER, REPAIR_CONNECTED, lane, turn);
}

/* ---- what may happen ---- */

/* The first grain that is to go out; -1: none, or it waits for credit. `slot` and `grain` of it. */
static inline int model_next_grain(const struct model *m, uint32_t e, model_count *slot, model_count *grain)
{
    const struct model_sender *s = &m->ends[e].sender;
    uint32_t g = m->setup->slot_grains, w = m->setup->window;
    if (!m->setup->link_from[e]) return -1;
    for (uint32_t at = s->credited; at < s->credited + w; at++)
        for (uint32_t i = 0; i < g && at * g + i < m->setup->n_grains; i++) {
            uint32_t place = at % w * g + i;
            if (s->grain[place] != UNSENT && s->grain[place] != AGAIN) continue;
            *slot = (model_count)at;
            *grain = (model_count)i;
            return (int)place;
        }
    return -1;
}

static inline bool model_knocks(const struct model *m, uint32_t lane, model_count turn)
{
    for (uint32_t k = 0; k < KNOCKS; k++)
        if (m->knocks[lane][k] / 2 == turn + 1u) return true;
    return false;
}

/* The end's socket moves nothing any more in one direction or both, and no END is on its way that says so. */
static inline bool model_is_dead(const struct model *m, uint32_t e, uint32_t place)
{
    const struct model_socket *s = &m->ends[e].sockets[place];
    if (s->state == CLOSED) return false;
    if (s->deaf || m->ends[!e].crashed) return true;
    if (s->n > 0 && s->in[s->n - 1].kind == M_END) return false;
    if (s->state == TRIED && model_knocks(m, place / BERTHS, s->turn)) return false;
    const struct model_socket *theirs = model_half((struct model *)(uintptr_t)m, e, place);
    return !theirs || theirs->deaf;
}

static inline bool model_sends(const struct model *m, uint32_t e, uint32_t place)
{
    const struct model_socket *s = &m->ends[e].sockets[place];
    const struct model_socket *theirs = model_half((struct model *)(uintptr_t)m, e, place);
    return s->state == OPEN && !s->said_leave && (!theirs || theirs->n < (MODEL_FRAMES + 1) / 2);
}

/* The connecter may replace the lane's socket, or decide which of two goes. */
static inline bool model_may_move(const struct model *m, uint32_t lane)
{
    return model_count_of(&m->ends[CONNECTER], lane, OPEN) == 1 &&
           model_count_of(&m->ends[CONNECTER], lane, CLOSED) == 1 &&
           m->knocks[lane][KNOCKS - 1] == 0;
}

static inline bool model_may_leave(const struct model *m, uint32_t place)
{
    const struct model_socket *s = &m->ends[CONNECTER].sockets[place], *beside = &m->ends[CONNECTER].sockets[place ^ 1];
    return s->state == OPEN && beside->state == OPEN && !s->said_leave && !beside->said_leave;
}

static inline uint32_t step_ways(uint32_t kind) { return kind == S_ADMIT || kind == S_KNOCK_LOST ? KNOCKS : 1; }

static inline bool step_possible(const struct model *m, struct step p)
{
    const struct model_end *end = &m->ends[p.end];
    const struct model_socket *s = &end->sockets[p.place];
    uint32_t lane = p.place / BERTHS;
    bool first = p.place % BERTHS == 0, connecter = p.end == CONNECTER;
    model_count slot, grain;
    if (end->crashed || m->wrong || p.which >= step_ways(p.kind)) return false;
    switch ((enum step_kind)p.kind) {
    case S_SEND: return model_sends(m, p.end, p.place) && model_next_grain(m, p.end, &slot, &grain) >= 0;
    case S_CREDIT: return end->receiver.owes && model_sends(m, p.end, p.place);
    case S_DELIVER: return s->n > 0;
    case S_RESET: return !m->setup->thorough && s->n > 1 && s->in[s->n - 1].kind == M_END;
    case S_ADMIT: return first && !connecter && m->knocks[lane][p.which] != 0;
    case S_TICK: return first && connecter && end->lanes[lane].state == REPAIR_RESTING &&
                        m->knocks[lane][KNOCKS - 1] == 0;
    case S_NOTICE: return model_is_dead(m, p.end, p.place);
    case S_RELEASE: return p.place == 0 && end->receiver.released < end->receiver.arrived;
    case S_LEAVE: return connecter && model_may_leave(m, p.place);
    case S_SUSPECT: return s->state == OPEN && !model_is_dead(m, p.end, p.place);
    case S_CUT_ONE_WAY: return s->state != CLOSED && !s->deaf;
    case S_CUT: return connecter && s->state != CLOSED && !s->deaf &&
                       model_half((struct model *)(uintptr_t)m, p.end, p.place);
    case S_CUT_ALL: return connecter && p.place == 0 && (end->repair.n_up > 1 || m->ends[1].repair.n_up > 1);
    case S_TRY_FAILS: return s->state == TRIED && !s->deaf;
    case S_TRY_FAILS_UNHEARD: return s->state == TRIED && s->turn > end->heard_of[lane];
    case S_KNOCK_LOST: return first && !connecter && m->knocks[lane][p.which] != 0;
    case S_CRASH: return p.place == 0;
    case S_MOVE: return m->setup->moves && first && connecter && model_may_move(m, lane);
    case S_KINDS: break;
    }
    return false;
}

static inline void model_cut(struct model_socket *s)
{
    if (!s || s->state == CLOSED) return;
    memset(s->in, 0, sizeof s->in);
    s->n = 0;
    s->deaf = true;
}

static inline void model_forget_knock(struct model *m, uint32_t lane, model_count turn)
{
    for (uint32_t k = 0; k < KNOCKS; k++)
        if (m->knocks[lane][k] / 2 == turn + 1u) m->knocks[lane][k] = 0;
}

/* One beside the lane's own that may be up there ends the lane; of one that was not heard of nothing is left. */
static inline void model_try_fails(struct model *m, uint32_t place, bool heard)
{
    struct model_end *end = &m->ends[CONNECTER];
    uint32_t lane = place / BERTHS;
    model_count turn = end->sockets[place].turn;
    bool beside = end->lanes[lane].state == REPAIR_UP;
    if (heard && end->heard_of[lane] < turn) end->heard_of[lane] = turn;
    if (!heard) model_forget_knock(m, lane, turn);
    model_close(m, CONNECTER, place, false);
    if (!beside)
        model_event(m, CONNECTER, REPAIR_TRY_FAILED, lane, end->heard_of[lane]);
    else if (heard)
        model_event(m, CONNECTER, REPAIR_ENDED, lane, turn);
}

static inline void model_notice(struct model *m, uint32_t e, uint32_t place)
{
    if (m->ends[e].sockets[place].state == TRIED)
        model_try_fails(m, place, !m->ends[ACCEPTER].crashed);
    else
        model_event(m, e, REPAIR_ENDED, place / BERTHS, m->ends[e].sockets[place].turn);
}

static inline void model_move(struct model *m, uint32_t lane)
{
    struct model_end *end = &m->ends[CONNECTER];
    model_count turn = (model_count)(end->lanes[lane].tried_turn + 1);
    end->repair.lanes = end->lanes;
    repair_tries(&end->repair, lane, turn);
    end->repair.lanes = NULL;
    model_try(m, lane, turn, true);
}

static inline void model_send(struct model *m, uint32_t e, uint32_t at)
{
    struct model_frame f = {.kind = M_DATA};
    int place = model_next_grain(m, e, &f.slot, &f.grain);
    m->ends[e].sender.grain[place] = (uint8_t)(CARRIED | at);
    model_push(m, e, at, f);
}

/* Removes what changes nothing when it arrives: credit that is old, control frames that were here. */
static inline void model_simplify(struct model *m, uint32_t e)
{
    struct model_end *end = &m->ends[e];
    if (end->receiver.released <= m->ends[!e].sender.credited) end->receiver.owes = false;
    for (uint32_t i = 0; i < m->setup->n_lanes * BERTHS; i++) {
        struct model_socket *s = &end->sockets[i];
        model_count n = 0;
        for (uint32_t j = 0; j < s->n; j++) {
            const struct model_frame *f = &s->in[j];
            bool control = f->kind == M_BITMAPS || f->kind == M_LANE_DOWN;
            bool old = f->kind == M_CREDIT || (control && f->number < end->control.taken);
            if (!old || f->credit > end->sender.credited) s->in[n++] = *f;
        }
        memset(s->in + n, 0, (size_t)(s->n - n) * sizeof *s->in);
        s->n = n;
    }
}

static inline void step_do(struct model *m, struct step p)
{
    struct model_end *end = &m->ends[p.end];
    struct model_socket *s = &end->sockets[p.place];
    struct model_frame f = {.kind = M_CREDIT};
    switch ((enum step_kind)p.kind) {
    case S_SEND: model_send(m, p.end, p.place); break;
    case S_CREDIT:
        model_ride(m, p.end, &f);
        end->receiver.owes = false;
        model_push(m, p.end, p.place, f);
        break;
    case S_DELIVER:
        f = model_pop(s);
        model_take(m, p.end, p.place, f);
        if (m->setup->thorough && f.kind == M_BITMAPS && s->n > 0 && !m->wrong) /* and the LANE_DOWN behind it */
            model_take(m, p.end, p.place, model_pop(s));
        break;
    case S_RESET: /* a closed socket's reset overtakes what it had sent */
        memset(s->in, 0, sizeof s->in);
        s->n = 1;
        s->in[0].kind = M_END;
        break;
    case S_ADMIT: model_admit(m, p.place / BERTHS, p.which); break;
    case S_TICK: model_event(m, p.end, REPAIR_TICK, p.place / BERTHS, 0); break;
    case S_NOTICE: model_notice(m, p.end, p.place); break;
    case S_RELEASE:
        end->receiver.released++;
        end->receiver.owes = true;
        break;
    case S_SUSPECT: model_event(m, p.end, REPAIR_ENDED, p.place / BERTHS, s->turn); break;
    case S_CUT_ONE_WAY: model_cut(s); break;
    case S_CUT:
        model_cut(model_half(m, p.end, p.place));
        model_cut(s);
        break;
    case S_CUT_ALL:
        for (uint32_t i = 0; i < m->setup->n_lanes * BERTHS; i++)
            for (uint32_t e = 0; e < ENDS; e++) model_cut(&m->ends[e].sockets[i]);
        break;
    case S_TRY_FAILS: model_try_fails(m, p.place, true); break;
    case S_TRY_FAILS_UNHEARD: model_try_fails(m, p.place, false); break;
    case S_KNOCK_LOST: m->knocks[p.place / BERTHS][p.which] = 0; break;
    case S_CRASH: end->crashed = true; break;
    case S_LEAVE: model_leave(m, p.end, p.place); break;
    case S_MOVE: model_move(m, p.place / BERTHS); break;
    case S_KINDS: break;
    }
    /* Time is abstracted away: hold-downs are always over. */
    for (uint32_t i = 0; i < m->setup->n_lanes * ENDS; i++) {
        struct repair_lane *l = &m->ends[i % ENDS].lanes[i / ENDS];
        l->flaps = 0;
        l->up_ns = l->retry_ns = 0;
    }
    m->ends[0].repair.alone_ns = m->ends[1].repair.alone_ns = 0;
    for (uint32_t e = 0; e < ENDS && m->setup->thorough; e++) model_simplify(m, e);
}

/* ---- beginning and end ---- */

static inline void model_begin(struct model *m, const struct model_setup *setup, bool connected)
{
    memset(m, 0, sizeof *m);
    m->setup = setup;
    for (uint32_t e = 0; e < ENDS; e++) {
        repair_begin(&m->ends[e].repair, e == CONNECTER, m->ends[e].lanes, setup->n_lanes);
        m->ends[e].repair.lanes = NULL;
        m->ends[e].control.place = -1;
    }
    for (uint32_t i = 0; i < setup->n_lanes; i++) {
        m->ends[CONNECTER].sockets[i * BERTHS].state = TRIED;
        m->knocks[i][0] = 2;
    }
    for (uint32_t i = 0; i < setup->n_lanes && connected; i++) {
        step_do(m, (struct step){.kind = S_ADMIT, .end = ACCEPTER, .place = (uint8_t)(i * BERTHS)});
        step_do(m, (struct step){.kind = S_DELIVER, .end = CONNECTER, .place = (uint8_t)(i * BERTHS)});
    }
}

/* What is not as it should be when nothing goes on by itself any more; NULL: nothing. */
static inline const char *model_rest(const struct model *m)
{
    uint32_t n_slots = (m->setup->n_grains + m->setup->slot_grains - 1) / m->setup->slot_grains;
    for (uint32_t e = 0; e < ENDS; e++) {
        const struct model_end *end = &m->ends[e];
        if (m->setup->link_from[e] && m->ends[!e].receiver.arrived != n_slots) return "a grain has not landed";
        if (m->setup->link_from[e] && end->sender.credited != n_slots) return "credit is missing";
        for (uint32_t i = 0; i < m->setup->n_lanes; i++) {
            if (end->lanes[i].in_doubt) return "something stays in doubt";
            if (end->lanes[i].state != REPAIR_UP) return "a lane is not up again";
            for (uint32_t p = i * BERTHS; p < (i + 1) * BERTHS; p++)
                if (end->sockets[p].state != CLOSED && !model_half((struct model *)(uintptr_t)m, e, p))
                    return "the ends' sockets of a lane differ";
            if (model_count_of(end, i, OPEN) != 1) return "a lane has two sockets";
        }
    }
    return NULL;
}

/* ---- in words ---- */

static inline void frame_print(FILE *out, const struct model_frame *f)
{
    static const char *const names[] = {"HELLO",     "DATA",  "CREDIT", "BITMAPS",
                                        "LANE_DOWN", "LEAVE", "the end of the socket"};
    fprintf(out, "%s", names[f->kind]);
    if (f->kind == M_DATA) fprintf(out, " slot %u grain %u", f->slot, f->grain);
    if (f->kind == M_CREDIT) fprintf(out, " %u", f->credit);
    if (f->kind == M_BITMAPS) fprintf(out, " (number %u) slots before %u, bits %#llx", f->number, f->slot,
                                      (unsigned long long)f->bits);
    if (f->kind == M_LANE_DOWN) fprintf(out, " (number %u) lane %u turn %u", f->number, f->lane, f->turn);
}

static inline void step_print(FILE *out, const struct model *m, struct step p)
{
    static const char *const ends[] = {"connecter", "accepter"};
    static const char *const texts[S_KINDS] = {
        [S_SEND] = "sends a grain", [S_CREDIT] = "sends CREDIT", [S_DELIVER] = "reads",
        [S_RESET] = "is reset: loses all but the end", [S_ADMIT] = "admits a HELLO",
        [S_TICK] = "tries again", [S_NOTICE] = "notices that the socket is dead", [S_RELEASE] = "gives a slot back",
        [S_SUSPECT] = "FAULT: takes a healthy socket for dead", [S_CUT_ONE_WAY] = "FAULT: hears nothing any more",
        [S_CUT] = "FAULT: cut in both directions", [S_CUT_ALL] = "FAULT: all lanes cut",
        [S_TRY_FAILS] = "FAULT: try fails, its HELLO may arrive",
        [S_TRY_FAILS_UNHEARD] = "FAULT: try fails before HELLO", [S_KNOCK_LOST] = "FAULT: HELLO is lost",
        [S_CRASH] = "FAULT: crashes",
        [S_LEAVE] = "says LEAVE", [S_MOVE] = "tries another socket beside it",
    };
    const struct model_socket *s = &m->ends[p.end].sockets[p.place];
    fprintf(out, "    lane %u turn %u  %-9s %s", p.place / BERTHS, s->turn, ends[p.end], texts[p.kind]);
    if (p.kind == S_DELIVER) fprintf(out, " "), frame_print(out, &s->in[0]);
    if (p.kind == S_ADMIT || p.kind == S_KNOCK_LOST)
        fprintf(out, " with turn %u", m->knocks[p.place / BERTHS][p.which] / 2 - 1);
    if (p.kind == S_SEND) {
        struct model_frame f = {.kind = M_DATA};
        model_next_grain(m, p.end, &f.slot, &f.grain);
        fprintf(out, ": "), frame_print(out, &f);
    }
    fprintf(out, "\n");
}

#endif
