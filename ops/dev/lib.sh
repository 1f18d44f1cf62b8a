# shellcheck shell=bash
# Messages, prerequisites, locks.

# Progress goes to stderr: the standard output of `dev with` belongs to the command it runs.
say() { printf '%-9s %s\n' "$1" "$2" >&2; }

die() {
  printf 'dev: %s\n' "$*" >&2
  exit 1
}

# need PROGRAM WHY HOW: one line and the end if a prerequisite is missing.
need() {
  command -v "$1" >/dev/null 2>&1 || die "$1 is missing; $2 needs it; $3"
}

java_program() {
  if [[ -n ${JAVA_HOME:-} && -x $JAVA_HOME/bin/java ]]; then
    printf '%s\n' "$JAVA_HOME/bin/java"
  else
    printf 'java\n'
  fi
}

# need_java WHY: Java must be there and new enough; sets JAVA.
need_java() {
  local how="install it, for example: apt-get install openjdk-${JAVA_MAJOR_MIN}-jre-headless" version
  JAVA=$(java_program)
  need "$JAVA" "$1" "$how"
  version=$("$JAVA" -version 2>&1) || die "$JAVA does not run; $1 needs it; $how"
  [[ $version =~ version\ \"([0-9]+) ]] || die "cannot tell the version of $JAVA; $1 needs Java ${JAVA_MAJOR_MIN}; $how"
  ((BASH_REMATCH[1] >= JAVA_MAJOR_MIN)) ||
    die "$JAVA is version ${BASH_REMATCH[1]}; $1 needs Java ${JAVA_MAJOR_MIN} or newer; $how, or point JAVA_HOME at one"
}

# seconds_since START: elapsed time with one decimal, START being an earlier value of EPOCHREALTIME.
seconds_since() {
  local now=${EPOCHREALTIME/[.,]/} start=${1/[.,]/}
  local tenths=$(((now - start) / 100000))
  printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# wait_for_lock FD WHAT: takes the lock on an open descriptor, and says once why it waits.
wait_for_lock() {
  # With the 0: in an EXIT trap a bare return would return the status of the script.
  flock --nonblock "$1" && return 0
  say dev "waiting for another dev command, $2"
  flock --timeout 900 "$1" || die "another dev command still holds the lock after 15 minutes: $2"
}

member() {
  local wanted=$1 item
  shift
  for item in "$@"; do [[ $item != "$wanted" ]] || return 0; done
  return 1
}
