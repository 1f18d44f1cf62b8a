-- Lets the rest of the transaction change what is recorded.
select annals.administer('a test plants a fault')
