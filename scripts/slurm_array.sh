#!/usr/bin/env bash
#SBATCH --job-name=tpseg
#SBATCH --array=1-8
#SBATCH --cpus-per-task=2
#SBATCH --mem=6G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=tpseg-%A_%a.log
# Segment a folder, a datalist or a list of paths in parts, one a task of a Slurm array (docs/scale.md):
#   sbatch scripts/slurm_array.sh INPUT OUT [options of tpseg segment]
#   sbatch --dependency=afterany:JOB --wrap "tpseg merge OUT"
# Input and output lie on storage that all nodes share. A task that is requeued goes on where it was stopped.
#   PARTS    how many there are, where only some are submitted again: PARTS=8 sbatch --array=3,5 ...
#   TPSEG    the command (tpseg), e.g. "apptainer exec tpseg.sif tpseg"
set -euo pipefail
[ $# -ge 2 ] || { echo "error: name the input and the folder for the results." >&2; exit 2; }
[ -n "${SLURM_ARRAY_TASK_ID:-}" ] || { echo "error: submit this with sbatch." >&2; exit 2; }
input=$1 output=$2
shift 2
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# shellcheck disable=SC2086
exec ${TPSEG:-tpseg} segment "$input" --output "$output" \
  --part "$SLURM_ARRAY_TASK_ID/${PARTS:-$SLURM_ARRAY_TASK_COUNT}" --resume --no-progress "$@"
