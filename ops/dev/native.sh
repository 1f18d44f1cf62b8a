# shellcheck shell=bash
# The backend without containers: every component is a process in its own session.

# shellcheck source=process.sh
. "$DEV/process.sh"

backend_check() {
  [[ $(uname -s) == Linux ]] || die "without Docker the stack runs on Linux only; start Docker, or set ANNALS_DATABASE_URL, ANNALS_KAFKA and ANNALS_REGISTRY_URL"
}

backend_running() { component_pid "$1" >/dev/null; }
backend_detail() { printf 'pid %s' "$(component_pid "$1" || true)"; }

# Checks before anything starts or is remembered, so that a mistake costs nothing.
backend_precheck() {
  local component
  for component in "$@"; do
    "${component}_precheck"
    backend_running "$component" || require_free_ports "$component"
  done
}

# backend_up COMPONENT...: all at once; fails if one does.
backend_up() {
  local component job jobs=() failed=0
  for component in "$@"; do
    native_start "$component" &
    jobs+=($!)
  done
  # shellcheck disable=SC2064 # the jobs of now are meant
  trap "kill ${jobs[*]} 2>/dev/null || true; exit 130" INT
  # shellcheck disable=SC2064
  trap "kill ${jobs[*]} 2>/dev/null || true; exit 143" TERM
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
  trap - INT TERM
  return "$failed"
}

native_start() {
  local component=$1 start=$EPOCHREALTIME pid
  if ! pid=$(component_pid "$component"); then
    "${component}_prepare"
    rotate "$LOGS/$component.log" "$LOGS/$component.out"
    "${component}_launch"
    pid=$(<"$RUN/$component.pid")
  fi
  wait_until_it_answers "$component" "$pid"
  "${component}_answered"
  say "$component" "answers after $(seconds_since "$start") s: $("${component}_url")"
}

wait_until_it_answers() {
  local component=$1 pid=$2 deadline=$((SECONDS + START_SECONDS_MAX))
  until "${component}_answers"; do
    ! has_ended "$component" "$pid" || native_explain_death "$component"
    ((SECONDS < deadline)) || die "$component (pid $pid) runs but has not answered within $START_SECONDS_MAX s: see ops/dev/dev logs $component"
    sleep 0.1
  done
}

native_explain_death() {
  require_free_ports "$1"
  tail -n 5 "$LOGS/$1.out" >&2 || true
  die "$1 ended while starting: see ops/dev/dev logs $1"
}

# In this order no component loses a component that it uses while it stops.
backend_stop() {
  local component
  for component in registry kafka postgres; do
    ! member "$component" "$@" || native_stop "$component"
  done
}

native_stop() {
  local component=$1 pid start=$EPOCHREALTIME
  if pid=$(component_pid "$component"); then
    end_process "$component" "$pid" "$("${component}_stop_signal")"
    say "$component" "stopped in $(seconds_since "$start") s"
  fi
  rm -f "$RUN/$component.pid"
}

backend_kill() {
  local pid
  pid=$(component_pid "$1") || die "$1 is not running"
  "$1_kill" "$pid"
  while is_component "$1" "$pid"; do sleep 0.02; done
  say "$1" "killed (pid $pid)"
}

backend_wipe() {
  local component
  for component in "$@"; do "${component}_wipe"; done
}

backend_logs() {
  local file files=()
  for file in "$LOGS/$1.out" "$LOGS/$1.log"; do [[ ! -s $file ]] || files+=("$file"); done
  ((${#files[@]} > 0)) || die "no log of $1 in $LOGS yet"
  tail -n "${ANNALS_LOG_LINES:-200}" "${files[@]}"
}
