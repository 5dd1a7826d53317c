#!/usr/bin/env bash
# A Ray cluster for the time of one Slurm job, and a program on it; its exit status is the job's. From the repository's root,
# on a file system that all nodes share, with the environment in .venv:
#
#     sbatch --nodes 4 --gpus-per-node 4 cluster/slurm.sh jobs/pipeline.py --config configs/mine.yaml run.dir=/shared/runs/mine
#
#SBATCH --job-name=sracl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
[ $# -gt 0 ] || { echo "error: name a program, for example jobs/pipeline.py --config configs/mine.yaml." >&2; exit 2; }
cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="${VENV:-$PWD/.venv}/bin:$PATH"

# awk reads to the end: a program that stops early would end the one before it, and with it this script.
head_name=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk 'NR == 1')
# The address, not the name: a name may stand for loopback on the node itself.
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head_name" hostname --all-ip-addresses | awk 'NR == 1 {print $1}')
address="$head_ip:$((20000 + SLURM_JOB_ID % 10000))"

# ray symmetric-run starts Ray on every node, runs the program on the head and stops Ray; it ends with 0 also where Ray did
# not start, hence the mark.
mark="$PWD/.slurm-$SLURM_JOB_ID.done"
trap 'rm -f "$mark"' EXIT
srun --kill-on-bad-exit=0 ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "${SLURM_CPUS_ON_NODE:-1}" --dashboard-host 127.0.0.1 \
  -- env RAY_ADDRESS="$address" bash -c '"${@:2}" && touch "$1"' program "$mark" python "$@"
[ -e "$mark" ] || { echo "error: the program has not ended well, or Ray has not started; see above." >&2; exit 1; }
