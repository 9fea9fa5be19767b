"""Sends N datagrams from one namespace to another and prints how many came:
    datagrams.py FROM_SPACE FROM_ADDRESS TO_SPACE TO_ADDRESS N
Needs root. Ends half a second after the last one that came."""
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000


def socket_in(space, address):
    fd = os.open("/run/netns/" + space, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
        sys.exit("setns %s: errno %d" % (space, ctypes.get_errno()))
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, 0))
    return s


def main(from_space, from_address, to_space, to_address, n):
    to = socket_in(to_space, to_address)
    to.settimeout(0.5)
    sender = socket_in(from_space, from_address)
    came = 0
    for _ in range(int(n)):
        sender.sendto(b"x" * 1000, to.getsockname())
    try:
        while came < int(n):
            to.recv(2000)
            came += 1
    except socket.timeout:
        pass
    print(came)


main(*sys.argv[1:])
