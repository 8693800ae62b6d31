#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What "make demo" shows."""

import os

import narrator

if __name__ == '__main__':
    narrator.test(os.path.join(os.path.dirname(os.path.realpath(__file__)),
                               '..', 'demo'),
                  'the demo gives a guest a disk of this machine')
