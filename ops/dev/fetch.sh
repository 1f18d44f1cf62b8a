# shellcheck shell=bash
# Downloads into the cache: verified against the committed checksums, complete or absent, safe for
# two at once.

# install_once NAME FETCH [ARGUMENT...]: creates $CACHE/NAME by calling FETCH ARGUMENT... DIRECTORY,
# unless it exists.
install_once() {
  local name=$1 target=$CACHE/$1 part lock
  shift
  [[ ! -d $target ]] || return 0
  mkdir -p "$CACHE"
  exec {lock}>"$CACHE/.$name.lock"
  wait_for_lock "$lock" "which downloads $name"
  if [[ ! -d $target ]]; then
    # Remove the rest of a killed download, whose lock we have now.
    rm -rf "$CACHE/.$name.part".*
    part=$CACHE/.$name.part.$BASHPID
    mkdir "$part"
    "$@" "$part"
    chmod -R a+rX "$part"
    mv "$part" "$target"
  fi
  exec {lock}>&-
}

# verify_all LIST: the current directory contains the files of the list, and no others.
verify_all() {
  local file
  for file in *; do
    grep -qF "  $file" "$1" || die "$file has no checksum in $1; after a change of versions run: ops/dev/dev checksums"
  done
  verify_part "$1" ''
}

# verify_part LIST PREFIX: every file of the list below the prefix exists, with its checksum.
verify_part() {
  local wanted
  wanted=$(sed -n "s#^\([0-9a-f]*\)  $2#\1  #p" "$1" 2>/dev/null) || true
  [[ -n $wanted ]] || die "no checksums for this version in $1; after a change of versions run: ops/dev/dev checksums"
  sha256sum --check --strict --quiet - <<<"$wanted" >&2 || die "a download does not have its checksum in $1; nothing was installed"
}

# download COMPONENT WHAT REPOSITORY_PATH DIRECTORY GOAL...: runs Maven quietly and shows that it is alive.
download() {
  local component=$1 what=$2 path=${HOME:-/root}/.m2/repository/$3 directory=$4
  local log=$LOGS/download-$1.log start=$EPOCHREALTIME pid beat=0 turn
  shift 4
  need_java "downloading $what"
  need mvn "downloading $what" "install it, for example: apt-get install maven"
  say "$component" "downloading $what"
  mkdir -p "$CACHE"
  mkdir -p "$directory"
  # One at a time: two Maven processes on one local repository can corrupt it.
  exec {turn}>"$CACHE/.maven.lock"
  flock "$turn"
  # In that directory, because Maven records below the current directory which archives it has
  # unpacked, and would skip them the next time.
  (cd "$directory" && exec mvn --batch-mode --no-transfer-progress "-DoutputDirectory=$directory" "$@") >"$log" 2>&1 </dev/null &
  pid=$!
  # shellcheck disable=SC2064 # the pid of now is meant
  trap "kill $pid 2>/dev/null || true" EXIT
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if ((++beat % 25 == 0)); then
      say "$component" "downloading $what, $(seconds_since "$start") s$(megabytes_in "$path")"
    fi
  done
  wait "$pid" || die "could not download $what: $(first_error "$log") (all of it: $log)"
  trap - EXIT
  exec {turn}>&-
  # shellcheck disable=SC2016 # Maven makes a directory of that name, where there is no project
  rm -rf "$directory/target" "$directory/META-INF" "$directory/"'${project.basedir}'
  say "$component" "downloaded $what in $(seconds_since "$start") s"
}

megabytes_in() {
  [[ ! -d $1 ]] || printf ', %s MB so far' "$(du -sm "$1" | cut -f1)"
}

first_error() {
  grep -m1 'ERROR' "$1" || tail -n1 "$1"
}
