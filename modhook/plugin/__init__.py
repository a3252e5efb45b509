"""What a plugin is: hooks, interfaces, the contract of a run, declared variables, and the manager that finds plugins."""
