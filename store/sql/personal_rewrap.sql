-- Replaces a wrapped key. $1 subject, $2 the earlier wrapped secret, $3 the new one, $4 its epoch.
-- False: it has changed.
select annals.personal_rewrap($1, $2, $3, $4)
