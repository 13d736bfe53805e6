"""How numbers, answers and logs are said in words."""
