"""How much memory a run will take, and whether the machine has it."""
