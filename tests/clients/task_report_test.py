# SPDX-License-Identifier: Apache-2.0
"""SIGUSR2 has the server print what its tasks wait for."""

import client_case
from client_case import ClientCase
from images import MIB, make_sparse_image


class TaskReportTest(ClientCase):
    def test_a_server_at_rest_has_doors_and_a_listener_that_wait(self):
        server = self.start_server(make_sparse_image(self.path("disk.img"), MIB), workers=2)
        connection = self.connect(server.uri())
        self.assertEqual(connection.pread(512, 0), bytearray(512))
        while "3 waiting, 0 running, 0 ready" not in (report := server.task_report())[0]:
            pass
        self.assertEqual(report[0], 'runtime "larder": 3 waiting, 0 running, 0 ready')
        tasks = sorted(line.split(": ", 1)[1].split(" for ")[0] for line in report[1:])
        self.assertEqual(tasks, ['"door"', '"door"', '"listener"'])
        for line in report[1:]:
            if '"door"' in line:
                self.assertRegex(line, r'^waiting, worker [01]: "door" for .*: connections$')
            else:
                self.assertRegex(line, r'"listener" for .*: socket, to read, descriptor [0-9]+$')
        self.assertEqual(connection.pread(512, 0), bytearray(512), "it serves on")


if __name__ == "__main__":
    client_case.main()
