#!/usr/bin/env bash
# Runs rustc ("$1", with its arguments) as a fuzzer needs it: with coverage, so that the fuzzer sees
# what an input reaches; and overflows and broken assertions are findings too, so both are checked.
coverage=(-Cpasses=sancov-module)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage+=("-Cllvm-args=-sanitizer-coverage-$option")
done
exec "$@" "${coverage[@]}" -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks
