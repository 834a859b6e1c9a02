# Just enough TAP for tests in Python. SPDX-License-Identifier: MIT
import os
import signal
import subprocess
import sys
import tempfile
import traceback

build = os.environ.get('top_builddir', '.')
TEST_LIMIT_S = 240  # a test that takes longer hangs


def hangs(*_):
    raise AssertionError('the test hangs')


def run(tests):
    """Each test is a function; it fails by raising."""
    print('1..%d' % len(tests), flush=True)
    signal.signal(signal.SIGALRM, hangs)
    for i, test in enumerate(tests, 1):
        name = test.__name__.replace('_', ' ')
        signal.alarm(TEST_LIMIT_S)
        try:
            test()
            print('ok %d - %s' % (i, name), flush=True)
        except Exception:
            for line in traceback.format_exc().splitlines():
                print('# ' + line)
            print('not ok %d - %s' % (i, name), flush=True)
    signal.alarm(0)


def skip_all(why):
    print('1..0 # SKIP ' + why)
    sys.exit(0)


class Target:
    """A kdtarget of its own, on a Unix socket unless args say otherwise."""

    def __init__(self, *args, on=None):
        self.dir = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.dir.name, 'kd.sock')
        self.process = subprocess.Popen(
            [os.path.join(build, 'kdtarget')] + (on or ['--unix', self.path]) + list(args),
            stdout=subprocess.PIPE, text=True)
        try:
            self.ready = self.process.stdout.readline()
            assert self.ready.startswith('kdtarget: ready on '), self.ready
        except AssertionError:
            self.process.kill()
            self.process.wait()
            raise
        self.name = self.ready.split(' on ', 1)[1].strip()

    def signal(self, number):
        self.process.send_signal(number)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, tb):
        self.signal(signal.SIGTERM)
        try:
            self.rest = self.process.communicate(timeout=10)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError('kdtarget does not end')
        left = os.path.lexists(self.path)
        self.dir.cleanup()
        if kind is None:
            assert self.process.returncode == 0, self.process.returncode
            assert not left, 'the socket is left behind'
