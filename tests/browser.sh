#!/bin/sh
# Installs Debian's chromium for the tests of the report, where that can be done without asking.
# Where it cannot, this says why and is content: those tests are then skipped.
command -v chromium >/dev/null && exit 0

without() {
    echo "no chromium: $1; the tests that need it will be skipped"
    exit 0
}

[ "$(id -u)" = 0 ] || without "only root can install it"
command -v apt-get >/dev/null || without "there is no apt-get to install it with"

echo "chromium is missing: installing Debian's with apt-get"
export DEBIAN_FRONTEND=noninteractive
apt() {
    said=$(timeout 240 apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 "$@" 2>&1) ||
        without "apt-get $1: $(printf '%s\n' "$said" | tail -n 1)"
}
apt update
apt install --yes --no-install-recommends chromium
