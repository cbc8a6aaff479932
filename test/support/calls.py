"""System calls that Node does not offer, for tests: python3 calls.py NAME DIRECTORY."""
import ctypes
import os
import socket
import stat
import sys

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def tmpfile_link():
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o644)
    os.write(fd, b"written before it had a name")
    # A directory descriptor makes Python call linkat, which follows the link of /proc.
    here = os.open(".", os.O_RDONLY)
    os.link(f"/proc/self/fd/{fd}", "linked", src_dir_fd=here, dst_dir_fd=here, follow_symlinks=True)
    os.write(fd, b" and after")
    os.close(fd)


def exchange():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, b"a", AT_FDCWD, b"z", RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def character_device():
    os.mknod("null", stat.S_IFCHR | 0o644, os.makedev(1, 3))


def unix_socket():
    socket.socket(socket.AF_UNIX).bind("socket")


def punch_hole():
    libc = ctypes.CDLL(None, use_errno=True)
    keep_size, punch = 1, 2
    fd = os.open("f", os.O_RDWR)
    if libc.fallocate(fd, keep_size | punch, ctypes.c_int64(1 << 20), ctypes.c_int64(2 << 20)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")
    os.close(fd)


def write_in_pieces():
    # Three writes with one descriptor, at the end, in the middle and at the front.
    fd = os.open("f", os.O_RDWR)
    for at in (8192, 4096, 0):
        os.pwrite(fd, b"p" * 100, at)
    os.close(fd)


os.chdir(sys.argv[2])
{
    "tmpfile-link": tmpfile_link,
    "exchange": exchange,
    "character-device": character_device,
    "unix-socket": unix_socket,
    "punch-hole": punch_hole,
    "write-in-pieces": write_in_pieces,
}[sys.argv[1]]()
