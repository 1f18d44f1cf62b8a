-- Updates the next offsets of partitions, and locks their rows until the end of the transaction. $1
-- projection; of each partition: $2 topics, $3 partitions, $4 expected offsets, $5 next offsets, $6
-- events of the records before those, $7 epochs of the owner; $8 a time, such as 120000ms; $9 the
-- schema whose tables the rest of the transaction names without it, or null. Fewer rows changed
-- than partitions given: another runner of the projection owns some, or has updated them.
--
-- Where the server does not end an idle transaction, it does after the given time: a runner that
-- stopped would keep the locks.
update annals_projections.annals_projection_offsets o
set next_offset = batch.next_offset, last_event = batch.last_event
from unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::uuid[], $7::bigint[])
    as batch (topic, partition, expected, next_offset, last_event, epoch)
cross join (
    select case
        when current_setting('idle_in_transaction_session_timeout') = '0'
        then set_config('idle_in_transaction_session_timeout', $8, true)
    end,
    case when $9::text is not null
        then set_config('search_path', concat_ws(', ', $9, nullif(current_setting('search_path'), '')), true)
    end
    offset 0
) as settings (idle_limit, search_path)
where o.projection = $1
  and o.topic = batch.topic
  and o.partition = batch.partition
  and o.next_offset = batch.expected
  and o.owner_epoch = batch.epoch
  and settings.idle_limit is distinct from ''
  and settings.search_path is distinct from ''
