#!/usr/bin/env bash
# docker-compose.yml is valid and matches the native stack, and ops/dev/dev drives Docker as
# promised. No engine is needed: the first part uses the schema of the Compose specification, the
# second one a Compose client, and the third one a stand-in for the docker program.
# shellcheck source-path=SCRIPTDIR disable=SC2317 # functions are called by name, by check and refute
set -euo pipefail

CHECKOUT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=../../ops/dev/probe.sh
. "$CHECKOUT/ops/dev/probe.sh"
# shellcheck source=../../ops/dev/versions.sh
. "$CHECKOUT/ops/dev/versions.sh"
# shellcheck source=harness.sh
. "$CHECKOUT/tests/dev/harness.sh"

main() {
  the_file_fits_the_specification
  if find_compose; then
    the_file_is_valid
    ports_are_those_of_the_native_stack
    versions_are_those_of_the_native_stack
    the_relay_waits_to_be_asked_for
  else
    printf 'skipped: variables and profiles of docker-compose.yml, because neither docker compose nor docker-compose is here\n'
  fi
  dev_drives_docker
  finish
}

find_compose() {
  unset ANNALS_POSTGRES_PORT ANNALS_KAFKA_PORT ANNALS_KAFKA_CONTROLLER_PORT ANNALS_REGISTRY_PORT
  if docker compose version >/dev/null 2>&1; then
    COMPOSE=(docker compose)
  elif command -v docker-compose >/dev/null 2>&1; then
    COMPOSE=(docker-compose)
  else
    return 1
  fi
  COMPOSE+=(--file "$CHECKOUT/docker-compose.yml")
}

the_file_fits_the_specification() {
  local programs
  programs=$("$CHECKOUT/ops/kubernetes/environment")
  FITS=("$programs/check-jsonschema" --builtin-schema vendor.compose-spec)
  check "docker-compose.yml fits the specification" "${FITS[@]}" "$CHECKOUT/docker-compose.yml"
  sed 's/healthcheck:/healthchecks:/' "$CHECKOUT/docker-compose.yml" >"$HOMES/planted.yml"
  refute "a planted fault is found" "${FITS[@]}" "$HOMES/planted.yml"
}

the_file_is_valid() {
  check "docker-compose.yml is valid (${COMPOSE[0]})" "${COMPOSE[@]}" config
  check "docker-compose.yml is valid with the relay" "${COMPOSE[@]}" --profile relay config
  "${COMPOSE[@]}" config >"$HOMES/config" 2>/dev/null
}

ports_are_those_of_the_native_stack() {
  local port
  for port in 15432 19092 18081; do check "port $port is published" publishes "$port" "$HOMES/config"; done
  ANNALS_KAFKA_PORT=21234 "${COMPOSE[@]}" config >"$HOMES/moved" 2>/dev/null
  check "another port is published when its variable says so" publishes 21234 "$HOMES/moved"
  check "clients are told that port" grep -q 'OUTSIDE://127.0.0.1:21234' "$HOMES/moved"
}

# The two clients print it in their own ways; both name the address, and there is none but the
# loopback.
publishes() {
  { grep -qE "127\\.0\\.0\\.1:$1:" "$2" || grep -qE "published: \"?$1\"?" "$2"; } && ! grep -q '0\.0\.0\.0:' "$2"
}

versions_are_those_of_the_native_stack() {
  check "Kafka is $KAFKA_VERSION" grep -q "image: apache/kafka:$KAFKA_VERSION\$" "$HOMES/config"
  check "the registry is $REGISTRY_VERSION" grep -q "image: apicurio/apicurio-registry-mem:$REGISTRY_VERSION\$" "$HOMES/config"
  check "PostgreSQL is ${POSTGRES_VERSIONS[0]}" grep -q "image: postgres:${POSTGRES_VERSIONS[0]%.0}\$" "$HOMES/config"
}

the_relay_waits_to_be_asked_for() {
  "${COMPOSE[@]}" --profile relay config >"$HOMES/with-relay" 2>/dev/null
  check "Prometheus and Grafana come with it" grep -q 'image: grafana/grafana:' "$HOMES/with-relay"
  check "the relay is there when its profile is asked for" grep -q 'ANNALS_KAFKA: kafka:9092' "$HOMES/with-relay"
  # Compose 1 lists every service for every profile.
  [[ ${COMPOSE[0]} == docker-compose ]] || refute "the relay is not started otherwise" grep -q annals-relay "$HOMES/config"
}

# A docker that records its arguments, and keeps in files which services "run".
make_docker() {
  mkdir -p "$HOMES/bin" "$HOMES/running"
  cat >"$HOMES/bin/docker" <<STUB
#!/usr/bin/env bash
printf '%s\n' "\$*" >>"$HOMES/calls"
service=\${!#}
case " \$* " in
  *' ps '*) cat "$HOMES/running/\$service" 2>/dev/null ;;
  *' up '*) echo 1 >"$HOMES/running/\$service" ;;
  *' stop '* | *' kill '*) rm -f "$HOMES/running/\$service" ;;
esac
exit 0
STUB
  chmod +x "$HOMES/bin/docker"
}

dev_drives_docker() {
  make_docker
  export ANNALS_POSTGRES_PORT=free
  # A real database listens on the port that the stand-in would publish.
  run_quietly two up postgres
  ANNALS_POSTGRES_PORT=$(port_of two ANNALS_POSTGRES_PORT)
  check "auto takes Docker when an engine answers" docker_dev up postgres
  check "up: one service, waited for" called 'up --detach --wait --wait-timeout [0-9]+ postgres'
  check "up: a project of this home" called 'compose --project-name annals-[0-9a-f]{8} --file .*/docker-compose\.yml'
  check "status knows it" docker_says 'postgres .*answers \(container\)'
  check "prometheus: with Grafana" docker_dev prometheus up
  check "prometheus: from the file" called '--profile observe up --detach prometheus grafana'
  check "kill" docker_dev kill postgres
  check "kill: SIGKILL" called 'kill --signal KILL postgres'
  check "reset" docker_dev reset
  check "reset: removes the volumes" called 'volume rm --force annals-[0-9a-f]{8}_kafka-data'
  refute "the relay was never touched" called relay
  check "the choice of backend is remembered" grep -q ANNALS_DEV_BACKEND=docker "$HOMES/one/instance"
}

docker_dev() { env PATH="$HOMES/bin:$PATH" ANNALS_DEV_BACKEND= "$DEV" --private --home "$HOMES/one" "$@"; }
docker_says() { { docker_dev status || true; } | grep -qE "$1"; }
called() { grep -qE -- "$1" "$HOMES/calls"; }

main
