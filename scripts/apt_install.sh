#!/usr/bin/env bash
# Install Debian packages that some tests need and are skipped without. Never fails: says what is missing instead.
# Usage: scripts/apt_install.sh PROGRAM PACKAGE...
set -uo pipefail
program=$1; shift
PATH=$PATH:/usr/sbin
if dpkg -s "$@" >/dev/null 2>&1 || { ! command -v dpkg >/dev/null && command -v "$program" >/dev/null; }; then exit 0; fi
root=
if [ "$(id -u)" != 0 ]; then root=sudo; sudo -n true 2>/dev/null || root=none; fi
if command -v apt-get >/dev/null && [ "$root" != none ]; then
  # RUNLEVEL=1: not as a service, which would listen on all addresses, where there is no systemd; below, where there is
  timeout 120 $root apt-get -qq update
  timeout 300 $root apt-get -qq install --download-only --no-install-recommends --yes "$@" &&
    $root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq install --no-install-recommends --yes "$@"
  if [ -d /run/systemd/system ] && systemctl --quiet cat orthanc; then
    $root systemctl --quiet disable --now orthanc
  fi
fi >/dev/null 2>&1
command -v "$program" >/dev/null || echo "$program is not installed; tests that need it are skipped."
exit 0
