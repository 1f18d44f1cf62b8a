-- 7 cents and 0 deposits, in Avro.
update annals.snapshots set state = '\x0e00' where stream = $1
