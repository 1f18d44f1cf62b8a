select version from annals.snapshots where stream = $1 order by fingerprint
