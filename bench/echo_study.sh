#!/usr/bin/env bash
# bench/echo_study.sh OUT store|runs|frozen|full [LABEL]
# The tables of docs/results/echoclr.md, on SYNTHETIC echo videos:
#
#   store        1,000 made patients, frames of 56 x 56 pixels, 32 of each video
#   runs         the pretrainings: ARMS x SEEDS, STEPS steps each, of the train and val parts
#   frozen LABEL AUROC by study of a linear model on frozen embeddings of 16 frames, on 1, 5, 10 and
#                100 % of the training patients; lvh or as_severe
#   full LABEL   the same of the whole network, fine-tuned for FIT_STEPS steps on 10 % of them
#
# Every arm has the same network (R3D-18 at a quarter of its width, what moves in two channels),
# videos, steps and clips a step. JOBS pretrainings run at a time, each on OMP_NUM_THREADS
# threads. What is finished is not done again, and what was cut off goes on.
set -euo pipefail
usage='usage: bench/echo_study.sh OUT store|runs|frozen|full [LABEL]'
out=${1:?$usage} stage=${2:?$usage}
ARMS=${ARMS:-simclr mi-simclr echoclr}
SEEDS=${SEEDS-0 1 2}
STEPS=${STEPS:-1000}
FIT_STEPS=${FIT_STEPS:-200}
FRACTIONS=${FRACTIONS:-0.01 0.05 0.1 1}
FULL_FRACTIONS=${FULL_FRACTIONS:-0.1}
JOBS=${JOBS:-2}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

pretrain() { # ARM SEED
  local folder=$out/$1-$2 how=(--config small)
  [ -f "$folder/contract.json" ] && return
  [ "$1" = echoclr ] || how+=(--config "$1")
  ecgfast pretrain echoclr "${how[@]}" --data.paths "[$out/store]" --fit.steps "$STEPS" \
    --fit.seed "$2" --fit.checkpoint_every 100 --fit.out "$folder" --fit.progress false \
    >> "$folder.log" 2>&1 || {
    echo "failed: $folder.log" >&2
    return 1
  }
}

mkdir -p "$out"
case $stage in
  store)
    [ -f "$out/store/store.json" ] || python - "$out/store" << 'PY'
import sys

from ecgfast.data.synthetic_echo import write_echo_cohort

write_echo_cohort(sys.argv[1], 1000, size=56, frames=32, seed=0)
PY
    ;;
  runs)
    for seed in $SEEDS; do
      for arm in $ARMS; do
        while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
        pretrain "$arm" "$seed" &
      done
    done
    while [ -n "$(jobs -rp)" ]; do wait -n; done
    ;;
  frozen | full)
    label=${3:?$usage} inits=() shares=$FRACTIONS
    for arm in $ARMS; do inits+=("$arm=$out/$arm-{seed}"); done
    [ "$stage" = frozen ] || shares=$FULL_FRACTIONS
    read -ra seeds <<< "$SEEDS"
    how=(--how logistic)
    [ "$stage" = frozen ] || how=(--how full --validation "" --fit.steps "$FIT_STEPS"
      --fit.batch_size 16 --fit.precision bf16-mixed --full.hidden 0 --full.head_dropout 0
      --full.draw anew --full.class_weight balanced --full.optim.lr 1e-3)
    # shellcheck disable=SC2086 # shares are words
    ecgfast labeleff --init "${inits[@]}" random --data.paths "$out/store" --label "$label" \
      --task classification --fractions $shares --seeds "${#seeds[@]}" --clip.frames 16 \
      "${how[@]}" --reference simclr --keep "$out/kept" --fit.progress false \
      --out "$out/$label-$stage"
    ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac
