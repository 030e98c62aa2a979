#!/usr/bin/env bash
# Installs what a bare Debian machine with a Rust toolchain lacks, and says what.
#
#   install.sh          what the build needs: a C/C++ compiler, make, zlib, OpenSSL, libclang (RocksDB's bindings)
#   install.sh test     and DuckDB for Python, which checks that ordinary tools read the master dataset,
#                       schemathesis, which holds the API against its OpenAPI document, moto, an S3 server,
#                       libfaketime and strace, which make clocks jump and disks slow for one process, and Kafka
#   install.sh kafka    and Java, Apache Kafka's broker (its jars, by Maven) and kcat, for the tests on a real cluster
#   install.sh cluster  and Docker with compose, for deploy/compose.yaml
#   install.sh offline  and debootstrap and Kafka's jars, for deploy/offline/build.sh
#   install.sh fuzz     nothing more: the fuzzer is built by cargo with the C++ compiler
#   install.sh verify   and rustfmt, clippy, cargo-deny
#   install.sh bench    and nginx and DuckDB, to measure against, and Kafka
#   install.sh peers    and DuckDB, Polars, Spark and Flink, to measure against, with Java's compiler
#   install.sh drill    and Kafka, strace and libfaketime, and Redis, whose cluster is drilled beside ours
#
# Safe to repeat: what is there already is left alone.
set -euo pipefail

cache="${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sanso}"
mkdir -p "$cache"

say() { echo "setup: $*"; }

debian_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! command -v apt-get >/dev/null; then
        say "missing: ${missing[*]}; this is not a Debian machine, install their equivalents by hand"
        exit 1
    fi
    say "installing Debian packages: ${missing[*]}"
    local sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$cache/apt.log" 2>&1 || {
        tail -20 "$cache/apt.log" >&2
        say "apt-get failed, see $cache/apt.log"
        exit 1
    }
}

command -v cargo >/dev/null || { say "cargo is missing: install Rust (1.94 or later), for example with rustup"; exit 1; }
debian_packages gcc g++ make pkg-config zlib1g-dev libssl-dev libclang-dev

# Brokers for tests. The jars are named after their pom, so that a changed one is fetched anew.
kafka() {
    debian_packages default-jre-headless maven kcat openssl
    local pom jars
    pom="$(dirname "$0")/kafka/pom.xml"
    jars="$cache/kafka"
    cmp -s "$pom" "$jars/pom.xml" && return 0
    say "fetching Apache Kafka into $jars"
    rm -rf "$jars.new" "$jars"
    mkdir -p "$jars.new"
    mvn -q -B -f "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DoutputDirectory="$jars.new/lib" >"$cache/maven.log" 2>&1 || {
        tail -20 "$cache/maven.log" >&2
        say "Maven failed, see $cache/maven.log; the tests on a real Kafka will say that they are skipped"
        return 0
    }
    cp "$pom" "$jars.new/pom.xml"
    mv "$jars.new" "$jars"
}

duckdb() {
    debian_packages python3 python3-venv
    "$cache/python/bin/python3" -c 'import duckdb' 2>/dev/null && return 0
    say "installing DuckDB for Python into $cache/python"
    python3 -m venv "$cache/python"
    "$cache/python/bin/pip" install --quiet --disable-pip-version-check 'duckdb>=1.1,<2'
}

# What our batch layer and late merge are measured against. Each may be missing: the measurement says so.
peers() {
    debian_packages python3 python3-venv default-jdk-headless
    local python="$cache/peers/bin/python3" flink="$cache/peers/flink" package
    [ -x "$python" ] || python3 -m venv "$cache/peers"
    for package in 'duckdb>=1.1,<2' 'polars>=1.20,<2' 'pyspark>=4,<5'; do
        "$python" -c "import ${package%%>*}" 2>/dev/null && continue
        say "installing $package for Python into $cache/peers"
        "$cache/peers/bin/pip" install --quiet --disable-pip-version-check "$package" ||
            say "$package CAN'T BE INSTALLED here: it will be left out of the comparison"
    done
    ls "$flink"/lib/flink-dist-*.jar >/dev/null 2>&1 && return 0
    say "fetching Apache Flink (330 MB) into $flink"
    rm -rf "$flink.new" "$flink"
    mkdir -p "$flink.new"
    # Only its jars are wanted; what the package depends on would bring Python's side of it too.
    "$cache/peers/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$flink.new" \
        'apache-flink-libraries>=2.3,<3' && "$python" -m zipfile -e "$flink.new"/apache_flink_libraries-*.whl "$flink.new" || {
        say "Apache Flink CAN'T BE FETCHED here: it will be left out of the comparison"
        return 0
    }
    mkdir "$flink"
    mv "$flink.new/pyflink/lib" "$flink/lib"
    rm -rf "$flink.new"
}

case "${1:-build}" in
build | fuzz) ;;
kafka) kafka ;;
cluster)
    debian_packages curl openssl
    command -v dockerd >/dev/null || docker info >/dev/null 2>&1 || debian_packages docker.io iptables
    command -v docker >/dev/null || debian_packages docker-cli # apart from the daemon since Debian 13
    docker compose version >/dev/null 2>&1 || debian_packages docker-compose
    docker info >/dev/null 2>&1 || say "no Docker daemon answers: start it (systemctl start docker), or be in the group docker"
    ;;
offline)
    kafka
    debian_packages debootstrap
    ;;
test)
    kafka
    debian_packages libfaketime strace
    duckdb
    if ! "$cache/python/bin/python3" -c 'import polars' 2>/dev/null; then
        say "installing Polars for Python into $cache/python"
        "$cache/python/bin/pip" install --quiet --disable-pip-version-check 'polars>=1.20,<2' ||
            say "Polars can't be installed here: the test that needs it says so and is skipped"
    fi
    if ! "$cache/moto/bin/python3" -c 'import moto.server' 2>/dev/null; then
        say "installing moto, an S3 server, into $cache/moto"
        python3 -m venv "$cache/moto"
        "$cache/moto/bin/pip" install --quiet --disable-pip-version-check 'moto[server]>=5.1,<6' ||
            say "moto can't be installed here: the tests that need it say so and are skipped"
    fi
    # An environment of its own: it brings many packages, and none may change DuckDB's. These versions alone:
    # with others the same seed makes other requests.
    pinned=(schemathesis==4.32.5 hypothesis==6.170.15)
    if [ "$("$cache/schemathesis/bin/pip" freeze 2>/dev/null | grep -cxF "$(printf '%s\n' "${pinned[@]}")")" != ${#pinned[@]} ]; then
        say "installing schemathesis into $cache/schemathesis"
        python3 -m venv "$cache/schemathesis"
        "$cache/schemathesis/bin/pip" install --quiet --disable-pip-version-check "${pinned[@]}" ||
            say "schemathesis can't be installed here: the test that needs it says so and is skipped"
    fi
    ;;
verify)
    cargo fmt --version >/dev/null 2>&1 || { say "rustfmt is missing: rustup component add rustfmt"; exit 1; }
    cargo clippy --version >/dev/null 2>&1 || { say "clippy is missing: rustup component add clippy"; exit 1; }
    if ! cargo deny --version >/dev/null 2>&1; then
        say "building cargo-deny into $cache/tools (some minutes, once)"
        cargo install --quiet --locked --root "$cache/tools" --target-dir "$cache/tools-target" cargo-deny@0.20.2
    fi
    ;;
bench)
    kafka
    debian_packages nginx-light
    duckdb
    ;;
peers) peers ;;
drill)
    kafka
    debian_packages redis-server redis-tools strace libfaketime
    ;;
*)
    say "unknown argument '$1': build, test, kafka, cluster, offline, fuzz, verify, bench, peers or drill"
    exit 2
    ;;
esac
