-- Empties the outbox, as dropping its old partitions does.
select annals.administer('a test forgets the outbox');
truncate annals.outbox
