#!/usr/bin/env bash
# Fuzzes the parsers: run.sh MINUTES [TARGET]. The minutes are shared by all targets.
#
# What the fuzzer learns stays in $CACHE/fuzz/corpus, so that the next run goes on from there.
# What it finds lies in $CACHE/fuzz/found; a finding, once mended, is copied to
# e2e/fuzz/corpus/TARGET, where `make test` runs it.
set -euo pipefail

minutes="$1"
only="${2:-}"
here="$(cd "$(dirname "$0")" && pwd)"
cache="${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sanso}/fuzz"
host="$(rustc -vV | sed -n 's/^host: //p')"

# Two fuzzers. That of the parsers has coverage of everything that it is linked with. That of what
# needs DataFusion has it of our own packages only, and shares all else with the ordinary build:
# DataFusion would take long to compile once more, and all of its counters would be looked at after
# every execution.
parsers() {
    # Naming the host keeps the flags out of build scripts and macros.
    RUSTFLAGS="$("$here/rustc.sh" echo)" cargo build --locked --release --manifest-path "$here/Cargo.toml" \
        --package sanso-fuzz --no-default-features --features libfuzzer --bin fuzz --target "$host" \
        --target-dir "${SANSO_FUZZ_TARGET_DIR:-$cache/target}"
    parsers="${SANSO_FUZZ_TARGET_DIR:-$cache/target}/$host/release/fuzz"
}
node() {
    RUSTC_WORKSPACE_WRAPPER="$here/rustc.sh" cargo build --locked --release --manifest-path "$here/../../Cargo.toml" \
        --workspace --features sanso-fuzz/libfuzzer --bin fuzz
    node="${CARGO_TARGET_DIR:-$here/../../target}/release/fuzz"
}

targets=("$here"/corpus/*)
[ -z "$only" ] || targets=("$here/corpus/$only")
[ -d "${targets[0]}" ] || { echo "fuzz: no target '$only'; there are: $(ls "$here/corpus" | xargs)"; exit 2; }
seconds=$((minutes * 60 / ${#targets[@]}))
# What needs DataFusion; the others are parsers.
of_node=" application document query record row url "

failed=()
for folder in "${targets[@]}"; do
    target="$(basename "$folder")"
    learnt="$cache/corpus/$target" found="$cache/found/$target"
    mkdir -p "$learnt" "$found"
    if [[ $of_node == *" $target "* ]]; then
        [ -n "${node:-}" ] || node
        fuzzer="$node"
    else
        [ -n "${parsers:-}" ] || parsers
        fuzzer="$parsers"
    fi
    dictionary=()
    [[ $target != application && $target != query ]] || dictionary=(-dict="$here/sql.dict")
    status=0
    SANSO_FUZZ_TARGET="$target" "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -max_len=8192 "${dictionary[@]}" -print_final_stats=1 -artifact_prefix="$found/" \
        "$learnt" "$folder" >"$cache/$target.log" 2>&1 || status=$?
    runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$cache/$target.log")"
    if [ "$status" -eq 0 ]; then
        echo "fuzz: $target: $runs executions in $seconds s, nothing found"
    else
        failed+=("$target")
        echo "fuzz: $target: FOUND after ${runs:-?} executions; input in $found, log in $cache/$target.log"
        grep -aE 'panicked at|ERROR: libFuzzer' -A1 "$cache/$target.log" | head -4 || true
    fi
done
[ ${#failed[@]} -eq 0 ] || exit 1
