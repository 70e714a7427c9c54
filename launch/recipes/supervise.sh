#!/usr/bin/env bash
# Starts a command again until it is done:
#
#   bash launch/recipes/supervise.sh python -m launch.train --config=... --workdir=...
#
# On several hosts each of them runs it so: when one process is killed, gets stuck (exit code 124) or
# loses its machine, the others end by themselves within train.limits.heartbeat, and all begin
# again together, from the newest checkpoint. What another start would not mend is not started again:
# exit codes 0, 2 (configuration), 3 (data), 4 (numbers not finite) and 5 (no good checkpoint).
# SIGTERM and Ctrl-C go to the command, which saves and ends. RESTARTS (100) and PAUSE (10 seconds
# between two starts) may be set.

if ! (($#)); then
  echo 'supervise.sh: give the command, as in: supervise.sh python -m launch.train --config=...' >&2
  exit 2
fi
restarts=${RESTARTS:-100} pause=${PAUSE:-10}
stopping=
child=
stop() {
  stopping=$1 heard=1
  if [[ $child ]]; then
    kill "-$1" -- "-$child" 2>/dev/null
  fi
}
trap 'stop TERM' TERM
trap 'stop INT' INT

for ((attempt = 1; ; attempt++)); do
  set -m # a group of its own, which signals reach through this script alone
  "$@" &
  child=$!
  set +m
  if [[ $stopping ]]; then # a signal came when the command had no number yet
    stop "$stopping"
  fi
  code=
  while true; do
    heard=
    wait "$child"
    now=$?
    if [[ $code ]] && ((now == 127)); then
      break # there was nothing left to wait for
    fi
    code=$now
    if [[ -z $heard ]]; then
      break # else a trap ended `wait`, perhaps before the command ended
    fi
  done
  child=
  case $code in 0 | 2 | 3 | 4 | 5) exit "$code" ;; esac
  if [[ $stopping ]] || ((attempt > restarts)); then
    exit "$code"
  fi
  echo "supervise.sh: exit code $code; starting again in $pause s ($attempt of $restarts)" >&2
  sleep "$pause" &
  wait $! # where a trap runs at once
  if [[ $stopping ]]; then
    exit "$code"
  fi
done
