# SPDX-License-Identifier: Apache-2.0
"""Many asynchronous commands over many connections at once leave what a simple model of the disk says.

Each connection owns a region of its export and keeps up to 64 commands in flight there, none overlapping another:
reads, writes (with and without FUA), zeroes, trims and flushes of any length at any offset. Every read is compared
with the model, the regions' edges share pages with their neighbours, and at the end the whole disk is compared, over
another connection and in the file.
"""

import os
import random
import select
import time

import nbd

import client_case
from client_case import ClientCase, scaled
from images import KIB, MIB, first_difference, make_image, read_file_range
from larder_server import SLOWNESS

DISK_SIZE = 8 * MIB
IN_FLIGHT_MAX = 64
SEED = int(os.environ.get("LARDER_SEED", "20261101"))
LENGTHS = (1, 100, 511, 512, 4096, 5000, 64 * KIB, 100_001)


class Region:
    """One connection's random commands on [begin, end) of a disk, and the model of what they leave."""

    def __init__(self, handle, model, begin, end, rng, commands):
        self.handle = handle
        self.errors = []
        self._model = model
        self._begin = begin
        self._end = end
        self._rng = rng
        self._commands_left = commands
        self._in_flight = set()  # (begin, end) of each command that has not been answered; () stands for a flush
        self._trimmed = []  # (offset, length) of trims that were answered, to be written to

    def is_finished(self):
        return not self._commands_left and not self._in_flight

    def fill(self):
        """Sends commands until as many are in flight as may be, or no free range is found."""
        while self._trimmed:
            self._write(*self._trimmed.pop())
        while self._commands_left and len(self._in_flight) < IN_FLIGHT_MAX:
            place = self._free_range()
            if place is None:
                return
            self._commands_left -= 1
            send = self._rng.choices((self._read, self._write, self._zero, self._trim, self._flush), (8, 8, 2, 2, 1))[0]
            send(*place)

    def _free_range(self):
        for _ in range(20):
            length = self._rng.choice(LENGTHS)
            begin = self._rng.randrange(self._begin, self._end - length + 1)
            if all(begin >= at[1] or begin + length <= at[0] for at in self._in_flight if at):
                return begin, length
        return None

    def _answered(self, place, then=lambda: None):
        """The completion callback of a command that holds `place` until it was answered."""

        def completed(error):
            self._in_flight.discard(place)
            if error.value:
                self.errors.append(f"command on {place}: {os.strerror(error.value)}")
            else:
                then()
            return 1

        return completed

    def _read(self, offset, length):
        place = (offset, offset + length)
        buffer = nbd.Buffer(length)

        def compare():
            if buffer.to_bytearray() != self._model[offset : offset + length]:
                self.errors.append(f"read of {length} bytes at {offset} differs from the model")

        self._in_flight.add(place)
        self.handle.aio_pread(buffer, offset, completion=self._answered(place, compare))

    def _write(self, offset, length):
        place = (offset, offset + length)
        data = bytearray(self._rng.randbytes(length))
        flags = nbd.CMD_FLAG_FUA if self._rng.random() < 0.05 else 0
        self._in_flight.add(place)
        self._model[offset : offset + length] = data
        self.handle.aio_pwrite(nbd.Buffer.from_bytearray(data), offset, self._answered(place), flags)

    def _zero(self, offset, length):
        place = (offset, offset + length)
        flags = self._rng.choice((0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA))
        self._in_flight.add(place)
        self._model[offset : offset + length] = bytes(length)
        self.handle.aio_zero(length, offset, self._answered(place), flags)

    def _trim(self, offset, length):
        """What a trim leaves is not promised: what is written there next must stay, and so must its neighbours."""
        place = (offset, offset + length)

        def write_next():
            # libnbd holds its lock in a completion: the write is sent by fill(), the place stays taken.
            self._in_flight.add(place)
            self._trimmed.append((offset, length))

        self._in_flight.add(place)
        self.handle.aio_trim(length, offset, self._answered(place, write_next))

    def _flush(self, _offset, _length):
        # One at a time is enough, and keeps the set's entry its own.
        if () not in self._in_flight:
            self._in_flight.add(())
            self.handle.aio_flush(completion=self._answered(()))


def run_regions(regions, seconds):
    """Lets all regions' connections work at once, in this thread, until every command was answered."""
    deadline = time.monotonic() + seconds
    while not all(region.is_finished() for region in regions):
        poll = select.poll()
        by_descriptor = {}
        for region in regions:
            region.fill()
            if region.errors:
                raise AssertionError("; ".join(region.errors))
            by_descriptor[region.handle.aio_get_fd()] = region.handle
            direction = region.handle.aio_get_direction()
            events = select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0
            events |= select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0
            poll.register(region.handle.aio_get_fd(), events)
        for descriptor, events in poll.poll(1000):
            if events & select.POLLOUT:
                by_descriptor[descriptor].aio_notify_write()
            else:
                by_descriptor[descriptor].aio_notify_read()
        if time.monotonic() > deadline:
            raise AssertionError(f"commands were not answered within {seconds} s")


class AsyncTest(ClientCase):
    def make_disk(self, name, seed):
        path = make_image(self.path(name), DISK_SIZE, seed)
        return path, bytearray(read_file_range(path, 0, DISK_SIZE))

    def make_regions(self, uri, model, connections, commands, rng):
        # Not a multiple of a page, so that neighbours meet within one.
        edges = [DISK_SIZE * n // connections // 1000 * 1000 for n in range(connections)] + [DISK_SIZE]
        return [
            Region(self.connect(uri), model, begin, end, random.Random(rng.random()), commands)
            for begin, end in zip(edges, edges[1:])
        ]

    def run_on_two_exports(self, memory):
        rng = random.Random(SEED)
        print(f"LARDER_SEED={SEED}")
        first, first_model = self.make_disk("first.img", 1)
        second, second_model = self.make_disk("second.img", 2)
        with self.server(first, second, memory=memory) as server:
            regions = self.make_regions(server.uri("first.img"), first_model, 4, scaled(2500), rng)
            regions += self.make_regions(server.uri("second.img"), second_model, 4, scaled(2500), rng)
            run_regions(regions, 25 * SLOWNESS)
            for name, model in (("first.img", first_model), ("second.img", second_model)):
                reader = self.connect(server.uri(name))
                self.assertTrue(reader.pread(DISK_SIZE, 0) == model, f"{name}, read whole")
                reader.flush()
                reader.shutdown()
                self.compare_with_model(name, model, "after a flush on one connection")
            for region in regions:
                region.handle.shutdown()
        for name, model in (("first.img", first_model), ("second.img", second_model)):
            self.compare_with_model(name, model, "after the server stopped")

    def compare_with_model(self, name, model, when):
        with open(self.path("model"), "wb") as file:
            file.write(model)
        self.assertIsNone(first_difference(self.path("model"), self.path(name)), f"{name}, {when}")

    def test_random_commands_on_two_exports_in_1_mib(self):
        self.run_on_two_exports("1M")

    def test_random_commands_on_two_exports_in_32_mib(self):
        self.run_on_two_exports("32M")

    def test_a_read_only_export_refuses_every_change_and_serves_reads(self):
        disk, model = self.make_disk("disk.img", 3)
        server = self.start_server(exports=[f"disk={disk},ro"], memory="1M")
        handle = nbd.NBD()
        handle.set_strict_mode(0)  # libnbd itself would refuse to send a write
        handle.connect_uri(server.uri("disk"))
        for change in (
            lambda: handle.pwrite(b"x" * 4096, 4096),
            lambda: handle.pwrite(b"x" * 4096, 4096, nbd.CMD_FLAG_FUA),
            lambda: handle.zero(4096, 4096),
            lambda: handle.trim(4096, 4096),
        ):
            with self.assertRaises(nbd.Error) as refused:
                change()
            self.assertEqual(refused.exception.errno, "EPERM")
        self.assertEqual(handle.pread(64 * KIB, 0), model[: 64 * KIB])
        handle.shutdown()


if __name__ == "__main__":
    client_case.main()
