/* The handshake, byte for byte, without a socket: right keys pass however the stream is cut, everything else is
 * refused, and refused early. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bootstrap/auth.h"

static const uint8_t key_a[AUTH_KEY_BYTES] = {1, 2, 3};
static const uint8_t key_b[AUTH_KEY_BYTES] = {1, 2, 4};

struct ring { const uint8_t *key; const uint8_t *filed_under; int asked; };

static bool look_up(void *owner, const uint8_t id[AUTH_ID_BYTES], uint8_t out[AUTH_KEY_BYTES])
{
    struct ring *ring = owner;
    uint8_t mine[AUTH_ID_BYTES];
    ring->asked++;
    auth_key_id(ring->filed_under, mine);
    if (memcmp(mine, id, AUTH_ID_BYTES) != 0) return false;
    memcpy(out, ring->key, AUTH_KEY_BYTES);
    return true;
}

static struct auth connecter(const uint8_t *key, const char *purpose)
{
    struct auth auth;
    auth_start(&auth, &(struct auth_config){.role = AUTH_CONNECTER, .purpose = purpose, .key = key});
    return auth;
}

static struct auth accepter(struct ring *ring, const char *purpose)
{
    struct auth auth;
    auth_start(&auth, &(struct auth_config){.role = AUTH_ACCEPTER, .purpose = purpose, .lookup = look_up,
        .owner = ring});
    return auth;
}

/* Moves up to `cut` bytes from one end to the other. */
static size_t move(struct auth *from, struct auth *to, size_t cut)
{
    size_t n, wants = auth_wants(to);
    const void *bytes = auth_output(from, &n);
    if (n > cut) n = cut;
    if (n > wants) n = wants;
    if (n == 0) return 0;
    assert_int_equal(auth_feed(to, bytes, n), n);
    auth_sent(from, n);
    return n;
}

static void talk(struct auth *one, struct auth *two, size_t cut)
{
    while (move(one, two, cut) + move(two, one, cut) > 0) {}
}

static void equal_keys_pass_however_the_stream_is_cut(void **state)
{
    (void)state;
    for (size_t cut = 1; cut <= 80; cut++) {
        struct ring ring = {.key = key_a, .filed_under = key_a};
        struct auth c = connecter(key_a, "tree"), a = accepter(&ring, "tree");
        talk(&c, &a, cut);
        assert_int_equal(c.state, AUTH_PROVEN);
        assert_int_equal(a.state, AUTH_PROVEN);
        assert_int_equal(ring.asked, 1);
        assert_memory_equal(a.key_id, c.key_id, AUTH_ID_BYTES);
    }
}

static void keys_are_wiped_when_the_handshake_ends(void **state)
{
    (void)state;
    static const uint8_t zero[AUTH_KEY_BYTES];
    struct ring ring = {.key = key_a, .filed_under = key_a};
    struct auth c = connecter(key_a, "tree"), a = accepter(&ring, "tree");
    talk(&c, &a, 80);
    assert_memory_equal(c.key, zero, AUTH_KEY_BYTES);
    assert_memory_equal(a.key, zero, AUTH_KEY_BYTES);
}

static void an_unknown_key_is_refused_and_the_connecter_hears_why(void **state)
{
    (void)state;
    struct ring ring = {.key = key_a, .filed_under = key_a};
    struct auth c = connecter(key_b, "tree"), a = accepter(&ring, "tree");
    talk(&c, &a, 80);
    assert_int_equal(a.state, AUTH_REFUSED);
    assert_int_equal(c.state, AUTH_REFUSED);
    assert_int_equal(c.reason, AUTH_UNKNOWN_KEY);
}

static void a_known_id_with_another_key_is_refused_by_the_connecter(void **state)
{
    (void)state;
    struct ring ring = {.key = key_b, .filed_under = key_a};
    struct auth c = connecter(key_a, "tree"), a = accepter(&ring, "tree");
    talk(&c, &a, 80);
    assert_int_equal(c.state, AUTH_REFUSED);
    assert_int_equal(c.reason, AUTH_WRONG_MAC);
    assert_int_equal(a.state, AUTH_WANT_PROOF); /* it gets nothing: its deadline ends it */
}

static void another_purpose_is_refused(void **state)
{
    (void)state;
    struct ring ring = {.key = key_a, .filed_under = key_a};
    struct auth c = connecter(key_a, "tree"), a = accepter(&ring, "lane");
    talk(&c, &a, 80);
    assert_int_equal(c.state, AUTH_REFUSED);
    assert_int_not_equal(a.state, AUTH_PROVEN);
}

static void an_accepter_that_lacks_the_key_cannot_reflect_its_way_in(void **state)
{
    (void)state;
    /* The liar accepts by opening a session to the very connecter's own accepter and passing its MAC on: works only as
     * a relay (both ends hold the key). Reflecting the connecter's role at it must fail. */
    struct auth c = connecter(key_a, "tree"), mirror = connecter(key_a, "tree");
    uint8_t fake[AUTH_CHALLENGE_BYTES] = "railccb";
    fake[7] = AUTH_VERSION;
    memcpy(fake + 8, mirror.nonce[AUTH_CONNECTER], AUTH_NONCE_BYTES);
    /* The proof that a connecter would make over these nonces, used as the accepter's MAC. */
    struct auth helper = c;
    auth_feed(&helper, fake, sizeof fake);
    assert_int_equal(helper.state, AUTH_REFUSED);
    auth_feed(&c, fake, sizeof fake);
    assert_int_equal(c.state, AUTH_REFUSED);
}

static void a_recorded_handshake_does_not_pass_a_second_time(void **state)
{
    (void)state;
    struct ring ring = {.key = key_a, .filed_under = key_a};
    struct auth c = connecter(key_a, "tree"), a = accepter(&ring, "tree");
    uint8_t tape[AUTH_HELLO_BYTES + AUTH_MAC_BYTES];
    size_t n;
    memcpy(tape, auth_output(&c, &n), AUTH_HELLO_BYTES);
    assert_int_equal(n, AUTH_HELLO_BYTES);
    while (c.state != AUTH_PROVEN) assert_true(move(&c, &a, 80) + move(&a, &c, 80) > 0);
    memcpy(tape + AUTH_HELLO_BYTES, auth_output(&c, &n), AUTH_MAC_BYTES);
    assert_int_equal(n, AUTH_MAC_BYTES);
    talk(&c, &a, 80);
    assert_int_equal(a.state, AUTH_PROVEN);

    struct auth again = accepter(&ring, "tree");
    assert_int_equal(auth_feed(&again, tape, sizeof tape), sizeof tape);
    assert_int_equal(again.state, AUTH_REFUSED);
    assert_int_equal(again.reason, AUTH_WRONG_MAC);
}

static void garbage_is_refused_at_its_first_wrong_byte(void **state)
{
    (void)state;
    struct ring ring = {.key = key_a, .filed_under = key_a};
    struct auth a = accepter(&ring, "tree");
    assert_int_equal(auth_feed(&a, "G", 1), 1);
    assert_int_equal(a.state, AUTH_REFUSED);
    assert_int_equal(a.reason, AUTH_NOT_OURS);
    assert_int_equal(auth_feed(&a, "ET / HTTP/1.1", 13), 0);
    size_t n;
    auth_output(&a, &n);
    assert_int_equal(n, 0); /* strangers get no answer */
    struct auth c = connecter(key_a, "tree");
    auth_feed(&c, "SSH-2.0", 7);
    assert_int_equal(c.state, AUTH_REFUSED);
    assert_int_equal(c.reason, AUTH_NOT_OURS);
}

static void another_version_is_named_on_both_sides(void **state)
{
    (void)state;
    struct ring ring = {.key = key_a, .filed_under = key_a};
    struct auth c = connecter(key_a, "tree"), a = accepter(&ring, "tree");
    c.out[AUTH_MAGIC_BYTES - 1] = 9;
    talk(&c, &a, 80);
    assert_int_equal(a.reason, AUTH_OTHER_VERSION);
    assert_int_equal(a.far_version, 9);
    assert_int_equal(c.reason, AUTH_OTHER_VERSION);
    assert_int_equal(c.far_version, AUTH_VERSION);
}

/* Every single flipped bit of a handshake that was fine must be refused by somebody. */
static void every_flipped_bit_is_caught(void **state)
{
    (void)state;
    size_t total = 8 * (AUTH_HELLO_BYTES + AUTH_CHALLENGE_BYTES + AUTH_MAC_BYTES);
    for (size_t bit = 0; bit < total; bit++) {
        struct ring ring = {.key = key_a, .filed_under = key_a};
        struct auth c = connecter(key_a, "tree"), a = accepter(&ring, "tree");
        size_t at = 0, moved;
        do {
            size_t before = at;
            moved = 0;
            for (int way = 0; way < 2; way++) {
                struct auth *from = way ? &a : &c, *to = way ? &c : &a;
                size_t n;
                auth_output(from, &n);
                if (n == 0) continue;
                if (bit >= 8 * at && bit < 8 * (at + n))
                    from->out[from->out_sent + bit / 8 - at] ^= (uint8_t)(1u << bit % 8);
                size_t part;
                at += n;
                while ((part = move(from, to, 80)) > 0) moved += part;
            }
            if (moved == 0) break;
            (void)before;
        } while (1);
        if (c.state == AUTH_PROVEN && a.state == AUTH_PROVEN) fail_msg("bit %zu was not noticed", bit);
    }
}

static void random_bytes_never_pass_and_never_overrun(void **state)
{
    (void)state;
    const char *given = getenv("RAILCCL_TEST_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : 20251;
    print_message("seed %u (RAILCCL_TEST_SEED)\n", seed);
    for (int round = 0; round < 20000; round++) {
        struct ring ring = {.key = key_a, .filed_under = key_a};
        struct auth c = connecter(key_a, "lane"), a = accepter(&ring, "lane");
        struct auth *victim = rand_r(&seed) % 2 ? &c : &a;
        uint8_t bytes[200];
        size_t n = (size_t)rand_r(&seed) % sizeof bytes, honest = (size_t)rand_r(&seed) % 60;
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)rand_r(&seed);
        const char *magic = victim == &c ? (rand_r(&seed) % 2 ? "railccb\1" : "railcc\1\3") : "railcca\1";
        if (round % 2) memcpy(bytes, magic, honest < 8 ? honest : 8);
        if (round % 4 == 3 && victim == &a && honest >= 16) auth_key_id(key_a, bytes + 8);
        auth_feed(victim, bytes, n);
        assert_int_not_equal(victim->state, AUTH_PROVEN);
        assert_true(victim->in_bytes <= sizeof victim->in);
        assert_true(victim->out_bytes <= sizeof victim->out);
    }
}

static void derived_keys_differ_by_purpose_and_by_key(void **state)
{
    (void)state;
    uint8_t one[AUTH_KEY_BYTES], two[AUTH_KEY_BYTES], same[AUTH_KEY_BYTES];
    auth_derive(key_a, "lane", one);
    auth_derive(key_a, "tree", two);
    assert_memory_not_equal(one, two, AUTH_KEY_BYTES);
    auth_derive(key_b, "lane", two);
    assert_memory_not_equal(one, two, AUTH_KEY_BYTES);
    memcpy(same, key_a, sizeof same);
    auth_derive(same, "lane", same);
    assert_memory_equal(one, same, AUTH_KEY_BYTES);
    auth_key_from_text("a", 1, one);
    auth_key_from_text("a\n", 2, two);
    assert_memory_not_equal(one, two, AUTH_KEY_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_keys_pass_however_the_stream_is_cut),
        cmocka_unit_test(keys_are_wiped_when_the_handshake_ends),
        cmocka_unit_test(an_unknown_key_is_refused_and_the_connecter_hears_why),
        cmocka_unit_test(a_known_id_with_another_key_is_refused_by_the_connecter),
        cmocka_unit_test(another_purpose_is_refused),
        cmocka_unit_test(an_accepter_that_lacks_the_key_cannot_reflect_its_way_in),
        cmocka_unit_test(a_recorded_handshake_does_not_pass_a_second_time),
        cmocka_unit_test(garbage_is_refused_at_its_first_wrong_byte),
        cmocka_unit_test(another_version_is_named_on_both_sides),
        cmocka_unit_test(every_flipped_bit_is_caught),
        cmocka_unit_test(random_bytes_never_pass_and_never_overrun),
        cmocka_unit_test(derived_keys_differ_by_purpose_and_by_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
