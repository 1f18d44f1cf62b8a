# shellcheck shell=bash
# One instance of the stack is one home directory: its data, logs and ports. The home remembers the
# ports.

COMPONENTS=(postgres kafka registry)

# Setting, default. The environment overrides the remembered settings of the home.
SETTINGS=(
  "ANNALS_POSTGRES_PORT 15432"
  "ANNALS_KAFKA_PORT 19092"
  "ANNALS_KAFKA_CONTROLLER_PORT 19093"
  "ANNALS_KAFKA_NODE 1"
  "ANNALS_KAFKA_JOINS "
  "ANNALS_KAFKA_VERSION "
  "ANNALS_REGISTRY_VERSION "
  "ANNALS_POSTGRES_STANDBY_OF "
  "ANNALS_POSTGRES_UPGRADE_OF "
  "ANNALS_REGISTRY_PORT 18081"
  "ANNALS_PROMETHEUS_PORT 19090"
  "ANNALS_POSTGRES_VERSION "
  "ANNALS_DEV_BACKEND auto"
)

# The environment at the start, before the settings were filled in.
declare -A GIVEN=()
declare -A REMEMBERED=()

load_instance() {
  HOME_DIR=$(realpath -m -- "$HOME_DIR")
  [[ $HOME_DIR != *[[:space:]\;]* ]] || die "the home must have no spaces or semicolons in its path: $HOME_DIR"
  RUN=$HOME_DIR/run
  LOGS=$HOME_DIR/logs
  load_settings
}

load_settings() {
  local line name value
  if [[ -e $HOME_DIR/instance ]]; then
    while IFS='=' read -r name value; do REMEMBERED[$name]=$value; done <"$HOME_DIR/instance"
  fi
  for line in "${SETTINGS[@]}"; do load_setting "${line% *}" "${line#* }"; done
  check_ports
}

load_setting() {
  local value
  [[ -v GIVEN[$1] ]] || GIVEN[$1]=${!1:-}
  value=${GIVEN[$1]:-${REMEMBERED[$1]:-$2}}
  # "free" means any port, but the same one for as long as the home lives.
  [[ $value != free ]] || value=${REMEMBERED[$1]:-$(free_port)}
  printf -v "$1" '%s' "$value"
}

# A port without a listener, below those that the kernel assigns to clients.
free_port() {
  local port
  until port=$((20000 + RANDOM % 12000)) && ! (connect 127.0.0.1 "$port"); do :; done
  printf '%s\n' "$port"
}

check_ports() {
  local component variable
  for component in "${COMPONENTS[@]}"; do
    for variable in $("${component}_ports"); do
      if [[ ! ${!variable} =~ ^[1-9][0-9]{0,4}$ ]] || ((${!variable} > 65535)); then
        die "$variable must be a port number, or "free", not: ${!variable}"
      fi
    done
  done
}

# A running component keeps the port it was started with, also when the environment has changed.
keep_ports_of_running() {
  local component variable
  for component in "${COMPONENTS[@]}"; do
    for variable in $("${component}_ports"); do
      [[ -n ${REMEMBERED[$variable]:-} && ${REMEMBERED[$variable]} != "${!variable}" ]] || continue
      backend_running "$component" || continue
      say "$component" "runs on port ${REMEMBERED[$variable]}; $variable=${!variable} will count after: ops/dev/dev down"
      printf -v "$variable" '%s' "${REMEMBERED[$variable]}"
    done
  done
}

make_home() {
  mkdir -p "$HOME_DIR" 2>/dev/null || die "cannot make the home directory $HOME_DIR; choose another with --home DIR or ANNALS_DEV_HOME"
  [[ -O $HOME_DIR ]] || die "$HOME_DIR belongs to $(stat -c %U "$HOME_DIR"); choose another home with --home DIR or ANNALS_DEV_HOME"
  mkdir -p "$RUN" "$LOGS"
  # The default home is inside a checkout and must not show up there.
  [[ -e $HOME_DIR/.gitignore ]] || printf '*\n' >"$HOME_DIR/.gitignore"
}

remember_instance() {
  local line name
  for line in "${SETTINGS[@]}"; do
    name=${line% *}
    printf '%s=%s\n' "$name" "${!name}"
  done >"$HOME_DIR/instance.part"
  mv "$HOME_DIR/instance.part" "$HOME_DIR/instance"
}

home_hash() { sha256sum <<<"$HOME_DIR" | cut -c1-8; }

# lock_home / unlock_home: one command at a time changes an instance.
lock_home() {
  local backend=$ANNALS_DEV_BACKEND
  make_home
  exec 9>"$RUN/lock"
  wait_for_lock 9 "which changes $HOME_DIR"
  # The previous command may have chosen ports.
  load_settings
  ANNALS_DEV_BACKEND=$backend
  keep_ports_of_running
}

unlock_home() { exec 9>&-; }

url_variable() {
  case $1 in
    postgres) printf 'ANNALS_DATABASE_URL\n' ;;
    kafka) printf 'ANNALS_KAFKA\n' ;;
    registry) printf 'ANNALS_REGISTRY_URL\n' ;;
  esac
}

# external COMPONENT: it is provided from outside. A URL of our own, as `dev env` prints it, does
# not make it external.
external() {
  local variable
  variable=$(url_variable "$1")
  [[ $PRIVATE == no && -n ${!variable:-} && ${!variable} != "$("$1_url")" ]]
}

url_of() {
  local variable
  variable=$(url_variable "$1")
  if external "$1"; then printf '%s\n' "${!variable}"; else "$1_url"; fi
}
