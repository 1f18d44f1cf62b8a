# shellcheck shell=bash
# Sends each component a real request over TCP, in its own protocol and in bash alone, so that "up"
# means "answers".

# send HEX: writes bytes to descriptor 3.
send() {
  # shellcheck disable=SC2001,SC2059 # every pair of digits gets its prefix; the escapes are the message
  printf "$(sed 's/../\\x&/g' <<<"$1")" >&3
}

hex() { od -An -v -tx1 | tr -d ' \n'; }

hex_of() { printf '%s' "$1" | hex; }

# receive COUNT: the next COUNT bytes of descriptor 3, as hex.
receive() { timeout 5 head -c "$1" <&3 | hex; }

connect() {
  # Bash has no time-out for a connection, and an external address may never answer.
  if [[ $1 != 127.0.0.1 ]]; then
    # shellcheck disable=SC2016 # the inner bash expands these
    timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null || return 1
  fi
  { exec 3<>"/dev/tcp/$1/$2"; } 2>/dev/null
}

# postgres_ask HOST PORT USER DATABASE SQL: everything the server says to one query, as hex.
postgres_ask() (
  connect "$1" "$2" || exit 1
  startup=00030000$(hex_of user)00$(hex_of "$3")00$(hex_of database)00$(hex_of "$4")0000
  query=$(hex_of "$5")00
  send "$(printf '%08x' $((${#startup} / 2 + 4)))$startup"
  [[ $(receive 1) == 52 ]] || exit 1
  # One simple query, then the end of the conversation, so that the server closes it.
  send "51$(printf '%08x' $((${#query} / 2 + 4)))${query}5800000004"
  timeout 5 cat <&3 | hex
)

# postgres_selects HOST PORT USER DATABASE: it answers one data row of one column, "1".
postgres_selects() {
  local reply
  reply=$(postgres_ask "$@" 'select 1' 2>/dev/null) && [[ $reply == *440000000b00010000000131* ]]
}

# kafka_request HOST PORT API VERSION BODY: the reply without its length and correlation id, as hex.
kafka_request() (
  connect "$1" "$2" || exit 1
  # Header: api key, its version, correlation id 1, no client id.
  request=$(printf '%04x%04x00000001ffff%s' "$3" "$4" "$5")
  send "$(printf '%08x' $((${#request} / 2)))$request"
  size=$(receive 4)
  [[ ${#size} == 8 ]] || exit 1
  reply=$(receive $((16#$size)))
  [[ ${#reply} == $((16#$size * 2)) ]] || exit 1
  printf '%s\n' "${reply:8}"
)

# kafka_speaks HOST PORT: ApiVersions answers without an error.
kafka_speaks() {
  local reply
  reply=$(kafka_request "$1" "$2" 18 0 '' 2>/dev/null) && [[ $reply == 0000* ]]
}

# kafka_serves HOST PORT: Metadata for no topic names at least one broker, so it has joined its cluster.
kafka_serves() {
  local reply
  reply=$(kafka_request "$1" "$2" 3 1 00000000 2>/dev/null) && ((16#${reply:0:8} > 0))
}

# http_status HOST PORT PATH: the status of a GET.
http_status() (
  connect "$1" "$2" || exit 1
  printf 'GET %s HTTP/1.0\r\nHost: %s:%s\r\n\r\n' "$3" "$1" "$2" >&3
  read -r -t 5 _ status _ <&3
  printf '%s\n' "$status"
)

registry_lists() {
  [[ $(http_status "$1" "$2" "$3/subjects" 2>/dev/null) == 200 ]]
}
