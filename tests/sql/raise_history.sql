-- As adopting a store in another place does.
update annals.identity set history = history + 1
