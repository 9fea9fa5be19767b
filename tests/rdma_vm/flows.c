/* flows.c - counts RoCE v2 packets by what a switch's hash sees: run where the ports of the switch are, in namespace "sw".
 *
 *   ip netns exec sw flows FILE      until SIGTERM; then FILE has, of all packets that came into a port from its host,
 *   HOST RAIL SOURCE-PORT QUEUE-PAIR PACKETS DATA-PACKETS BYTES
 *   lost N                           packets that were too many to look at
 *
 * The queue pair is the receiver's, as the packet's header names it. Packets that only acknowledge carry no data. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FLOWS_MOST = 4096, ROCE_PORT = 4791, HEAD_BYTES = 96, IP_HEAD = 20, UDP_HEAD = 8, ACKNOWLEDGE = 0x11 };

struct flow { int port; uint16_t source; uint32_t queue; uint64_t packets, data, bytes; };

static struct flow flows[FLOWS_MOST];
static int n_flows;
static volatile sig_atomic_t over;

static void end(int signal) { (void)signal, over = 1; }

static int fail(const char *what) { return fprintf(stderr, "flows: %s: %s\n", what, strerror(errno)), 1; }

/* IPv4, UDP, to RoCE's port: the first 96 bytes. Offsets are from the IP header, as a SOCK_DGRAM packet socket has them. It
 * asks for every protocol: others see packets only after the bridge has taken them. */
static int open_socket(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PROTOCOL)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 6),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 9),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 4),
        BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0),
        BPF_STMT(BPF_LD | BPF_H | BPF_IND, 2),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ROCE_PORT, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, HEAD_BYTES),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    int s = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_ALL)), room = 8 << 20;
    if (s < 0) return s;
    if (setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) != 0 ||
        setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0) {
        close(s);
        return -1;
    }
    return s;
}

/* Neighbouring packets are most often of one flow: the search begins at the last one found. */
static struct flow *find(int port, uint16_t source, uint32_t queue)
{
    static int last;
    for (int i = 0; i < n_flows; i++) {
        struct flow *f = &flows[(last + i) % n_flows];
        if (f->port == port && f->source == source && f->queue == queue) return last = (int)(f - flows), f;
    }
    if (n_flows == FLOWS_MOST) return NULL;
    flows[n_flows] = (struct flow){.port = port, .source = source, .queue = queue};
    return &flows[n_flows++];
}

/* IP, UDP, and RDMA's transport header: opcode, flags, key (2), reserved, queue pair (3). */
static void see(const uint8_t *packet, size_t bytes, int port)
{
    size_t ip = (size_t)(packet[0] & 15) * 4;
    if (bytes < ip + UDP_HEAD + 8 || ip < IP_HEAD) return;
    const uint8_t *udp = packet + ip, *rdma = udp + UDP_HEAD;
    struct flow *f = find(port, (uint16_t)(udp[0] << 8 | udp[1]), (uint32_t)(rdma[5] << 16 | rdma[6] << 8 | rdma[7]));
    if (!f) return;
    f->packets++;
    f->data += rdma[0] != ACKNOWLEDGE;
    f->bytes += (unsigned)(packet[2] << 8 | packet[3]);
}

static int write_down(const char *path, int s)
{
    struct tpacket_stats lost = {0};
    socklen_t size = sizeof lost;
    FILE *out = fopen(path, "w");
    if (!out) return fail(path);
    getsockopt(s, SOL_PACKET, PACKET_STATISTICS, &lost, &size);
    for (int i = 0; i < n_flows; i++) {
        char name[IF_NAMESIZE];
        int host, rail;
        if (!if_indextoname((unsigned)flows[i].port, name) || sscanf(name, "h%dr%d", &host, &rail) != 2) continue;
        fprintf(out, "%d %d %u %u %llu %llu %llu\n", host, rail, flows[i].source, flows[i].queue,
                (unsigned long long)flows[i].packets, (unsigned long long)flows[i].data, (unsigned long long)flows[i].bytes);
    }
    fprintf(out, "lost %u\n", lost.tp_drops);
    return fclose(out) == 0 ? 0 : fail(path);
}

int main(int argc, char **argv)
{
    if (argc != 2) return fprintf(stderr, "usage: flows FILE\n"), 2;
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = end}, NULL); /* without SA_RESTART: it interrupts the wait */
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = end}, NULL);
    alarm(600); /* whoever started it may have died */
    int s = open_socket();
    if (s < 0) return fail("a packet socket");
    while (!over) {
        uint8_t packet[HEAD_BYTES];
        struct sockaddr_ll from;
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(s, packet, sizeof packet, 0, (struct sockaddr *)&from, &size);
        if (n < 0 && errno != EINTR) return fail("recvfrom");
        if (n > 0 && from.sll_pkttype != PACKET_OUTGOING) see(packet, (size_t)n, from.sll_ifindex);
    }
    return write_down(argv[1], s);
}
