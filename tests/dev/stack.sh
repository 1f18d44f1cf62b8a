#!/usr/bin/env bash
# The promises of ops/dev/dev, kept by real components on private ports and in private homes.
# shellcheck source-path=SCRIPTDIR disable=SC2317 # functions are called by name, by check and refute
set -euo pipefail

# A shell that was started in the background ignores SIGINT, and so do the shells that it starts.
if [[ -z ${ANNALS_SIGNALS:-} ]]; then
  ANNALS_SIGNALS=default exec env --default-signal=INT "${BASH_SOURCE[0]}" "$@"
fi

CHECKOUT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=../../ops/dev/probe.sh
. "$CHECKOUT/ops/dev/probe.sh"
# shellcheck source=harness.sh
. "$CHECKOUT/tests/dev/harness.sh"

main() {
  one_up_is_enough
  data_survive_down_and_up
  up_repairs_what_was_killed
  a_pid_file_is_not_believed
  a_taken_port_is_named
  a_killed_up_leaves_nothing_half_made
  prometheus_watches_and_stops
  with_takes_down_what_it_brought_up
  an_external_component_is_left_alone
  mistakes_get_one_line
  reset_wipes
  finish
}

one_up_is_enough() {
  local before
  run_quietly one up
  check "up: all three answer" one status
  before=$(pids one)
  run_quietly one up
  check "up again starts nothing" test "$before" = "$(pids one)"
}

data_survive_down_and_up() {
  write_data
  run_quietly one down
  refute "down: nothing answers" one status
  check "down again is harmless" one down
  run_quietly one up
  check_data "down && up"
}

up_repairs_what_was_killed() {
  local component
  registry POST /subjects/last-value/versions "${SCHEMA/Kept/Last}" >/dev/null
  for component in registry kafka postgres; do run_quietly one kill "$component"; done
  refute "after kill -9 of all three nothing answers" one status
  run_quietly one up
  check_data "kill -9 && up"
  check "kill -9 right after a schema was registered: it is there" last_schema_is_there
}

prometheus_watches_and_stops() {
  export ANNALS_PROMETHEUS_PORT=free
  run_quietly one prometheus up
  check "prometheus up: says its address" grep -qE '^prometheus +http://127\.0\.0\.1:[0-9]+, which scrapes a relay on 127\.0\.0\.1:9464$' "$HOMES/output"
  check "prometheus up: it has the rules of all alerts" prometheus_has_all_alerts
  await prometheus_has_the_target
  check "prometheus up: it has a page for a browser" prometheus_has_a_page
  check "prometheus up again is harmless" one prometheus up
  check "prometheus status: its address" one prometheus status
  check "prometheus down" one prometheus down
  refute "prometheus down: nothing answers" one prometheus status
}

# A pid file with the pid of a foreign process: that process is neither ended nor taken for the
# component.
a_pid_file_is_not_believed() {
  local stranger kafka
  sleep 300 &
  stranger=$!
  kafka=$(pid_of one kafka)
  printf '%s\n' "$stranger" >"$HOMES/one/run/kafka.pid"
  run_quietly one up kafka
  check "a wrong pid file: the running component is found all the same" test "$(pid_of one kafka)" = "$kafka"

  run_quietly one kill postgres
  printf '%s\n' "$stranger" >"$HOMES/one/run/postgres.pid"
  sed -i "1s/.*/$stranger/" "$HOMES/one/postgres/data/postmaster.pid"
  run_quietly one up postgres
  check "a stale pid file, the pid given to another process: up starts the component" serves one postgres
  run_quietly one stop postgres
  check "no command ended the other process" kill -0 "$stranger"
  kill "$stranger"
  run_quietly one start postgres
}

a_taken_port_is_named() {
  local port pid
  port=$(port_of one ANNALS_POSTGRES_PORT)
  pid=$(pid_of one postgres)
  expect_failure "port $port for postgres is taken by postgres (pid $pid)" \
    "a taken port: says which, and by whom" env "ANNALS_POSTGRES_PORT=$port" "$DEV" --private --home "$HOMES/two" up postgres
  expect_failure "another port with ANNALS_POSTGRES_PORT" \
    "a taken port: says which variable changes it" env "ANNALS_POSTGRES_PORT=$port" "$DEV" --private --home "$HOMES/two" up postgres
}

a_killed_up_leaves_nothing_half_made() {
  local delay
  for delay in 0.4 1.5; do
    two reset >/dev/null 2>&1
    setsid "$DEV" --private --home "$HOMES/two" up postgres kafka >/dev/null 2>&1 &
    sleep "$delay"
    # The whole group: the script, its parallel jobs, initdb. A started component is in its own
    # session.
    kill -KILL -- "-$!" 2>/dev/null || true
    wait "$!" 2>/dev/null || true
    run_quietly two up postgres kafka
    check "up killed after $delay s, then up: the database answers" serves two postgres
    check "up killed after $delay s, then up: the broker answers" serves two kafka
  done
}

with_takes_down_what_it_brought_up() {
  local status=0
  run_quietly two stop postgres
  # shellcheck disable=SC2016 # the inner shell expands it
  two with postgres kafka -- bash -c '[[ -n $ANNALS_DATABASE_URL && -n $ANNALS_KAFKA && -z ${ANNALS_REGISTRY_URL:-} ]] && exit 7' \
    >/dev/null 2>"$HOMES/output" || status=$?
  check "with: the command's exit code comes back, its environment has the requested variables" test "$status" = 7
  refute "with: the component that it started is down" serves two postgres
  check "with: a component that was up stays up" serves two kafka
  signal_ends_with TERM 143 'exec sleep 300'
  signal_ends_with INT 130 'exec sleep 300'
  signal_ends_with INT 5 'trap "exit 5" INT; while :; do sleep 0.1; done'
  signal_ends_with TERM 5 'trap "exit 5" TERM; while :; do sleep 0.1; done'
  two_withs_share
}

# signal_ends_with SIGNAL STATUS SCRIPT: the command receives it, its exit code is returned, and the
# component goes down.
signal_ends_with() {
  local with status=0 child
  # Job control gives the command its own group and its own handling of INT, as a terminal would.
  set -m
  "$DEV" --private --home "$HOMES/two" with postgres -- bash -c "echo \$\$ >'$HOMES/child'; $3" >/dev/null 2>&1 &
  with=$!
  set +m
  await test -s "$HOMES/child"
  kill "-$1" "$with"
  wait "$with" || status=$?
  child=$(<"$HOMES/child")
  check "with: $1 ends it with $2" test "$status" = "$2"
  refute "with: $1 ends the command" kill -0 "$child"
  refute "with: $1 stops the component that it started" serves two postgres
  rm "$HOMES/child"
}

# Of two at once the last one stops the component, not the first.
two_withs_share() {
  two with postgres -- bash -c "touch '$HOMES/first'; until [[ -e '$HOMES/second' ]]; do sleep 0.05; done" >/dev/null 2>&1 &
  await test -e "$HOMES/first"
  two with postgres -- bash -c "touch '$HOMES/second'; wait; while kill -0 $! 2>/dev/null; do sleep 0.05; done; echo still here; exec '$DEV' --home '$HOMES/two' status" \
    >"$HOMES/output" 2>&1 || true
  wait "$!" || true
  check "with: the first of two to finish leaves the component to the second" grep -q 'postgres .*answers' "$HOMES/output"
  refute "with: the second one stops it" serves two postgres
}

an_external_component_is_left_alone() {
  local url
  url=$(one env | sed -n 's/^export ANNALS_DATABASE_URL=//p')
  ANNALS_DATABASE_URL=$url "$DEV" --home "$HOMES/two" up postgres >"$HOMES/output" 2>&1
  check "a database named by its URL: is used" grep -q 'external, answers' "$HOMES/output"
  refute "a database named by its URL: nothing is started" serves two postgres
  check "--private ignores the URL" env "ANNALS_DATABASE_URL=$url" "$DEV" --private --home "$HOMES/two" up postgres
  check "--private: the own one answers" serves two postgres
  expect_failure "does not answer" "a database URL without a server: one line" \
    env ANNALS_DATABASE_URL=postgres://a:secret@127.0.0.1:1/a "$DEV" --home "$HOMES/two" up postgres
  refute "a password in a URL is not shown" grep -q secret "$HOMES/output"
}

mistakes_get_one_line() {
  expect_failure "unknown component kafak" "an unknown component" one up kafak
  expect_failure "must be a port number" "a port that is none" env ANNALS_KAFKA_PORT=abc "$DEV" --home "$HOMES/three" up kafka
  expect_failure "is not pinned" "a PostgreSQL that is not pinned" env ANNALS_POSTGRES_VERSION=9 "$DEV" --private --home "$HOMES/three" up postgres
  expect_failure "is not pinned" "a Kafka that is not pinned" env ANNALS_KAFKA_VERSION=2 "$DEV" --private --home "$HOMES/pinned" up kafka
  run_quietly two down
  printf '99.0.0\n' >"$HOMES/two/kafka/version-1"
  expect_failure "was written by Kafka 99.0.0" "a broker's data of a later version" two up kafka
  expect_failure "java is missing; Kafka needs it; install it" "no Java" \
    env PATH="$(path_without java)" JAVA_HOME= "$DEV" --private --home "$HOMES/three" up kafka
  expect_failure "mvn is missing" "no Maven, and nothing downloaded yet" \
    env PATH="$(path_without mvn)" "ANNALS_CACHE=$HOMES/cache" "$DEV" --private --home "$HOMES/three" up kafka
}

reset_wipes() {
  run_quietly one reset
  refute "reset: nothing answers" one status
  check "reset: the broker's data are gone" test ! -e "$HOMES/one/kafka"
  check "reset: the registry's data are gone" test ! -e "$HOMES/one/registry"
  run_quietly one up postgres
  refute "reset: the row is gone" row_is_there
}

main
