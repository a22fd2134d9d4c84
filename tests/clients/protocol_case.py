# SPDX-License-Identifier: Apache-2.0
"""The disk, the server and the check that the protocol tests share."""

from client_case import ClientCase
from images import KIB, MIB, make_sparse_image, pattern
from raw_nbd import RawClient

DISK_SIZE = 64 * MIB
WRITTEN = 256 * KIB  # of the disk's begin, with pattern()


class ProtocolCase(ClientCase):
    """A server of a writable `disk` and a read-only `frozen`; whatever a test's clients did, it must serve on.

    After each test: a correct read by another client, no connection, no request in flight, and all that
    LarderServer checks.
    """

    def setUp(self):
        super().setUp()
        disk = make_sparse_image(self.path("disk.img"), DISK_SIZE)
        with open(disk, "r+b") as file:
            file.write(pattern(0, WRITTEN))
        frozen = make_sparse_image(self.path("frozen.img"), MIB)
        exports = [f"disk={disk}", f"frozen={frozen},ro"]
        self.larder = self.start_server(exports=exports, listen=["127.0.0.1:0"], memory="2M")
        self.addCleanup(self.check_unharmed)

    def raw_client(self, transport="unix"):
        client = RawClient(self.larder, transport)
        self.addCleanup(client.hang_up)
        return client

    def check_serves(self):
        """Another client reads what is on the disk."""
        handle = self.connect(self.larder.uri("disk"))
        self.assertTrue(handle.pread(10_000, 4000) == pattern(4000, 10_000), "read by another client")
        handle.shutdown()

    def check_unharmed(self):
        self.check_serves()
        self.larder.wait_for_baseline()
