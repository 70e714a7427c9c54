#!/usr/bin/env bash
#SBATCH --job-name=mgjax-curate
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
# Curates raw videos on the nodes of a Slurm cluster, with Ray over all of their cores:
#
#   sbatch --nodes=16 --time=24:00:00 launch/recipes/curate_slurm.sh --input=/shared/raw \
#     --output=/shared/curated --config=configs/curation/high_resolution.py --workers=1000
#
# Submit it in the checkout, with the environment active that has mgjax[curation]; --input and
# --output must lie on a disk that all nodes share, --input may be a bucket. --workers is how many
# videos are measured at once, the cores of all nodes or a few less. Whatever ended the job, the
# same sbatch goes on from there.
set -eu
: "${SLURM_JOB_NODELIST:?sbatch sets it; submit this file with sbatch}"
port=${RAY_PORT:-6379}
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${nodes%%$'\n'*}
# Nobody waits for a task that failed; unbound, a task may use all cores of its node.
srun --kill-on-bad-exit=1 --cpu-bind=none bash -c '
  if [ "$SLURM_NODEID" = 0 ]; then
    exec ray start --head --port='"$port"' --disable-usage-stats --block
  fi
  sleep 10  # the head has to be there first
  exec ray start --address='"$first:$port"' --disable-usage-stats --block
' &
trap 'kill "$!" 2>/dev/null || true' EXIT
for _ in $(seq 60); do
  ray status --address="$first:$port" >/dev/null 2>&1 && break
  sleep 2
done
python -m launch.curate --engine=ray --address="$first:$port" "$@"
