-- Relays may read events again.
grant select on annals.events to annals_relay
