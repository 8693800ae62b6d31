# SPDX-License-Identifier: Apache-2.0
"""What a file of guest tests needs to be a program of its own.

    import bed
    from guest import Guest

    @bed.setup
    def load_the_driver(guest):
        guest.check('modprobe vhci-hcd')

    @bed.test(limit=30)
    def usbip_lists_its_ports(guest):
        assert 'Imported' in guest.check('usbip port')

    if __name__ == '__main__':
        bed.main(Guest('ports'))

The tests run in the order of the file, in one guest, each within its limit. A
test fails also when the guest's kernel complains meanwhile (a warning with a
trace, a hung task, a process that its sandbox killed). After a failure the next
test gets a fresh guest, with `setup` done again. Arguments: words that the names
of the tests to run contain.
"""

import collections
import signal
import sys
import time
import traceback

from guest import GuestError

LOG_LINES = 40
SETUP_LIMIT_S = 120
COMPLAINTS = ('BUG:|WARNING:|Oops|general protection fault|Call Trace|'
              'blocked for more than|use-after-free|refcount_t|'
              'audit: type=1326')
Test = collections.namedtuple('Test', 'function limit_s kernel_may_complain')

_tests = []
_setups = []


class Skip(Exception):
    """Raised by a test that can't run here, with the reason."""


class LimitError(Exception):
    """A test took longer than its limit."""


class KernelComplaint(Exception):
    """The test passed, but the kernel of the guest reported a fault."""


def test(function=None, *, limit=60, kernel_may_complain=False):
    """Marks a test; its name is a sentence. `limit` is in seconds, several
    times as many where guests are slow by nature."""
    def mark(marked):
        _tests.append(Test(marked, limit, kernel_may_complain))
        return marked
    return mark(function) if function else mark


def setup(function):
    """Marks what each fresh guest needs before the tests."""
    _setups.append(function)
    return function


def _on_alarm(*_):
    raise LimitError('took longer than its limit')


def _call(function, guest, limit_s):
    signal.signal(signal.SIGALRM, _on_alarm)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        function(guest)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _comment(text):
    for line in text.splitlines():
        print('#   ' + line)


def _boot(guest):
    guest.start()
    for function in _setups:
        _call(function, guest, SETUP_LIMIT_S * guest.patience)
    print(f'# guest {guest.name} is up after {guest.boot_s:.1f} s', flush=True)


def kernel_complaints(guest):
    """The lines of dmesg that no healthy kernel writes."""
    return guest.run(f"dmesg | grep -E '{COMPLAINTS}'").output.splitlines()


def _new_complaints(guest):
    """Those since the last time, of this guest and those within it."""
    found = []
    for each in (guest, *guest.inner_guests()):
        complaints = kernel_complaints(each)
        found += complaints[each.num_complaints:]
        each.num_complaints = len(complaints)
    return found


def _tell_jobs(jobs):
    for job in jobs:
        _comment(f'the log of "{job.command}" (status {job.status}):')
        _comment('\n'.join(job.log().splitlines()[-LOG_LINES:]))


def _tell_kernel(guest):
    log = guest.check(f'dmesg | tail -n {LOG_LINES}', timeout=10)
    _comment(f'the last of dmesg in {guest.name}:\n{log}')


def _tell_failure(guest, error, num_old_jobs):
    """Why, what the jobs of this test wrote, and what the kernel said."""
    _comment(traceback.format_exc().rstrip())
    _tell_jobs(job for number, job in enumerate(guest.jobs)
               if number >= num_old_jobs or job.is_alive())
    if isinstance(error, GuestError):
        return  # it holds the console
    try:
        _tell_kernel(guest)
        for inner in guest.inner_guests():
            _tell_jobs(inner.jobs)
            _tell_kernel(inner)
    except GuestError as silence:
        _comment(str(silence))


def _run_in_guest(guest, entry):
    if not guest.is_running():
        guest.stop()
        _boot(guest)
    _call(entry.function, guest, entry.limit_s * guest.patience)
    if not guest.is_running():
        return
    complaints = _new_complaints(guest)
    if complaints and not entry.kernel_may_complain:
        raise KernelComplaint('\n'.join(complaints))


def _run_test(guest, entry):
    """'passed', 'failed' or 'skipped', and a remark for the test's line."""
    num_old_jobs = len(guest.jobs) if guest.is_running() else 0
    try:
        _run_in_guest(guest, entry)
    except Skip as reason:
        return 'skipped', f' # SKIP {reason}'
    except Exception as error:
        _tell_failure(guest, error, num_old_jobs)
        guest.stop()
        return 'failed', ''
    return 'passed', ''


def main(guest):
    """Runs the tests of the calling file in `guest`, and exits."""
    words = sys.argv[1:]
    chosen = [entry for entry in _tests if not words or
              any(word in entry.function.__name__ for word in words)]
    counts = {'passed': 0, 'failed': 0, 'skipped': 0}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended by SIGTERM'))
    print(f'1..{len(chosen)}')
    for number, entry in enumerate(chosen, 1):
        began = time.monotonic()
        verdict, remark = _run_test(guest, entry)
        counts[verdict] += 1
        name = entry.function.__name__.replace('_', ' ')
        print(f'{"not ok" if verdict == "failed" else "ok"} {number} - {name}'
              f'{remark} ({time.monotonic() - began:.1f} s)', flush=True)
    guest.stop()
    print(', '.join(f'{count} {verdict}' for verdict, count in counts.items()))
    sys.exit(1 if counts['failed'] else 0)
