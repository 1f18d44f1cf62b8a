# shellcheck shell=bash
# Identifies our processes, and the process that uses a port. A pid file is only a hint: the system
# may have reused the pid since. The proof is one word on the command line of every process that we
# start, which names the home and the component.

marks() { printf -- '-Dannals.dev=%s\n--annals.dev=%s\n' "$HOME_DIR/$1" "$HOME_DIR/$1"; }

# is_component COMPONENT PID: the process is alive and ours. A zombie has no command line and counts as dead.
is_component() {
  grep -qzxF -f <(marks "$1") "/proc/$2/cmdline" 2>/dev/null
}

# has_ended COMPONENT PID: the process that we started has ended. During an exec a process has no
# command line, like a zombie; only the zombie has ended.
has_ended() {
  local state
  is_component "$1" "$2" && return 1
  state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$2/status" 2>/dev/null) || return 0
  [[ -z $state || $state == [ZX] ]] || [[ -n $(tr -d '\0' <"/proc/$2/cmdline" 2>/dev/null) ]] && ! is_component "$1" "$2"
}

# component_pid COMPONENT: its pid; found also if the pid file is stale, or was never written.
component_pid() {
  local pid file
  pid=$(cat "$RUN/$1.pid" 2>/dev/null) || true
  if [[ ! $pid =~ ^[0-9]+$ ]] || ! is_component "$1" "$pid"; then
    # The glob may match processes that end meanwhile.
    file=$(grep -slzxF -f <(marks "$1") /proc/[0-9]*/cmdline | head -n1) || true
    [[ -n $file ]] || return 1
    pid=${file#/proc/}
    pid=${pid%/cmdline}
  fi
  printf '%s\n' "$pid"
}

# launch COMPONENT COMMAND...: starts it in a session of its own, so that neither Ctrl-C nor a
# closed terminal ends it, and without our lock.
launch() {
  local component=$1
  shift
  setsid "$@" </dev/null >>"$LOGS/$component.out" 2>&1 9>&- &
  printf '%s\n' "$!" >"$RUN/$component.pid"
  # Between fork and exec the process still has our command line.
  local tries=0
  until is_component "$component" "$!" || ((++tries > 100)); do sleep 0.02; done
}

# end_process COMPONENT PID SIGNAL: sends the signal, waits, then kills.
end_process() {
  local deadline=$((SECONDS + STOP_SECONDS_MAX))
  kill "-$3" "$2" 2>/dev/null || true
  while is_component "$1" "$2"; do
    if ((SECONDS >= deadline)); then
      say "$1" "did not stop within $STOP_SECONDS_MAX s, killing it"
      is_component "$1" "$2" && kill -KILL "$2" 2>/dev/null
      deadline=$((SECONDS + 5))
    fi
    sleep 0.05
  done
}

require_free_ports() {
  local variable
  for variable in $("$1_ports"); do require_free_port "$1" "$variable" "${!variable}"; done
}

require_free_port() {
  local inode
  inode=$(listening_inode "$3") || return 0
  die "port $3 for $1 is taken by $(owner_of_socket "$inode"); end that, or choose another port with $2"
}

# listening_inode PORT: the socket that listens on the port, on any address. Not read in bash, which
# reads /proc byte by byte: with thousands of closed connections that takes a second.
listening_inode() {
  # Fields: slot, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode.
  { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || true; } | awk -v port="$(printf ':%04X' "$1")" '
    !inode && $4 == "0A" && substr($2, length($2) - 4) == port { inode = $10 }
    END { if (inode) print inode; exit !inode }'
}

owner_of_socket() {
  local link pid name
  link=$(find /proc/[0-9]*/fd -lname "socket:\[$1\]" 2>/dev/null | head -n1) || true
  pid=$(cut -d/ -f3 <<<"$link")
  if [[ -z $pid ]] || ! name=$(cat "/proc/$pid/comm" 2>/dev/null); then
    printf 'a process of another user'
  elif link=$(tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -m1 -oE '^--?D?annals\.dev=.*'); then
    printf '%s (pid %s), which another home of this stack started: %s' "$name" "$pid" "$(dirname "${link#*=}")"
  else
    printf '%s (pid %s)' "$name" "$pid"
  fi
}

# rotate FILE...: keeps one old file once the file has grown past 10 MB.
rotate() {
  local file
  for file in "$@"; do
    [[ ! -f $file ]] || (($(stat -c %s "$file") < 10485760)) || mv -f "$file" "$file.old"
  done
}
