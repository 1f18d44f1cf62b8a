# shellcheck shell=bash
# Prometheus and promtool: not components; tests check metrics, alert rules and dashboards with them.
# Uses the machine's, else unpacks Debian's package, which the machine's own apt downloads.

# prometheus_program NAME
prometheus_program() {
  if command -v "$1" 2>/dev/null; then return 0; fi
  make_home
  install_once prometheus prometheus_download
  printf '%s\n' "$CACHE/prometheus/$1"
}

# prometheus_download DIRECTORY
prometheus_download() {
  local work=$1/work log=$LOGS/prometheus-download.log start=$EPOCHREALTIME
  command -v apt-get >/dev/null 2>&1 || prometheus_missing "there is no apt-get here to download it with"
  need dpkg-deb "unpacking Prometheus" "install it, for example: apt-get install dpkg"
  say prometheus "downloading Debian's package"
  mkdir "$work"
  pgbouncer_apt "$work" update >"$log" 2>&1 || prometheus_missing "the lists of apt could not be downloaded: see $log"
  pgbouncer_apt "$work" download prometheus >>"$log" 2>&1 || prometheus_missing "it could not be downloaded: see $log"
  dpkg-deb -x "$work"/prometheus_*.deb "$work/package" || prometheus_missing "its package could not be unpacked"
  mv "$work/package/usr/bin/prometheus" "$work/package/usr/bin/promtool" "$1"
  rm -rf "$work"
  say prometheus "downloaded in $(seconds_since "$start") s"
}

prometheus_missing() {
  die "prometheus and promtool are missing, and $1; install them, for example: apt-get install prometheus"
}
