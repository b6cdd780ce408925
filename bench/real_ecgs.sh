#!/usr/bin/env bash
# bench/real_ecgs.sh SHARED OUT [PRETRAIN_STEPS] [FINETUNE_STEPS] [WIDTH] [LR]
# SSL-DML by three distances on every real 12-lead record there is, then sex and NORM-or-not on
# PTB-XL (folds 1-7 train, 8 val, 9-10 test), full network and linear probe, against random
# weights. Seeds are those in SEEDS, 0 1 2 by default, none makes the stores alone; calls with
# different ones can share OUT once the stores are there.
#
# The contract is 7 s at 100 Hz: CODE-15, a large group, has records of 7.3 s, and 100 Hz is what
# all PTB-XL records here have. Not in the pretraining: the PTB-XL test patients, and the PTB-XL
# part of challenge-2021, whose patients cannot be told apart from them (it has no patient ids).
set -euo pipefail
data=${1:?usage: bench/real_ecgs.sh SHARED OUT [PRETRAIN_STEPS] [FINETUNE_STEPS] [WIDTH] [LR]}/data
out=${2:?usage: bench/real_ecgs.sh SHARED OUT [PRETRAIN_STEPS] [FINETUNE_STEPS] [WIDTH] [LR]}
pretrain_steps=${3:-300}
finetune_steps=${4:-100}
width=${5:-64}
lr=${6:-1e-4} # of the pretraining
signal=(--fs 100 --seconds 7)
keep=(--policy flat_line=keep,unit_suspect=keep)
mkdir -p "$out"

# STORE, then what `ecgfast convert` is told before it.
convert() { [ -f "$out/$1/store.json" ] || ecgfast convert "${signal[@]}" "${@:2}" "$out/$1"; }
if [ ! -f "$out/converted" ]; then
  convert ptb-xl --records "$data/ptb-xl-500/RECORDS100" "$data/ptb-xl-500"
  sites=(cpsc_2018 cpsc_2018_extra georgia chapman_shaoxing ningbo)
  convert challenge "${keep[@]}" "${sites[@]/#/$data/challenge-2021/}"
  convert code15 "${keep[@]}" "$data/code15-153"
  convert code15-followup --fs-source 400 --units mV --labels "$data/code15-10-followup/meta.csv" \
    --id-column exam_id --id-pattern 'code_15_(\d+)' "$data/code15-10-followup"
  convert cinc2011 "${keep[@]}" --format text --fs-source 500 --gain 200 \
    --leads-source I,II,III,aVR,aVF,aVL,V1,V2,V3,V4,V5,V6 \
    --labels "$data/cinc2011-quality/labels.csv" --id-column record \
    "$data/cinc2011-quality/set-a-300.tar.xz"
  ecgfast split "$out/ptb-xl" --by patient --scheme ptbxl --val-folds 8 --test-folds 9,10
  touch "$out/converted"
fi

stores=("$out"/{ptb-xl,challenge,code15,code15-followup,cinc2011})
train=(--fit.progress false --signal.fs 100 --signal.seconds 7)
starts=(dtw mean_l1 euclidean random)
for seed in ${SEEDS-0 1 2}; do
  for start in "${starts[@]}"; do
    init=(--encoder.width "$width" --signal.band 0.5 40) # what the others have from their encoder
    if [ "$start" != random ]; then
      init=(--init "$out/pretrain-$start-$seed")
      if [ ! -f "$out/pretrain-$start-$seed/contract.json" ]; then
        ecgfast pretrain ssl-dml --config fixed --distance "$start" --encoder.width "$width" \
          --data.paths "${stores[@]}" "${train[@]}" --optim.lr "$lr" --optim.warmup_steps 20 \
          --fit.steps "$pretrain_steps" --fit.seed "$seed" --fit.out "$out/pretrain-$start-$seed"
      fi
    fi
    for label in sex norm; do
      for how in full probe; do
        probe=()
        if [ "$how" = probe ]; then
          probe=(--freeze true --hidden 0 --head_dropout 0 --optim.lr 1e-2)
        fi
        run=$out/$label-$start-$how-$seed
        if [ -f "$run/evaluate.txt" ]; then continue; fi
        ecgfast finetune "${init[@]}" --data.paths "$out/ptb-xl" "${train[@]}" --label "$label" \
          --task classification --optim.lr 1e-3 --optim.warmup_steps 10 "${probe[@]}" \
          --fit.steps "$finetune_steps" --fit.batch_size 32 --validate_every 10 \
          --fit.seed "$seed" --fit.out "$run"
        ecgfast evaluate "$run" --store "$out/ptb-xl" > "$run/evaluate.tmp"
        mv "$run/evaluate.tmp" "$run/evaluate.txt"
      done
    done
  done
done
