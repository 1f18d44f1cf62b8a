# shellcheck shell=bash
# The backend with containers: the three component services of docker-compose.yml, one project per
# home.

backend_check() {
  docker_answers || die "ANNALS_DEV_BACKEND=docker, but no engine with Compose v2 answers; start Docker, or use ANNALS_DEV_BACKEND=native"
}

compose() {
  ANNALS_POSTGRES_TAG=$(postgres_tag) ANNALS_POSTGRES_PORT=$ANNALS_POSTGRES_PORT ANNALS_KAFKA_PORT=$ANNALS_KAFKA_PORT \
    ANNALS_REGISTRY_PORT=$ANNALS_REGISTRY_PORT ANNALS_PROMETHEUS_PORT=$ANNALS_PROMETHEUS_PORT \
    docker compose --project-name "$(project)" --file "$CHECKOUT/docker-compose.yml" "$@" 9>&-
}

project() { printf 'annals-%s' "$(home_hash)"; }

# The images are tagged 18.4 where the downloaded builds are called 18.4.0. Empty means the default
# of the file.
postgres_tag() {
  local version=${ANNALS_POSTGRES_VERSION:-}
  [[ $version != *.*.0 ]] || version=${version%.0}
  printf '%s' "$version"
}

backend_running() { [[ -n $(compose ps --quiet --status running "$1" 2>/dev/null) ]]; }
backend_detail() { printf 'container'; }

# The Docker engine names an occupied port itself.
backend_precheck() { :; }

backend_up() {
  local component
  compose up --detach --wait --wait-timeout "$START_SECONDS_MAX" "$@" >&2
  # A container that is healthy inside may not be reachable from here yet.
  for component in "$@"; do
    SECONDS=0
    until "${component}_answers"; do
      ((SECONDS < 30)) || die "$component is healthy in its container, but does not answer at $("${component}_url")"
      sleep 0.2
    done
    say "$component" "answers: $("${component}_url")"
  done
}

backend_stop() {
  local component
  for component in registry kafka postgres; do
    ! member "$component" "$@" || compose stop --timeout "$STOP_SECONDS_MAX" "$component" >&2
  done
}

backend_kill() {
  backend_running "$1" || die "$1 is not running"
  compose kill --signal KILL "$1" >&2
}

backend_wipe() {
  local component
  compose rm --force --stop "$@" >&2
  for component in "$@"; do docker volume rm --force "$(project)_$component-data" >/dev/null; done
}

backend_logs() { compose logs --no-log-prefix --tail "${ANNALS_LOG_LINES:-200}" "$1"; }
