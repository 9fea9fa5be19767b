/* repair.c - see repair.h. */
#include "transport/link/repair.h"

#include <string.h>

#include "base/clock.h"

/* A lane rests after a death: 250 ms, in which a link that flaps by nature (autonegotiation, a switch that starts) usually
 * fails again; twice as long for each death that comes before the lane was up for STEADY rests, so that one that comes and
 * goes costs a repair per minute in the end. Healed lanes are to carry within 2 s: rest, and at most one failed try. */
#define REST_NS (250 * RAIL_NS_PER_MS)
enum { FLAPS_MAX = 8 }; /* 64 s */
enum { STEADY = 20 };
/* Between tries while the network stays dead. */
#define PAUSE_NS (250 * RAIL_NS_PER_MS)

static uint64_t rest_ns(const struct repair_lane *lane) { return REST_NS << lane->flaps; }

static void say(struct repair_lane *lane, uint16_t turn, struct repair_actions *out)
{
    if (turn < lane->said_turns) return;
    lane->said_turns = turn + 1u;
    out->what |= REPAIR_SAY_DOWN;
    out->say_turn = turn;
}

static void ended(struct repair *r, struct repair_lane *lane, uint64_t now_ns, struct repair_actions *out)
{
    if (lane->state != REPAIR_UP) return;
    bool steady = now_ns - lane->up_ns >= STEADY * rest_ns(lane);
    if (steady)
        lane->flaps = 0;
    else if (lane->turn > 0 && lane->flaps < FLAPS_MAX)
        lane->flaps++;
    lane->state = REPAIR_RESTING;
    lane->retry_ns = now_ns + rest_ns(lane);
    lane->in_doubt = true;
    lane->doubt_turn = lane->turn;
    if (--r->n_up == 0) {
        r->alone_ns = now_ns;
        lane->retry_ns = now_ns; /* nothing goes by other lanes meanwhile */
    }
    out->what |= REPAIR_CLOSE;
    out->say_turn = lane->turn;
    say(lane, lane->turn, out);
}

/* Closes what is open of it up to `turn`, and says so; once. */
static void close_up_to(struct repair_lane *lane, uint16_t turn, struct repair_actions *out)
{
    if (turn < lane->said_turns) return;
    if (!lane->in_doubt) { /* of a lane that moves, the older socket may carry something yet */
        lane->in_doubt = true;
        lane->doubt_turn = turn;
    }
    out->what |= REPAIR_CLOSE;
    say(lane, turn, out);
}

static void heard_down(struct repair *r, struct repair_lane *lane, uint16_t turn, uint64_t now_ns,
                       struct repair_actions *out)
{
    uint32_t newest = r->connecter ? lane->tried_turn : lane->turn;
    if (turn > newest || (!r->connecter && !lane->was_up)) {
        out->what = REPAIR_WRONG;
        return;
    }
    if (lane->state == REPAIR_UP && lane->turn <= turn) {
        ended(r, lane, now_ns, out);
    } else if (lane->state == REPAIR_TRYING && lane->tried_turn <= turn) { /* it was up there, never here */
        lane->state = REPAIR_RESTING;
        lane->retry_ns = now_ns + rest_ns(lane);
    }
    close_up_to(lane, turn, out);
    if (lane->in_doubt && lane->doubt_turn <= turn) {
        lane->in_doubt = false;
        out->what |= REPAIR_SEND_AGAIN;
    }
}

static void connected(struct repair *r, struct repair_lane *lane, uint16_t turn, uint64_t now_ns,
                      struct repair_actions *out)
{
    if (lane->was_up && turn <= lane->turn) {
        out->what = REPAIR_WRONG;
        return;
    }
    ended(r, lane, now_ns, out); /* accepter: they have closed it, and we had not noticed */
    lane->state = REPAIR_UP;
    lane->was_up = true;
    lane->turn = turn;
    if (lane->tried_turn < turn) lane->tried_turn = turn;
    lane->up_ns = now_ns;
    r->n_up++;
    r->alone_ns = 0;
}

/* `heard`: the last turn that they may have heard of. Turns after it come again, but for those that were called DOWN: the
 * end of such a socket would not be told, as it was. */
static void try_failed(struct repair_lane *lane, uint16_t heard, uint64_t now_ns)
{
    if (lane->state != REPAIR_TRYING) return;
    lane->state = REPAIR_RESTING;
    lane->retry_ns = now_ns + PAUSE_NS;
    if (heard + 1u < lane->said_turns) heard = (uint16_t)(lane->said_turns - 1);
    if (heard >= lane->turn && heard < lane->tried_turn) lane->tried_turn = heard;
}

static void tick(const struct repair *r, struct repair_lane *lane, uint64_t now_ns, struct repair_actions *out)
{
    if (!r->connecter || lane->state != REPAIR_RESTING || now_ns < lane->retry_ns) return;
    if (lane->tried_turn == UINT16_MAX) return; /* after 65535 sockets that were up the lane has done its duty */
    lane->state = REPAIR_TRYING;
    out->what |= REPAIR_CONNECT;
    out->try_turn = ++lane->tried_turn;
}

struct repair_actions repair_step(struct repair *r, const struct repair_event *e)
{
    struct repair_actions out = {0};
    struct repair_lane *lane = &r->lanes[e->lane];
    switch (e->kind) {
    case REPAIR_ENDED: ended(r, lane, e->now_ns, &out); break;
    case REPAIR_HEARD_DOWN: heard_down(r, lane, e->turn, e->now_ns, &out); break;
    case REPAIR_CONNECTED: connected(r, lane, e->turn, e->now_ns, &out); break;
    case REPAIR_TRY_FAILED: try_failed(lane, e->turn, e->now_ns); break;
    case REPAIR_NIC_BACK:
        if (lane->state == REPAIR_RESTING && lane->flaps == 0) lane->retry_ns = e->now_ns;
        break;
    case REPAIR_TICK: tick(r, lane, e->now_ns, &out); break;
    }
    return out;
}

void repair_begin(struct repair *r, bool connecter, struct repair_lane *lanes, uint32_t n_lanes)
{
    memset(lanes, 0, n_lanes * sizeof *lanes);
    if (connecter)
        for (uint32_t i = 0; i < n_lanes; i++) lanes[i].state = REPAIR_TRYING;
    *r = (struct repair){.connecter = connecter, .n_lanes = n_lanes, .lanes = lanes};
}

void repair_tries(struct repair *r, uint32_t lane, uint16_t turn)
{
    if (r->lanes[lane].tried_turn < turn) r->lanes[lane].tried_turn = turn;
}

void repair_moves(struct repair *r, uint32_t lane, uint16_t turn)
{
    r->lanes[lane].turn = turn;
    repair_tries(r, lane, turn);
}
