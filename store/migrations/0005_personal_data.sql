-- Keys of subjects, whose personal data in events is encrypted with them.
--
-- Each key is encrypted by a key provider outside the database. An erasure has three steps, each
-- committed before the next one: a fence, after which the subject can get no key any more; the
-- destruction of the key; the event SubjectErased.

-- The number of the provider's wrapping key, as far as the store knows: it grows with each
-- rotation.
create table annals.personal_wrapping (
    is_only boolean primary key default true check (is_only),
    epoch bigint not null default 1
);
insert into annals.personal_wrapping default values;

create table annals.personal_keys (
    subject text collate "C" primary key,
    key_id bytea unique,
    wrapped bytea,
    epoch bigint not null,
    created_at timestamptz not null default clock_timestamp(),
    fenced_at timestamptz,
    reason text,
    erased_event uuid,
    destroyed_at timestamptz,
    constraint personal_keys_key_id check (octet_length(key_id) = 16),
    constraint personal_keys_wrapped check ((wrapped is null) = (destroyed_at is not null)),
    constraint personal_keys_fence check (
        (fenced_at is null) = (erased_event is null) and (fenced_at is not null or destroyed_at is null)
        and (fenced_at is null) = (coalesce(length(btrim(reason)), 0) = 0)
    )
);
comment on table annals.personal_keys is 'the key of each subject; a row remains after the erasure, without the key, so that the subject gets no new one';
comment on column annals.personal_keys.wrapped is 'the secret, encrypted by the key provider; null after its destruction';
comment on column annals.personal_keys.epoch is 'of the wrapping key, when the secret was encrypted';
comment on column annals.personal_keys.fenced_at is 'begin of the erasure: from here on readers treat the key as destroyed';
comment on column annals.personal_keys.erased_event is 'the id of the event SubjectErased';

-- A fence is never removed, a destroyed key never replaced, for any role.
create function annals.guard_personal_key() returns trigger
language plpgsql
set search_path = annals, pg_temp
as $$
begin
    if tg_op = 'UPDATE' then
        if (new.subject, new.key_id, new.created_at) is not distinct from (old.subject, old.key_id, old.created_at)
            and (old.fenced_at is null
                or (new.fenced_at, new.reason, new.erased_event)
                    is not distinct from (old.fenced_at, old.reason, old.erased_event))
            and (old.destroyed_at is null or new is not distinct from old)
        then
            return new;
        end if;
    end if;
    raise exception '% of personal key % is refused: fences and keys are never replaced', tg_op, old.subject
        using errcode = 'insufficient_privilege';
end
$$;
create trigger guard before update or delete on annals.personal_keys
    for each row execute function annals.guard_personal_key();
alter table annals.personal_keys enable always trigger guard;
create trigger never_emptied before truncate on annals.personal_keys
    for each statement execute function annals.refuse_change();
alter table annals.personal_keys enable always trigger never_emptied;

-- Gives a subject its first key, or returns the one that it has. No row: the wrapping key was
-- rotated since `epoch` was read; wrap the secret again.
create function annals.personal_key_create(
    subject text, key_id bytea, wrapped bytea, epoch bigint,
    out found_key_id bytea, out found_wrapped bytea, out is_erased boolean
) returns setof record
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
#variable_conflict use_variable
begin
    perform set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') not in ('on', 'remote_apply');
    perform from personal_wrapping w where w.is_only and w.epoch = epoch for share;
    if not found then
        return;
    end if;
    insert into personal_keys as k (subject, key_id, wrapped, epoch) values (subject, key_id, wrapped, epoch)
    on conflict on constraint personal_keys_pkey do nothing;
    return query
        select k.key_id, case when k.fenced_at is null then k.wrapped end, k.fenced_at is not null
        from personal_keys k where k.subject = personal_key_create.subject;
end
$$;

-- Begins an erasure; of a subject without a key, too, so that it never gets one. Repeated, it
-- returns the first call's values.
create function annals.personal_fence(subject text, reason text, out key_id bytea, out erased_event uuid, out fenced_at timestamptz)
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
#variable_conflict use_variable
begin
    perform set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') not in ('on', 'remote_apply');
    insert into personal_keys as k (subject, epoch, fenced_at, reason, erased_event, destroyed_at)
    values (subject, 0, clock_timestamp(), reason, gen_random_uuid(), clock_timestamp())
    on conflict on constraint personal_keys_pkey do update set
        fenced_at = coalesce(k.fenced_at, clock_timestamp()),
        reason = coalesce(k.reason, excluded.reason),
        erased_event = coalesce(k.erased_event, excluded.erased_event)
    where k.fenced_at is null;
    select k.key_id, k.erased_event, k.fenced_at into key_id, erased_event, fenced_at
    from personal_keys k where k.subject = personal_fence.subject;
end
$$;

-- Destroys the key of a fenced subject. False: there is none, or no fence.
create function annals.personal_destroy(subject text) returns boolean
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
begin
    perform set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') not in ('on', 'remote_apply');
    update personal_keys k set wrapped = null, destroyed_at = clock_timestamp()
    where k.subject = personal_destroy.subject and k.fenced_at is not null and k.destroyed_at is null;
    return found;
end
$$;

-- Notes that the provider has a new wrapping key: keys that were wrapped before are refused, and
-- those in the table are to be wrapped again. Returns the new epoch.
create function annals.personal_rotated() returns bigint
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
declare
    new_epoch bigint;
begin
    perform set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') not in ('on', 'remote_apply');
    update personal_wrapping w set epoch = w.epoch + 1 where w.is_only returning w.epoch into new_epoch;
    return new_epoch;
end
$$;

-- Replaces a wrapped key, unless it has changed since it was read. Durably: the earlier wrapping
-- key can be destroyed next.
create function annals.personal_rewrap(subject text, earlier bytea, wrapped bytea, epoch bigint) returns boolean
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
begin
    perform set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') not in ('on', 'remote_apply');
    update personal_keys k set wrapped = personal_rewrap.wrapped, epoch = personal_rewrap.epoch
    where k.subject = personal_rewrap.subject and k.wrapped = personal_rewrap.earlier and personal_rewrap.wrapped is not null
        and personal_rewrap.epoch >= k.epoch;
    return found;
end
$$;
