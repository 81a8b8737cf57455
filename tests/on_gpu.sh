#!/usr/bin/env bash
# What is measured on a GPU: `bash tests/on_gpu.sh FOLDER`. Every part has its own time
# and its own log in FOLDER, written as it goes; what fails leaves the others. The parts
# take nine minutes at most; PARTS="many all" runs only those, TINY=1 the same on a CPU,
# small.
folder=$(mkdir -p "${1:?the folder for the logs}" && cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 1
python=${PETL_PYTHON:-python3}
export PYTHONPATH=$PWD:$PYTHONPATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 COLUMNS=150

part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2; shift 2
  [[ " ${PARTS:-$name} " == *" $name "* ]] || return
  timeout "$limit" "$@" > "$folder/$name.log" 2>&1
  echo "$name: exit code $? after $SECONDS s" | tee -a "$folder/parts.log"
}

steps=("$python" -m petl_modules.speed --only_steps)
epochs=("$python" -m petl_modules.grid.epochs)
if [ -n "$TINY" ]; then
  steps+=(--source=embedded --seconds=0.5 --repeats=1 --warmup=1 --device=cpu)
  one=2 many=3 clips=(24 1) source=(--source=embedded) size=4
else
  steps+=(--source=ast --random --seconds=5 --repeats=6)
  one=32 many=128 clips=(500 5) source=(--source=ast --pretrained=False) size=32
fi
adapters="bottleneck,conformer,convpass,lora,soft_moa,dense_moa,prefix,prompt"
held="bf16 base"

part many 60 "${steps[@]}" --batches=$many --methods="bottleneck,lora,PEFT's lora" --rows="$held"
part all 90 "${steps[@]}" --batches=$one --methods="full,bottleneck,lora,PEFT's lora"
part padded 90 "${steps[@]}" --batches=$one --methods="$adapters" --rows="$held"
part compiled 90 "${steps[@]}" --batches=$many --methods="bottleneck,lora" --rows="$held, compiled" --compile
part epochs 110 "${epochs[@]}" "${clips[@]}" "${source[@]}" --method=bottleneck --batch_size=$size \
  --number_of_epochs=3 --head_start_epochs=0 --precision=bf16 --max_duration=5
part tests 100 "$python" -m pytest -q --maxfail=5 -p no:cacheprovider tests/test_gpu.py tests/test_forks.py
tail -n 40 "$folder"/*.log
[ -n "$TINY" ] || nvidia-smi --query-gpu=name,clocks.sm,power.draw --format=csv | tee "$folder/card.log"
