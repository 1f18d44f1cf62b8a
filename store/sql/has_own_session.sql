-- Reads whether the session has the option that it began with. A pooler that ignores options gives
-- transactions any session.
select current_setting('annals_listener.has_own_session', true) is not distinct from 'on'
