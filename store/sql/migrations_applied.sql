-- Reads the applied migrations: number and checksum.
select m.version, m.checksum from annals.migrations m where m.success order by m.version
