-- Locks the events until the end of the transaction: appends wait.
lock table annals.events in access exclusive mode
