select fingerprint, state from annals.snapshots where stream = $1
