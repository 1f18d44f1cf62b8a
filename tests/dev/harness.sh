# shellcheck shell=bash
# The harness of stack.sh: two instances with free ports, checks that count, data in all three
# components.

DEV=$CHECKOUT/ops/dev/dev
HOMES=$(mktemp -d)
# The database runs as another user when root runs this. That user can reach "one" but not "two".
chmod 755 "$HOMES"
mkdir "$HOMES/closed"
chmod 700 "$HOMES/closed"
mkdir "$HOMES/closed/two"
ln -s closed/two "$HOMES/two"
PASSED=0
FAILED=0
unset ANNALS_DEV_HOME ANNALS_DATABASE_URL ANNALS_KAFKA ANNALS_REGISTRY_URL
export ANNALS_POSTGRES_PORT=free ANNALS_KAFKA_PORT=free ANNALS_KAFKA_CONTROLLER_PORT=free ANNALS_REGISTRY_PORT=free
export ANNALS_DEV_BACKEND=native

one() { "$DEV" --private --home "$HOMES/one" "$@"; }
two() { "$DEV" --private --home "$HOMES/two" "$@"; }

port_of() { sed -n "s/^$2=//p" "$HOMES/$1/instance"; }

clean_up() {
  local status=$?
  [[ -e $HOMES/bin/docker ]] || one reset >/dev/null 2>&1 || true
  two reset >/dev/null 2>&1 || true
  rm -rf "$HOMES"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

verdict() {
  if [[ $1 == 0 ]]; then
    PASSED=$((PASSED + 1))
    printf 'ok - %s\n' "$2"
  else
    FAILED=$((FAILED + 1))
    printf 'not ok - %s\n' "$2"
  fi
}

# check NAME COMMAND...: it succeeds. refute: it fails.
check() {
  local name=$1 status=0
  shift
  "$@" >/dev/null 2>&1 || status=$?
  verdict "$status" "$name"
}

refute() {
  local name=$1 status=1
  shift
  "$@" >/dev/null 2>&1 || status=0
  verdict "$status" "$name"
}

# expect_failure TEXT NAME COMMAND...: it fails and prints TEXT in one line.
expect_failure() {
  local text=$1 name=$2 status=0
  shift 2
  if "$@" >"$HOMES/output" 2>&1 || ! grep -qF -- "$text" "$HOMES/output" || (($(wc -l <"$HOMES/output") != 1)); then
    status=1
    sed 's/^/# /' "$HOMES/output"
  fi
  verdict "$status" "$name"
}

# A step that must succeed, or the later checks are meaningless.
run_quietly() {
  local start=$SECONDS
  if ! "$@" >"$HOMES/output" 2>&1; then
    sed 's/^/# /' "$HOMES/output"
    verdict 1 "$*"
    finish
  fi
  printf '# %s: %s s\n' "$*" "$((SECONDS - start))"
}

await() {
  local deadline=$((SECONDS + 60))
  until "$@"; do
    ((SECONDS < deadline)) || {
      verdict 1 "waited a minute for: $*"
      finish
    }
    sleep 0.05
  done
}

finish() {
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0)) || exit 1
  exit 0
}

# status fails unless everything answers; its lines are checked here. The state of a running
# component ends with "(pid N)".
state_of() { { "$1" status || true; } 2>/dev/null | grep "^$2 "; }
pid_of() { state_of "$@" | sed -n 's/.*(pid \([0-9]*\)).*/\1/p'; }
pids() { pid_of "$1" postgres && pid_of "$1" kafka && pid_of "$1" registry; }
serves() { state_of "$@" | grep -q 'answers (pid'; }

sql() { postgres_ask 127.0.0.1 "$(port_of one ANNALS_POSTGRES_PORT)" annals annals "$1"; }
kafka() { kafka_request 127.0.0.1 "$(port_of one ANNALS_KAFKA_PORT)" "$@"; }

# registry METHOD PATH [BODY]: the answer's body.
registry() (
  port=$(port_of one ANNALS_REGISTRY_PORT)
  connect 127.0.0.1 "$port"
  printf '%s /apis/ccompat/v7%s HTTP/1.0\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: %d\r\n\r\n%s' \
    "$1" "$2" "${#3}" "${3:-}" >&3
  timeout 10 sed '1,/^\r*$/d' <&3
)

# prometheus_get PATH: the answer's body.
prometheus_get() (
  connect 127.0.0.1 "$(port_of one ANNALS_PROMETHEUS_PORT)"
  printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
  timeout 10 sed '1,/^\r*$/d' <&3
)

prometheus_has_all_alerts() {
  [[ $(prometheus_get /api/v1/rules | grep -o '"type":"alerting"' | wc -l) == "$(grep -c -- '- alert: ' "$CHECKOUT/ops/prometheus/alerts.yml")" ]]
}

# Targets are there once the configuration is applied.
prometheus_has_the_target() { prometheus_get /api/v1/targets | grep -qF '"__address__":"127.0.0.1:9464"'; }

# Its address leads to another page, whose name depends on the version.
prometheus_has_a_page() (
  connect 127.0.0.1 "$(port_of one ANNALS_PROMETHEUS_PORT)"
  printf 'GET / HTTP/1.0\r\n\r\n' >&3
  page=$(timeout 10 sed -n 's/^[Ll]ocation: \([^\r]*\)\r*$/\1/p' <&3)
  prometheus_get "$page" | grep -q '<html'
)

SCHEMA='{"schema":"{\"type\":\"record\",\"name\":\"Kept\",\"fields\":[]}"}'

write_data() {
  sql "create table kept (word text); insert into kept values ('still there')" >/dev/null
  # CreateTopics 2: one topic of one partition and one replica, no assignments, no settings; 10 s, not only a check.
  kafka 19 2 "000000010004$(hex_of kept)000000010001000000000000000000002710""00" >/dev/null
  await topic_is_there
  SCHEMA_ID=$(registry POST /subjects/kept-value/versions "$SCHEMA")
}

row_is_there() { [[ $(sql 'select word from kept') == *$(hex_of 'still there')* ]]; }
# Metadata 1 for all topics.
topic_is_there() { [[ $(kafka 3 1 ffffffff) == *0004$(hex_of kept)* ]]; }
schema_is_there() { [[ $(registry GET /subjects/kept-value/versions '') == '[1]' ]]; }
last_schema_is_there() { [[ $(registry GET /subjects/last-value/versions '') == '[1]' ]]; }
same_schema_id() { [[ $SCHEMA_ID == '{"id":'* && $(registry POST /subjects/kept-value/versions "$SCHEMA") == "$SCHEMA_ID" ]]; }

check_data() {
  check "$1: the row is there" row_is_there
  check "$1: the topic is there" topic_is_there
  check "$1: the schema is there, with its id" same_schema_id
}

# A PATH with every program of the real one except one.
path_without() {
  local directory=$HOMES/without-$1 parts part
  if [[ ! -d $directory ]]; then
    mkdir "$directory"
    IFS=: read -r -a parts <<<"$PATH"
    # The first program of a name wins, as in a search; ln refuses the others.
    for part in "${parts[@]}"; do ln -s "$part"/* "$directory/" 2>/dev/null || true; done
    rm -f "$directory/$1"
  fi
  printf '%s\n' "$directory"
}
