# shellcheck shell=bash
# Probes external components, given by a URL.

# external_answers COMPONENT URL
external_answers() {
  local rest=$2 scheme='' host port path=''
  if [[ $rest == *://* ]]; then
    scheme=${rest%%://*}
    rest=${rest#*://}
  fi
  rest=${rest%%\?*}
  [[ $rest != */* ]] || path=/${rest#*/}
  rest=${rest%%/*}
  # Of several hosts the first one is probed; a login before "@" is ignored.
  rest=${rest%%,*}
  rest=${rest##*@}
  host=${rest%:*}
  port=${rest##*:}
  [[ $rest == *:* ]] || port=$(default_port "$1" "$scheme")
  external_"$1" "$host" "$port" "$path" "$2" "$scheme"
}

default_port() {
  case $1:$2 in
    postgres:*) printf '5432\n' ;;
    kafka:*) printf '9092\n' ;;
    registry:https) printf '443\n' ;;
    registry:*) printf '80\n' ;;
  esac
}

# The server answers SSLRequest with one letter, before any login.
external_postgres() (
  connect "$1" "$2" || exit 1
  send 0000000804d2162f
  [[ $(receive 1) =~ ^(53|4e)$ ]]
)

# A broker that requires TLS does not answer in plain text; then an open port is the only evidence.
external_kafka() {
  kafka_speaks "$1" "$2" || (connect "$1" "$2")
}

external_registry() {
  if [[ $5 == https ]]; then
    need curl "asking a registry over TLS" "install it, for example: apt-get install curl"
    curl --fail --silent --max-time 5 --output /dev/null "${4%/}/subjects"
  else
    registry_lists "$1" "$2" "${3%/}"
  fi
}
