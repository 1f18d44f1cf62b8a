insert into annals.snapshots (stream, fingerprint, state_type, version, removed, state) values ($1, $2, 'annals.tests.Counted', 19, 0, $3)
