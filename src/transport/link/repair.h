/* repair.h - what a process does about lanes that die: a pure function (state, event) -> (state, actions).
 *
 * It knows no sockets, no memory and no clock: the driver (mend.c) tells it what happened and does what it answers; tests
 * explore it over lanes that exist only in the test (docs/REPAIR.md is the protocol in words).
 *
 *              ENDED: closed here; DOWN is said             a try begins (connecter)
 *        UP ------------------------------------> RESTING ----------------------------> TRYING
 *         ^  <-- HEARD_DOWN does the same            ^  <------------------------------   |
 *         |                                               the try failed                  |
 *         '-------------------------------------------------------------------------------'  CONNECTED
 *
 * What a dead socket carried is in doubt until the other end has closed it, too, and has said what arrived. That is a fact
 * about the lane beside its state, as the lane may be up again by then, and may have to be: where it is the only one, the
 * report travels on its next socket.
 *
 * Each end says DOWN once for each socket of a lane that was up somewhere, and only after it has closed its own: nothing
 * can arrive by it afterwards, so what the report lacks may go by another lane, and nothing is taken twice. */
#ifndef RAIL_LINK_REPAIR_H
#define RAIL_LINK_REPAIR_H

#include <stdbool.h>
#include <stdint.h>

enum repair_state { REPAIR_RESTING, REPAIR_TRYING, REPAIR_UP };

struct repair_lane {
    enum repair_state state;
    bool in_doubt;          /* what sockets up to doubt_turn carried waits for their report */
    bool was_up;            /* turn names a socket; else no socket of this lane has ever been up here */
    uint16_t turn;          /* the last socket that was up here, by its turn in HELLO */
    uint16_t tried_turn;    /* connecter: the last one tried. Never smaller than turn */
    uint16_t doubt_turn;
    uint32_t said_turns;    /* DOWN has been said for turns below it: 0 for none */
    uint32_t flaps;         /* deaths soon after coming back: each doubles the hold-down */
    uint64_t up_ns;         /* when it came up */
    uint64_t retry_ns;      /* RESTING: a try not before */
};

/* Of one pair of processes: this end's. */
struct repair {
    bool connecter;         /* we connect */
    uint32_t n_lanes, n_up;
    uint64_t alone_ns;      /* since when no lane is up that was; 0: one is, or none was yet */
    struct repair_lane *lanes;
};

enum repair_event_kind {
    REPAIR_ENDED,      /* the lane's socket broke, or is taken for dead; or its last try came to nothing while it was up */
    REPAIR_HEARD_DOWN, /* they have closed the lane's sockets up to `turn`, and have said what came by them */
    REPAIR_CONNECTED,  /* a socket of the lane, `turn`, is up */
    REPAIR_TRY_FAILED, /* connecter; `turn`: of the last socket that they may have heard of, which none may have again */
    REPAIR_NIC_BACK,   /* the NIC works again: no reason to wait any longer, but for the hold-down */
    REPAIR_TICK,       /* time has passed; connecter, for lanes that somebody wants */
};

struct repair_event {
    enum repair_event_kind kind;
    uint32_t lane;
    uint16_t turn;
    uint64_t now_ns;
};

enum repair_action {
    REPAIR_CLOSE = 1,      /* all sockets and tries of the lane up to say_turn, before anything else */
    REPAIR_SAY_DOWN = 2,   /* what has arrived so far, then DOWN with say_turn */
    REPAIR_SEND_AGAIN = 4, /* what is in doubt of the lane and not among what they said has arrived */
    REPAIR_CONNECT = 8,    /* a socket with try_turn */
    REPAIR_WRONG = 16,     /* they speak of a socket that never was */
};

struct repair_actions {
    uint32_t what; /* of repair_action, done in the order above */
    uint16_t say_turn, try_turn;
};

/* An event changes its own lane only. */
struct repair_actions repair_step(struct repair *repair, const struct repair_event *event);

/* A new set of lanes: none has been up, the connecter is trying them all with turn 0. `lanes` is the caller's, n_lanes. */
void repair_begin(struct repair *repair, bool connecter, struct repair_lane *lanes, uint32_t n_lanes);

/* Lanes that move to other routes while they work (move.c): a socket with another turn is tried beside the lane's own, and
 * is up beside it. When a socket dies while there are two, the lane dies as a whole. */
void repair_tries(struct repair *repair, uint32_t lane, uint16_t turn);
void repair_moves(struct repair *repair, uint32_t lane, uint16_t turn);

#endif
