-- Deletes an erased customer. $1 key id in hexadecimal.
delete from customers where key_id = decode($1, 'hex')
