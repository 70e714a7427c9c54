#!/usr/bin/env bash
# Trains in several processes on this machine, as several hosts would:
#
#   JAX_NUM_CPU_DEVICES=4 bash launch/recipes/local.sh 2 --config=... --workdir=...
#
# Each process takes an equal share of the GPUs, or emulates JAX_NUM_CPU_DEVICES devices. The first
# that fails gives the exit code, and the others are ended soon after it. Ctrl-C stops all of them
# at the same step, which is saved; a second one ends them at once. PYTHON names another
# interpreter.

count=${1-}
if ! [[ $count =~ ^[1-9][0-9]*$ ]]; then
  echo 'local.sh: the first argument is the number of processes, as in: local.sh 2 --config=...' >&2
  exit 2
fi
shift
python=${PYTHON:-python}
patience=7 # seconds in which the others may say for themselves why they end

free='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
port=$("$python" -c "$free") || exit 2
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$count
gpus=0
if [[ ${JAX_PLATFORMS:-cuda} == *cuda* ]] && command -v nvidia-smi >/dev/null; then
  gpus=$(nvidia-smi --list-gpus | wc -l)
fi

processes=()
# To whole groups: a process may have started others.
signal_all() {
  local process
  for process in "${processes[@]}"; do
    kill "-$1" -- "-$process" 2>/dev/null
  done
}
trap 'signal_all INT' INT
trap 'signal_all TERM' TERM
trap 'signal_all KILL' EXIT

for ((index = 0; index < count; index++)); do
  share=$((gpus / count))
  devices=
  if ((share)); then
    devices=$(seq -s, $((index * share)) $((index * share + share - 1)))
  fi
  set -m # a group of its own, which Ctrl-C reaches through this script alone
  JAX_PROCESS_ID=$index JAX_LOCAL_DEVICE_IDS=$devices "$python" -m launch.train "$@" &
  set +m
  processes+=($!)
done

code=0
running=("${processes[@]}")
while ((${#running[@]})); do
  sleep 0.1
  still=()
  for process in "${running[@]}"; do
    if kill -0 "$process" 2>/dev/null; then
      still+=("$process")
    else
      wait "$process"
      ended=$?
      if ((ended && !code)); then
        code=$ended
        echo "local.sh: a process ended with exit code $code; the same command goes on" >&2
        deadline=$((SECONDS + patience))
      fi
    fi
  done
  running=("${still[@]}")
  if ((code && SECONDS >= deadline)); then
    signal_all KILL
  fi
done
exit "$code"
