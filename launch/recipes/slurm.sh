#!/usr/bin/env bash
#SBATCH --job-name=mgjax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
# Trains on the nodes of a Slurm cluster, one process a node with all of its GPUs:
#
#   sbatch --nodes=16 --time=24:00:00 launch/recipes/slurm.sh --config=... --workdir=...
#
# Submit it in the checkout, with the environment active that has mgjax[cuda]; --workdir must lie on
# a disk that all nodes share. Five minutes before the time is up all nodes save the same step; the
# same sbatch goes on from there.
set -eu
# Nobody can go on without a task that failed. Unbound, a task may use all cores of its node.
exec srun --kill-on-bad-exit=1 --cpu-bind=none python -m launch.train "$@"
