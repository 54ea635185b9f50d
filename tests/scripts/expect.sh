# Sourced by the tests beside it.
# shellcheck shell=bash
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# expect STATUS PATTERN COMMAND...: what the command must exit with, and an extended regular expression for its output.
expect() {
  local status=$1 pattern=$2 got=0 output
  shift 2
  output=$("$@" 2>&1) || got=$?
  [ $got = "$status" ] || fail "exit status $got instead of $status: $* : $output"
  grep -qE -e "$pattern" <<<"$output" || fail "no '$pattern' in the output of: $* : $output"
}

finish() { [ $failures = 0 ] && echo "all as expected"; }
