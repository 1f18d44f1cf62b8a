# shellcheck shell=bash
# PgBouncer: not a component; the store's tests run through it. Uses the machine's PgBouncer if it
# is new enough, else builds one here from its pinned source, which the machine's own apt downloads:
# with its mirrors, proxies and keys.

command_pgbouncer() {
  local program
  if [[ -n ${ANNALS_PGBOUNCER:-} ]]; then
    pgbouncer_usable "$ANNALS_PGBOUNCER" ||
      die "ANNALS_PGBOUNCER=$ANNALS_PGBOUNCER is no PgBouncer from ${PGBOUNCER_VERSION_MIN} on"
    program=$ANNALS_PGBOUNCER
  elif pgbouncer_usable pgbouncer; then
    program=$(command -v pgbouncer)
  else
    make_home
    install_once "pgbouncer-$PGBOUNCER_VERSION" pgbouncer_build
    program=$CACHE/pgbouncer-$PGBOUNCER_VERSION/pgbouncer
  fi
  printf '%s\n' "$program"
}

# pgbouncer_usable PROGRAM: it runs, and supports prepared statements.
pgbouncer_usable() {
  local version
  [[ $("$1" --version 2>/dev/null) =~ ^PgBouncer\ ([0-9]+\.[0-9]+) ]] || return 1
  version=${BASH_REMATCH[1]}
  [[ $(printf '%s\n' "$PGBOUNCER_VERSION_MIN" "$version" | sort -V | head -n1) == "$PGBOUNCER_VERSION_MIN" ]]
}

# pgbouncer_build DIRECTORY
pgbouncer_build() {
  local work=$1/work log=$LOGS/pgbouncer-build.log start=$EPOCHREALTIME
  command -v apt-get >/dev/null 2>&1 || pgbouncer_missing "there is no apt-get here to download its source with"
  need tar "unpacking PgBouncer" "install it, for example: apt-get install tar"
  need make "building PgBouncer" "install it, for example: apt-get install make"
  need cc "building PgBouncer" "install it, for example: apt-get install gcc"
  say pgbouncer "building PgBouncer $PGBOUNCER_VERSION"
  mkdir "$work"
  : >"$log"
  pgbouncer_download "$work" "$log" || pgbouncer_missing "its source could not be downloaded: see $log"
  (cd "$work" && verify_part "$CHECKSUMS/pgbouncer.sha256" '')
  pgbouncer_libevent "$work" "$log" || pgbouncer_missing "libevent-dev could not be downloaded: see $log"
  pgbouncer_compile "$work" >>"$log" 2>&1 || pgbouncer_missing "it could not be built: see $log"
  mv "$work/pgbouncer" "$1/pgbouncer"
  rm -rf "$work"
  say pgbouncer "built in $(seconds_since "$start") s"
}

pgbouncer_missing() {
  die "PgBouncer $PGBOUNCER_VERSION_MIN or newer is missing, and $1; install it, and name it by ANNALS_PGBOUNCER if it is not in the PATH"
}

# pgbouncer_download DIRECTORY LOG: downloads the archive of the source from the first of the
# machine's repositories that has it.
pgbouncer_download() {
  local repository helper=/usr/lib/apt/apt-helper
  while read -r repository; do
    "$helper" -o APT::Sandbox::User=root download-file "$repository$PGBOUNCER_POOL_PATH" "$1/${PGBOUNCER_POOL_PATH##*/}" >>"$2" 2>&1 || continue
    return 0
  done < <(apt-get indextargets --format "\$(REPO_URI)" 2>>"$2" | sort -u)
  return 1
}

# pgbouncer_libevent DIRECTORY LOG: sets LIBEVENT, the words for configure; none if the compiler
# finds libevent by itself. Otherwise the library is linked into the program, so that no
# installation is needed.
pgbouncer_libevent() {
  local found
  LIBEVENT=()
  if pkg-config --exists libevent 2>/dev/null; then return 0; fi
  pgbouncer_apt "$1" update >>"$2" 2>&1 || return 1
  pgbouncer_apt "$1" download libevent-dev >>"$2" 2>&1 || return 1
  dpkg-deb -x "$1"/libevent-dev_*.deb "$1/libevent" || return 1
  found=$(find "$1/libevent/usr/lib" -name libevent.a) || return 1
  # Headers that depend on the processor are in a directory beside the others.
  LIBEVENT=("LIBEVENT_CFLAGS=-I$1/libevent/usr/include -I$1/libevent/usr/include/$(basename "$(dirname "$found")")" "LIBEVENT_LIBS=$found")
}

# pgbouncer_apt DIRECTORY ARGUMENT...: the machine's apt with lists of its own, which need no root
# and are not out of date.
pgbouncer_apt() {
  local directory=$1
  shift
  mkdir -p "$directory/apt/lists/partial" "$directory/apt/archives/partial"
  (cd "$directory" && exec apt-get -qq -o "Dir::State=$directory/apt" -o "Dir::Cache=$directory/apt" \
    -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User=root "$@")
}

# Features that the tests do not need are disabled: they would need more packages.
pgbouncer_compile() {
  cd "$1" && mkdir source && tar -xf "${PGBOUNCER_POOL_PATH##*/}" -C source --strip-components=1 && cd source &&
    CFLAGS=-O1 ./configure --without-openssl --without-cares --without-pam --without-systemd --without-ldap "${LIBEVENT[@]}" &&
    make -j"$(nproc)" pgbouncer && cp pgbouncer "$1/pgbouncer" && "$1/pgbouncer" --version
}
