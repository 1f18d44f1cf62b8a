# shellcheck shell=bash
# `dev with`: runs a command with the stack up for its duration.

command_with() {
  local wanted=()
  while (($# > 0)) && [[ $1 != -- ]]; do
    wanted+=("$1")
    shift
  done
  (($# > 1)) || die "with: name the command after --, for example: ops/dev/dev with postgres -- cargo test"
  shift
  choose_components "${wanted[@]}"
  lock_home
  BORROWED=()
  trap give_back EXIT
  # A signal while the stack starts ends the script, and the trap above cleans up.
  trap 'exit 130' INT
  trap 'exit 143' TERM
  borrow "${CHOSEN[@]}"
  bring_up "${CHOSEN[@]}"
  unlock_home
  for component in "${CHOSEN[@]}"; do
    export "$(url_variable "$component")=$(url_of "$component")"
  done
  run_command "$@"
}

# Records which components are up only for a `with`, and its users, so that the last one of several
# stops them.
borrow() {
  local component
  for component in "$@"; do
    ! external "$component" || continue
    BORROWED+=("$component")
    backend_running "$component" || touch "$RUN/$component.lent"
    printf '%s\n' "$(start_time $$)" >"$RUN/$component.user.$$"
  done
}

# A pid alone could belong to another process by now.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name, in parentheses, may contain spaces; the start time is field 22, the 20th after it.
  read -r -a stat <<<"${stat##*) }"
  printf '%s\n' "${stat[19]}"
}

give_back() {
  local status=$? component unused=()
  trap - EXIT
  trap '' INT TERM
  lock_home
  for component in "${BORROWED[@]}"; do
    rm -f "$RUN/$component.user.$$"
    [[ -e $RUN/$component.lent ]] && ! in_use "$component" && unused+=("$component")
  done
  if ((${#unused[@]} > 0)); then
    forget_loans "${unused[@]}"
    backend_stop "${unused[@]}"
  fi
  exit "$status"
}

in_use() {
  local file
  for file in "$RUN/$1.user."*; do
    [[ -e $file ]] || continue
    [[ $(start_time "${file##*.}") != "$(<"$file")" ]] || return 0
    rm -f "$file"
  done
  return 1
}

# forget_loans COMPONENT...: from now on they keep their state until an explicit command changes it.
forget_loans() {
  local component
  for component in "$@"; do rm -f "$RUN/$component.lent"; done
}

# Runs in the background, so that this script handles a signal at once, but keeps our input and our
# terminal. Bash makes such a child ignore INT; the child restores INT before exec.
run_command() {
  local child status=0 interrupted=no
  (
    trap - INT QUIT TERM
    exec "$@"
  ) <&0 &
  child=$!
  trap 'interrupted=yes; from_terminal || kill -INT "$child" 2>/dev/null || true' INT
  trap 'interrupted=yes; kill -TERM "$child" 2>/dev/null || true' TERM
  wait "$child" || status=$?
  # A signal to us ends the wait, but not yet the command, whose own exit code is the result. Bash
  # returns it once the command has ended; a second wait before that may lose it.
  if [[ $interrupted == yes ]]; then
    while kill -0 "$child" 2>/dev/null; do sleep 0.05 || true; done
    status=0
    wait "$child" || status=$?
  fi
  exit "$status"
}

# Ctrl-C reaches the command directly, because it is in our group; forwarding it would send it
# twice.
from_terminal() {
  local stat
  stat=$(</proc/$$/stat)
  # After the name: state, parent, group, session, terminal, the terminal's foreground group.
  read -r -a stat <<<"${stat##*) }"
  [[ ${stat[2]} == "${stat[5]}" ]]
}
