#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What "make demo-xen" shows."""

import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'vm'))

import narrator  # noqa: E402

if __name__ == '__main__':
    narrator.test(os.path.join(HERE, '..', 'demo-xen'),
                  'the demo lends a guest of Xen a disk of the dom0')
