# two_namespaces.sh - two hosts joined by one cable, made of network namespaces: `. scripts/two_namespaces.sh`. Root, ip.
#
#   two_namespaces A B       makes both, each with eth0 at MTU 9000 (10.0.0.1/24, 10.0.0.2/24, which exist only in there), no
#                            rate limit; returns when the cable carries. What it made before it failed stays: namespaces_gone
#   namespaces_gone A B      removes both, as far as they are there
two_namespaces() {
    [ "$(id -u)" = 0 ] || { echo "network namespaces need root" >&2; return 1; }
    command -v ip >/dev/null || { echo "ip (Debian's iproute2) is not installed" >&2; return 1; }
    ip netns add "$1" && ip netns add "$2" &&
        ip link add eth0 netns "$1" mtu 9000 type veth peer name eth0 netns "$2" mtu 9000 &&
        ip -n "$1" addr add 10.0.0.1/24 dev eth0 && ip -n "$2" addr add 10.0.0.2/24 dev eth0 &&
        ip -n "$1" link set lo up && ip -n "$2" link set lo up &&
        ip -n "$1" link set eth0 up && ip -n "$2" link set eth0 up && cable_carries "$1" && cable_carries "$2"
}

# The kernel needs a moment, up to a second and more, until a cable that was plugged in at both ends carries.
cable_carries() {
    for _ in $(seq 50); do
        case $(ip -n "$1" -o link show eth0) in *"state UP"*) return 0 ;; esac
        sleep 0.1
    done
    echo "eth0 of namespace $1 does not come up" >&2
    return 1
}

namespaces_gone() { ip netns del "$1" 2>/dev/null || true; ip netns del "$2" 2>/dev/null || true; }
