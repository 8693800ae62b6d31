# SPDX-License-Identifier: Apache-2.0
"""Runs files of guest tests, each a program of its own (see bed.py) that has a
limit, and sums them up."""

import glob
import os
import re
import signal
import subprocess
import sys

FILE_LIMIT_S = 900
SUMMARY = re.compile(r'^(\d+) passed, (\d+) failed, (\d+) skipped$')


def end(process):
    """SIGTERM lets a file stop its guest; what is left then is killed."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_file(path, limit_s):
    """(passed, failed, skipped) of one file, whose output passes through."""
    name = os.path.basename(path).removesuffix('.py')
    print(f'# {name}', flush=True)
    process = subprocess.Popen(
        ['timeout', '-k', '10', str(limit_s), sys.executable, path],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        errors='replace')
    counts = None
    try:
        for line in process.stdout:
            found = SUMMARY.match(line)
            if found:
                counts = tuple(int(count) for count in found.groups())
                line = '# ' + line
            print(line, end='', flush=True)
        status = process.wait()
    except BaseException:
        end(process)
        raise
    if counts is None or (status and not counts[1]):
        print(f'not ok - {name} ended with status {status} before its summary')
        counts = counts or (0, 0, 0)
        counts = (counts[0], counts[1] + 1, counts[2])
    return counts


def run_files(folder, limit_s):
    """The exit status, after the files of the command line or all there."""
    files = sys.argv[1:] or sorted(glob.glob(os.path.join(folder, 'test_*.py')))
    counts = [run_file(path, limit_s) for path in files]
    passed, failed, skipped = map(sum, zip(*counts))
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    return 1 if failed or not passed else 0


def main(folder, image, limit_s=FILE_LIMIT_S):
    """Builds the image, runs the tests of a folder, and exits."""
    # So that what runs is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended by SIGTERM'))
    try:
        subprocess.run([os.path.join(folder, image)], check=True)
        sys.exit(run_files(folder, limit_s))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
