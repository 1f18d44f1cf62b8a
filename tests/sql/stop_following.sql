-- The standby gets nothing more from its primary.
alter system set primary_conninfo = ''
