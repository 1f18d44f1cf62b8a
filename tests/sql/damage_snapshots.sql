update annals.snapshots set state = '\xff'
