# SPDX-License-Identifier: Apache-2.0
"""qemu-io reads back every pattern that it wrote, at whatever offset, and again after the server was restarted."""

import client_case
from client_case import ClientCase
from images import MIB, make_sparse_image

# What a disk holds after writes() ran: qemu-io verifies each pattern to the byte, the neighbours too.
READS = (
    "read -P 0x11 0 4096",
    "read -P 0x22 4096 65536",
    "read -P 0 69632 447",
    "read -P 0x33 70079 10001",
    "read -P 0 80080 16",
    "read -P 0x44 1M 1000",
    "read -P 0 1049576 511489",
    "read -P 0x44 1561065 535511",
    "read -P 0x55 3M 100000",
    "read -P 0x55 3345728 100000",
    "read -P 0x66 4M 1M",
    "read -P 0x77 6M 4M",
    "read -P 0x88 16776704 512",
    "read -P 0x99 12582911 3",
)


def writes():
    return (
        "write -P 0x11 0 4096",
        "write -P 0x22 4096 65536",
        "write -P 0x33 70079 10001",  # neither end on a sector
        "write -P 0x44 1M 1M",
        "write -z 1049576 511489",  # zeroes with both ends inside pages
        "write -P 0x55 3M 300000",
        "discard 3245728 100000",  # what a discard leaves is not promised; what is beside it is
        "write -f -P 0x66 4M 1M",  # FUA
        "write -P 0x10 6M 4M",
        "write -z -u 6M 4M",
        "write -z -f 6M 1M",
        "aio_write -P 0x77 6M 2M",
        "aio_write -P 0x77 8M 2M",
        "aio_flush",
        "write -P 0x88 16776704 512",  # the last sector
        "write -f -P 0x99 12582911 3",  # over the edge of a page
        "flush",
    )


class QemuIoTest(ClientCase):
    def setUp(self):
        super().setUp()
        self.disk = make_sparse_image(self.path("disk.img"), 16 * MIB)

    def qemu_io(self, target, commands, *options):
        arguments = [word for command in commands for word in ("-c", command)]
        output = self.run_client("qemu-io", "-f", "raw", *options, *arguments, target)
        self.assertNotIn("failed", output)
        self.assertNotIn("error", output.lower())

    def test_patterns_hold_in_the_run_and_over_a_restart(self):
        with self.server(self.disk, memory="1M") as server:
            self.qemu_io(server.uri(), writes())
            self.qemu_io(server.uri(), READS)
        self.qemu_io(self.disk, READS)
        with self.server(self.disk, memory="1M", read_only=True) as server:
            self.qemu_io(server.uri(), READS, "-r")

    def test_many_unaligned_writes_meet_in_the_same_pages(self):
        # 1000 writes of 777 bytes, end to end: each page is written by six or seven of them.
        commands = [f"aio_write -q -P {1 + n % 255} {n * 777} 777" for n in range(1000)] + ["aio_flush"]
        reads = [f"read -P {1 + n % 255} {n * 777} 777" for n in range(1000)]
        with self.server(self.disk, memory="1M") as server:
            self.qemu_io(server.uri(), commands)
            self.qemu_io(server.uri(), reads)
        self.qemu_io(self.disk, reads)


if __name__ == "__main__":
    client_case.main()
