-- Relays may read no events any more, and the rest as before.
revoke select on annals.events from annals_relay
