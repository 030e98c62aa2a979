#!/usr/bin/env bash
# Builds the images that deploy/compose.yaml needs where no image registry can be reached: from Debian's
# packages, the Maven registry (Kafka's jars) and the Go module proxy (the object store). Safe to repeat.
#
#   MIRROR=    where Debian's packages come from; http://deb.debian.org/debian when absent
#   SECURITY=  where its security updates come from; http://deb.debian.org/debian-security when absent
#   SUITE=     Debian's release; this machine's when absent, since bin/sanso is built on it
#   FRESH=1    makes the base anew, so that all images take the newest packages
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sanso}
mirror=${MIRROR:-http://deb.debian.org/debian}
security=${SECURITY:-http://deb.debian.org/debian-security}
suite=${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
objects=github.com/versity/versitygw/cmd/versitygw@v1.8.0

say() { echo "offline: $*"; }
fail() { say "$*" >&2; exit 1; }

build() { docker build -q -t "sanso-offline/$1" -f "$2" --build-arg BASE=sanso-offline/debian "${@:3}" >/dev/null; }

base() {
    [ -n "${FRESH:-}" ] || ! docker image inspect sanso-offline/debian >/dev/null 2>&1 || return 0
    [ "$(id -u)" -eq 0 ] || fail "debootstrap needs root"
    say "Debian $suite from $mirror"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    debootstrap --variant=minbase --include=ca-certificates,wget "$suite" "$work/root" "$mirror" >"$work/log" 2>&1 || {
        tail -20 "$work/log" >&2
        fail "debootstrap failed"
    }
    local etc="$work/root/etc"
    printf 'deb %s %s main\n' "$mirror" "$suite" "$mirror" "$suite-updates" "$security" "$suite-security" >"$etc/apt/sources.list"
    # What is installed here and on top leaves no packages, caches, documentation or translations behind.
    printf '%s\n' 'Dir::Cache::pkgcache "";' 'Dir::Cache::srcpkgcache "";' 'Acquire::Languages "none";' \
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };' >"$etc/apt/apt.conf.d/slim"
    printf 'path-exclude /usr/share/%s/*\n' doc man locale info >"$etc/dpkg/dpkg.cfg.d/slim"
    DEBIAN_FRONTEND=noninteractive chroot "$work/root" sh -c 'apt-get update -qq && apt-get upgrade -y -qq' >"$work/log" 2>&1 || {
        tail -20 "$work/log" >&2
        fail "the base's packages could not be upgraded"
    }
    rm -rf "$work"/root/var/{cache/apt/archives/*.deb,lib/apt/lists/*} "$work"/root/usr/share/{doc,man,locale,info}/*
    mkdir -p "$work"/root/usr/share/man/man{1..8} # some packages' scripts count on them
    : >"$etc/resolv.conf"
    tar -C "$work/root" -c . | docker import -c 'CMD ["bash"]' - sanso-offline/debian >/dev/null
}

kafka() {
    [ -d "$cache/kafka/lib" ] || fail "no jars of Kafka in $cache/kafka/lib: Maven could not fetch them"
    say "Kafka from the jars in $cache/kafka/lib"
    tar -c -C "$cache/kafka" lib -C "$here/kafka" . | build kafka Dockerfile -
}

objects() {
    command -v go >/dev/null || fail "go is missing: install Go 1.25 or later, it builds the object store"
    if [ ! -x "$cache/tools/bin/versitygw" ]; then
        say "compiling $objects"
        GOBIN="$cache/tools/bin" CGO_ENABLED=0 GOFLAGS=-trimpath go install -ldflags '-s -w' "$objects"
    fi
    say "the object store from $cache/tools/bin/versitygw"
    tar -c -C "$cache/tools/bin" versitygw -C "$here/objects" . | build objects Dockerfile -
}

prometheus() {
    say "Prometheus from Debian's package"
    tar -c -C "$here/prometheus" . | build prometheus Dockerfile -
}

docker info >/dev/null 2>&1 || fail "no Docker daemon answers: is it started, and may you use it?"
base
kafka
objects
prometheus
docker image ls --format '{{.Repository}} {{.Size}}' | grep '^sanso-offline/' | sort
