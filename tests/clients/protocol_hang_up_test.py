# SPDX-License-Identifier: Apache-2.0
"""Clients may hang up anywhere in the conversation: the server serves on and keeps nothing of theirs.

Known from established servers: one crashes when a client sends EXPORT_NAME and goes.
"""

import client_case
import raw_nbd
from images import KIB, MIB
from protocol_case import ProtocolCase
from raw_nbd import CMD_FLUSH, CMD_READ, CMD_WRITE, request_bytes


def hang_up_before_the_greeting(_client):
    pass


def hang_up_in_the_client_flags(client):
    client.send(b"\0\0")


def hang_up_in_an_option_header(client):
    client.greet().send(b"IHAVE")


def hang_up_in_an_option(client):
    client.greet().send_option(raw_nbd.OPT_GO, b"\0\0", length=100)


def hang_up_after_list(client):
    client.greet().send_option(raw_nbd.OPT_LIST)


def hang_up_right_after_export_name(client):
    client.greet().send_option(raw_nbd.OPT_EXPORT_NAME, b"disk")


def hang_up_right_after_go(client):
    client.greet().send_option(raw_nbd.OPT_GO, client.info_request("disk"))


def hang_up_in_a_request_header(client):
    client.go("disk").send(request_bytes(CMD_READ, 0, 4096)[:13])


def hang_up_in_a_small_payload(client):
    client.go("disk").send(request_bytes(CMD_WRITE, MIB, 4096) + b"x" * 1000)


def hang_up_in_a_large_payload(client):
    client.go("disk").send(request_bytes(CMD_WRITE, MIB, 32 * MIB) + b"x" * (100 * KIB))


def hang_up_with_reads_unanswered(client):
    client.go("disk").send(b"".join(request_bytes(CMD_READ, n * 4096, MIB, cookie=n) for n in range(64)))


def hang_up_in_the_middle_of_an_answer(client):
    client.go("disk").send_request(CMD_READ, 0, 32 * MIB)
    client.receive(16 + 100 * KIB)


def hang_up_with_a_flush_unanswered(client):
    client.go("disk")
    client.send_request(CMD_WRITE, MIB, 100 * KIB, payload=b"x" * (100 * KIB))
    client.send_request(CMD_FLUSH)


HANG_UPS = [(name, function) for name, function in globals().items() if name.startswith("hang_up_")]


class HangUpTest(ProtocolCase):
    def hang_up_everywhere(self, transport, abruptly, times):
        for name, behave in HANG_UPS:
            for _ in range(times):
                client = self.raw_client(transport)
                behave(client)
                client.hang_up(abruptly)
            try:
                self.check_unharmed()
            except Exception as error:
                raise AssertionError(f"after {name} on {transport}: {error}") from error

    def test_on_a_unix_socket(self):
        self.hang_up_everywhere("unix", False, 5)

    def test_on_tcp(self):
        self.hang_up_everywhere("tcp4", False, 5)

    def test_on_tcp_with_a_reset(self):
        self.hang_up_everywhere("tcp4", True, 5)

    def test_again_and_again_leaves_no_more_charged(self):
        """Caches get warm, by one slab or another in one round or another; what leaks grows in every round."""
        charged = [self.charged_beside_pages()]
        for _ in range(3):
            self.hang_up_everywhere("unix", False, 30)
            charged.append(self.charged_beside_pages())
        growth = [after - before for before, after in zip(charged, charged[1:])]
        # By 390 clients; a leak of 42 bytes each would pass the bound.
        self.assertLessEqual(min(growth), 16 * KIB, growth)

    def charged_beside_pages(self):
        status = self.larder.wait_for_baseline()
        return status["memory_used"] - status["pages"]


if __name__ == "__main__":
    client_case.main()
