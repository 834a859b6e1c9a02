#!/bin/sh
# Makes configure and Makefile.in from a fresh clone.
# SPDX-License-Identifier: MIT
set -e
cd "$(dirname "$0")"
mkdir -p build-aux
exec autoreconf --install --force
