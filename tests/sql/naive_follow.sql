-- What a follower reads that remembers nothing but the highest position. $1 that position.
select event_id, stream, version, payload, position from annals.events where position > $1 order by position
